/* What the encoder counts to choose tables: by row and column (section 6.4), by the level before (section 6.6). */
#include "bits.h"
#include "rans.h"

/* -- classes of rows and columns (section 6.4) ----------------------------------------------------------------------- */

/* Calls for the stretches of a row among n symbols from number `first` on: i is where one starts, run its length. */
#define FOR_ROWS(n, first, columns)                                                                                       \
    for (uint64_t i = 0, row = (first) / (columns), column = (first) % (columns), run;                                \
         i < (n) && (run = (columns) - column < (n)-i ? (columns) - column : (n)-i, 1); i += run, row++, column = 0)

TSR_VECTORISED void tsr_magnitudes(const int32_t *values, size_t n, uint64_t first, uint64_t columns, double *rows, double *sums) {
    FOR_ROWS(n, first, columns) {
        uint64_t total = 0; /* sums of integers may be taken in any order, by vectors */
        for (uint64_t k = 0; k < run; k++) {
            uint32_t size = values[i + k] < 0 ? 0u - (uint32_t)values[i + k] : (uint32_t)values[i + k];
            total += size;
            sums[column + k] += (double)size;
        }
        rows[row] += (double)total;
    }
}

uint64_t tsr_class_histogram(const int32_t *values, size_t n, uint64_t first, uint64_t columns, const uint8_t *row_class,
                             const uint8_t *column_class, uint32_t classes, int32_t lowest, uint32_t span, uint64_t *counts) {
    uint64_t outside = 0;
    FOR_ROWS(n, first, columns) {
        const size_t above = (size_t)row_class[row] * classes;
        for (uint64_t k = 0; k < run; k++) {
            uint32_t symbol = (uint32_t)values[i + k] - (uint32_t)lowest;
            if (symbol < span) counts[span * (above + column_class[column + k]) + symbol]++;
            else outside++;
        }
    }
    return outside;
}

/* n levels of one row, by the class of their columns if there are `classes`; two sets of counters, for neighbours are often equal. */
static inline void count_row(const int32_t *values, size_t n, const uint8_t *classes, int32_t lowest, uint32_t span, uint32_t all,
                             float *counts) {
    enum { FEW = 512 };
    uint32_t sets[2][FEW + 1]; /* the last counts what lies outside */
    const int few = all <= FEW && n >= all;
    if (few) memset(sets[0], 0, (all + 1) * sizeof **sets), memset(sets[1], 0, (all + 1) * sizeof **sets);
    size_t k = 0;
    for (; few && k + 4 <= n; k += 4) {
        for (size_t i = k; i < k + 4; i++) {
            uint32_t symbol = (uint32_t)values[i] - (uint32_t)lowest;
            sets[i % 2][symbol < span ? symbol + (classes ? span * classes[i] : 0) : all]++;
        }
    }
    for (uint32_t s = 0; few && s < all; s++) counts[s] += (float)(sets[0][s] + sets[1][s]);
    for (; k < n; k++) {
        uint32_t symbol = (uint32_t)values[k] - (uint32_t)lowest;
        if (symbol < span) counts[symbol + (classes ? span * classes[k] : 0)] += 1;
    }
}

TSR_VECTORISED void tsr_side_histogram(const int32_t *values, size_t n, uint64_t first, uint64_t columns, const uint8_t *other, uint32_t classes,
                        int by_row, int32_t lowest, uint32_t span, float *counts) {
    const uint32_t all = classes * span;
    FOR_ROWS(n, first, columns) {
        if (by_row) {
            count_row(values + i, (size_t)run, classes > 1 ? other + column : NULL, lowest, span, all, counts + row * all);
            continue;
        }
        float *mine = counts + column * all + span * other[row];
        for (uint64_t k = 0; k < run; k++) {
            uint32_t symbol = (uint32_t)values[i + k] - (uint32_t)lowest;
            if (symbol < span) mine[k * all + symbol] += 1;
        }
    }
}

TSR_VECTORISED void tsr_add_by_class(const float *counts, size_t members, uint32_t span, const uint8_t *class, uint64_t *sums) {
    for (size_t k = 0; k < members; k++) {
        const float *mine = counts + k * span;
        uint64_t *sum = sums + (size_t)class[k] * span;
        for (uint32_t symbol = 0; symbol < span; symbol++) sum[symbol] += (uint64_t)mine[symbol];
    }
}

/* Which counter each level of a whole block has; `before`, the last level of each lane, moves on. */
TSR_VECTORISED static void find_counters(const int32_t *values, uint32_t lanes, uint32_t contexts, uint32_t reach, int32_t *before,
                                         uint32_t *counters) {
    const uint32_t run = TSR_BLOCK / lanes, span = 2 * reach + 1;
    for (size_t i = 1; i < TSR_BLOCK; i++)
        counters[i] = span * tsr_context(values[i - 1], contexts) + reach + (uint32_t)tsr_turned(values[i], values[i - 1]);
    for (size_t lane = 0, i = 0; lane < lanes; lane++, i += run) {
        counters[i] = span * tsr_context(before[lane], contexts) + reach + (uint32_t)tsr_turned(values[i], before[lane]);
        before[lane] = values[i + run - 1];
    }
}

void tsr_context_histogram(const int32_t *values, size_t n, uint32_t lanes, uint32_t contexts, uint32_t reach, uint64_t *counts) {
    enum { SETS = 4 }; /* of counters: neighbours are often equal */
    int32_t before[TSR_MAX_LANES] = {0};
    uint32_t counters[TSR_BLOCK];
    const size_t span = 2 * (size_t)reach + 1, all = span * contexts;
    size_t i = 0;
    for (; i + TSR_BLOCK <= n; i += TSR_BLOCK) {
        find_counters(values + i, lanes, contexts, reach, before, counters);
        for (size_t k = 0; k < TSR_BLOCK; k += SETS) {
            __builtin_prefetch(values + i + TSR_BLOCK + k);
            for (size_t set = 0; set < SETS; set++) counts[all * set + counters[k + set]]++;
        }
    }
    const size_t run = (n - i) / lanes, whole = i + run * lanes;
    for (size_t lane = 0; i < n; lane++) {
        const size_t behind = i + (i < whole ? run : 1); /* the last few have a lane each */
        int32_t last = before[lane % lanes];
        for (; i < behind; i++) {
            counts[span * tsr_context(last, contexts) + reach + (size_t)tsr_turned(values[i], last)]++;
            last = values[i];
        }
        before[lane % lanes] = last;
    }
    for (size_t k = 0; k < all; k++) counts[k] += counts[all + k] + counts[2 * all + k] + counts[3 * all + k];
}

/* n floats of `bits` added to `costs`. */
static inline void add_costs(float *costs, const float *bits, uint32_t n) {
    for (uint32_t s = 0; s < n; s++) costs[s] += bits[s];
}

TSR_VECTORISED void tsr_class_costs(const int32_t *values, size_t n, uint64_t first, uint64_t columns, const uint8_t *other, int by_row,
                                    int32_t lowest, uint32_t span, const float *bits, uint32_t tables, uint32_t classes,
                                    float *costs) {
    FOR_ROWS(n, first, columns) {
        for (uint64_t k = 0; k < run; k++) {
            uint32_t symbol = (uint32_t)values[i + k] - (uint32_t)lowest;
            if (symbol >= span) continue;
            uint64_t mine = by_row ? row : column + k, its = by_row ? column + k : row;
            add_costs(costs + mine * classes, bits + (size_t)symbol * tables + other[its], classes);
        }
    }
}
