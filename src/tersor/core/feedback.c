/* Entropy-constrained rounding with error feedback; see feedback.h. */
#include "feedback.h"
#include "bits.h"

#include <math.h>
#include <string.h>

typedef struct {
    const tsr_feedback *problem;
    const float *factor;
    size_t lanes;            /* rows in this block, at most TSR_LANES */
    const float *row_step, *row_weight;
    const uint8_t *row_class;
    const float *row_factor; /* of the first row, from itself on; rows stand `coupled` apart */
    const float *spared;
    /* columns x TSR_LANES each: what is left of the targets; what the errors of rows that are done add to the targets of
     * those that are not; errors, complete where a column is done. */
    float *left, *shift, *errors;
} block;

/* Best level for one weight whose target, in steps, is t; `weight` prices a squared step, `fold` a squared level. */
static inline int32_t best_level(float t, float weight, float fold, const float *price, int32_t limit) {
    const float most = 8388608.0f;
    float size = fabsf(t);
    size = size < most ? size : most;
    int32_t sign = t < 0 ? -1 : 1, nearest = (int32_t)(size + 0.5f);
    int32_t best = 0;
    float cost = weight * size * size + price[0];
    for (int32_t q = nearest > 1 ? nearest - 1 : 1; q <= nearest + 1; q++) {
        float level = (float)q, error = size - level;
        float candidate = weight * error * error - fold * level * level + price[sign * (q < limit ? q : limit)];
        if (candidate < cost) {
            cost = candidate;
            best = q;
        }
    }
    return sign * best;
}

/* Rounds column j: `values` become the rebuilt weights; levels stand a row apart. */
static void round_column(const block *b, uint32_t j, float *values, int32_t *levels) {
    const tsr_feedback *p = b->problem;
    const float diagonal = b->factor[(size_t)j * p->columns + j], step = p->column_step[j];
    const float scale = (diagonal * step) * (diagonal * step), fold = p->quadratic * step * step;
    const size_t width = 2 * (size_t)p->limit + 1;
    float *left = b->left + (size_t)j * TSR_LANES, *shift = b->shift + (size_t)j * TSR_LANES;
    for (size_t r = b->lanes; r-- > 0;) {
        uint32_t class = (uint32_t)b->row_class[r] + p->column_class[j];
        if (class >= p->classes) class = p->classes - 1;
        const float size = b->row_step[r] * step, weight = b->row_weight[r];
        const float target = (left[r] + shift[r]) / (diagonal * size);
        const int32_t q =
            best_level(target, weight * scale, weight * fold, p->bits + class * width + p->limit, p->limit);
        levels[r * p->columns + j] = q;
        values[r] = (float)q * size;
        left[r] -= diagonal * values[r];
        if (p->coupled > 1) {
            const float *to = b->row_factor + r * p->coupled;
            float *error = b->errors + (size_t)j * TSR_LANES + r;
            *error += left[r] * (1.0f - b->spared[(size_t)j * p->columns + j]);
            for (size_t i = 0; i < r; i++) shift[i] += to[i] * *error;
        }
    }
}

/* left[k] -= sum over columns j of the panel [first, first + count) of factor[j][k] * values[j], for k < end. */
TSR_VECTORISED static void feed(const float *factor, size_t columns, size_t first, size_t count, size_t end,
                                const float *values, float *left) {
    enum { TALL = 4, WIDE = 32 };
    for (size_t k = 0; k < end; k += TALL) {
        const size_t tall = end - k < TALL ? end - k : TALL;
        for (size_t r = 0; r < TSR_LANES; r += WIDE) {
            float sum[TALL][WIDE] = {{0}};
            for (size_t j = 0; j < count; j++) {
                const float *row = factor + (first + j) * columns + k, *value = values + j * TSR_LANES + r;
                float a[TALL];
                for (size_t i = 0; i < TALL; i++) a[i] = i < tall ? row[i] : 0.0f;
                for (size_t i = 0; i < TALL; i++)
                    for (size_t l = 0; l < WIDE; l++) sum[i][l] += a[i] * value[l];
            }
            for (size_t i = 0; i < tall; i++)
                for (size_t l = 0; l < WIDE; l++) left[(k + i) * TSR_LANES + r + l] -= sum[i][l];
        }
    }
}

/* to[k] -= factor[j][k] * values, for first <= k < j. */
static void feed_within(const float *factor, size_t columns, size_t first, size_t j, const float *values, float *to) {
    for (size_t k = first; k < j; k++) {
        const float a = factor[j * columns + k];
        float *target = to + k * TSR_LANES;
        for (size_t r = 0; r < TSR_LANES; r++) target[r] -= a * values[r];
    }
}

/* One block of rows: `levels` is rows x columns. */
static void round_block(const block *b, float *values, int32_t *levels) {
    const size_t columns = b->problem->columns;
    const int coupled = b->problem->coupled > 1;
    for (size_t end = columns; end > 0;) {
        const size_t count = end < TSR_PANEL ? end : TSR_PANEL, first = end - count;
        memset(values, 0, count * TSR_LANES * sizeof *values);
        for (size_t j = end; j-- > first;) {
            float *value = values + (j - first) * TSR_LANES;
            round_column(b, (uint32_t)j, value, levels);
            feed_within(b->factor, columns, first, j, value, b->left);
            if (coupled) feed_within(b->spared, columns, first, j, b->left + j * TSR_LANES, b->errors);
        }
        feed(b->factor, columns, first, count, first, values, b->left);
        if (coupled) feed(b->spared, columns, first, count, first, b->left + first * TSR_LANES, b->errors);
        end = first;
    }
}

/* Rows x columns of a block to columns x TSR_LANES, and back. */
static void to_lanes(const float *rows, size_t lanes, size_t columns, float *to) {
    memset(to, 0, TSR_LANES * columns * sizeof *to);
    for (size_t r = 0; r < lanes; r++)
        for (size_t j = 0; j < columns; j++) to[j * TSR_LANES + r] = rows[r * columns + j];
}

static void from_lanes(const float *from, size_t lanes, size_t columns, float *rows) {
    for (size_t r = 0; r < lanes; r++)
        for (size_t j = 0; j < columns; j++) rows[r * columns + j] = from[j * TSR_LANES + r];
}

/* What the errors of rows from `end` to `last` add to the targets of a block from row `first` on. */
static void shift_by(const tsr_feedback *p, size_t first, size_t lanes, size_t end, size_t last, const float *errors,
                     float *values, float *shift) {
    for (size_t k = end; k < last; k += TSR_PANEL) {
        const size_t count = last - k < TSR_PANEL ? last - k : TSR_PANEL;
        memset(values, 0, count * TSR_LANES * sizeof *values);
        for (size_t i = 0; i < count; i++)
            for (size_t r = 0; r < lanes; r++)
                values[i * TSR_LANES + r] = -p->row_factor[(k + i) * p->coupled + first % p->coupled + r];
        feed(errors, p->columns, k, count, p->columns, values, shift);
    }
}

tsr_error tsr_feedback_round(const tsr_feedback *problem, size_t rows, float *residual, const float *row_step,
                             const float *row_weight, const uint8_t *row_class, float *errors, int32_t *levels,
                             float *scratch) {
    const size_t columns = problem->columns, coupled = problem->coupled;
    if (problem->classes == 0 || problem->limit < 0 || problem->group_rows == 0 || rows % problem->group_rows ||
        coupled == 0 || problem->group_rows % coupled)
        return TSR_ARGUMENT;
    const size_t together = coupled > 1 ? coupled : problem->group_rows, square = columns * columns;
    block b = {.problem = problem, .left = scratch};
    b.shift = b.left + TSR_LANES * columns;
    b.errors = b.shift + TSR_LANES * columns;
    float *values = b.errors + TSR_LANES * columns;
    for (size_t end = rows; end > 0; end -= b.lanes) {
        const size_t start = (end - 1) / together * together;
        b.lanes = end - start < TSR_LANES ? end - start : TSR_LANES;
        const size_t first = end - b.lanes, group = first / problem->group_rows;
        b.factor = problem->factor + group * square;
        b.row_step = row_step + first;
        b.row_weight = row_weight + first;
        b.row_class = row_class + first;
        to_lanes(residual + first * columns, b.lanes, columns, b.left);
        memset(b.shift, 0, TSR_LANES * columns * sizeof *b.shift);
        if (coupled > 1) {
            b.row_factor = problem->row_factor + first * coupled + first % coupled;
            b.spared = problem->spared + group * square;
            to_lanes(errors + first * columns, b.lanes, columns, b.errors);
            shift_by(problem, first, b.lanes, end, start + coupled, errors, values, b.shift);
        }
        round_block(&b, values, levels + first * columns);
        from_lanes(b.left, b.lanes, columns, residual + first * columns);
        if (coupled > 1) from_lanes(b.errors, b.lanes, columns, errors + first * columns);
    }
    return TSR_OK;
}

void tsr_feedback_count(size_t rows, size_t columns, const int32_t *levels, const uint8_t *row_class,
                        const uint8_t *column_class, uint32_t classes, int32_t limit, uint64_t *counts) {
    const size_t width = 2 * (size_t)limit + 1;
    for (size_t r = 0; r < rows; r++)
        for (size_t j = 0; j < columns; j++) {
            uint32_t class = (uint32_t)row_class[r] + column_class[j];
            int32_t q = levels[r * columns + j];
            q = q < -limit ? -limit : q > limit ? limit : q;
            counts[(class < classes ? class : classes - 1) * width + (size_t)(q + limit)]++;
        }
}
