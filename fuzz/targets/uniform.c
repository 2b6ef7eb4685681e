/* Op `uniform`: steps by row, low bits, every float type; every element against the formula of section 7.2. */
#include "builder.h"
#include "common.h"

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

static uint64_t element(int32_t level, float offset, float step, tsr_float type) {
    if (level == 0) return 0;
    volatile float a = (float)(level < 0 ? -(double)level : (double)level), b = a + offset, c = b * step;
    float x = level < 0 ? -c : c;
    switch (type) {
        case TSR_F16: return narrow(x, 5, 10);
        case TSR_BF16: return narrow(x, 8, 7);
        case TSR_F64: {
            double wide = x;
            uint64_t bits;
            memcpy(&bits, &wide, 8);
            return bits;
        }
        default: {
            uint32_t bits;
            memcpy(&bits, &x, 4);
            return bits;
        }
    }
}

static void check_elements(const tsr_uniform *op, const stream *high, const stream *low, uint64_t first,
                           const uint8_t *out, size_t width, const uint64_t *leaves) {
    static tsr_slot slots[1 << TSR_MAX_PRECISION];
    int32_t *h = room(high->count * sizeof *h), *l = room(high->count * sizeof *l);
    REQUIRE(decode_stream(high, slots, TSR_BLOCK, h) == TSR_OK);
    if (op->low_bits > 0) REQUIRE(decode_stream(low, slots, TSR_BLOCK, l) == TSR_OK);
    for (uint64_t i = 0; i < high->count; i++) {
        int64_t level = h[i];
        if (op->low_bits > 0) {
            level = level * (INT64_C(1) << op->low_bits) + l[i];
            int64_t most = INT32_MAX >> op->low_bits;
            REQUIRE(h[i] <= most && h[i] >= -most && l[i] >= 0 && l[i] < 1 << op->low_bits);
        }
        size_t number = op->row_steps ? op->row_steps[(first + i) / op->row_length] : 0;
        REQUIRE(number < op->step_count);
        uint64_t expected = element((int32_t)level, op->offset, op->steps[number], op->type), is = 0;
        for (size_t k = 0; k < width; k++) is |= (uint64_t)out[i * width + k] << 8 * k;
        REQUIRE(is == expected);
    }
    for (uint64_t i = 0; i < high->count; i += TSR_LEAF) {
        uint64_t n = high->count - i < TSR_LEAF ? high->count - i : TSR_LEAF;
        REQUIRE(leaves[i / TSR_LEAF] == tsr_hash(out + i * width, n * width, 0));
    }
    free(h);
    free(l);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const size_t WIDTH[] = {4, 2, 2, 8};
    static tsr_slot slots[1 << TSR_MAX_PRECISION], low_slots[1 << TSR_MAX_PRECISION];
    input in = {data, data + size};
    uint32_t shape = take8(&in), low_bits = take8(&in) % 16, by_row = take8(&in);
    tsr_float type = (tsr_float)(shape % 4);
    low_bits = low_bits < 9 ? low_bits : 0;
    uint64_t count = take_count(&in, 1), first = shape & 16 ? take16(&in) : 0;
    size_t step_count = shape & 32 ? 1 + take8(&in) % 5 : 1;
    float offset = take_float(&in), *steps = room(step_count * sizeof *steps);
    if (!(isfinite(offset) && offset > -1)) offset = (float)take8(&in) / 64 - 0.99f;
    for (size_t k = 0; k < step_count; k++) {
        steps[k] = fabsf(take_float(&in));
        if (!(isfinite(steps[k]) && steps[k] > 0)) steps[k] = 0.01f * (float)(k + 1);
    }
    uint64_t row_length = by_row & 1 ? 1 + take8(&in) : 0, rows = 0;
    uint8_t *row_steps = NULL;
    if (by_row & 1) { /* enough rows, unless the input says otherwise */
        rows = (first + count + row_length - 1) / row_length;
        if (by_row >= 0xC0 && rows > 0) rows--;
        row_steps = room(rows);
        for (uint64_t k = 0; k < rows; k++) row_steps[k] = (uint8_t)(k < 32 ? take8(&in) % (step_count + (by_row >= 0x80)) : 0);
    }
    stream high = take_stream(&in, (tsr_type)(shape >> 2 & 3), count), low = {0};
    if (low_bits > 0) {
        low = take_stream(&in, TSR_U8, count);
        if (low.plain && low.intact) { /* values that fit the bits, or almost */
            for (uint64_t i = 0; i < low.count; i++) low.data[i] &= (uint8_t)((1u << low_bits) - (by_row < 0xF0));
        }
    }

    tsr_reader reader, low_reader;
    tsr_error error = open_stream(&reader, slots, &high);
    if (error == TSR_OK && low_bits > 0) error = open_stream(&low_reader, low_slots, &low);
    if (error == TSR_OK) {
        uint8_t *out = room(high.count * WIDTH[type]);
        size_t leaf_count = (high.count + TSR_LEAF - 1) / TSR_LEAF;
        uint64_t *leaves = room(leaf_count * sizeof *leaves);
        tsr_uniform op = {steps, step_count, row_steps, rows, row_length, offset, type, low_bits};
        error = tsr_uniform_decode(&op, &reader, low_bits > 0 ? &low_reader : NULL, first, out, leaves);
        if (error == TSR_OK) check_elements(&op, &high, &low, first, out, WIDTH[type], leaves);
        int honest = high.intact && low_bits == 0 && by_row < 0x80;
        if (honest) REQUIRE(error == TSR_OK);
        free(out);
        free(leaves);
    }
    free(steps);
    free(row_steps);
    drop_stream(&high);
    drop_stream(&low);
    return 0;
}
