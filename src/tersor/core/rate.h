/* The differentiable counter of L2 (Shi et al. 2023, equations 14 to 19), exact and in linear time. No allocation.
 *
 * Codes fall into bins of width 1, the bin of level q being [q - 1/2, q + 1/2). The relaxed count below an edge x is
 * C(x) = sum of F(x - code), F the integral of a kernel K of half-width delta. Between neighbouring points of the form
 * edge +- delta the same edges lie within delta of every code, so that three cells a bin, each with the sums of three
 * functions of its codes, hold all that C and its derivatives need: O(codes + bins), whatever delta is. */
#ifndef TERSOR_RATE_H
#define TERSOR_RATE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    TSR_COSINE = 0,  /* K(u) = pi / (4 delta) cos(pi u / (2 delta)) */
    TSR_LINEAR = 1,  /* K(u) = 1 / (2 delta): the count is linear */
    TSR_TRIANGLE = 2 /* K(u) = (1 - |u| / delta) / delta */
} tsr_kernel;

enum {
    TSR_CELLS = 3,       /* a bin */
    TSR_MOMENTS = 4,     /* doubles a cell, one of them unused */
    TSR_COEFFICIENTS = 3 /* floats a cell */
};

typedef struct {
    tsr_kernel kernel;
    double delta;                /* > 0 */
    int32_t lowest;              /* level of the first bin */
    uint32_t bins;               /* at least 1; codes outside count as if in the first or last bin */
    float cut[2];                /* where cells meet, from the lower end of a bin */
    float origin[TSR_CELLS];     /* middle of each cell */
} tsr_counter;

void tsr_counter_open(tsr_counter *counter, tsr_kernel kernel, double delta, int32_t lowest, uint32_t bins);

/* The least and the greatest of n >= 1 codes; NaN, both, if one is not finite. */
void tsr_range(const float *codes, size_t n, float *low, float *high);

/* Doubles of scratch space that tsr_bits needs. */
size_t tsr_bits_scratch(const tsr_counter *counter);

/* Relaxed bits of codes, and their gradient with respect to every code. `scratch` holds tsr_bits_scratch doubles, `table`
 * TSR_COEFFICIENTS floats a cell. */
double tsr_bits(const tsr_counter *counter, const float *codes, size_t n, double *scratch, float *table, float *gradient);

/* Joint pruning and quantization (equations 11 and 13), with step s and threshold e: codes w / (2 e) where |w| < e, beyond
 * sign(w) ((|w| - e) / s + 1/2), and the weights rebuilt from the rounded codes. */
void tsr_joint(const float *weights, size_t n, float step, float threshold, float *codes, float *rebuilt);

/* Gradients through it, rounding straight through, of L given dL / d rebuilt and dL / d code: dL / d weight (unless null),
 * dL / d step and dL / d threshold. */
void tsr_joint_gradient(const float *codes, size_t n, float step, float threshold, const float *by_rebuilt,
                        const float *by_code, float *gradient, float *step_gradient, float *threshold_gradient);

#ifdef __cplusplus
}
#endif
#endif
