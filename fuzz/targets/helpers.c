/* What the encoder prepares with: rounding, counting, sums by row and column, smallest and largest, splitting
 * into planes. */
#include "streams.h"

#include <math.h>

static void quantize(input *in) {
    int32_t limit = (int32_t)take8(in) % 20;
    float step = fabsf(take_float(in)), prices[39];
    if (!(isfinite(step) && step > 0)) step = 0.25f;
    for (int32_t k = 0; k <= 2 * limit; k++) prices[k] = k & 1 ? take_float(in) : (float)take8(in) / 16;
    float *bits = room((size_t)(2 * limit + 1) * sizeof *bits);
    memcpy(bits, prices, (size_t)(2 * limit + 1) * sizeof *bits);
    size_t n = left(in) / 4;
    float *weights = room(n * sizeof *weights);
    int32_t *levels = room(n * sizeof *levels);
    for (size_t i = 0; i < n; i++) weights[i] = take_float(in);
    tsr_quantize(weights, n, step, bits, limit, levels);
    const float inverse = 1.0f / step;
    for (size_t i = 0; i < n; i++) {
        float target = weights[i] * inverse, size = fabsf(target);
        REQUIRE(levels[i] >= -(1 << 24) && levels[i] <= 1 << 24);
        if (isnan(target) || levels[i] == 0) continue;
        int32_t distance = abs(levels[i]) - (int32_t)(size < 16777216.0f ? floorf(size + 0.5f) : 16777216.0f);
        REQUIRE((levels[i] < 0) == (target < 0) && (distance == 0 || distance == -1));
    }
    free(bits);
    free(weights);
    free(levels);
}

static void count(input *in) {
    uint32_t alphabet = 1 + take16(in) % 500;
    int32_t lowest = (int32_t)take32(in), low, high;
    size_t n = left(in) < 4000 ? left(in) : 4000;
    int32_t *values = room(n * sizeof *values);
    for (size_t i = 0; i < n; i++) {
        uint32_t x = take8(in);
        values[i] = (int32_t)(x < 0xF0 ? (uint32_t)lowest + 2 * x - 20 : x << 24 | take16(in));
    }
    uint64_t *counts = room(2 * alphabet * sizeof *counts), outside = tsr_histogram(values, n, lowest, alphabet, counts);
    uint64_t *expected = calloc(alphabet, sizeof *expected), beyond = 0;
    int64_t smallest = INT64_MAX, largest = INT64_MIN;
    for (size_t i = 0; i < n; i++) {
        int64_t symbol = (int64_t)values[i] - lowest;
        int wraps = symbol + (INT64_C(1) << 32) < alphabet; /* the alphabet may reach beyond 2^31 - 1: modulo 2^32 */
        if (wraps) symbol += INT64_C(1) << 32;
        if (symbol >= 0 && symbol < alphabet) expected[symbol]++;
        else beyond++;
        smallest = values[i] < smallest ? values[i] : smallest;
        largest = values[i] > largest ? values[i] : largest;
    }
    REQUIRE(outside == beyond && memcmp(counts, expected, alphabet * sizeof *counts) == 0);
    if (n > 0) {
        tsr_minmax(values, n, &low, &high);
        REQUIRE(low == smallest && high == largest);
    }
    free(values);
    free(counts);
    free(expected);
}

/* Sums, counts and costs by row and column, symbol by symbol. */
static void classes(input *in) {
    uint64_t columns = 1 + take8(in), first = take16(in) % 700, n = take16(in) % 900, rows = (first + n) / columns + 1;
    uint32_t span = 1 + take8(in) % 20, kinds[2] = {1 + take8(in) % 5, 1 + take8(in) % 5}, tables = kinds[0] + kinds[1] - 1;
    int32_t lowest = (int32_t)take8(in) - 140;
    uint64_t sides[2] = {rows, columns};
    uint8_t *class[2] = {room(rows), room(columns)};
    for (int side = 0; side < 2; side++) {
        for (uint64_t k = 0; k < sides[side]; k++) class[side][k] = (uint8_t)((k < 40 ? take8(in) : k) % kinds[side]);
    }
    int32_t *values = room(n * sizeof *values);
    for (uint64_t i = 0; i < n; i++) values[i] = (int32_t)(i < 200 ? take8(in) : i * 7 % 41) - 128;
    float *bits = room(sizeof *bits * span * tables);
    for (uint32_t k = 0; k < span * tables; k++) bits[k] = (float)(k * 5 % 16); /* sums of these are exact */

    uint64_t *counts = calloc((size_t)span * kinds[0] * kinds[1], sizeof *counts), beyond = 0;
    double *sums[2] = {calloc(rows, sizeof(double)), calloc(columns, sizeof(double))};
    float *costs[2] = {calloc(rows * kinds[0], sizeof(float)), calloc(columns * kinds[1], sizeof(float))};
    uint64_t outside = tsr_class_histogram(values, n, first, columns, class[0], class[1], kinds[1], lowest, span,
                                           counts);
    tsr_magnitudes(values, n, first, columns, sums[0], sums[1]);
    for (int side = 0; side < 2; side++)
        tsr_class_costs(values, n, first, columns, class[!side], side == 0, lowest, span, bits, tables, kinds[side], costs[side]);
    for (uint64_t i = 0; i < n; i++) { /* taken back again: all become zero */
        uint64_t at[2] = {(first + i) / columns, (first + i) % columns};
        int32_t symbol = values[i] - lowest;
        for (int side = 0; side < 2; side++) sums[side][at[side]] -= abs(values[i]);
        if (symbol < 0 || symbol >= (int32_t)span) {
            beyond++;
            continue;
        }
        counts[span * (class[0][at[0]] * kinds[1] + class[1][at[1]]) + (uint32_t)symbol]--;
        for (int side = 0; side < 2; side++) {
            for (uint32_t k = 0; k < kinds[side]; k++)
                costs[side][at[side] * kinds[side] + k] -= bits[(uint32_t)symbol * tables + class[!side][at[!side]] + k];
        }
    }
    REQUIRE(outside == beyond);
    for (uint32_t k = 0; k < span * kinds[0] * kinds[1]; k++) REQUIRE(counts[k] == 0);
    for (int side = 0; side < 2; side++) {
        for (uint64_t k = 0; k < sides[side]; k++) REQUIRE(sums[side][k] == 0);
        for (uint64_t k = 0; k < sides[side] * kinds[side]; k++) REQUIRE(costs[side][k] == 0);
        free(class[side]);
        free(sums[side]);
        free(costs[side]);
    }
    free(values);
    free(bits);
    free(counts);
}

/* Split and join again: the bytes that were stored come back, the others are zero. */
static void split(input *in) {
    uint32_t shape = take8(in), width = 1u << (shape & 3), stored = 1 + take8(in) % width;
    int rotate = (shape & 4) != 0;
    size_t n = left(in) / width;
    uint8_t *data = copy(in->p, n * width), *planes[8], *out = room(n * width);
    tsr_reader readers[8];
    for (size_t i = 0; i < n * width; i++) {
        if (i % width < width - stored) data[i] = 0;
    }
    for (uint32_t k = 0; k < stored; k++) planes[k] = room(n);
    tsr_planes_split(data, n, stored, width, rotate, planes);
    for (uint32_t k = 0; k < stored; k++) REQUIRE(tsr_reader_open_plain(&readers[k], TSR_U8, planes[k], n, n) == TSR_OK);
    uint64_t leaf = 0;
    REQUIRE(n <= TSR_LEAF);
    REQUIRE(tsr_planes_decode(readers, stored, width, rotate, out, &leaf) == TSR_OK);
    REQUIRE(memcmp(data, out, n * width) == 0 && (n == 0 || leaf == tsr_hash(data, n * width, 0)));
    for (uint32_t k = 0; k < stored; k++) free(planes[k]);
    free(data);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    input in = {data, data + size};
    switch (take8(&in) % 4) {
        case 0: quantize(&in); break;
        case 1: count(&in); break;
        case 2: classes(&in); break;
        default: split(&in); break;
    }
    return 0;
}
