/* Entropy-constrained rounding with error feedback: the inner loop of second-order quantization. C11, no allocation. */
#ifndef TERSOR_FEEDBACK_H
#define TERSOR_FEEDBACK_H

#include "tersor.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TSR_LANES = 64, /* rows that are rounded side by side */
    TSR_PANEL = 64  /* columns after which the error of all of them is fed to the columns before */
};

/* What does not change from row to row. Columns are rounded last to first. */
typedef struct {
    uint32_t columns;
    size_t group_rows;           /* every so many rows have a factor of their own */
    const float *factor;         /* groups x columns x columns, lower triangular: Cholesky factors of the covariances */
    const float *column_step;    /* a level q is rebuilt as q * column_step * row_step */
    const uint8_t *column_class;
    const float *bits;           /* classes x (2 limit + 1): price of every level, in the unit of row_weight */
    uint32_t classes;
    int32_t limit;               /* beyond, a level costs what the limit does */
    float quadratic;             /* part of the price that is folded into the factor, per squared column_step */
    size_t coupled;              /* every so many rows of a group feed their errors to each other; 1: none do */
    const float *row_factor;     /* rows x coupled, unit lower triangles: M_ki / M_ii of the Cholesky factors M of the
                                  * Fisher information of such rows' outputs. Rows are rounded last to first. */
    const float *spared;         /* groups x columns x columns, if rows are coupled: quadratic (factor' factor)^-1, the
                                  * part of an error that the price would have made of it anyway */
} tsr_feedback;

/* Rounds `rows` rows. `residual` (rows x columns) holds the target weights times the factor; on return, what is left of
 * it: the error that no column could take. Minimises, column after column,
 *     row_weight * ((factor_jj column_step)^2 (t - q)^2 - quadratic column_step^2 q^2) + bits[class][q]
 * over the level nearest to the target t, its two neighbours, and zero. The class of a weight is the sum of its row's and
 * its column's, at most classes - 1. If rows are coupled, `errors` (rows x columns) holds `residual` times `spared`, the
 * errors that are expected, and on return those that were made, each of which was added to the targets of the rows of its
 * block that came later. `scratch` has room for TSR_LANES x (3 columns + TSR_PANEL) floats. */
tsr_error tsr_feedback_round(const tsr_feedback *problem, size_t rows, float *residual, const float *row_step,
                             const float *row_weight, const uint8_t *row_class, float *errors, int32_t *levels,
                             float *scratch);

/* Counts levels (rows x columns) class by class into counts (classes x (2 limit + 1)), clamped to the limit. */
void tsr_feedback_count(size_t rows, size_t columns, const int32_t *levels, const uint8_t *row_class,
                        const uint8_t *column_class, uint32_t classes, int32_t limit, uint64_t *counts);

#ifdef __cplusplus
}
#endif
#endif
