/* Coder `adaptive` (spec/ADAPTIVE.md): context mixing of binary decisions, integer arithmetic only.
 *
 * Mahoney, "Adaptive weighing of context models for lossless data compression" (2005): logistic mixing. The estimates
 * of several adaptive models, logarithms of expected magnitudes and a linear prediction of the value enter one logistic
 * regression, trained as it goes. */
#include "adaptive_state.h"
#include "bits.h"

#include <string.h>

static int32_t clamp(int32_t x, int32_t low, int32_t high) { return x < low ? low : x > high ? high : x; }
static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* -- prelude and memory ------------------------------------------------------------------------------------------ */

typedef struct {
    uint32_t columns, period;
    int32_t centre;
} layout;

static tsr_error read_layout(layout *l, const uint8_t *p, size_t size) {
    const uint8_t *end = p + size;
    uint64_t columns, period, centre;
    if (!read_varint(&p, end, &columns) || !read_varint(&p, end, &period) || !read_varint(&p, end, &centre)) return TSR_TABLE;
    if (p != end || columns < 1 || columns > MOST_COLUMNS || period > MOST_PERIOD || centre > UINT32_MAX) return TSR_TABLE;
    l->columns = (uint32_t)columns;
    l->period = (uint32_t)period;
    l->centre = unzigzag((uint32_t)centre);
    if (l->period != 0 && (l->period < 3 || l->period >= l->columns)) return TSR_TABLE;
    return TSR_OK;
}

/* Zeros before the first and behind the last value of a row, which neighbours outside it fall on. */
static size_t before(const layout *l) { return 8 + 2 * (size_t)l->period; }
static size_t row_size(const layout *l) { return before(l) + l->columns + 4; }

static size_t memory_of(const layout *l) {
    return sizeof(tsr_adaptive) + l->columns * sizeof(column_state) + 3 * row_size(l) * sizeof(int16_t);
}

tsr_error tsr_adaptive_prelude(const uint8_t *prelude, size_t prelude_size, size_t *memory) {
    layout l;
    tsr_error error = read_layout(&l, prelude, prelude_size);
    if (error == TSR_OK) *memory = memory_of(&l);
    return error;
}

/* -- tables -------------------------------------------------------------------------------------------------------- */

/* 65536 / (1 + exp(-k / 2)) for k = -24 .. 0, rounded. */
static const uint16_t LOGISTIC[] = {0,   1,   1,    2,    3,    5,    8,    13,   22,    36,    60,    98,   162,
                                    267, 439, 720, 1179, 1921, 3108, 4971, 7812, 11955, 17625, 24743, 32768};

static uint32_t logistic_knot(uint32_t k) { return k <= 24 ? LOGISTIC[k] : 65536u - LOGISTIC[48 - k]; }

static void fill_tables(tsr_adaptive *a) {
    for (uint32_t x = 0; x <= 2 * LIMIT; x++) {
        uint32_t k = (x + 1) >> 7, f = (x + 1) & 127;
        uint32_t p = (logistic_knot(k) * (128 - f) + logistic_knot(k + 1) * f + 64) >> 7;
        a->squash[x] = (uint16_t)(p < 4 ? 4 : p > 65532 ? 65532 : p);
    }
    uint32_t x = 0;
    for (uint32_t p = 0; p < 4096; p++) {
        while (x < 2 * LIMIT && a->squash[x] < 16 * p + 8) x++;
        a->stretch[p] = (int16_t)((int32_t)x - LIMIT);
    }
    for (uint32_t n = 0; n <= MOST_COUNT; n++) {
        a->rate[n] = (uint16_t)(131072 / (2 * n + 3));
        a->trust[n] = (uint16_t)(256 * n / (n + 2));
    }
}

static tsr_error start(tsr_adaptive **chunk, void *memory, size_t memory_size, const uint8_t *prelude,
                       size_t prelude_size, uint64_t first) {
    layout l;
    tsr_error error = read_layout(&l, prelude, prelude_size);
    if (error != TSR_OK) return error;
    if (memory_size < memory_of(&l)) return TSR_ARGUMENT;
    tsr_adaptive *a = memory;
    memset(memory, 0, memory_of(&l));
    fill_tables(a);
    a->high = UINT32_MAX;
    a->centre = l.centre;
    surroundings *s = &a->near;
    s->columns = l.columns;
    s->period = l.period;
    s->column = (uint32_t)(first % l.columns);
    s->recent = 256;
    s->all = (average){256, 1};
    s->columns_so_far = (column_state *)(a + 1);
    int16_t *rows = (int16_t *)(s->columns_so_far + l.columns);
    for (size_t k = 0; k < 3; k++) s->row[k] = rows + k * row_size(&l) + before(&l);
    for (size_t k = 0; k < 2 * NODES; k++) {
        for (size_t j = 0; j < 2 * MODELS; j++) a->mixers[k].weight[j] = 3 << 16; /* 0.19 */
    }
    *chunk = a;
    return TSR_OK;
}

/* -- surroundings -------------------------------------------------------------------------------------------------- */

/* 16 log2(x), linear between powers of two; x > 0. */
static inline int32_t logarithm(uint32_t x) {
    int32_t e = 0;
    for (uint32_t y = x, k = 16; k > 0; k >>= 1) {
        if (y >> k) {
            y >>= k;
            e += (int32_t)k;
        }
    }
    return 16 * e + (int32_t)((uint64_t)x << 4 >> e & 15);
}

static inline uint32_t magnitude(int32_t x) { return (uint32_t)(x < 0 ? -x : x); }

/* Neighbours of the next symbol, their prediction of it, and the inputs and contexts that follow. */
static inline void look_around(tsr_adaptive *a) {
    surroundings *s = &a->near;
    const int16_t *here = s->row[0] + s->column, *above = s->row[1] + s->column, *higher = s->row[2] + s->column;
    const int32_t k = (int32_t)s->period;
    const column_state *c = &s->columns_so_far[s->column];
    const int32_t column_mean = clamp(8 * c->sum / (int32_t)(c->size.count + 2), -FARTHEST, FARTHEST);
    const int32_t tap[TAPS] = {here[-1],         here[-2],         here[-3],         here[-4],
                               here[-5],         here[-6],         above[-1],        above[0],
                               above[1],         higher[0],        k ? here[-k - 2] : 0, k ? here[-k - 1] : 0,
                               k ? here[-k] : 0, k ? here[-k + 1] : 0, k ? here[-k + 2] : 0, column_mean};
    int64_t sum = 0;
    for (size_t j = 0; j < TAPS; j++) {
        s->tap[j] = tap[j];
        sum += (int64_t)tap[j] * s->tap_weight[j];
    }
    sum >>= 8;
    const int32_t most = FARTHEST * 256;
    s->prediction = sum < -most ? -most : sum > most ? most : (int32_t)sum;

    const uint32_t mean = s->all.sum / s->all.count;
    const uint32_t by_column = (c->size.sum + 6 * mean) / (c->size.count + 6);
    const uint32_t by_row = (uint32_t)((s->row_sum + 8 * mean) / (s->in_row + 8));
    const uint64_t expected = by_column * (s->row_sum + 8 * mean) / (s->row_expected + 8 * mean + 1);
    s->expected = expected > (uint64_t)most ? (uint32_t)most : (uint32_t)expected;
    s->row_expected += by_column;

    const int32_t log_expected = logarithm(s->expected + 2), log_column = logarithm(by_column + 2);
    const int32_t log_row = logarithm(by_row + 2), log_prediction = logarithm(magnitude(s->prediction) + 16);
    const int32_t logs[] = {
        log_expected,
        log_column,
        log_row,
        logarithm((2 * magnitude(tap[0]) + magnitude(tap[1]) + magnitude(tap[2]) + 1) * 64),
        logarithm((2 * magnitude(tap[7]) + magnitude(tap[6]) + magnitude(tap[8]) + magnitude(tap[9]) + 1) * 64),
        logarithm((2 * magnitude(tap[12]) + 2 * magnitude(k ? here[-2 * k] : 0) + 1) * 64),
        logarithm(s->recent + 2),
        log_prediction,
    };
    a->input[6] = 256;
    for (size_t j = 0; j < 8; j++) a->input[7 + j] = (logs[j] - 128) * 11; /* 16 ln 2: logits in 1/256 */
    a->input[15] = clamp(s->prediction * -512 / (int32_t)(s->expected + 64), -2047, 2047);

    const uint32_t first = least((uint32_t)log_expected >> 2, 79);
    const uint32_t second = 32 * least((uint32_t)log_column >> 3, 31) + least((uint32_t)log_row >> 3, 31);
    const uint32_t third = (s->prediction < 0) + 2 * least((uint32_t)(log_prediction - 64) >> 3, 15) +
                           32 * least((uint32_t)log_expected >> 4, 15);
    a->chosen[0] = a->estimates + NODES * first;
    a->chosen[1] = a->estimates + NODES * (80 + second);
    a->chosen[2] = a->estimates + NODES * (80 + 1024 + third);
}

/* Whether the average was halved, so that what is old counts less. */
static inline int add_to(average *m, uint32_t x, uint32_t most) {
    m->sum += x;
    if (++m->count < most) return 0;
    m->sum >>= 1;
    m->count >>= 1;
    return 1;
}

/* Learns from the symbol that was due and moves on. */
static inline void move_on(surroundings *s, int32_t value) {
    const int32_t x = clamp(value, -FARTHEST, FARTHEST);
    const uint32_t scaled = magnitude(x) * 256;
    int32_t energy = 0;
    for (size_t j = 0; j < TAPS; j++) energy += s->tap[j] * s->tap[j];
    energy = 8 + (energy >> 1);
    const int32_t step = clamp((x * 256 - s->prediction) * 655 / energy, -(1 << 18), 1 << 18);
    for (size_t j = 0; j < TAPS; j++)
        s->tap_weight[j] = (int32_t)((uint32_t)s->tap_weight[j] + (uint32_t)((s->tap[j] * step + 128) >> 8));
    add_to(&s->all, scaled, 4096);
    column_state *c = &s->columns_so_far[s->column];
    c->sum += x;
    if (add_to(&c->size, scaled, 256)) c->sum /= 2;
    s->row_sum += scaled;
    s->recent = (15 * s->recent + scaled + 8) >> 4;
    s->row[0][s->column] = (int16_t)x;
    s->in_row++;
    if (++s->column == s->columns) {
        int16_t *oldest = s->row[2];
        s->row[2] = s->row[1];
        s->row[1] = s->row[0];
        s->row[0] = oldest;
        s->column = s->in_row = 0;
        s->row_sum = s->row_expected = 0;
    }
}

/* -- decisions ----------------------------------------------------------------------------------------------------- */

/* Codes one bit whose probability of being 1 is p / 2^16; returns it. */
static inline uint32_t code_bit(tsr_adaptive *a, uint32_t p, uint32_t bit, const int decoding) {
    const uint32_t middle = a->low + (uint32_t)((uint64_t)(a->high - a->low) * p >> 16);
    if (decoding) bit = a->code <= middle;
    if (bit) {
        a->high = middle;
    } else {
        a->low = middle + 1;
    }
    while ((a->low ^ a->high) < UINT32_C(1) << 24) {
        if (decoding) {
            if (a->data == a->end) a->failed = 1;
            a->code = a->code << 8 | (a->data == a->end ? 0u : *a->data++);
        } else if (a->out == a->end) {
            a->failed = 1;
        } else {
            *a->out++ = (uint8_t)(a->high >> 24);
        }
        a->low <<= 8;
        a->high = a->high << 8 | 255;
    }
    return bit;
}

/* Codes the decision `node` and lets everything that had a say in it learn. */
static inline uint32_t decide(tsr_adaptive *a, uint32_t node, uint32_t negative, uint32_t bit, const int decoding) {
    int32_t *input = a->input;
    for (size_t j = 0; j < MODELS; j++) {
        const estimate *e = a->chosen[j] + node;
        const int32_t trust = a->trust[e->count];
        input[j] = a->stretch[2048 + (e->slow >> 20)] * trust >> 8;
        input[MODELS + j] = a->stretch[2048 + (e->fast >> 4)] * trust >> 8;
    }
    mixer *m = &a->mixers[2 * node + negative];
    int64_t sum = 0;
    for (size_t j = 0; j < INPUTS; j++) sum += (int64_t)m->weight[j] * input[j];
    sum >>= 20;
    const int32_t logit = sum < -LIMIT ? -LIMIT : sum > LIMIT ? LIMIT : (int32_t)sum;
    const uint32_t p = a->squash[logit + LIMIT];
    bit = code_bit(a, p, bit, decoding);

    const int32_t error = (int32_t)(bit << 16) - (int32_t)p;
    const int32_t speed = (error * (int32_t)(200 + 4194304 / (400 + m->count))) >> 12;
    if (m->count < 65535) m->count++;
    for (size_t j = 0; j < INPUTS; j++)
        m->weight[j] = (int32_t)((uint32_t)m->weight[j] + (uint32_t)((input[j] * speed + 2048) >> 12));
    for (size_t j = 0; j < MODELS; j++) {
        estimate *e = a->chosen[j] + node;
        const int64_t slow = bit ? INT32_MAX : INT32_MIN, fast = bit ? INT16_MAX : INT16_MIN;
        e->slow = (int32_t)(e->slow + ((slow - e->slow) * a->rate[e->count] >> 16));
        e->fast = (int16_t)(e->fast + ((fast - e->fast) * a->rate[least(e->count, FAST_COUNT)] >> 16));
        if (e->count < MOST_COUNT) e->count++;
    }
    return bit;
}

/* Class of a magnitude m > 0: m itself below 4, then two classes an octave. Class c >= 4 holds the magnitudes from
 * (2 + c % 2) 2^(c / 2 - 1) on, which differ in c / 2 - 1 low bits. */
static inline uint32_t class_of(uint32_t m) {
    if (m < 4) return m;
    uint32_t e = 31;
    while (!(m >> e)) e--;
    return 2 * e + (m >> (e - 1) & 1);
}

/* Codes one value (what it is matters only when encoding); returns it. */
static inline int32_t code_value(tsr_adaptive *a, int32_t value, const int decoding) {
    look_around(a);
    uint32_t m = value < 0 ? 0u - (uint32_t)value : (uint32_t)value;
    if (!decide(a, ZERO, 0, m != 0, decoding)) return 0;
    const uint32_t negative = decide(a, SIGN, 0, value < 0, decoding);
    if (negative) a->input[15] = -a->input[15]; /* does the prediction agree with the sign? */
    a->input[15] = -a->input[15];
    uint32_t wanted = decoding ? 0 : class_of(m), class = 1;
    while (class < LAST_CLASS && decide(a, MORE + least(class, 15) - 1, negative, wanted > class, decoding)) class++;
    if (class >= 4) {
        const uint32_t node = LOW + 3 * least(class - 4, 9);
        uint32_t bits = class / 2 - 1, high = 2 + class % 2;
        uint32_t bit = decide(a, node, 0, m >> --bits & 1, decoding);
        high = 2 * high + bit;
        if (bits > 0) high = 2 * high + decide(a, node + 1 + bit, 0, m >> --bits & 1, decoding);
        while (bits > 0) {
            bits--;
            high = 2 * high + code_bit(a, 32768, m >> bits & 1, decoding);
        }
        class = high;
    }
    return (int32_t)(negative ? 0u - class : class);
}

/* -- chunks -------------------------------------------------------------------------------------------------------- */

tsr_error tsr_adaptive_open(tsr_adaptive **chunk, void *memory, size_t memory_size, tsr_type type,
                            const uint8_t *prelude, size_t prelude_size, uint64_t first, const uint8_t *data,
                            size_t size, uint64_t count) {
    tsr_error error = start(chunk, memory, memory_size, prelude, prelude_size, first);
    if (error != TSR_OK) return error;
    if (size < 4) return TSR_TRUNCATED;
    tsr_adaptive *a = *chunk;
    a->type = type;
    a->count = count;
    a->code = (uint32_t)data[0] << 24 | (uint32_t)data[1] << 16 | (uint32_t)data[2] << 8 | data[3];
    a->data = data + 4;
    a->end = data + size;
    return TSR_OK;
}

TSR_VECTORISED static void decode_values(tsr_adaptive *a, int32_t *out, size_t n) {
    for (size_t i = 0; i < n && !a->failed; i++) {
        int32_t x = code_value(a, 0, 1);
        move_on(&a->near, x);
        out[i] = (int32_t)((uint32_t)x + (uint32_t)a->centre);
    }
}

TSR_VECTORISED static void encode_values(tsr_adaptive *a, const int32_t *values, size_t n) {
    for (size_t i = 0; i < n && !a->failed; i++) {
        int32_t x = (int32_t)((uint32_t)values[i] - (uint32_t)a->centre);
        code_value(a, x, 0);
        move_on(&a->near, x);
    }
}

tsr_error tsr_adaptive_next(tsr_adaptive *a, int32_t *out, size_t n) {
    static const int32_t LOWEST[] = {0, -128, -32768, INT32_MIN}, HIGHEST[] = {255, 127, 32767, INT32_MAX};
    if (n > a->count - a->position) return TSR_ARGUMENT;
    decode_values(a, out, n);
    if (a->failed) return TSR_TRUNCATED;
    a->position += n;
    for (size_t i = 0; i < n; i++) {
        if (out[i] < LOWEST[a->type] || out[i] > HIGHEST[a->type]) return TSR_RANGE;
    }
    return TSR_OK;
}

tsr_error tsr_adaptive_close(const tsr_adaptive *a) {
    if (a->position != a->count) return TSR_ARGUMENT;
    return a->data == a->end && a->code == a->low ? TSR_OK : TSR_TRAILING;
}

tsr_error tsr_adaptive_encode(void *memory, size_t memory_size, const uint8_t *prelude, size_t prelude_size,
                              uint64_t first, const int32_t *values, size_t n, uint8_t *out, size_t capacity,
                              size_t *size) {
    tsr_adaptive *a;
    tsr_error error = start(&a, memory, memory_size, prelude, prelude_size, first);
    if (error != TSR_OK) return error;
    a->out = out;
    a->end = out + capacity;
    encode_values(a, values, n);
    if (a->failed || a->end - a->out < 4) return TSR_TRUNCATED;
    for (int shift = 24; shift >= 0; shift -= 8) *a->out++ = (uint8_t)(a->low >> shift);
    *size = (size_t)(a->out - out);
    return TSR_OK;
}
