/* What all fuzz targets share: taking an input apart, choosing sizes. */
#ifndef TERSOR_FUZZ_COMMON_H
#define TERSOR_FUZZ_COMMON_H

#include "tersor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A property that must hold for every input. */
#define REQUIRE(condition)                                                                            \
    do {                                                                                              \
        if (!(condition)) {                                                                           \
            fprintf(stderr, "%s:%d: violated: %s\n", __FILE__, __LINE__, #condition);                 \
            abort();                                                                                  \
        }                                                                                             \
    } while (0)

/* -- the input, from front to back; zeros once it is used up --------------------------------------------------------- */

typedef struct {
    const uint8_t *p, *end;
} input;

static inline size_t left(const input *in) { return (size_t)(in->end - in->p); }
static inline uint32_t take8(input *in) { return in->p < in->end ? *in->p++ : 0; }
static inline uint32_t take16(input *in) {
    uint32_t low = take8(in);
    return low | take8(in) << 8;
}
static inline uint32_t take32(input *in) {
    uint32_t low = take16(in);
    return low | take16(in) << 16;
}
static inline float take_float(input *in) {
    uint32_t bits = take32(in);
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

/* Room of exactly n bytes, so that the address sanitizer sees one byte too many. */
static inline void *room(size_t n) {
    void *p = malloc(n ? n : 1);
    REQUIRE(p != NULL);
    memset(p, 0xA5, n);
    return p;
}

static inline uint8_t *copy(const uint8_t *p, size_t n) {
    uint8_t *out = room(n);
    if (n > 0) memcpy(out, p, n);
    return out;
}

static inline uint8_t *take_bytes(input *in, size_t n, size_t *size) {
    *size = n < left(in) ? n : left(in);
    uint8_t *out = copy(in->p, *size);
    in->p += *size;
    return out;
}

/* Mostly small; now and then around the block (2048 symbols), and where `large` allows it, for one rare number, around
 * the leaf (65536): that costs time. */
enum { LARGE = 0x9C71 };

static inline uint64_t take_count(input *in, int large) {
    uint32_t v = take16(in);
    if (large && v == LARGE) return TSR_LEAF - 2 + take8(in) % 4 * 33;
    if (v < 0xF800) return v % 101;
    return (v & 1 ? 2 : 1) * TSR_BLOCK - 32 + v % 67;
}

#endif
