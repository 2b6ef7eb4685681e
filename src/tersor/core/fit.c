/* Choosing a table for what was counted: its precision, and which rare values become patches. */
#include "bits.h"
#include "tersor.h"

#include <math.h>

enum {
    FEW = 256, /* symbols up to which the table of many values is searched for in fewer steps */
    WINDOWS = 5
};

#define LN_2 0.69314718055994530942
/* Share of the size that slots too wide for 32 bits must save: they take two look-ups a symbol instead of one. */
#define WIDE_PENALTY 1.5e-3
/* Share that each further bit of precision must save where slots are narrow: they leave the first-level cache. */
#define DEEP_PENALTY 7e-4

/* A stretch of counts that may become symbols. */
typedef struct {
    size_t first, end;
} window;

double tsr_table_payload(const tsr_table *table, const tsr_counted *c) {
    const int64_t offset = (int64_t)c->lowest - table->lowest; /* of the first count in the table */
    uint64_t inside = 0;
    double bits = 0;
    for (int64_t k = offset < 0 ? -offset : 0; k < (int64_t)c->size && k + offset < (int64_t)table->alphabet; k++) {
        const uint32_t frequency = table->frequency[k + offset];
        if (c->counts[k] == 0) continue;
        inside += c->counts[k];
        bits += (double)c->counts[k] * (frequency == 0 ? TSR_PATCH_BITS : table->precision - log2(frequency));
    }
    return bits + (double)(c->total - inside) * TSR_PATCH_BITS;
}

/* Where the stretch of TSR_MAX_ALPHABET counts that holds the most begins. */
static size_t densest(const tsr_counted *c) {
    uint64_t sum = 0, most = 0;
    size_t best = 0;
    for (size_t k = 0; k < c->size; k++) {
        sum += c->counts[k];
        if (k < TSR_MAX_ALPHABET - 1) continue;
        const size_t first = k - (TSR_MAX_ALPHABET - 1);
        if (sum > most) most = sum, best = first;
        sum -= c->counts[first];
    }
    return best;
}

/* All values, and those left when outer ones seen once, twice, ... become patches; returns how many windows there are. */
static size_t find_windows(const tsr_counted *c, window *windows) {
    static const uint64_t LEAST[WINDOWS] = {1, 2, 3, 5, 9};
    const int64_t farthest = INT64_C(1) << 30;
    size_t n = 0;
    window w = {0, c->size};
    for (size_t k = 0; k < WINDOWS; k++) {
        while (w.first < w.end && c->counts[w.first] < LEAST[k]) w.first++;
        while (w.first < w.end && c->counts[w.end - 1] < LEAST[k]) w.end--;
        if (w.first == w.end) break;
        window kept = w;
        if (kept.end - kept.first > TSR_MAX_ALPHABET) {
            kept.first = densest(c);
            kept.end = kept.first + TSR_MAX_ALPHABET;
        }
        const int64_t lowest = c->lowest + (int64_t)kept.first;
        const int known = n > 0 && windows[n - 1].first == kept.first && windows[n - 1].end == kept.end;
        if (!known && lowest >= -farthest && lowest <= farthest) windows[n++] = kept;
    }
    return n;
}

/* A table for a window and what it costs, in bytes and in the time of decoding; 0 if the precision has no room for that many.
 * Inner values become patches too where that costs less than the least frequency, which is taken from all others. */
static int try_window(tsr_table *table, double *cost, const tsr_counted *c, window w, uint32_t precision, uint32_t depth) {
    uint64_t kept[TSR_MAX_ALPHABET], most = 0;
    const uint64_t *counts = c->counts;
    size_t bits;
    for (size_t k = w.first; k < w.end; k++) most = counts[k] > most ? counts[k] : most;
    const double rare = (double)c->total / LN_2 / (double)(1u << precision) / (TSR_PATCH_BITS - precision);
    const double least = rare < (double)most ? rare : (double)most;
    while ((double)counts[w.first] < least) w.first++;
    while ((double)counts[w.end - 1] < least) w.end--;
    for (size_t k = w.first; k < w.end; k++) kept[k - w.first] = (double)counts[k] < least ? 0 : counts[k];
    table->precision = precision;
    table->lowest = (int32_t)(c->lowest + (int64_t)w.first);
    table->alphabet = (uint32_t)(w.end - w.first);
    if (tsr_table_round(table, kept) != TSR_OK || tsr_table_bits(table, &bits) != TSR_OK) return 0;
    const double share = !tsr_packs(precision, table->alphabet) ? WIDE_PENALTY : DEEP_PENALTY * depth;
    *cost = (tsr_table_payload(table, c) / 8 + (double)((bits + 7) / 8)) * (1 + (c->total >= TSR_MANY ? share : 0));
    return 1;
}

/* In large streams of few different symbols window and precision are chosen one after the other, for there they hardly depend on
 * each other. */
void tsr_table_fit(tsr_table *best, const tsr_counted *c, uint32_t first, uint32_t last) {
    window windows[WINDOWS];
    size_t from = 0, to = find_windows(c, windows);
    double lowest_cost = INFINITY;
    *best = (tsr_table){0, 1, first, {(uint16_t)(1u << first)}}; /* if nothing was counted */
    for (uint32_t precision = first; precision <= last; precision++) {
        tsr_table least, trial;
        double least_cost = INFINITY, cost;
        size_t chosen = from;
        for (size_t k = from; k < to; k++) { /* fewer and fewer symbols */
            if (!try_window(&trial, &cost, c, windows[k], precision, precision - first)) continue;
            if (cost >= least_cost) break;
            least = trial;
            least_cost = cost;
            chosen = k;
        }
        if (least_cost == INFINITY) continue;
        if (lowest_cost == INFINITY && least.alphabet <= FEW && c->total >= TSR_MANY) {
            from = chosen;
            to = chosen + 1;
        }
        if (least_cost >= lowest_cost) continue;
        *best = least;
        lowest_cost = least_cost;
    }
}

void tsr_entropies(const uint64_t *counts, size_t rows, size_t span, double *bits, uint64_t *present) {
    for (size_t row = 0; row < rows; row++, counts += span) {
        uint64_t total = 0;
        double sum = 0;
        present[row] = 0;
        for (size_t k = 0; k < span; k++) {
            if (counts[k] == 0) continue;
            total += counts[k];
            sum += (double)counts[k] * log2((double)counts[k]);
            present[row]++;
        }
        bits[row] = total > 0 ? (double)total * log2((double)total) - sum : 0;
    }
}
