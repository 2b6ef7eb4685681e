/* Coder `runs`: levels that are nearly all zero (spec/FORMAT.md, section 6.7). */
#ifndef TERSOR_RUNS_H
#define TERSOR_RUNS_H

#include "tersor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A chunk being decoded, beside the reader of its levels. A token that is not zero is a level, behind as many zeros as its low part
 * says; a token of zero stands for 2^bits zeros. */
typedef struct tsr_runs {
    tsr_reader tokens;
    uint32_t bits;         /* of a low part */
    const uint8_t *low;
    uint64_t used, levels; /* low parts used, and all of them */
    uint64_t at, behind;   /* place of the next level, UINT64_MAX behind the last, and the place after it */
    int32_t level;
    size_t next, filled;   /* of the tokens at hand */
    int32_t token[TSR_BLOCK];
} tsr_runs;

/* Opens a chunk; `runs`, `slots` (2^TSR_MAX_PRECISION) and the prelude must outlive the reader. */
tsr_error tsr_runs_open(tsr_reader *reader, tsr_runs *runs, tsr_slot *slots, const tsr_prelude *prelude, tsr_type type,
                        const uint8_t *data, size_t size, uint64_t count);

/* Levels number `position` to position + n - 1, which follow those of the last call: integers of 32 bits, or bytes. */
tsr_error tsr_runs_next(tsr_runs *runs, uint64_t position, void *out, size_t n, int bytes);

/* After the last symbol, as tsr_reader_close. */
tsr_error tsr_runs_close(const tsr_runs *runs);

/* Place of the first level from i on that is not zero, or n. */
static inline size_t tsr_next_level(const int32_t *values, size_t i, size_t n) {
    enum { MANY = 32 };
    for (; i + MANY <= n; i += MANY) {
        int32_t any = 0;
        for (size_t k = 0; k < MANY; k++) any |= values[i + k];
        if (any != 0) break;
    }
    while (i < n && values[i] == 0) i++;
    return i;
}

/* Adds to skips[bits], for every `bits` from 0 to TSR_MAX_RUN_BITS, how many tokens of zero n levels have with it. */
void tsr_runs_count(const int32_t *values, size_t n, uint64_t *skips);

/* Encodes n levels as a chunk, with one table; TSR_TRUNCATED if `capacity` is too small. `tokens` and `places` hold n numbers, `scratch`
 * n + 32 words. */
tsr_error tsr_runs_encode(const tsr_encoder *encoder, uint32_t bits, uint32_t lanes, const int32_t *values, size_t n, uint8_t *out,
                          size_t capacity, int32_t *tokens, uint16_t *scratch, uint32_t *places, size_t *size);

#ifdef __cplusplus
}
#endif
#endif
