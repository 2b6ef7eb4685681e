/* Dependent quantization of one column; see trellis.h. */
#include "trellis.h"

#include <math.h>

/* State t with a level of parity p is followed by NEXT[t][p]; its quantizer is t % 2. */
static const uint8_t NEXT[TSR_STATES][2] = {{0, 2}, {7, 5}, {1, 3}, {6, 4}, {2, 0}, {5, 7}, {3, 1}, {4, 6}};

/* Price of the best level of quantizer k / 2 and parity k % 2 in row r. Values of one kind are 4 steps apart. */
static double best_of_kind(const tsr_column *c, size_t r, int32_t k, const float *price, tsr_node *node) {
    const int32_t quantizer = k >> 1, parity = k & 1, limit = c->limit;
    const float most = 4194304.0f, target = c->target[r];
    float size = fabsf(target);
    size = size < most ? size : most;
    const int32_t sign = target < 0 ? -1 : 1;
    const int32_t nearest = (int32_t)((size - (float)(2 * parity - quantizer)) / 4 + 0.5f);
    float lowest = INFINITY;
    for (int32_t n = nearest > 1 ? nearest - 2 : -1; n <= nearest + 1; n++) {
        const int32_t m = n == nearest - 2 || n < 0 ? 0 : n; /* the smallest value first */
        const int32_t level = 2 * m + parity, value = 2 * level - (level > 0 ? quantizer : 0);
        const float error = size - (float)value;
        const float cost = c->weight[r] * error * error - c->fold[r] * (float)value * (float)value +
                           price[sign * (level < limit ? level : limit)];
        if (cost < lowest) {
            lowest = cost;
            node->level[k] = sign * level;
            node->value[k] = sign * value;
        }
    }
    return (double)lowest;
}

/* One row: from the costs of the states before it to those after it. */
static void advance(const tsr_column *c, size_t r, double *costs, tsr_node *node) {
    uint32_t class = (uint32_t)c->row_class[r] + c->column_class;
    if (class >= c->classes) class = c->classes - 1;
    const float *price = c->bits + (size_t)class * (2 * (size_t)c->limit + 1) + c->limit;
    double kinds[4], after[TSR_STATES];
    for (int32_t k = 0; k < 4; k++) kinds[k] = best_of_kind(c, r, k, price, node);
    for (int t = 0; t < TSR_STATES; t++) {
        after[t] = INFINITY;
        node->before[t] = 0;
    }
    for (uint8_t t = 0; t < TSR_STATES; t++)
        for (int parity = 0; parity < 2; parity++) {
            const uint8_t next = NEXT[t][parity];
            const double cost = costs[t] + kinds[2 * (t & 1) + parity];
            if (cost < after[next]) {
                after[next] = cost;
                node->before[next] = t;
            }
        }
    for (int t = 0; t < TSR_STATES; t++) costs[t] = after[t];
}

tsr_error tsr_trellis_round(const tsr_column *c, int32_t *levels, int32_t *values, tsr_node *nodes) {
    if (c->classes == 0 || c->limit < 0 || c->chunk == 0 || c->row_length == 0) return TSR_ARGUMENT;
    for (size_t start = 0, end; start < c->rows; start = end) {
        const uint64_t chunk = (c->first + start * c->row_length) / c->chunk;
        double costs[TSR_STATES] = {0, INFINITY, INFINITY, INFINITY, INFINITY, INFINITY, INFINITY, INFINITY};
        for (end = start; end < c->rows && (c->first + end * c->row_length) / c->chunk == chunk; end++)
            advance(c, end, costs, nodes + end);
        uint8_t state = 0;
        for (uint8_t t = 1; t < TSR_STATES; t++)
            if (costs[t] < costs[state]) state = t;
        for (size_t r = end; r-- > start;) {
            const uint8_t before = nodes[r].before[state];
            const int kind = 2 * (before & 1) + (NEXT[before][1] == state);
            levels[r] = nodes[r].level[kind];
            values[r] = nodes[r].value[kind];
            state = before;
        }
    }
    return TSR_OK;
}
