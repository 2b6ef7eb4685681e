/* XXH3-64 after its specification (github.com/Cyan4973/xxHash, doc/xxhash_spec.md). */
#include "bits.h"
#include "tersor.h"

/* TSR_SCALAR and TSR_NARROW leave out the vectors, or the widest ones: tests compare what is left. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(TSR_SCALAR)
#define TSR_VECTORS 1
#include <immintrin.h>
#else
#define TSR_VECTORS 0
#endif

enum { SECRET_SIZE = 192, STRIPE = 64, STRIPES = 16, BLOCK = STRIPE * STRIPES };

static const uint8_t SECRET[SECRET_SIZE] = {
#include "xxh3_secret.inc"
};

#define P32_1 0x9E3779B1u
#define P32_2 0x85EBCA77u
#define P32_3 0xC2B2AE3Du
#define P64_1 0x9E3779B185EBCA87u
#define P64_2 0xC2B2AE3D27D4EB4Fu
#define P64_3 0x165667B19E3779F9u
#define P64_4 0x85EBCA77C2B2AE63u
#define P64_5 0x27D4EB2F165667C5u
#define MX1 0x165667919E3779F9u
#define MX2 0x9FB21C651E98DF25u

static uint64_t swap64(uint64_t x) {
    x = ((x & 0x00FF00FF00FF00FFu) << 8) | ((x >> 8) & 0x00FF00FF00FF00FFu);
    x = ((x & 0x0000FFFF0000FFFFu) << 16) | ((x >> 16) & 0x0000FFFF0000FFFFu);
    return (x << 32) | (x >> 32);
}

static uint64_t load64(const uint8_t *p) {
    uint64_t x;
    memcpy(&x, p, 8);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    x = swap64(x);
#endif
    return x;
}

static uint64_t rotate(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }

/* High half of the 128-bit product, xored with its low half. */
static uint64_t fold(uint64_t a, uint64_t b) {
#if defined(__SIZEOF_INT128__)
    __extension__ typedef unsigned __int128 u128;
    u128 product = (u128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
#else
    uint64_t al = a & 0xFFFFFFFFu, ah = a >> 32, bl = b & 0xFFFFFFFFu, bh = b >> 32;
    uint64_t ll = al * bl, hl = ah * bl, lh = al * bh, hh = ah * bh;
    uint64_t cross = (ll >> 32) + (hl & 0xFFFFFFFFu) + lh;
    return ((cross << 32) | (ll & 0xFFFFFFFFu)) ^ ((hl >> 32) + (cross >> 32) + hh);
#endif
}

static uint64_t avalanche(uint64_t x) {
    x = (x ^ (x >> 37)) * MX1;
    return x ^ (x >> 32);
}

static uint64_t avalanche64(uint64_t x) {
    x = (x ^ (x >> 33)) * P64_2;
    x = (x ^ (x >> 29)) * P64_3;
    return x ^ (x >> 32);
}

static uint64_t mix(const uint8_t *p, const uint8_t *secret, uint64_t seed) {
    return fold(load64(p) ^ (load64(secret) + seed), load64(p + 8) ^ (load64(secret + 8) - seed));
}

static uint64_t hash_up_to_16(const uint8_t *p, size_t n, uint64_t seed) {
    if (n == 0) return avalanche64(seed ^ load64(SECRET + 56) ^ load64(SECRET + 64));
    if (n <= 3) {
        uint32_t word = (uint32_t)p[n - 1] | (uint32_t)n << 8 | (uint32_t)p[0] << 16 | (uint32_t)p[n >> 1] << 24;
        return avalanche64(((uint64_t)(load32(SECRET) ^ load32(SECRET + 4)) + seed) ^ word);
    }
    if (n <= 8) {
        uint64_t low = (uint32_t)(swap64((uint32_t)seed) >> 32);
        uint64_t word = (uint64_t)load32(p + n - 4) | (uint64_t)load32(p) << 32;
        uint64_t x = ((load64(SECRET + 8) ^ load64(SECRET + 16)) - (seed ^ low << 32)) ^ word;
        x ^= rotate(x, 49) ^ rotate(x, 24);
        x *= MX2;
        x ^= (x >> 35) + n;
        x *= MX2;
        return x ^ (x >> 28);
    }
    uint64_t low = ((load64(SECRET + 24) ^ load64(SECRET + 32)) + seed) ^ load64(p);
    uint64_t high = ((load64(SECRET + 40) ^ load64(SECRET + 48)) - seed) ^ load64(p + n - 8);
    return avalanche(n + swap64(low) + high + fold(low, high));
}

static uint64_t hash_up_to_240(const uint8_t *p, size_t n, uint64_t seed) {
    uint64_t sum = n * P64_1;
    if (n <= 128) {
        for (size_t i = ((n - 1) >> 5) + 1; i-- > 0;) {
            sum += mix(p + 16 * i, SECRET + 32 * i, seed);
            sum += mix(p + n - 16 * i - 16, SECRET + 32 * i + 16, seed);
        }
        return avalanche(sum);
    }
    for (size_t i = 0; i < 8; i++) sum += mix(p + 16 * i, SECRET + 16 * i, seed);
    sum = avalanche(sum);
    for (size_t i = 8; i < n / 16; i++) sum += mix(p + 16 * i, SECRET + 16 * (i - 8) + 3, seed);
    return avalanche(sum + mix(p + n - 16, SECRET + 119, seed));
}

static void accumulate(uint64_t *restrict sum, const uint8_t *restrict p, const uint8_t *restrict secret) {
    uint64_t data[8], keyed[8];
    for (int i = 0; i < 8; i++) data[i] = load64(p + 8 * i);
    for (int i = 0; i < 8; i++) keyed[i] = data[i] ^ load64(secret + 8 * i);
    for (int i = 0; i < 8; i++) sum[i] += data[i ^ 1] + (keyed[i] & 0xFFFFFFFFu) * (keyed[i] >> 32);
}

static void scramble(uint64_t *sum, const uint8_t *secret) {
    for (int i = 0; i < 8; i++) sum[i] = (sum[i] ^ (sum[i] >> 47) ^ load64(secret + 8 * i)) * P32_1;
}

/* The order of the steps for `size` > 240 bytes, whatever does them: every block of 16 stripes is followed by a scramble,
 * the last one by the stripe that ends where the data ends and overlaps what was read before. */
#define ACCUMULATE_ALL(ACCUMULATE, SCRAMBLE)                                                                             \
    do {                                                                                                                 \
        size_t blocks = (size - 1) / BLOCK, stripes = (size - BLOCK * blocks - 1) / STRIPE;                              \
        for (size_t b = 0; b < blocks; b++, p += BLOCK) {                                                                \
            for (size_t i = 0; i < STRIPES; i++) ACCUMULATE(p + STRIPE * i, secret + 8 * i);                             \
            SCRAMBLE(secret + SECRET_SIZE - STRIPE);                                                                     \
        }                                                                                                                \
        for (size_t i = 0; i < stripes; i++) ACCUMULATE(p + STRIPE * i, secret + 8 * i);                                 \
        ACCUMULATE(end - STRIPE, secret + SECRET_SIZE - STRIPE - 7);                                                     \
    } while (0)

static void accumulate_scalar(uint64_t *sum, const uint8_t *p, size_t size, const uint8_t *secret) {
    const uint8_t *end = p + size;
#define ONE(data, key) accumulate(sum, data, key)
#define STIR(key) scramble(sum, key)
    ACCUMULATE_ALL(ONE, STIR);
#undef ONE
#undef STIR
}

#if TSR_VECTORS
__attribute__((target("avx2"))) static inline __m256i accumulate_256(__m256i sum, const uint8_t *p, const uint8_t *secret) {
    __m256i data = _mm256_loadu_si256((const void *)p);
    __m256i keyed = _mm256_xor_si256(data, _mm256_loadu_si256((const void *)secret));
    __m256i product = _mm256_mul_epu32(keyed, _mm256_srli_epi64(keyed, 32));
    return _mm256_add_epi64(sum, _mm256_add_epi64(product, _mm256_shuffle_epi32(data, 0x4E)));
}

__attribute__((target("avx2"))) static inline __m256i scramble_256(__m256i sum, const uint8_t *secret) {
    const __m256i prime = _mm256_set1_epi64x(P32_1);
    __m256i x = _mm256_xor_si256(_mm256_xor_si256(sum, _mm256_srli_epi64(sum, 47)), _mm256_loadu_si256((const void *)secret));
    __m256i high = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), prime);
    return _mm256_add_epi64(_mm256_mul_epu32(x, prime), _mm256_slli_epi64(high, 32));
}

__attribute__((target("avx2"))) static void accumulate_avx2(uint64_t *sum, const uint8_t *p, size_t size, const uint8_t *secret) {
    const uint8_t *end = p + size;
    __m256i low = _mm256_loadu_si256((const void *)sum), high = _mm256_loadu_si256((const void *)(sum + 4));
#define ONE(data, key) (low = accumulate_256(low, data, key), high = accumulate_256(high, (data) + 32, (key) + 32))
#define STIR(key) (low = scramble_256(low, key), high = scramble_256(high, (key) + 32))
    ACCUMULATE_ALL(ONE, STIR);
#undef ONE
#undef STIR
    _mm256_storeu_si256((void *)sum, low);
    _mm256_storeu_si256((void *)(sum + 4), high);
}

__attribute__((target("avx512f"))) static inline __m512i accumulate_512(__m512i sum, const uint8_t *p, const uint8_t *secret) {
    __m512i data = _mm512_loadu_si512(p), keyed = _mm512_xor_si512(data, _mm512_loadu_si512(secret));
    __m512i product = _mm512_mul_epu32(keyed, _mm512_srli_epi64(keyed, 32));
    return _mm512_add_epi64(sum, _mm512_add_epi64(product, _mm512_shuffle_epi32(data, 0x4E)));
}

__attribute__((target("avx512f"))) static inline __m512i scramble_512(__m512i sum, const uint8_t *secret) {
    const __m512i prime = _mm512_set1_epi64(P32_1);
    __m512i x = _mm512_xor_si512(_mm512_xor_si512(sum, _mm512_srli_epi64(sum, 47)), _mm512_loadu_si512(secret));
    __m512i high = _mm512_mul_epu32(_mm512_srli_epi64(x, 32), prime);
    return _mm512_add_epi64(_mm512_mul_epu32(x, prime), _mm512_slli_epi64(high, 32));
}

__attribute__((target("avx512f"))) static void accumulate_avx512(uint64_t *sum, const uint8_t *p, size_t size, const uint8_t *secret) {
    const uint8_t *end = p + size;
    __m512i all = _mm512_loadu_si512(sum);
#define ONE(data, key) all = accumulate_512(all, data, key)
#define STIR(key) all = scramble_512(all, key)
    ACCUMULATE_ALL(ONE, STIR);
#undef ONE
#undef STIR
    _mm512_storeu_si512(sum, all);
}
#endif

static void accumulate_all(uint64_t *sum, const uint8_t *p, size_t size, const uint8_t *secret) {
#if TSR_VECTORS
#ifndef TSR_NARROW
    if (__builtin_cpu_supports("avx512f")) {
        accumulate_avx512(sum, p, size, secret);
        return;
    }
#endif
    if (__builtin_cpu_supports("avx2")) {
        accumulate_avx2(sum, p, size, secret);
        return;
    }
#endif
    accumulate_scalar(sum, p, size, secret);
}

uint64_t tsr_hash(const void *data, size_t size, uint64_t seed) {
    const uint8_t *p = data;
    if (size <= 16) return hash_up_to_16(p, size, seed);
    if (size <= 240) return hash_up_to_240(p, size, seed);

    uint8_t secret[SECRET_SIZE];
    for (int i = 0; i < SECRET_SIZE / 8; i++) {
        uint64_t word = load64(SECRET + 8 * i);
        word = i % 2 ? word - seed : word + seed;
        for (int k = 0; k < 8; k++) secret[8 * i + k] = (uint8_t)(word >> 8 * k);
    }
    uint64_t sum[8] = {P32_3, P64_1, P64_2, P64_3, P64_4, P32_2, P64_5, P32_1};
    accumulate_all(sum, p, size, secret);
    uint64_t out = size * P64_1;
    for (size_t i = 0; i < 4; i++) {
        const uint8_t *key = secret + 11 + 16 * i;
        out += fold(sum[2 * i] ^ load64(key), sum[2 * i + 1] ^ load64(key + 8));
    }
    return avalanche(out);
}
