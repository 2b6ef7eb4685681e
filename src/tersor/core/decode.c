/* Reconstruction: levels or byte planes to the elements of a tensor, block by block (spec/FORMAT.md, section 7). */
#include "bits.h"
#include "tersor.h"

#include <string.h>

/* -- float32 to narrower floats, round to nearest even ------------------------------------------------------------- */

static uint32_t float_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

static float from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

/* Not for NaN. */
static uint16_t to_bf16(uint32_t bits) { return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16); }

/* Not for NaN; values beyond the range become infinite. */
static uint16_t to_f16(uint32_t bits) {
    uint32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7FFFFFFF;
    if (magnitude >= 0x477FF000) return (uint16_t)(sign | 0x7C00); /* 65520 and above round to infinity */
    if (magnitude < 0x38800000) {                                  /* below 2^-14: subnormal */
        uint32_t shift = 126 - (magnitude >> 23);                  /* 14 to 126 */
        if (shift > 24 + 1) return (uint16_t)sign;
        uint32_t mantissa = (magnitude & 0x7FFFFF) | 0x800000, half = (UINT32_C(1) << (shift - 1)) - 1;
        return (uint16_t)(sign | (mantissa + half + (mantissa >> shift & 1)) >> shift);
    }
    return (uint16_t)(sign | (magnitude - 0x38000000 + 0xFFF + (magnitude >> 13 & 1)) >> 13);
}

static uint64_t to_f64(uint32_t bits) {
    double wide = from_bits(bits);
    uint64_t out;
    memcpy(&out, &wide, 8);
    return out;
}

/* -- leaves of the tensor digest --------------------------------------------------------------------------------- */

typedef struct {
    const uint8_t *start; /* of the current leaf */
    uint64_t *next;
    size_t filled, width;
} leaf_writer;

static void add_to_leaf(leaf_writer *w, size_t n, int last) {
    w->filled += n;
    if (w->filled < TSR_LEAF && !(last && w->filled > 0)) return;
    *w->next++ = tsr_hash(w->start, w->filled * w->width, 0);
    w->start += w->filled * w->width;
    w->filled = 0;
}

/* -- uniform ------------------------------------------------------------------------------------------------------ */

/* sign(q) * ((|q| + offset) * step), every operation rounded to float32; zero stays zero. On bits, without branches:
 * compilers then use vectors, and signs are as good as random. */
static inline uint32_t reconstruct(int32_t level, float offset, float step) {
    uint32_t bits = float_bits((float)level), nonzero = 0 - (uint32_t)(level != 0);
    float value = (from_bits(bits & 0x7FFFFFFF) + offset) * step;
    return (float_bits(value) | (bits & 0x80000000)) & nonzero;
}

/* n weights of one row. */
TSR_VECTORISED static void reconstruct_run(const int32_t *levels, size_t n, float offset, float step, tsr_float type, uint8_t *out) {
    switch (type) {
        case TSR_F32: for (size_t i = 0; i < n; i++) store32(out + 4 * i, reconstruct(levels[i], offset, step)); break;
        case TSR_F16: for (size_t i = 0; i < n; i++) store16(out + 2 * i, to_f16(reconstruct(levels[i], offset, step))); break;
        case TSR_BF16: for (size_t i = 0; i < n; i++) store16(out + 2 * i, to_bf16(reconstruct(levels[i], offset, step))); break;
        case TSR_F64: for (size_t i = 0; i < n; i++) store64(out + 8 * i, to_f64(reconstruct(levels[i], offset, step))); break;
    }
}

/* level = high * 2^bits + low, where low < 2^bits. */
static tsr_error add_low_bits(int32_t *levels, tsr_reader *reader, size_t n, uint32_t bits) {
    int32_t low[TSR_BLOCK], most = INT32_MAX >> bits;
    tsr_error error = tsr_reader_next(reader, low, n);
    if (error != TSR_OK) return error;
    int bad = 0;
    for (size_t i = 0; i < n; i++) {
        bad |= (levels[i] > most) | (levels[i] < -most) | (low[i] >> bits != 0);
        levels[i] = (int32_t)((uint32_t)levels[i] << bits | ((uint32_t)low[i] & ((1u << bits) - 1)));
    }
    return bad ? TSR_RANGE : TSR_OK;
}

/* Moves `n` levels of the block through their rows; *row and *row_left say where the block starts. */
static tsr_error reconstruct_rows(const tsr_uniform *op, const int32_t *levels, size_t n, uint64_t *row,
                                  uint64_t *row_left, size_t width, uint8_t *out) {
    for (size_t i = 0; i < n;) {
        if (*row >= op->rows) return TSR_ARGUMENT;
        if (op->row_steps[*row] >= op->step_count) return TSR_RANGE;
        size_t run = *row_left < n - i ? (size_t)*row_left : n - i;
        reconstruct_run(levels + i, run, op->offset, op->steps[op->row_steps[*row]], op->type, out + width * i);
        i += run;
        *row_left -= run;
        if (*row_left == 0) {
            ++*row;
            *row_left = op->row_length;
        }
    }
    return TSR_OK;
}

tsr_error tsr_uniform_decode(const tsr_uniform *op, tsr_reader *reader, tsr_reader *low, uint64_t first, void *out,
                             uint64_t *leaves) {
    static const size_t WIDTH[] = {4, 2, 2, 8};
    int32_t levels[TSR_BLOCK];
    const size_t width = WIDTH[op->type];
    leaf_writer leaf = {out, leaves, 0, width};
    uint8_t *p = out;
    uint64_t left = reader->count;
    if (op->step_count == 0 || op->low_bits > 8 || (op->low_bits > 0 && low->count != left)) return TSR_ARGUMENT;
    if (op->row_steps != NULL && op->row_length == 0 && left > 0) return TSR_ARGUMENT;
    uint64_t row = op->row_steps ? first / op->row_length : 0;
    uint64_t row_left = op->row_steps ? op->row_length - first % op->row_length : 0;
    while (left > 0) {
        size_t n = left < TSR_BLOCK ? (size_t)left : TSR_BLOCK;
        tsr_error error = tsr_reader_next(reader, levels, n);
        if (error == TSR_OK && op->low_bits > 0) error = add_low_bits(levels, low, n, op->low_bits);
        if (error == TSR_OK && op->row_steps != NULL)
            error = reconstruct_rows(op, levels, n, &row, &row_left, width, p);
        else if (error == TSR_OK)
            reconstruct_run(levels, n, op->offset, op->steps[0], op->type, p);
        if (error != TSR_OK) return error;
        p += width * n;
        left -= n;
        add_to_leaf(&leaf, n, left == 0);
    }
    tsr_error error = op->low_bits > 0 ? tsr_reader_close(low) : TSR_OK;
    return error == TSR_OK ? tsr_reader_close(reader) : error;
}

/* -- byte planes --------------------------------------------------------------------------------------------------- */

enum { MAX_PLANES = 8 };

/* Joins n elements whose `stored` top bytes are given; the sign bit moves from the lowest stored bit to the top. */
static inline void join(const int32_t (*planes)[TSR_BLOCK], uint32_t stored, uint32_t width, int rotate, size_t n, uint8_t *out) {
    uint32_t bits = 8 * stored, fill = 8 * (width - stored);
    if (width <= 4) {
        for (size_t i = 0; i < n; i++) {
            uint32_t x = 0;
            for (uint32_t k = 0; k < stored; k++) x = x << 8 | (uint32_t)planes[k][i];
            if (rotate) x = x >> 1 | (x & 1) << (bits - 1);
            x <<= fill;
            if (width == 4) store32(out + 4 * i, x);
            else if (width == 2) store16(out + 2 * i, x);
            else out[i] = (uint8_t)x;
        }
        return;
    }
    for (size_t i = 0; i < n; i++) {
        uint64_t x = 0;
        for (uint32_t k = 0; k < stored; k++) x = x << 8 | (uint32_t)planes[k][i];
        if (rotate) x = x >> 1 | (x & 1) << (bits - 1);
        store64(out + 8 * i, x << fill);
    }
}

/* The common cases with constants, so that they become vector code. */
TSR_VECTORISED static void join_block(const int32_t (*planes)[TSR_BLOCK], uint32_t stored, uint32_t width, int rotate,
                                      size_t n, uint8_t *out) {
    if (stored == 4 && width == 4 && rotate) join(planes, 4, 4, 1, n, out);
    else if (stored == 2 && width == 2 && rotate) join(planes, 2, 2, 1, n, out);
    else if (stored == 1 && width == 1 && !rotate) join(planes, 1, 1, 0, n, out);
    else join(planes, stored, width, rotate, n, out);
}

tsr_error tsr_planes_decode(tsr_reader *readers, uint32_t stored, uint32_t width, int rotate, void *out,
                            uint64_t *leaves) {
    int32_t planes[MAX_PLANES][TSR_BLOCK];
    if (stored < 1 || stored > width || !(width == 1 || width == 2 || width == 4 || width == 8)) return TSR_ARGUMENT;
    uint64_t left = readers[0].count;
    for (uint32_t k = 0; k < stored; k++) {
        if (readers[k].count != left || readers[k].type != TSR_U8) return TSR_ARGUMENT;
    }
    leaf_writer leaf = {out, leaves, 0, width};
    uint8_t *p = out;
    while (left > 0) {
        size_t n = left < TSR_BLOCK ? (size_t)left : TSR_BLOCK;
        for (uint32_t k = 0; k < stored; k++) {
            tsr_error error = tsr_reader_next(&readers[k], planes[k], n);
            if (error != TSR_OK) return error;
        }
        join_block(planes, stored, width, rotate, n, p);
        p += width * n;
        left -= n;
        add_to_leaf(&leaf, n, left == 0);
    }
    for (uint32_t k = 0; k < stored; k++) {
        tsr_error error = tsr_reader_close(&readers[k]);
        if (error != TSR_OK) return error;
    }
    return TSR_OK;
}
