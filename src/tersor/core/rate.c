/* The differentiable counter: see rate.h. */
#include "rate.h"

#include "bits.h"

#include <math.h>

#define PI 3.14159265358979323846

/* Inlined whatever its size, so that every clone of a vectorised function has its own. */
#ifdef __GNUC__
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

enum { BLOCK = 512, SETS = 2 /* of sums: neighbours in the same cell would wait for each other's store */, LANES = 16 };

/* Cosine and sine of an angle; of the sum of two. */
typedef struct {
    double cosine, sine;
} turn;

static turn turn_by(double angle) { return (turn){cos(angle), sin(angle)}; }

static inline turn turn_on(turn a, turn b) {
    return (turn){a.cosine * b.cosine - a.sine * b.sine, a.sine * b.cosine + a.cosine * b.sine};
}

/* That of `angle` times k, from that of k - 1: anew where rounding errors would add up. */
static inline turn turn_to(double angle, size_t k, turn last, turn one) {
    return k % 64 == 0 ? turn_by(angle * (double)k) : turn_on(last, one);
}

/* Where a window of half-width delta around edge k begins, its middle, and where it ends, in cells. */
typedef struct {
    size_t begin, middle, end;
} window;

void tsr_counter_open(tsr_counter *c, tsr_kernel kernel, double delta, int32_t lowest, uint32_t bins) {
    double part = delta - floor(delta), low = part < 0.5 ? part : 1 - part;
    *c = (tsr_counter){kernel, delta, lowest, bins, {(float)low, (float)(1 - low)},
                       {(float)(low / 2), 0.5f, (float)(1 - low / 2)}};
}

static inline size_t cells_of(const tsr_counter *c) { return (size_t)TSR_CELLS * c->bins; }

static size_t scratch_of_count(const tsr_counter *c) { return SETS * TSR_MOMENTS * (cells_of(c) + 1); }

size_t tsr_bits_scratch(const tsr_counter *c) { return scratch_of_count(c) + 3 * ((size_t)c->bins + 1); }

static size_t clamped(double cell, size_t cells) { return cell <= 0 ? 0 : cell >= (double)cells ? cells : (size_t)cell; }

static window window_of(const tsr_counter *c, uint32_t edge) {
    double whole = floor(c->delta), late = c->delta - whole > 0.5, cells = TSR_CELLS;
    size_t all = cells_of(c);
    return (window){clamped(cells * (edge - whole - 1) + 2 - late, all), (size_t)TSR_CELLS * edge,
                    clamped(cells * (edge + whole) + 1 + late, all)};
}

/* Edge `edge`, and the middle of cell `cell`, from the first edge on. */
static double middle_of(const tsr_counter *c, size_t cell) {
    return (double)(cell / TSR_CELLS) + (double)c->origin[cell % TSR_CELLS];
}

/* -- per code ------------------------------------------------------------------------------------------------------ */

/* The cell of every code, and f1, f2: cosine and sine of its angle from the middle of the cell, or its distance and the
 * square of that. The angle is at most pi / 4 in every cell that a window covers; others are clamped. */
INLINE void locate(const tsr_counter *c, tsr_kernel kernel, const float *codes, size_t n,
                          int32_t *restrict cells, float *restrict f1, float *restrict f2) {
    const float lowest = (float)c->lowest, last = (float)(c->bins - 1), angle = (float)(PI / (2 * c->delta));
    const float cut0 = c->cut[0], cut1 = c->cut[1];
    const float origin0 = c->origin[0], origin1 = c->origin[1], origin2 = c->origin[2];
    for (size_t i = 0; i < n; i++) {
        float bin = floorf(codes[i] + 0.5f) - lowest;
        bin = bin > 0 ? bin : 0;
        bin = bin < last ? bin : last;
        float t = codes[i] - (bin + lowest - 0.5f);
        int32_t second = t >= cut0, third = t >= cut1;
        float x = t - (third ? origin2 : second ? origin1 : origin0);
        cells[i] = TSR_CELLS * (int32_t)bin + second + third;
        if (kernel == TSR_COSINE) {
            x *= angle;
            x = x > 1 ? 1 : x < -1 ? -1 : x;
            float y = x * x;
            f1[i] = 1 + y * (-1.0f / 2 + y * (1.0f / 24 + y * (-1.0f / 720 + y * (1.0f / 40320))));
            f2[i] = x * (1 + y * (-1.0f / 6 + y * (1.0f / 120 + y * (-1.0f / 5040 + y * (1.0f / 362880)))));
        } else {
            f1[i] = x;
            f2[i] = x * x;
        }
    }
}

INLINE void add_block(const tsr_counter *c, tsr_kernel kernel, const float *codes, size_t n, double *sums) {
    int32_t cells[BLOCK];
    float f1[BLOCK], f2[BLOCK];
    locate(c, kernel, codes, n, cells, f1, f2);
    for (size_t i = 0; i < n; i++) {
        double *sum = sums + TSR_MOMENTS * (SETS * (size_t)cells[i] + i % SETS);
        sum[0] += 1;
        sum[1] += (double)f1[i];
        sum[2] += (double)f2[i];
    }
}

TSR_VECTORISED static void add_codes(const tsr_counter *c, const float *codes, size_t n, double *sums) {
    for (size_t i = 0; i < n; i += BLOCK) {
        size_t size = n - i < BLOCK ? n - i : BLOCK;
        if (c->kernel == TSR_COSINE) add_block(c, TSR_COSINE, codes + i, size, sums);
        else add_block(c, TSR_LINEAR, codes + i, size, sums);
    }
}

INLINE void gradient_block(const tsr_counter *c, tsr_kernel kernel, const float *codes, size_t n,
                                  const float *restrict table, float *restrict gradient) {
    int32_t cells[BLOCK];
    float f1[BLOCK], f2[BLOCK];
    const float *a0 = table, *a1 = a0 + cells_of(c), *a2 = a1 + cells_of(c);
    locate(c, kernel, codes, n, cells, f1, f2);
    for (size_t i = 0; i < n; i++) {
        float x = a0[cells[i]];
        if (kernel != TSR_LINEAR) x += a1[cells[i]] * f1[i];
        if (kernel == TSR_COSINE) x += a2[cells[i]] * f2[i];
        gradient[i] = x;
    }
}

TSR_VECTORISED static void gradient_codes(const tsr_counter *c, const float *codes, size_t n, const float *table,
                                          float *gradient) {
    for (size_t i = 0; i < n; i += BLOCK) {
        size_t size = n - i < BLOCK ? n - i : BLOCK;
        if (c->kernel == TSR_COSINE) gradient_block(c, TSR_COSINE, codes + i, size, table, gradient + i);
        else if (c->kernel == TSR_LINEAR) gradient_block(c, TSR_LINEAR, codes + i, size, table, gradient + i);
        else gradient_block(c, TSR_TRIANGLE, codes + i, size, table, gradient + i);
    }
}

/* -- per edge ------------------------------------------------------------------------------------------------------ */

/* Angles of edges and of the middles of cells, one after another: `at` is that of the last edge. */
typedef struct {
    double angle;
    turn one, origin[TSR_CELLS], at;
} turns;

static turns turns_of(const tsr_counter *c) {
    turns t = {.angle = PI / (2 * c->delta)};
    t.one = turn_by(t.angle);
    for (int i = 0; i < TSR_CELLS; i++) t.origin[i] = turn_by(t.angle * (double)c->origin[i]);
    return t;
}

static inline turn turn_to_edge(turns *t, size_t edge) { return t->at = turn_to(t->angle, edge, t->at, t->one); }

static inline turn turn_to_middle(turns *t, size_t cell) {
    if (cell % TSR_CELLS == 0) turn_to_edge(t, cell / TSR_CELLS);
    return turn_on(t->at, t->origin[cell % TSR_CELLS]);
}

/* Sums of 1, f1, f2 over cells that are left of each cell, f1 and f2 now counted from the first edge. */
static void accumulate_cells(const tsr_counter *c, double *sums) {
    turns t = turns_of(c);
    double total[3] = {0, 0, 0};
    for (size_t k = 0; k <= cells_of(c); k++) {
        double *s = sums + TSR_MOMENTS * SETS * k;
        double n = s[0] + s[4], a = s[1] + s[5], b = s[2] + s[6], o = middle_of(c, k);
        for (int i = 0; i < 3; i++) s[i] = total[i];
        total[0] += n;
        if (c->kernel == TSR_COSINE) {
            const turn m = turn_to_middle(&t, k);
            total[1] += m.cosine * a - m.sine * b;
            total[2] += m.sine * a + m.cosine * b;
        } else {
            total[1] += a + n * o;
            total[2] += b + 2 * o * a + n * o * o;
        }
    }
}

/* Relaxed counts C and densities sum K(x - code) at the bins + 1 edges, from lowest - 1/2 on, and the true number of codes in
 * every bin. */
static void count_codes(const tsr_counter *c, const float *codes, size_t n, double *sums, double *counts,
                        double *densities, double *numbers) {
    const double delta = c->delta;
    turns t = turns_of(c);
    memset(sums, 0, scratch_of_count(c) * sizeof *sums);
    add_codes(c, codes, n, sums);
    accumulate_cells(c, sums);
    for (uint32_t k = 0; k <= c->bins; k++) {
        const window w = window_of(c, k);
        const double *begin = sums + TSR_MOMENTS * SETS * w.begin, *middle = sums + TSR_MOMENTS * SETS * w.middle;
        const double *end = sums + TSR_MOMENTS * SETS * w.end, x = k;
        double m = end[0] - begin[0], a = end[1] - begin[1], b = end[2] - begin[2];
        if (k > 0) numbers[k - 1] = middle[0] - middle[-TSR_MOMENTS * SETS * TSR_CELLS];
        if (c->kernel == TSR_COSINE) {
            const turn e = turn_to_edge(&t, k);
            counts[k] = begin[0] + m / 2 + (e.sine * a - e.cosine * b) / 2;
            densities[k] = t.angle / 2 * (e.cosine * a + e.sine * b);
        } else if (c->kernel == TSR_LINEAR) {
            counts[k] = begin[0] + m / 2 + (m * x - a) / (2 * delta);
            densities[k] = m / (2 * delta);
        } else { /* codes below the edge and above it apart: v = (x - code) / delta, the sums of v and v^2 */
            double m1 = middle[0] - begin[0], a1 = middle[1] - begin[1], b1 = middle[2] - begin[2];
            double v = (m * x - a) / delta, v1 = (m1 * x - a1) / delta;
            double vv = (m * x * x - 2 * x * a + b) / (delta * delta), vv1 = (m1 * x * x - 2 * x * a1 + b1) / (delta * delta);
            counts[k] = begin[0] + m / 2 + v + vv / 2 - vv1;
            densities[k] = (m + v - 2 * v1) / delta;
        }
    }
}

/* Gradient of L with respect to every code: -sum over edges of edge[k] K(x_k - code) + bin[its bin], where edge[k] is
 * dL/dC(x_k). */
static void gradient_of_count(const tsr_counter *c, const float *codes, size_t n, const double *edge, const double *bin,
                              double *scratch, float *table, float *gradient) {
    const double delta = c->delta;
    const size_t cells = cells_of(c);
    turns t = turns_of(c);
    double *changes = scratch; /* of the coefficients of 1, f1, f2, from one cell to the next */
    memset(changes, 0, 3 * (cells + 1) * sizeof *changes);
    for (uint32_t k = 0; k <= c->bins; k++) {
        const window w = window_of(c, k);
        const double x = k, g = -edge[k];
        double below[3] = {0, 0, 0}, above[3] = {0, 0, 0};
        if (c->kernel == TSR_COSINE) {
            const turn e = turn_to_edge(&t, k);
            below[1] = above[1] = t.angle / 2 * g * e.cosine;
            below[2] = above[2] = t.angle / 2 * g * e.sine;
        } else if (c->kernel == TSR_LINEAR) {
            below[0] = above[0] = g / (2 * delta);
        } else {
            below[0] = g * (1 - x / delta) / delta;
            below[1] = g / (delta * delta);
            above[0] = g * (1 + x / delta) / delta;
            above[1] = -below[1];
        }
        for (int i = 0; i < 3; i++) {
            changes[3 * w.begin + (size_t)i] += below[i];
            changes[3 * w.middle + (size_t)i] += above[i] - below[i];
            changes[3 * w.end + (size_t)i] -= above[i];
        }
    }
    double a[3] = {0, 0, 0};
    for (size_t k = 0; k < cells; k++) {
        const double o = middle_of(c, k);
        for (int i = 0; i < 3; i++) a[i] += changes[3 * k + (size_t)i];
        const turn m = c->kernel == TSR_COSINE ? turn_to_middle(&t, k) : (turn){1, 0};
        table[k] = (float)(bin[k / TSR_CELLS] + a[0] + (c->kernel == TSR_COSINE ? 0 : a[1] * o));
        table[k + cells] = (float)(m.cosine * a[1] + m.sine * a[2]);
        table[k + 2 * cells] = (float)(m.cosine * a[2] - m.sine * a[1]);
    }
    gradient_codes(c, codes, n, table, gradient);
}

/* -- bits ---------------------------------------------------------------------------------------------------------- */

TSR_VECTORISED void tsr_range(const float *codes, size_t n, float *low, float *high) {
    float least[LANES], most[LANES], broken[LANES] = {0};
    for (size_t l = 0; l < LANES; l++) least[l] = most[l] = codes[0];
    for (size_t i = 0; i < n; i += LANES) {
        size_t lanes = n - i < LANES ? n - i : LANES;
        for (size_t l = 0; l < lanes; l++) {
            float x = codes[i + l];
            least[l] = x < least[l] ? x : least[l];
            most[l] = x > most[l] ? x : most[l];
            broken[l] += x - x; /* NaN from codes that are not finite */
        }
    }
    *low = *high = codes[0];
    for (size_t l = 0; l < LANES; l++) {
        *low = (least[l] < *low ? least[l] : *low) + broken[l];
        *high = (most[l] > *high ? most[l] : *high) + broken[l];
    }
}

double tsr_bits(const tsr_counter *c, const float *codes, size_t n, double *scratch, float *table, float *gradient) {
    const double ln2 = log(2);
    double *counts = scratch + scratch_of_count(c), *densities = counts + c->bins + 1, *numbers = densities + c->bins + 1;
    double bits = 0, before = 0;
    count_codes(c, codes, n, scratch, counts, densities, numbers);
    for (uint32_t k = 0; k < c->bins; k++) { /* derivatives take the place of counts and densities */
        double mass = counts[k + 1] - counts[k], slope = 0;
        if (numbers[k] > 0) { /* a code's own level keeps some of its mass, but for rounding */
            if (mass < 1e-9) mass = 1e-9;
            bits -= numbers[k] * log2(mass / (double)n);
            slope = numbers[k] / (ln2 * mass);
            densities[k] = (densities[k] - densities[k + 1]) / (ln2 * mass);
        } else {
            densities[k] = 0;
        }
        counts[k] = slope - before;
        before = slope;
    }
    counts[c->bins] = -before;
    gradient_of_count(c, codes, n, counts, densities, scratch, table, gradient);
    return bits;
}

/* -- joint pruning and quantization ---------------------------------------------------------------------------------- */

TSR_VECTORISED void tsr_joint(const float *restrict weights, size_t n, float step, float threshold, float *restrict codes,
                              float *restrict rebuilt) {
    const float inner = 0.5f / threshold, outer = 1 / step;
    for (size_t i = 0; i < n; i++) {
        float size = fabsf(weights[i]);
        float code = size < threshold ? size * inner : (size - threshold) * outer + 0.5f;
        float level = rintf(code), value = level < 0.5f ? 0 : (level - 0.5f) * step + threshold;
        codes[i] = copysignf(code, weights[i]);
        rebuilt[i] = copysignf(value, weights[i]);
    }
}

/* Inside, the rebuilt weight and the code shrink as the threshold grows; outside, the threshold moves the code alone, and the
 * step moves the rebuilt weight by its rounding error (LSQ) and the code towards 1/2. Parts of sums are stored: sums kept here
 * would keep the compiler from vectors. */
INLINE void joint_block(const float *restrict codes, size_t n, float step, float threshold,
                        const float *restrict by_rebuilt, const float *restrict by_code, float *restrict gradient,
                        float *restrict by_step, float *restrict by_threshold) {
    const float inner = 0.5f / threshold, outer = 1 / step;
    for (size_t i = 0; i < n; i++) {
        float code = codes[i], half = copysignf(0.5f, code), direct = by_rebuilt[i];
        int inside = fabsf(code) < 0.5f;
        float along = by_code[i] * (inside ? inner : outer), outside = direct * (rintf(code) - code) + along * (half - code);
        float shrunk = code * (direct + along), moved = half * along;
        gradient[i] = direct + along;
        by_threshold[i] = -2 * (inside ? shrunk : moved);
        by_step[i] = inside ? 0 : outside;
    }
}

/* The sum of a block, by lanes. */
INLINE double sum_of(const float *block) {
    float lanes[LANES] = {0};
    double sum = 0;
    for (size_t i = 0; i < BLOCK; i += LANES)
        for (size_t l = 0; l < LANES; l++) lanes[l] += block[i + l];
    for (size_t l = 0; l < LANES; l++) sum += (double)lanes[l];
    return sum;
}

TSR_VECTORISED void tsr_joint_gradient(const float *codes, size_t n, float step, float threshold,
                                       const float *by_rebuilt, const float *by_code, float *gradient,
                                       float *step_gradient, float *threshold_gradient) {
    float by_step[BLOCK], by_threshold[BLOCK], unwanted[BLOCK];
    double steps = 0, thresholds = 0;
    for (size_t i = 0; i < n; i += BLOCK) {
        size_t size = n - i < BLOCK ? n - i : BLOCK;
        joint_block(codes + i, size, step, threshold, by_rebuilt + i, by_code + i, gradient ? gradient + i : unwanted, by_step,
                    by_threshold);
        for (size_t k = size; k < BLOCK; k++) by_step[k] = by_threshold[k] = 0;
        steps += sum_of(by_step);
        thresholds += sum_of(by_threshold);
    }
    *step_gradient = (float)steps;
    *threshold_gradient = (float)thresholds;
}
