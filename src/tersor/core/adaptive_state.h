/* What coder `adaptive` knows while it works on a chunk: models, mixers, neighbours (spec/ADAPTIVE.md). For adaptive.c alone. */
#ifndef TERSOR_ADAPTIVE_STATE_H
#define TERSOR_ADAPTIVE_STATE_H

#include "adaptive.h"

enum {
    MODELS = 3,                 /* adaptive models a decision */
    INPUTS = 16,                /* of a mixer: two estimates a model, a constant, logarithms, the prediction */
    NODES = 48,                 /* kinds of decisions */
    CONTEXTS = 80 + 1024 + 512, /* of the three models together */
    TAPS = 16,                  /* neighbours the prediction is made from */
    MOST_COUNT = 1023,          /* estimates learn at 1 / (count + 3/2), no slower than at this count */
    FAST_COUNT = 23,            /* the same for the second, faster estimate */
    FARTHEST = 4095,            /* larger magnitudes look like this one to the models */
    LIMIT = 3071,               /* of logits, in 1/256 */
    MOST_COLUMNS = 65536,
    MOST_PERIOD = 4096,
    ZERO = 0, SIGN = 1, MORE = 2, LOW = 17, /* numbers of nodes: x != 0, x < 0, class above k, low bits of a class */
    LAST_CLASS = 62             /* magnitudes of at least 2^31 */
};

typedef struct {
    int32_t slow;   /* probability of a one, less 1/2, in 2^-32: zeroed memory is where estimates start */
    int16_t fast;   /* the same in 2^-16 */
    uint16_t count; /* decisions seen */
} estimate;

typedef struct {
    int32_t weight[INPUTS]; /* in 2^-20 */
    uint32_t count;
} mixer;

typedef struct {
    uint32_t sum, count; /* of magnitudes, in 1/256 */
} average;

typedef struct {
    average size;
    int32_t sum; /* of values */
} column_state;

/* Neighbours, magnitudes so far, and what follows from them for the next symbol. */
typedef struct {
    uint32_t columns, period;       /* of a row; of the kernel position, 0 if there is none */
    uint32_t column, in_row;        /* of the next symbol; symbols of this row in this chunk */
    uint64_t row_sum, row_expected; /* magnitudes of this row: found, and expected by their columns */
    uint32_t recent;                /* moving average of magnitudes in 1/256 */
    average all;
    column_state *columns_so_far;
    int16_t *row[3];                /* values of this row and the two above it, zeros around them */
    int32_t tap[TAPS], tap_weight[TAPS], prediction;
    uint32_t expected;              /* magnitude in 1/256 */
} surroundings;

struct tsr_adaptive {
    const uint8_t *data, *end;
    uint8_t *out;
    uint64_t position, count;
    uint32_t low, high, code;
    int32_t centre;
    int failed; /* bytes were missing */
    tsr_type type;
    surroundings near;
    int32_t input[INPUTS];
    estimate *chosen[MODELS];
    mixer mixers[2 * NODES];
    int16_t stretch[4096];
    uint16_t squash[2 * LIMIT + 1];
    uint16_t rate[MOST_COUNT + 1], trust[MOST_COUNT + 1];
    estimate estimates[CONTEXTS * NODES];
};

#endif
