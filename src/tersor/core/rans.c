/* Decoding of integer streams: frequency tables, patches, interleaved rANS (spec/FORMAT.md, section 6). */
#include "bits.h"
#include "tersor.h"

#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(TSR_SCALAR)
#define TSR_AVX512 1
#include <immintrin.h>
#else
#define TSR_AVX512 0
#endif

/* -- tables ------------------------------------------------------------------------------------------------------ */

typedef struct {
    const uint8_t *data;
    size_t bits, position;
    int failed;
} bit_reader;

static uint32_t read_bit(bit_reader *r) {
    if (r->position >= r->bits) {
        r->failed = 1;
        return 0;
    }
    uint32_t bit = r->data[r->position >> 3] >> (r->position & 7) & 1;
    r->position++;
    return bit;
}

static uint32_t read_bits(bit_reader *r, uint32_t n) {
    uint32_t x = 0;
    for (uint32_t i = 0; i < n; i++) x |= read_bit(r) << i;
    return x;
}

/* Number of one bits before the next zero, at most `most`. */
static uint32_t read_unary(bit_reader *r, uint32_t most) {
    uint32_t n = 0;
    while (!r->failed && read_bit(r)) {
        if (++n > most) r->failed = 1;
    }
    return n;
}

/* Exp-Golomb code of the given order. */
static uint32_t read_golomb(bit_reader *r, uint32_t order) {
    uint32_t width = order + read_unary(r, 31 - order);
    if (r->failed) return 0;
    return read_bits(r, width) + (UINT32_C(1) << width) - (UINT32_C(1) << order);
}

/* Codes of the symbols on one side of the mode, from the mode outwards. */
static tsr_error read_side(tsr_table *table, bit_reader *r, uint32_t order, uint32_t rice, uint32_t mode, int side,
                           uint32_t *sum) {
    int32_t largest = largest_code(table->precision), previous = starting_code(table->precision), before = previous;
    uint32_t n = side < 0 ? mode : table->alphabet - 1 - mode;
    for (uint32_t i = 1; i <= n; i++) {
        uint32_t quotient = read_unary(r, 1024 >> rice);
        if (r->failed) return TSR_TABLE;
        uint32_t residual = quotient << rice | read_bits(r, rice);
        int32_t code = predict(order, previous, before, largest) + unzigzag(residual);
        if (r->failed || code < 0 || code > largest) return TSR_TABLE;
        before = previous;
        previous = code;
        uint32_t frequency = code_frequency((uint32_t)code);
        table->frequency[side < 0 ? mode - i : mode + i] = (uint16_t)frequency;
        *sum += frequency; /* at most 4096 * 2^15: no overflow */
    }
    return TSR_OK;
}

tsr_error tsr_table_read(tsr_table *table, const uint8_t *data, size_t size, size_t *position) {
    bit_reader r = {data, size > SIZE_MAX / 8 ? SIZE_MAX : size * 8, *position, 0};
    table->precision = TSR_MIN_PRECISION + read_bits(&r, 3);
    table->lowest = unzigzag(read_golomb(&r, 4));
    uint32_t last = read_golomb(&r, 4);
    uint32_t mode = read_golomb(&r, 3), total = UINT32_C(1) << table->precision, sum = 0;
    if (r.failed || last >= TSR_MAX_ALPHABET || mode > last) return TSR_TABLE;
    if (table->lowest < -(INT32_C(1) << 30) || table->lowest > INT32_C(1) << 30) return TSR_TABLE;
    table->alphabet = last + 1;
    if (last > 0) {
        uint32_t order = read_bit(&r), rice = read_bits(&r, 3);
        tsr_error error = read_side(table, &r, order, rice, mode, -1, &sum);
        if (error == TSR_OK) error = read_side(table, &r, order, rice, mode, 1, &sum);
        if (error != TSR_OK) return error;
    }
    if (r.failed || sum >= total) return TSR_TABLE;
    table->frequency[mode] = (uint16_t)(total - sum); /* the mode takes what the others leave */
    *position = r.position;
    return TSR_OK;
}

static void fill_slots(const tsr_table *table, tsr_slot *slots) {
    for (uint32_t symbol = 0; symbol < table->alphabet; symbol++) {
        uint32_t frequency = table->frequency[symbol];
        tsr_slot slot = {(uint16_t)frequency, 0, table->lowest + (int32_t)symbol};
        for (uint32_t k = 0; k < frequency; k++) {
            slot.bias = (uint16_t)k;
            *slots++ = slot;
        }
    }
}

tsr_error tsr_prelude_read(tsr_table *table, uint32_t wanted, const uint8_t *data, size_t size, uint32_t *lanes) {
    if (size < 2 || data[0] > 5 || wanted >= data[1]) return TSR_TABLE;
    *lanes = UINT32_C(1) << data[0];
    size_t position = 16;
    for (uint32_t k = 0; k <= wanted; k++) {
        tsr_error error = tsr_table_read(table, data, size, &position);
        if (error != TSR_OK) return error;
    }
    if (wanted + 1u < data[1]) return TSR_OK;
    if ((position + 7) / 8 != size) return TSR_TABLE;
    return position % 8 && data[size - 1] >> position % 8 ? TSR_TABLE : TSR_OK; /* padding bits are zero */
}

tsr_error tsr_prelude_check(const uint8_t *data, size_t size) {
    tsr_table table;
    uint32_t lanes;
    if (size < 2 || data[1] == 0) return TSR_TABLE;
    return tsr_prelude_read(&table, data[1] - 1u, data, size, &lanes); /* the last table: those before it are read too */
}

/* -- patches ----------------------------------------------------------------------------------------------------- */

/* LEB128, at most 10 bytes, no superfluous last byte. */
static int read_varint(const uint8_t **p, const uint8_t *end, uint64_t *value) {
    uint64_t x = 0;
    for (uint32_t shift = 0; shift < 64; shift += 7) {
        if (*p == end) return 0;
        uint8_t byte = *(*p)++;
        if (shift == 63 && byte > 1) return 0;
        x |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) {
            *value = x;
            return byte != 0 || shift == 0;
        }
    }
    return 0;
}

/* Moves on to the next patch; `from` is the first position it may take. */
static tsr_error next_patch(tsr_reader *r, uint64_t from) {
    r->next_patch = UINT64_MAX;
    if (r->patches == 0) return r->patch == r->patch_end ? TSR_OK : TSR_PATCH;
    uint64_t gap;
    if (!read_varint(&r->patch, r->patch_end, &gap) || gap >= r->count - from) return TSR_PATCH;
    r->next_patch = from + gap;
    r->patches--;
    return TSR_OK;
}

static tsr_error apply_patches(tsr_reader *r, int32_t *out, size_t n) {
    uint64_t end = r->position + n;
    while (r->next_patch < end) {
        uint64_t value, at = r->next_patch;
        if (!read_varint(&r->patch, r->patch_end, &value) || value > UINT32_MAX) return TSR_PATCH;
        out[at - r->position] = unzigzag((uint32_t)value);
        if (at + 1 == r->count) {
            r->next_patch = UINT64_MAX;
            if (r->patches != 0 || r->patch != r->patch_end) return TSR_PATCH;
        } else {
            tsr_error error = next_patch(r, at + 1);
            if (error != TSR_OK) return error;
        }
    }
    return TSR_OK;
}

/* -- chunks ------------------------------------------------------------------------------------------------------ */

static const uint32_t WIDTH[] = {1, 1, 2, 4};

tsr_error tsr_reader_open_plain(tsr_reader *r, tsr_type type, const uint8_t *data, size_t size, uint64_t count) {
    memset(r, 0, sizeof *r);
    r->type = type;
    r->data = data;
    r->end = data + size;
    r->count = count;
    r->next_patch = UINT64_MAX;
    uint64_t width = WIDTH[type];
    if (size / width < count) return TSR_TRUNCATED;
    return size == count * width ? TSR_OK : TSR_TRAILING;
}

tsr_error tsr_reader_open(tsr_reader *r, tsr_slot *slots, tsr_type type, const uint8_t *prelude, size_t prelude_size,
                          const uint8_t *data, size_t size, uint64_t count) {
    if (size < 1) return TSR_TRUNCATED;
    if (data[0] == TSR_VERBATIM) return tsr_reader_open_plain(r, type, data + 1, size - 1, count);

    memset(r, 0, sizeof *r);
    tsr_table table;
    tsr_error error = tsr_prelude_read(&table, data[0], prelude, prelude_size, &r->lanes);
    if (error != TSR_OK) return error;
    fill_slots(&table, slots);
    r->slots = slots;
    r->precision = table.precision;
    r->type = type;
    r->count = count;
    r->end = data + size;

    const uint8_t *p = data + 1;
    uint64_t patches, ignored;
    if (!read_varint(&p, r->end, &patches) || patches > count || patches > UINT32_MAX) return TSR_PATCH;
    r->patch = p;
    for (uint64_t k = 0; k < 2 * patches; k++) {
        if (!read_varint(&p, r->end, &ignored)) return TSR_PATCH;
    }
    r->patch_end = p;
    r->patches = (uint32_t)patches;
    if (count > 0) {
        error = next_patch(r, 0);
        if (error != TSR_OK) return error;
    }
    if ((size_t)(r->end - p) < 4 * (size_t)r->lanes) return TSR_TRUNCATED;
    for (uint32_t lane = 0; lane < r->lanes; lane++, p += 4) {
        r->state[lane] = load32(p);
        if (r->state[lane] < 0x10000) return TSR_RANGE;
    }
    r->data = p;
    return (size_t)(r->end - p) % 2 ? TSR_TRAILING : TSR_OK;
}

/* One symbol: slot, value, new state; then a 16-bit word if the state fell below 2^16. */
static inline uint32_t advance(uint32_t x, const tsr_slot *slots, uint32_t precision, int32_t *out) {
    tsr_slot slot = slots[x & ((UINT32_C(1) << precision) - 1)];
    *out = slot.value;
    return slot.frequency * (x >> precision) + slot.bias;
}

/* Whole groups of `lanes` symbols while the words cannot run out; returns the symbols decoded. Inlined with constant
 * arguments, so that the lanes stay independent and nothing but the word pointer is carried along. */
static inline size_t decode_groups(tsr_reader *r, int32_t *out, size_t n, const uint32_t lanes, const uint32_t precision) {
    const uint8_t *p = r->data;
    const tsr_slot *slots = r->slots;
    uint32_t state[TSR_MAX_LANES];
    memcpy(state, r->state, lanes * sizeof *state);
    size_t i = 0;
    for (; i + lanes <= n && (size_t)(r->end - p) >= 2 * (size_t)lanes; i += lanes) {
        for (uint32_t lane = 0; lane < lanes; lane++) {
            uint32_t x = advance(state[lane], slots, precision, out + i + lane);
            uint32_t low = x < 0x10000; /* arithmetic, not a branch: nobody can predict it */
            state[lane] = x << (16 * low) | (load16(p) & (0 - low));
            p += 2 * low;
        }
    }
    memcpy(r->state, state, lanes * sizeof *state);
    r->data = p;
    return i;
}

#if TSR_AVX512
#define TSR_TARGET __attribute__((target("avx512f,bmi2,popcnt")))

/* The same for 16 or 32 lanes in one or two vectors. Words are handed out in the order of the lanes: expanded into those
 * that need one. */
TSR_TARGET static inline size_t decode_vectors(tsr_reader *r, int32_t *out, size_t n, const size_t vectors) {
    const uint8_t *p = r->data, *end = r->end;
    const __m512i mask = _mm512_set1_epi32((1 << r->precision) - 1), limit = _mm512_set1_epi32(0x10000);
    const __m512i low16 = _mm512_set1_epi32(0xFFFF);
    const __m128i precision = _mm_cvtsi32_si128((int)r->precision);
    const void *pairs = r->slots, *values = (const uint8_t *)r->slots + offsetof(tsr_slot, value);
    __m512i x[2] = {_mm512_loadu_si512(r->state), _mm512_loadu_si512(r->state + 16)};
    size_t i = 0;
    for (; i + 16 * vectors <= n && (size_t)(end - p) >= 32 * vectors; i += 16 * vectors) {
        for (size_t k = 0; k < vectors; k++) {
            __m512i slot = _mm512_and_si512(x[k], mask);
            __m512i pair = _mm512_i32gather_epi32(slot, pairs, sizeof(tsr_slot)); /* frequency, bias */
            _mm512_storeu_si512(out + i + 16 * k, _mm512_i32gather_epi32(slot, values, sizeof(tsr_slot)));
            __m512i next = _mm512_mullo_epi32(_mm512_and_si512(pair, low16), _mm512_srl_epi32(x[k], precision));
            next = _mm512_add_epi32(next, _mm512_srli_epi32(pair, 16));
            __mmask16 need = _mm512_cmplt_epu32_mask(next, limit);
            __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)p));
            words = _mm512_maskz_expand_epi32(need, words);
            x[k] = _mm512_mask_or_epi32(next, need, _mm512_slli_epi32(next, 16), words);
            p += 2 * _mm_popcnt_u32(need);
        }
    }
    _mm512_storeu_si512(r->state, x[0]);
    _mm512_storeu_si512(r->state + 16, x[1]);
    r->data = p;
    return i;
}

TSR_TARGET static size_t decode_16(tsr_reader *r, int32_t *out, size_t n) { return decode_vectors(r, out, n, 1); }
TSR_TARGET static size_t decode_32(tsr_reader *r, int32_t *out, size_t n) { return decode_vectors(r, out, n, 2); }
#endif

static size_t decode_fast(tsr_reader *r, int32_t *out, size_t n) {
#if TSR_AVX512
    if (r->lanes >= 16 && __builtin_cpu_supports("avx512f"))
        return r->lanes == 32 ? decode_32(r, out, n) : decode_16(r, out, n);
#endif
    switch (r->lanes) {
        case 32: return decode_groups(r, out, n, 32, r->precision);
        case 16: return decode_groups(r, out, n, 16, r->precision);
        case 8: return decode_groups(r, out, n, 8, r->precision);
        case 4: return decode_groups(r, out, n, 4, r->precision);
        default: return decode_groups(r, out, n, r->lanes, r->precision);
    }
}

/* Symbol by symbol near the end of the words or of the chunk. */
static tsr_error decode_careful(tsr_reader *r, int32_t *out, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint32_t *state = &r->state[i % r->lanes];
        uint32_t x = advance(*state, r->slots, r->precision, out + i);
        if (x < 0x10000) {
            if (r->end - r->data < 2) return TSR_TRUNCATED;
            x = x << 16 | load16(r->data);
            r->data += 2;
        }
        *state = x;
    }
    return TSR_OK;
}

static void read_plain(tsr_reader *r, int32_t *out, size_t n) {
    const uint8_t *p = r->data;
    switch (r->type) {
        case TSR_U8: for (size_t i = 0; i < n; i++) out[i] = p[i]; break;
        case TSR_I8: for (size_t i = 0; i < n; i++) out[i] = (int8_t)p[i]; break;
        case TSR_I16: for (size_t i = 0; i < n; i++) out[i] = (int16_t)load16(p + 2 * i); break;
        case TSR_I32: for (size_t i = 0; i < n; i++) out[i] = (int32_t)load32(p + 4 * i); break;
    }
    r->data += n * WIDTH[r->type];
}

static tsr_error check_type(tsr_type type, const int32_t *values, size_t n) {
    static const int32_t LOW[] = {0, -128, -32768, INT32_MIN}, HIGH[] = {255, 127, 32767, INT32_MAX};
    int32_t low = LOW[type], high = HIGH[type];
    int bad = 0;
    for (size_t i = 0; i < n; i++) bad |= (values[i] < low) | (values[i] > high);
    return bad ? TSR_RANGE : TSR_OK;
}

tsr_error tsr_reader_next(tsr_reader *r, int32_t *out, size_t n) {
    if (n > r->count - r->position) return TSR_ARGUMENT;
    tsr_error error = TSR_OK;
    if (r->lanes == 0) {
        read_plain(r, out, n);
    } else {
        size_t done = decode_fast(r, out, n);
        error = decode_careful(r, out + done, n - done);
        if (error == TSR_OK) error = apply_patches(r, out, n);
        if (error == TSR_OK && r->type != TSR_I32) error = check_type(r->type, out, n);
    }
    r->position += n;
    return error;
}

tsr_error tsr_reader_close(const tsr_reader *r) {
    if (r->position != r->count) return TSR_ARGUMENT;
    if (r->data != r->end || r->patch != r->patch_end || r->patches != 0) return TSR_TRAILING;
    for (uint32_t lane = 0; lane < r->lanes; lane++) {
        if (r->state[lane] != 0x10000) return TSR_TRAILING;
    }
    return TSR_OK;
}
