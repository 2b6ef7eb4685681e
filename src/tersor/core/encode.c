/* Encoding: entropy-constrained rounding, histograms, frequency tables, interleaved rANS, byte planes. */
#include "bits.h"
#include "rans.h"
#include "runs.h"

#include <math.h>
#include <string.h>

/* -- rounding and counting ---------------------------------------------------------------------------------------- */

TSR_VECTORISED void tsr_quantize(const float *weights, size_t n, float step, const float *bits, int32_t limit, int32_t *levels) {
    const float inverse = 1.0f / step, most = 16777216.0f;
    const float *price = bits + limit;
    for (size_t i = 0; i < n; i++) {
        float target = weights[i] * inverse, size = fabsf(target);
        size = size < most ? size : most;
        int32_t sign = target < 0 ? -1 : 1, nearest = (int32_t)(size + 0.5f), lower = nearest - (nearest > 0);
        int32_t a = nearest < limit ? nearest : limit, b = lower < limit ? lower : limit;
        float error = size - (float)nearest, lower_error = size - (float)lower;
        float cost = error * error + price[sign * a], lower_cost = lower_error * lower_error + price[sign * b];
        float zero_cost = size * size + price[0];
        int32_t best = lower_cost < cost ? lower : nearest;
        float best_cost = lower_cost < cost ? lower_cost : cost;
        levels[i] = zero_cost < best_cost ? 0 : sign * best;
    }
}

TSR_VECTORISED void tsr_minmax(const int32_t *values, size_t n, int32_t *smallest, int32_t *largest) {
    int32_t low = values[0], high = values[0];
    for (size_t i = 1; i < n; i++) {
        low = values[i] < low ? values[i] : low;
        high = values[i] > high ? values[i] : high;
    }
    *smallest = low;
    *largest = high;
}

/* Whether few of the first values are not zero. */
static int looks_sparse(const int32_t *values, size_t n) {
    enum { SAMPLE = 4096, MOST = SAMPLE / 32 };
    size_t levels = 0;
    for (size_t i = 0; n >= SAMPLE && i < SAMPLE; i++) levels += values[i] != 0;
    return n >= SAMPLE && levels <= MOST;
}

/* The same as tsr_histogram, into zeroed counts: zeros, one of the values counted, are met many at a time. */
static uint64_t count_sparse(const int32_t *values, size_t n, int32_t lowest, uint32_t alphabet, uint64_t *counts) {
    uint64_t outside = 0, zeros = n;
    for (size_t i = tsr_next_level(values, 0, n); i < n; i = tsr_next_level(values, i + 1, n), zeros--) {
        uint32_t symbol = (uint32_t)values[i] - (uint32_t)lowest;
        if (symbol < alphabet) counts[symbol]++;
        else outside++;
    }
    counts[0u - (uint32_t)lowest] += zeros;
    return outside;
}

enum { SETS = 8 /* of counters: neighbouring equal values would wait for each other's store */, NARROW = 1024, AHEAD = 1024 };

/* Counts n < 2^32 values; the last counter of each set is for what lies outside. */
static void count_narrow(const int32_t *values, size_t n, int32_t lowest, uint32_t alphabet, uint32_t (*sets)[NARROW + 1]) {
    size_t i = 0;
    for (; i + SETS <= n; i += SETS) {
        __builtin_prefetch(values + i + AHEAD); /* processors start too late where each value takes some work */
        for (size_t k = 0; k < SETS; k++) {
            uint32_t symbol = (uint32_t)values[i + k] - (uint32_t)lowest;
            sets[k][symbol < alphabet ? symbol : alphabet]++;
        }
    }
    for (; i < n; i++) {
        uint32_t symbol = (uint32_t)values[i] - (uint32_t)lowest;
        sets[0][symbol < alphabet ? symbol : alphabet]++;
    }
}

enum { PAIRED = 64, HALF = 256, PAIR_SETS = 4 };

/* Which pair value i and value i + HALF are; 0 if one is not among the PAIRED values around zero. */
TSR_VECTORISED static int find_pairs(const int32_t *values, uint16_t *pairs) {
    uint32_t all = 0;
    for (size_t i = 0; i < HALF; i++) {
        uint32_t a = (uint32_t)values[i] + PAIRED / 2, b = (uint32_t)values[i + HALF] + PAIRED / 2;
        all |= a | b;
        pairs[i] = (uint16_t)(a * PAIRED + b);
    }
    return all < PAIRED;
}

/* The same, two values at once where both are near zero, all of which have counters. */
static void count_pairs(const int32_t *values, size_t n, int32_t lowest, uint32_t alphabet, uint32_t (*sets)[NARROW + 1]) {
    uint32_t found[PAIR_SETS][PAIRED * PAIRED], *near = sets[0] + (-PAIRED / 2 - lowest);
    uint16_t pairs[HALF];
    size_t i = 0;
    memset(found, 0, sizeof found);
    for (; i + 2 * HALF <= n; i += 2 * HALF) {
        if (!find_pairs(values + i, pairs)) {
            count_narrow(values + i, 2 * HALF, lowest, alphabet, sets);
            continue;
        }
        for (size_t k = 0; k < HALF; k += PAIR_SETS) {
            __builtin_prefetch(values + i + AHEAD + 2 * k);
            for (size_t set = 0; set < PAIR_SETS; set++) found[set][pairs[k + set]]++;
        }
    }
    count_narrow(values + i, n - i, lowest, alphabet, sets);
    for (size_t a = 0; a < PAIRED; a++) {
        for (size_t b = 0; b < PAIRED; b++) {
            for (size_t set = 0; set < PAIR_SETS; set++) {
                near[a] += found[set][PAIRED * a + b];
                near[b] += found[set][PAIRED * a + b];
            }
        }
    }
}

uint64_t tsr_histogram(const int32_t *values, size_t n, int32_t lowest, uint32_t alphabet, uint64_t *counts) {
    enum { RUN = 1 << 30, WORTH = 1 << 15 /* values: fewer take less time than the sum over pairs */ };
    uint64_t outside = 0;
    memset(counts, 0, 2 * (size_t)alphabet * sizeof *counts);
    if (0u - (uint32_t)lowest < alphabet && looks_sparse(values, n)) return count_sparse(values, n, lowest, alphabet, counts);
    if (alphabet <= NARROW) {
        const int paired = lowest <= -PAIRED / 2 && lowest + (int32_t)alphabet >= PAIRED / 2;
        uint32_t sets[SETS][NARROW + 1];
        for (size_t start = 0; start < n; start += RUN) {
            const size_t part = n - start < RUN ? n - start : RUN;
            for (int k = 0; k < SETS; k++) memset(sets[k], 0, (alphabet + 1) * sizeof **sets);
            (paired && part >= WORTH ? count_pairs : count_narrow)(values + start, part, lowest, alphabet, sets);
            for (int k = 0; k < SETS; k++) {
                for (uint32_t symbol = 0; symbol < alphabet; symbol++) counts[symbol] += sets[k][symbol];
                outside += sets[k][alphabet];
            }
        }
        return outside;
    }
    uint64_t *odd = counts + alphabet;
    for (size_t i = 0; i < n; i++) {
        uint32_t symbol = (uint32_t)values[i] - (uint32_t)lowest;
        if (symbol < alphabet) (i & 1 ? odd : counts)[symbol]++;
        else outside++;
    }
    for (uint32_t k = 0; k < alphabet; k++) counts[k] += odd[k];
    return outside;
}

/* -- tables -------------------------------------------------------------------------------------------------------- */

enum { DESCENDED = 256 }; /* largest alphabet whose frequencies are searched: larger ones have smaller errors */

static int32_t frequency_code(uint32_t frequency) {
    uint32_t exponent = 0;
    while (frequency >> exponent >= 32) exponent++;
    return (int32_t)(frequency < 32 ? frequency : 16 * exponent + (frequency >> exponent));
}

/* Nearest code of a frequency, at least 1. */
static uint32_t nearest_code(double frequency, uint32_t largest) {
    uint32_t low = 1, high = largest;
    while (low < high) { /* first code whose frequency is not below */
        uint32_t middle = (low + high) / 2;
        if (code_frequency(middle) < frequency) low = middle + 1;
        else high = middle;
    }
    if (low > 1 && frequency - code_frequency(low - 1) < code_frequency(low) - frequency) low--;
    return low;
}

/* Moves single frequencies to the neighbouring code, all symbols once, while that brings the mode closer to its ideal. */
static void balance(tsr_table *table, const uint64_t *counts, uint32_t mode, double scale, double ideal_mode, int64_t *rest) {
    const uint32_t largest = (uint32_t)largest_code(table->precision);
    for (uint32_t k = 0; k < table->alphabet; k++) {
        double error = (double)*rest - ideal_mode;
        uint32_t frequency = table->frequency[k], code = (uint32_t)frequency_code(frequency);
        if (k == mode || frequency == 0 || error == 0) continue;
        int rounded_up = frequency > scale * (double)counts[k];
        if (error < 0 ? code == 1 || (!rounded_up && *rest > 0) : code == largest || rounded_up) continue;
        uint32_t moved = code_frequency(error < 0 ? code - 1 : code + 1);
        double after = error + (double)frequency - (double)moved;
        if (fabs(after) >= fabs(error)) continue;
        *rest += (int64_t)frequency - (int64_t)moved;
        table->frequency[k] = (uint16_t)moved;
    }
}

/* Moves single frequencies to a neighbouring code while that makes the message shorter; the mode gives or takes the difference.
 * Returns whether there was one to move. */
static int descend(tsr_table *table, const uint64_t *counts, uint32_t mode, int64_t *rest) {
    const uint32_t largest = (uint32_t)largest_code(table->precision);
    int found = 0;
    for (uint32_t k = 0; k < table->alphabet; k++) {
        uint32_t frequency = table->frequency[k], code = (uint32_t)frequency_code(frequency);
        if (k == mode || frequency == 0) continue;
        for (int up = 0; up < 2; up++) {
            if (up ? code == largest : code == 1) continue;
            uint32_t moved = code_frequency(up ? code + 1 : code - 1);
            int64_t left = *rest + (int64_t)frequency - (int64_t)moved;
            if (left < 1) continue;
            double gain = (double)counts[k] * log2((double)moved / frequency) + (double)counts[mode] * log2((double)left / (double)*rest);
            if (gain <= 0) continue;
            *rest = left;
            table->frequency[k] = (uint16_t)moved;
            found = 1;
            break;
        }
    }
    return found;
}

tsr_error tsr_table_round(tsr_table *table, const uint64_t *counts) {
    uint64_t total = 0;
    uint32_t mode = 0;
    for (uint32_t k = 0; k < table->alphabet; k++) {
        total += counts[k];
        if (counts[k] > counts[mode]) mode = k;
    }
    if (total == 0) return TSR_TABLE;
    double scale = (double)(UINT32_C(1) << table->precision) / (double)total;
    int64_t rest = INT64_C(1) << table->precision;
    for (uint32_t k = 0; k < table->alphabet; k++) {
        table->frequency[k] = 0;
        if (k == mode || counts[k] == 0) continue;
        uint32_t code = nearest_code((double)counts[k] * scale, (uint32_t)largest_code(table->precision));
        table->frequency[k] = (uint16_t)code_frequency(code);
        rest -= table->frequency[k];
    }
    for (int pass = 0; pass < 4; pass++) balance(table, counts, mode, scale, (double)counts[mode] * scale, &rest);
    if (rest < 1) return TSR_TABLE;
    for (int pass = 0; pass < 4 && table->alphabet <= DESCENDED; pass++)
        if (!descend(table, counts, mode, &rest)) break;
    table->frequency[mode] = (uint16_t)rest;
    return TSR_OK;
}

typedef struct {
    uint8_t *data; /* NULL: only counts */
    size_t bits, position;
    int failed;
} bit_writer;

static void write_bits(bit_writer *w, uint32_t x, uint32_t n) {
    if (n > w->bits - w->position) {
        w->failed = 1;
        return;
    }
    for (uint32_t i = 0; w->data != NULL && i < n; i++) {
        const size_t at = w->position + i;
        if (x >> i & 1) w->data[at >> 3] |= (uint8_t)(1u << (at & 7));
    }
    w->position += n;
}

static void write_unary(bit_writer *w, uint32_t n) {
    for (; n > 31; n -= 31) write_bits(w, INT32_MAX, 31);
    write_bits(w, (1u << n) - 1, n + 1);
}

static void write_golomb(bit_writer *w, uint32_t x, uint32_t order) {
    uint64_t shifted = (uint64_t)x + (UINT64_C(1) << order);
    uint32_t width = order;
    while (shifted >> (width + 1)) width++;
    if (width > 31) {
        w->failed = 1;
        return;
    }
    write_unary(w, width - order);
    write_bits(w, (uint32_t)(shifted - (UINT64_C(1) << width)), width);
}

/* What is written for every symbol but the mode, from the mode outwards, first to one side and then to the other. */
static void find_residuals(const tsr_table *table, uint32_t order, uint32_t mode, uint32_t *residuals) {
    const int32_t largest = largest_code(table->precision);
    for (int side = -1; side <= 1; side += 2) {
        int32_t previous = starting_code(table->precision), before = previous;
        const uint32_t n = side < 0 ? mode : table->alphabet - 1 - mode;
        for (uint32_t i = 1; i <= n; i++) {
            int32_t code = frequency_code(table->frequency[side < 0 ? mode - i : mode + i]);
            *residuals++ = zigzag(code - predict(order, previous, before, largest));
            before = previous;
            previous = code;
        }
    }
}

/* The order of prediction and the Rice parameter with which residuals take the fewest bits; how many that is. */
static size_t choose_code(const tsr_table *table, uint32_t mode, uint32_t *best_order, uint32_t *best_rice) {
    uint32_t residuals[TSR_MAX_ALPHABET];
    size_t best = SIZE_MAX;
    for (uint32_t order = 0; order < 2; order++) {
        find_residuals(table, order, mode, residuals);
        for (uint32_t rice = 0; rice < 8; rice++) {
            size_t bits = (size_t)(rice + 1) * (table->alphabet - 1);
            for (uint32_t i = 0; i < table->alphabet - 1; i++) bits += residuals[i] >> rice;
            if (bits >= best) continue;
            best = bits;
            *best_order = order;
            *best_rice = rice;
        }
    }
    return best;
}

/* All that comes before the residuals. */
static void write_head(bit_writer *w, const tsr_table *table, uint32_t mode, uint32_t order, uint32_t rice) {
    write_bits(w, table->precision - TSR_MIN_PRECISION, 3);
    write_golomb(w, zigzag(table->lowest), 4);
    write_golomb(w, table->alphabet - 1, 4);
    write_golomb(w, mode, 3);
    if (table->alphabet == 1) return;
    write_bits(w, order, 1);
    write_bits(w, rice, 3);
}

/* The mode takes what the others leave: the largest frequency, or the only one that no code stands for. */
static tsr_error choose_mode(const tsr_table *table, uint32_t *mode) {
    uint32_t largest = 0, sum = 0, odd = 0;
    for (uint32_t k = 0; k < table->alphabet; k++) {
        uint32_t frequency = table->frequency[k];
        sum += frequency;
        if (frequency > table->frequency[largest]) largest = k;
        if (code_frequency((uint32_t)frequency_code(frequency)) == frequency) continue;
        odd++;
        *mode = k;
    }
    if (odd == 0) *mode = largest;
    return odd > 1 || sum != UINT32_C(1) << table->precision ? TSR_TABLE : TSR_OK;
}

tsr_error tsr_table_bits(const tsr_table *table, size_t *bits) {
    uint32_t mode = 0, order = 0, rice = 0;
    if (choose_mode(table, &mode) != TSR_OK) return TSR_TABLE;
    bit_writer w = {NULL, SIZE_MAX, 0, 0};
    write_head(&w, table, mode, order, rice);
    *bits = w.position + choose_code(table, mode, &order, &rice);
    return TSR_OK;
}

tsr_error tsr_table_write(const tsr_table *table, uint8_t *data, size_t capacity, size_t *position) {
    const int32_t farthest = INT32_C(1) << 30;
    uint32_t mode = 0, order = 0, rice = 0, residuals[TSR_MAX_ALPHABET];
    if (table->alphabet < 1 || table->lowest < -farthest || table->lowest > farthest) return TSR_TABLE;
    if (choose_mode(table, &mode) != TSR_OK) return TSR_TABLE;
    choose_code(table, mode, &order, &rice);
    find_residuals(table, order, mode, residuals);
    bit_writer w = {data, 8 * capacity, *position, 0};
    write_head(&w, table, mode, order, rice);
    for (uint32_t i = 0; i < table->alphabet - 1; i++) {
        write_unary(&w, residuals[i] >> rice);
        write_bits(&w, residuals[i] & ((1u << rice) - 1), rice);
    }
    if (w.failed) return TSR_TRUNCATED;
    *position = w.position;
    return TSR_OK;
}

/* -- byte planes --------------------------------------------------------------------------------------------------- */

void tsr_planes_split(const void *data, uint64_t n, uint32_t stored, uint32_t width, int rotate, uint8_t *const *planes) {
    const uint8_t *p = data;
    const uint32_t bits = 8 * stored, drop = 8 * (width - stored);
    const uint64_t mask = bits == 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;
    for (uint64_t i = 0; i < n; i++, p += width) {
        uint64_t x = 0;
        for (uint32_t k = 0; k < width; k++) x |= (uint64_t)p[k] << 8 * k;
        x >>= drop;
        if (rotate) x = (x << 1 | x >> (bits - 1)) & mask;
        for (uint32_t k = 0; k < stored; k++) planes[k][i] = (uint8_t)(x >> (bits - 8 - 8 * k));
    }
}
