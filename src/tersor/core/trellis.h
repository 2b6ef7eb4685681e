/* Dependent quantization of one column: the path through the trellis of spec/FORMAT.md, section 7.5. C11, no allocation. */
#ifndef TERSOR_TRELLIS_H
#define TERSOR_TRELLIS_H

#include "tersor.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { TSR_STATES = 8 };

/* A column of `rows` weights whose targets are in steps. Row r is word first + r * row_length of the tensor; states start
 * again with every `chunk` words. */
typedef struct {
    size_t rows;
    const float *target;
    const float *weight;         /* price of a squared step, by row */
    const float *fold;           /* of it, what is paid in advance for a squared value */
    const uint8_t *row_class;
    uint32_t column_class, classes;
    const float *bits;           /* classes x (2 limit + 1): price of every level */
    int32_t limit;               /* beyond, a level costs what the limit does */
    uint64_t first, row_length, chunk;
} tsr_column;

/* What one row leaves behind for the way back. */
typedef struct {
    int32_t level[4], value[4];  /* the best of quantizer k / 2 and parity k % 2 */
    uint8_t before[TSR_STATES];  /* the state from which each state is reached best */
} tsr_node;

/* Levels and their values, in steps, that minimise the sum over rows of
 *     weight (target - value)^2 - fold value^2 + bits[class][level]
 * of all paths, by the algorithm of Viterbi. Of each parity and quantizer the value next to the target, its neighbours and
 * the smallest are considered. `nodes` has room for all rows. */
tsr_error tsr_trellis_round(const tsr_column *column, int32_t *levels, int32_t *values, tsr_node *nodes);

#ifdef __cplusplus
}
#endif
#endif
