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
    float size = from_bits(bits & 0x7FFFFFFF) + offset; /* a variable: some compilers keep sums in wider registers */
    float value = size * step;
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

/* Quantizer of a level of the trellis: even states rebuild 2 q, odd ones 2 q - sign q; the parity of q moves on to the next. */
static int follow_trellis(uint8_t *states, int32_t *levels, size_t n) {
    static const uint8_t NEXT[8][2] = {{0, 2}, {7, 5}, {1, 3}, {6, 4}, {2, 0}, {5, 7}, {3, 1}, {4, 6}};
    int bad = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t q = levels[i], odd = states[i] & 1;
        bad |= (q > TSR_MAX_TRELLIS) | (q < -TSR_MAX_TRELLIS);
        levels[i] = (int32_t)((uint32_t)q * 2u - (uint32_t)(odd * ((q > 0) - (q < 0))));
        states[i] = NEXT[states[i]][q & 1];
    }
    return !bad;
}

/* State 0 for the columns that `count` levels from number `first` on meet: a row may be much longer than a chunk. */
static void start_trellis(const tsr_uniform *op, uint64_t first, uint64_t count) {
    uint64_t column = first % op->row_length, behind = op->row_length - column;
    uint64_t n = count < op->row_length ? count : op->row_length;
    memset(op->states + column, 0, n < behind ? n : behind);
    if (n > behind) memset(op->states, 0, n - behind);
}

/* Magnitudes of n levels from a list of values. */
static int look_up(const tsr_uniform *op, const int32_t *levels, size_t n, float *sizes) {
    int bad = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t size = levels[i] < 0 ? 0u - (uint32_t)levels[i] : (uint32_t)levels[i];
        bad |= size > op->value_count;
        sizes[i] = size == 0 || size > op->value_count ? 0 : op->values[size - 1];
    }
    return !bad;
}

TSR_VECTORISED static void add_offset(const int32_t *levels, size_t n, float offset, float *sizes) {
    for (size_t i = 0; i < n; i++) sizes[i] = from_bits(float_bits((float)levels[i]) & 0x7FFFFFFF) + offset;
}

/* sizes * columns * step with the signs of the levels; columns may be NULL. */
TSR_VECTORISED static void scale_run(const int32_t *levels, float *sizes, const float *columns, size_t n, float step, tsr_float type,
                                     uint8_t *out) {
    uint32_t bits[TSR_BLOCK];
    if (columns != NULL)
        for (size_t i = 0; i < n; i++) sizes[i] *= columns[i];
    for (size_t i = 0; i < n; i++) {
        uint32_t sign = (uint32_t)levels[i] & 0x80000000, nonzero = 0 - (uint32_t)(levels[i] != 0);
        bits[i] = (float_bits(sizes[i] * step) | sign) & nonzero;
    }
    switch (type) {
        case TSR_F32: for (size_t i = 0; i < n; i++) store32(out + 4 * i, bits[i]); break;
        case TSR_F16: for (size_t i = 0; i < n; i++) store16(out + 2 * i, to_f16(bits[i])); break;
        case TSR_BF16: for (size_t i = 0; i < n; i++) store16(out + 2 * i, to_bf16(bits[i])); break;
        case TSR_F64: for (size_t i = 0; i < n; i++) store64(out + 8 * i, to_f64(bits[i])); break;
    }
}

/* n levels of one row, from `column` on. */
static tsr_error reconstruct_part(const tsr_uniform *op, int32_t *levels, size_t n, uint64_t row, uint64_t column, uint8_t *out) {
    size_t step = op->row_steps == NULL ? 0 : op->row_steps[row];
    if (step >= op->step_count) return TSR_RANGE;
    if (op->states != NULL && !follow_trellis(op->states + column, levels, n)) return TSR_RANGE;
    if (op->values == NULL && op->column_steps == NULL) {
        reconstruct_run(levels, n, op->offset, op->steps[step], op->type, out);
        return TSR_OK;
    }
    float sizes[TSR_BLOCK];
    if (op->values == NULL) add_offset(levels, n, op->offset, sizes);
    else if (!look_up(op, levels, n, sizes)) return TSR_RANGE;
    scale_run(levels, sizes, op->column_steps ? op->column_steps + column : NULL, n, op->steps[step], op->type, out);
    return TSR_OK;
}

/* Moves `n` levels of the block through their rows; *row and *row_left say where the block starts. */
static tsr_error reconstruct_rows(const tsr_uniform *op, int32_t *levels, size_t n, uint64_t *row, uint64_t *row_left, size_t width,
                                  uint8_t *out) {
    for (size_t i = 0; i < n;) {
        if (*row >= op->rows) return TSR_ARGUMENT;
        size_t run = *row_left < n - i ? (size_t)*row_left : n - i;
        tsr_error error = reconstruct_part(op, levels + i, run, *row, op->row_length - *row_left, out + width * i);
        if (error != TSR_OK) return error;
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
    if (op->rows > 0 && op->row_length == 0) return TSR_ARGUMENT;
    if (op->rows == 0 && (op->row_steps || op->column_steps || op->values || op->states)) return TSR_ARGUMENT;
    uint64_t row = op->rows ? first / op->row_length : 0;
    uint64_t row_left = op->rows ? op->row_length - first % op->row_length : 0;
    if (op->states != NULL) start_trellis(op, first, left);
    while (left > 0) {
        size_t n = left < TSR_BLOCK ? (size_t)left : TSR_BLOCK;
        /* Lines of the output are on their way to the second-level cache while levels are decoded. */
        for (size_t i = 0; i < width * n; i += 64) __builtin_prefetch(p + i, 1, 1);
        tsr_error error = tsr_reader_next(reader, levels, n);
        if (error == TSR_OK && op->low_bits > 0) error = add_low_bits(levels, low, n, op->low_bits);
        if (error == TSR_OK && op->rows > 0)
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
static inline void join(const uint8_t (*planes)[TSR_BLOCK], uint32_t stored, uint32_t width, int rotate, size_t n, uint8_t *out) {
    uint32_t bits = 8 * stored, fill = 8 * (width - stored);
    if (width <= 4) {
        for (size_t i = 0; i < n; i++) {
            uint32_t x = 0;
            for (uint32_t k = 0; k < stored; k++) x = x << 8 | planes[k][i];
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
        for (uint32_t k = 0; k < stored; k++) x = x << 8 | planes[k][i];
        if (rotate) x = x >> 1 | (x & 1) << (bits - 1);
        store64(out + 8 * i, x << fill);
    }
}

/* The common cases with constants, so that they become vector code. */
TSR_VECTORISED static void join_block(const uint8_t (*planes)[TSR_BLOCK], uint32_t stored, uint32_t width, int rotate,
                                      size_t n, uint8_t *out) {
    if (stored == 4 && width == 4 && rotate) join(planes, 4, 4, 1, n, out);
    else if (stored == 2 && width == 2 && rotate) join(planes, 2, 2, 1, n, out);
    else if (stored == 1 && width == 1 && !rotate) join(planes, 1, 1, 0, n, out);
    else join(planes, stored, width, rotate, n, out);
}

tsr_error tsr_planes_decode(tsr_reader *readers, uint32_t stored, uint32_t width, int rotate, void *out,
                            uint64_t *leaves) {
    uint8_t planes[MAX_PLANES][TSR_BLOCK];
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
            tsr_error error = tsr_reader_bytes(&readers[k], planes[k], n);
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
