/* What the decoder, its vector versions and the encoder share. */
#ifndef TERSOR_RANS_H
#define TERSOR_RANS_H

#include "tersor.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(TSR_SCALAR)
#define TSR_X86 1
#else
#define TSR_X86 0
#endif
#if defined(__aarch64__) && defined(__ARM_NEON) && defined(__AARCH64EL__) && defined(__GNUC__) && !defined(TSR_SCALAR)
#define TSR_NEON 1
#else
#define TSR_NEON 0
#endif

/* A level of a `rans1` stream with or without its sign turned, and its table, by the one before it in its lane (section 6.6). */
static inline int32_t tsr_turned(int32_t level, int32_t before) {
    const uint32_t sign = 0u - (uint32_t)(before < 0); /* not a branch: signs are as good as random */
    return (int32_t)(((uint32_t)level ^ sign) - sign);
}
static inline uint32_t tsr_context(int32_t before, uint32_t contexts) {
    const uint32_t size = (uint32_t)tsr_turned(before, before);
    return size < contexts ? size : contexts - 1;
}

/* Where the level that a `rans1` chunk of n codes as number i stands: whole runs take turns, one to a lane. */
static inline size_t tsr_lane_order(size_t i, size_t n, uint32_t lanes) {
    const size_t start = i - i % TSR_BLOCK, size = n - start < TSR_BLOCK ? n - start : TSR_BLOCK, run = size / lanes;
    i -= start;
    return start + (i < run * lanes ? i % lanes * run + i / lanes : i);
}

#if TSR_X86
/* Whole groups of lanes while the words cannot run out; return the symbols decoded. `tables` is NULL where there is one table, else
 * it can be read 16 bytes beyond n; with contexts, reader->before chooses. `out` takes n integers of 32 bits or, with `bytes`, the low byte of each. AVX-512 takes 16 or 32
 * lanes, AVX2 8, 16 or 32. */
size_t tsr_decode_avx512(tsr_reader *reader, const uint8_t *tables, void *out, size_t n, int bytes);
size_t tsr_decode_avx2(tsr_reader *reader, const uint8_t *tables, void *out, size_t n, int bytes);

/* A whole block of a `rans1` stream from the order of 32 lanes to its own. */
void tsr_restore_avx512(const int32_t *coded, int32_t *out);

/* The inverse. */
void tsr_arrange_avx512(const int32_t *values, int32_t *coded);
#endif

#if TSR_NEON
/* The same for 8, 16 or 32 lanes. */
size_t tsr_decode_neon(tsr_reader *reader, const uint8_t *tables, void *out, size_t n, int bytes);
#endif

#endif
