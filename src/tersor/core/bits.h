/* Bits, least significant first, and little-endian words, for the two files that read and write entropy tables. */
#ifndef TERSOR_BITS_H
#define TERSOR_BITS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h> /* defines __GLIBC__ where there is one */

/* Compiled once for every instruction set, the best one chosen when the library is loaded. Plain C all the same: the compiler's vectors
 * give the same bits. Needs glibc's indirect functions; elsewhere the baseline serves. */
#if defined(__x86_64__) && defined(__GLIBC__) && __GNUC__ >= 12 && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define TSR_VECTORISED __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define TSR_VECTORISED
#endif

static inline uint16_t load16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

static inline uint32_t load32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

/* Whole words where they lie in that order anyhow: of bytes one by one the compiler's vectors become shuffles. */
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
static inline void store16(uint8_t *p, uint32_t x) {
    uint16_t low = (uint16_t)x;
    memcpy(p, &low, 2);
}
static inline void store32(uint8_t *p, uint32_t x) { memcpy(p, &x, 4); }
static inline void store64(uint8_t *p, uint64_t x) { memcpy(p, &x, 8); }
#else
static inline void store16(uint8_t *p, uint32_t x) {
    p[0] = (uint8_t)x;
    p[1] = (uint8_t)(x >> 8);
}
static inline void store32(uint8_t *p, uint32_t x) {
    store16(p, x);
    store16(p + 2, x >> 16);
}
static inline void store64(uint8_t *p, uint64_t x) {
    store32(p, (uint32_t)x);
    store32(p + 4, (uint32_t)(x >> 32));
}
#endif

static inline uint32_t zigzag(int32_t x) { return (uint32_t)x << 1 ^ (x < 0 ? UINT32_MAX : 0); }

static inline int32_t unzigzag(uint32_t x) {
    uint32_t half = x >> 1;
    return x & 1 ? (int32_t)(-(int64_t)half - 1) : (int32_t)half;
}

/* LEB128, at most 10 bytes, no superfluous last byte; 0 if there is none. */
static inline int read_varint(const uint8_t **p, const uint8_t *end, uint64_t *value) {
    uint64_t x = 0;
    for (uint32_t shift = 0; shift < 64; shift += 7) {
        if (*p == end) return 0;
        uint8_t byte = *(*p)++;
        if (shift == 63 && byte > 1) return 0;
        x |= (uint64_t)(byte & 127) << shift;
        if (byte < 128) {
            *value = x;
            return byte != 0 || shift == 0;
        }
    }
    return 0;
}

/* Frequency of code k: 4 significant bits and an exponent; exact below 32. */
static inline uint32_t code_frequency(uint32_t k) { return k < 32 ? k : (16 + (k & 15)) << ((k >> 4) - 1); }

/* Largest code whose frequency is below 2^precision, and the code the predictor of section 6.2 starts from. */
static inline int32_t largest_code(uint32_t precision) { return (int32_t)(16 * (precision - 4) + 15); }
static inline int32_t starting_code(uint32_t precision) { return (int32_t)(16 * (precision - 5)); }

static inline int32_t predict(uint32_t order, int32_t previous, int32_t before, int32_t largest) {
    if (order == 0) return previous;
    int32_t line = 2 * previous - before;
    return line < 0 ? 0 : line > largest ? largest : line;
}

#endif
