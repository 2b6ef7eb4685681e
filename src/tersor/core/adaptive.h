/* Coder `adaptive`: binary decisions, each with a probability mixed from adaptive estimates, and an arithmetic coder
 * (spec/ADAPTIVE.md). Slower and smaller than `rans`. The rules of tersor.h hold: C11, no allocation, no global state,
 * every function bounds-checked, hostile bytes allowed. */
#ifndef TERSOR_ADAPTIVE_H
#define TERSOR_ADAPTIVE_H

#include "tersor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One chunk being decoded: lives in memory of the caller, aligned to 8 bytes. */
typedef struct tsr_adaptive tsr_adaptive;

/* Checks the first piece of a stream; `*memory` is what a chunk of it needs, in bytes: 0.7 MB and 18 bytes a column. */
tsr_error tsr_adaptive_prelude(const uint8_t *prelude, size_t prelude_size, size_t *memory);

/* Opens the chunk whose first symbol is number `first` of its stream. */
tsr_error tsr_adaptive_open(tsr_adaptive **chunk, void *memory, size_t memory_size, tsr_type type,
                            const uint8_t *prelude, size_t prelude_size, uint64_t first, const uint8_t *data,
                            size_t size, uint64_t count);

/* Decodes the next n symbols, any number, into out. */
tsr_error tsr_adaptive_next(tsr_adaptive *chunk, int32_t *out, size_t n);

/* After the last symbol: every byte was used and the decoder's number is what the encoder ended with. */
tsr_error tsr_adaptive_close(const tsr_adaptive *chunk);

/* Encodes n values as the chunk that starts at symbol `first`; TSR_TRUNCATED if `capacity` is too small. */
tsr_error tsr_adaptive_encode(void *memory, size_t memory_size, const uint8_t *prelude, size_t prelude_size,
                              uint64_t first, const int32_t *values, size_t n, uint8_t *out, size_t capacity,
                              size_t *size);

#ifdef __cplusplus
}
#endif
#endif
