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

/* Rounds column j: `left` becomes its error, `values` the rebuilt weights; levels stand a row apart. */
static void round_column(const block *b, uint32_t j, float *left, float *values, int32_t *levels) {
    const tsr_feedback *p = b->problem;
    const float diagonal = b->factor[(size_t)j * p->columns + j], step = p->column_step[j];
    const float scale = (diagonal * step) * (diagonal * step), fold = p->quadratic * step * step;
    const size_t width = 2 * (size_t)p->limit + 1;
    for (size_t r = 0; r < b->lanes; r++) {
        uint32_t class = (uint32_t)b->row_class[r] + p->column_class[j];
        if (class >= p->classes) class = p->classes - 1;
        const float size = b->row_step[r] * step, target = left[r] / (diagonal * size), weight = b->row_weight[r];
        const int32_t q =
            best_level(target, weight * scale, weight * fold, p->bits + class * width + p->limit, p->limit);
        levels[r * p->columns + j] = q;
        values[r] = (float)q * size;
        left[r] -= diagonal * values[r];
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

/* One block of rows: `left` is columns x TSR_LANES, `levels` rows x columns. */
static void round_block(const block *b, float *left, float *values, int32_t *levels) {
    const size_t columns = b->problem->columns;
    const float *factor = b->factor;
    for (size_t end = columns; end > 0;) {
        const size_t count = end < TSR_PANEL ? end : TSR_PANEL, first = end - count;
        memset(values, 0, count * TSR_LANES * sizeof *values);
        for (size_t j = end; j-- > first;) {
            float *value = values + (j - first) * TSR_LANES;
            round_column(b, (uint32_t)j, left + j * TSR_LANES, value, levels);
            for (size_t k = first; k < j; k++) {
                const float a = factor[j * columns + k];
                float *target = left + k * TSR_LANES;
                for (size_t r = 0; r < TSR_LANES; r++) target[r] -= a * value[r];
            }
        }
        feed(factor, columns, first, count, first, values, left);
        end = first;
    }
}

tsr_error tsr_feedback_round(const tsr_feedback *problem, size_t rows, float *residual, const float *row_step,
                             const float *row_weight, const uint8_t *row_class, int32_t *levels, float *scratch) {
    const size_t columns = problem->columns;
    if (problem->classes == 0 || problem->limit < 0 || problem->group_rows == 0 || rows % problem->group_rows)
        return TSR_ARGUMENT;
    float *left = scratch, *values = left + TSR_LANES * columns;
    for (size_t first = 0, lanes; first < rows; first += lanes) {
        const size_t group = first / problem->group_rows, end = (group + 1) * problem->group_rows;
        lanes = end - first < TSR_LANES ? end - first : TSR_LANES;
        const block b = {problem,         problem->factor + group * columns * columns, lanes, row_step + first,
                         row_weight + first, row_class + first};
        float *own = residual + first * columns;
        memset(left, 0, TSR_LANES * columns * sizeof *left);
        for (size_t r = 0; r < lanes; r++)
            for (size_t j = 0; j < columns; j++) left[j * TSR_LANES + r] = own[r * columns + j];
        round_block(&b, left, values, levels + first * columns);
        for (size_t r = 0; r < lanes; r++)
            for (size_t j = 0; j < columns; j++) own[r * columns + j] = left[j * TSR_LANES + r];
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
