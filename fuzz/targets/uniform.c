/* Ops `uniform`, `uniform2d`, `companded` and `trellis`, also in combinations no op has: steps by row and column, low bits, values,
 * states, every float type; every element against the formulas of section 7. */
#include "builder.h"
#include "streams.h"

#include <math.h>

/* Bits of `x` in a binary format with so many bits of exponent and mantissa, by arithmetic instead of bit tricks. */
static uint64_t narrow(float x, int exponent_bits, int mantissa_bits) {
    int bias = (1 << (exponent_bits - 1)) - 1, exponent;
    uint64_t sign = signbit(x) ? UINT64_C(1) << (exponent_bits + mantissa_bits) : 0;
    uint64_t infinity = ((UINT64_C(1) << exponent_bits) - 1) << mantissa_bits;
    double size = fabs((double)x);
    if (size == 0) return sign;
    if (isinf(size)) return sign | infinity;
    frexp(size, &exponent);
    exponent = exponent - 1 < 1 - bias ? 1 - bias : exponent - 1;      /* 2^exponent <= size, or subnormal */
    double units = rint(ldexp(size, mantissa_bits - exponent));        /* exact but for the rounding, to even */
    uint64_t bits = ((uint64_t)(exponent + bias - 1) << mantissa_bits) + (uint64_t)units;
    return sign | (bits < infinity ? bits : infinity);
}

static uint64_t packed(float x, tsr_float type) {
    double wide = x;
    uint64_t bits;
    uint32_t narrow_bits;
    switch (type) {
        case TSR_F16: return narrow(x, 5, 10);
        case TSR_BF16: return narrow(x, 8, 7);
        case TSR_F64: memcpy(&bits, &wide, 8); return bits;
        default: memcpy(&narrow_bits, &x, 4); return narrow_bits;
    }
}

/* The element of a level; `row` and `column` where the op has them. 0 if there is none. */
static int element(const tsr_uniform *op, int64_t level, uint64_t row, uint64_t column, uint64_t *bits) {
    static const uint8_t EVEN[] = {0, 7, 1, 6, 2, 5, 3, 4}, ODD[] = {2, 5, 3, 4, 0, 7, 1, 6};
    size_t step = op->row_steps ? op->row_steps[row] : 0;
    if (step >= op->step_count) return 0;
    if (op->states) {
        if (llabs(level) >= 1 << 30) return 0;
        uint8_t *state = &op->states[column];
        int64_t doubled = 2 * level;
        if (level > 0) doubled -= *state % 2;
        if (level < 0) doubled += *state % 2;
        *state = level % 2 == 0 ? EVEN[*state] : ODD[*state];
        level = doubled;
    }
    uint64_t size = (uint64_t)llabs(level);
    if (op->values && size > op->value_count) return 0;
    volatile float a = (float)size, b = a + op->offset, c, d;
    if (op->values && size > 0) b = op->values[size - 1];
    c = op->column_steps ? b * op->column_steps[column] : b;
    d = c * op->steps[step];
    *bits = level == 0 ? 0 : packed(level < 0 ? -d : d, op->type);
    return 1;
}

/* Whether all levels have an element; those of the output must be these. */
static int check_elements(tsr_uniform *op, stream *high, stream *low, uint64_t first, const uint8_t *out, size_t width) {
    static tsr_slot slots[1 << TSR_MAX_PRECISION];
    int32_t *h = room(high->count * sizeof *h), *l = room(high->count * sizeof *l);
    REQUIRE(decode_stream(high, slots, TSR_BLOCK, h) == TSR_OK);
    if (op->low_bits > 0) REQUIRE(decode_stream(low, slots, TSR_BLOCK, l) == TSR_OK);
    if (op->states) memset(op->states, 0, op->row_length);
    int good = 1;
    for (uint64_t i = 0; good && i < high->count; i++) {
        int64_t level = h[i];
        uint64_t expected = 0, is = 0, row = op->rows ? (first + i) / op->row_length : 0;
        if (op->low_bits > 0) {
            level = level * (INT64_C(1) << op->low_bits) + l[i];
            int64_t most = INT32_MAX >> op->low_bits;
            good = h[i] <= most && h[i] >= -most && l[i] >= 0 && l[i] < 1 << op->low_bits;
        }
        if (op->rows > 0) good &= row < op->rows;
        good = good && element(op, level, row, op->rows ? (first + i) % op->row_length : 0, &expected);
        if (!good || !out) continue;
        for (size_t k = 0; k < width; k++) is |= (uint64_t)out[i * width + k] << 8 * k;
        REQUIRE(is == expected);
    }
    free(h);
    free(l);
    return good;
}

static void check_leaves(uint64_t count, const uint8_t *out, size_t width, const uint64_t *leaves) {
    for (uint64_t i = 0; i < count; i += TSR_LEAF) {
        uint64_t n = count - i < TSR_LEAF ? count - i : TSR_LEAF;
        REQUIRE(leaves[i / TSR_LEAF] == tsr_hash(out + i * width, n * width, 0));
    }
}

static float *take_positive(input *in, size_t n) {
    float *out = room(n * sizeof *out);
    for (size_t k = 0; k < n; k++) {
        out[k] = k < 32 ? fabsf(take_float(in)) : 0;
        if (!(isfinite(out[k]) && out[k] > 0)) out[k] = 0.01f * (float)(k + 1);
    }
    return out;
}

/* Steps, and what depends on rows: `rows` is 0 if nothing does. `wild`: indices may be out of their range, rows may lack. */
static tsr_uniform take_op(input *in, tsr_float type, uint64_t end, int several, int wild) {
    uint32_t by_row = take8(in);
    tsr_uniform op = {.type = type, .step_count = several ? 1 + take8(in) % 5 : 1};
    op.offset = take_float(in);
    if (!(isfinite(op.offset) && op.offset > -1)) op.offset = (float)take8(in) / 64 - 0.99f;
    op.steps = take_positive(in, op.step_count);
    if (by_row % 4 == 0) return op;
    uint32_t shape = take8(in);
    op.row_length = shape == 255 ? end + 1 : 1 + (shape % 3 == 0 ? shape % 8 : shape & 128 ? take16(in) % 3000 : shape);
    op.rows = (end + op.row_length - 1) / op.row_length + (end == 0) + (shape & 1);
    if (wild && op.rows > 1 && take8(in) & 1) op.rows--;
    if (by_row & 4) {
        uint8_t *row_steps = room(op.rows);
        for (uint64_t k = 0; k < op.rows; k++) row_steps[k] = (uint8_t)(k < 32 ? take8(in) % (op.step_count + (size_t)wild) : 0);
        op.row_steps = row_steps;
    }
    if (by_row & 8) op.column_steps = take_positive(in, op.row_length);
    if (by_row & 16) {
        op.value_count = 1 + (by_row & 128 ? take16(in) % 4096 : take8(in));
        op.values = take_positive(in, op.value_count);
    }
    if (by_row & 32) op.states = room(op.row_length);
    return op;
}

static void drop_op(tsr_uniform *op) {
    free((void *)op->steps);
    free((void *)op->row_steps);
    free((void *)op->column_steps);
    free((void *)op->values);
    free(op->states);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const size_t WIDTH[] = {4, 2, 2, 8};
    static tsr_slot slots[1 << TSR_MAX_PRECISION], low_slots[1 << TSR_MAX_PRECISION];
    input in = {data, data + size};
    uint32_t shape = take8(&in), low_bits = take8(&in) % 16, wild = take8(&in);
    tsr_float type = (tsr_float)(shape % 4);
    uint64_t count = take_count(&in, 1), first = shape & 16 ? take16(&in) : 0;
    tsr_uniform op = take_op(&in, type, first + count, (shape & 32) != 0, wild >= 0xC0);
    op.low_bits = low_bits < 9 ? low_bits : 0;
    stream high = take_stream(&in, (tsr_type)(shape >> 2 & 3), count), low = {0};
    if (op.low_bits > 0) {
        low = take_stream(&in, TSR_U8, count);
        if (low.coder == PLAIN && low.intact) { /* values that fit the bits, or almost */
            for (uint64_t i = 0; i < low.count; i++) low.data[i] &= (uint8_t)((1u << op.low_bits) - ((wild & 7) < 6));
        }
    }

    tsr_reader reader, low_reader;
    tsr_error error = open_stream(&reader, slots, &high);
    if (error == TSR_OK && op.low_bits > 0) error = open_stream(&low_reader, low_slots, &low);
    if (error == TSR_OK) {
        uint8_t *out = room(high.count * WIDTH[type]);
        size_t leaf_count = (high.count + TSR_LEAF - 1) / TSR_LEAF;
        uint64_t *leaves = room(leaf_count * sizeof *leaves);
        error = tsr_uniform_decode(&op, &reader, op.low_bits > 0 ? &low_reader : NULL, first, out, leaves);
        if (error == TSR_OK) {
            REQUIRE(check_elements(&op, &high, &low, first, out, WIDTH[type]));
            check_leaves(high.count, out, WIDTH[type], leaves);
        } else if (high.intact && (op.low_bits == 0 || low.intact)) {
            REQUIRE(!check_elements(&op, &high, &low, first, NULL, 0));
        }
        free(out);
        free(leaves);
    }
    drop_op(&op);
    drop_stream(&high);
    drop_stream(&low);
    return 0;
}
