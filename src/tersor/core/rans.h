/* What the portable decoder and its vector versions share. */
#ifndef TERSOR_RANS_H
#define TERSOR_RANS_H

#include "tersor.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(TSR_SCALAR)
#define TSR_X86 1
#else
#define TSR_X86 0
#endif

#if TSR_X86
/* Whole groups of lanes while the words cannot run out; return the symbols decoded. `tables` is NULL where there is one table, else
 * it can be read 16 bytes beyond n. `out` takes n integers of 32 bits or, with `bytes`, the low byte of each. AVX-512 takes 16 or 32
 * lanes, AVX2 8, 16 or 32. */
size_t tsr_decode_avx512(tsr_reader *reader, const uint8_t *tables, void *out, size_t n, int bytes);
size_t tsr_decode_avx2(tsr_reader *reader, const uint8_t *tables, void *out, size_t n, int bytes);
#endif

#endif
