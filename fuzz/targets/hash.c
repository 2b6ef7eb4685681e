/* XXH3 against a second implementation, byte by byte after doc/xxhash_spec.md of xxHash. */
#include "common.h"

static const uint8_t SECRET[192] = {
#include "xxh3_secret.inc"
};

static const uint64_t PRIME32_1 = 0x9E3779B1, PRIME32_2 = 0x85EBCA77, PRIME32_3 = 0xC2B2AE3D;
static const uint64_t PRIME64_1 = 0x9E3779B185EBCA87, PRIME64_2 = 0xC2B2AE3D27D4EB4F, PRIME64_3 = 0x165667B19E3779F9,
                      PRIME64_4 = 0x85EBCA77C2B2AE63, PRIME64_5 = 0x27D4EB2F165667C5;
static const uint64_t PRIME_MX1 = 0x165667919E3779F9, PRIME_MX2 = 0x9FB21C651E98DF25;

static uint64_t number(const uint8_t *p, unsigned bytes) {
    uint64_t x = 0;
    while (bytes-- > 0) x = x * 256 + p[bytes];
    return x;
}

static uint64_t reversed(uint64_t x, unsigned bytes) {
    uint64_t y = 0;
    for (unsigned k = 0; k < bytes; k++, x /= 256) y = y * 256 + x % 256;
    return y;
}

static uint64_t rotated(uint64_t x, unsigned k) { return x << k | x >> (64 - k); }

/* Both halves of the product, from four products of 32 bits. */
static uint64_t folded(uint64_t a, uint64_t b) {
    uint64_t part[4] = {0}, x[2] = {a % (UINT64_C(1) << 32), a >> 32}, y[2] = {b % (UINT64_C(1) << 32), b >> 32};
    for (int i = 0; i < 2; i++) {
        uint64_t carry = 0;
        for (int k = 0; k < 2; k++) {
            uint64_t sum = x[i] * y[k] + part[i + k] + carry;
            part[i + k] = sum % (UINT64_C(1) << 32);
            carry = sum >> 32;
        }
        part[i + 2] += carry;
    }
    return (part[0] | part[1] << 32) ^ (part[2] | part[3] << 32);
}

static uint64_t avalanche(uint64_t h) {
    h ^= h >> 37;
    h *= PRIME_MX1;
    return h ^ h >> 32;
}

static uint64_t avalanche_xxh64(uint64_t h) {
    h ^= h >> 33;
    h *= PRIME64_2;
    h ^= h >> 29;
    h *= PRIME64_3;
    return h ^ h >> 32;
}

static uint64_t mixed(const uint8_t *p, size_t secret, uint64_t seed) {
    return folded(number(p, 8) ^ (number(SECRET + secret, 8) + seed), number(p + 8, 8) ^ (number(SECRET + secret + 8, 8) - seed));
}

static uint64_t small_hash(const uint8_t *p, size_t n, uint64_t seed) {
    if (n == 0) return avalanche_xxh64(seed ^ number(SECRET + 56, 8) ^ number(SECRET + 64, 8));
    if (n < 4) {
        uint64_t combined = p[n - 1] | n << 8 | (uint64_t)p[0] << 16 | (uint64_t)p[n / 2] << 24;
        return avalanche_xxh64(((number(SECRET, 4) ^ number(SECRET + 4, 4)) + seed) ^ combined);
    }
    if (n < 9) {
        uint64_t modified = seed ^ reversed(seed % (UINT64_C(1) << 32), 4) << 32;
        uint64_t combined = number(p + n - 4, 4) | number(p, 4) << 32;
        uint64_t h = ((number(SECRET + 8, 8) ^ number(SECRET + 16, 8)) - modified) ^ combined;
        h ^= rotated(h, 49) ^ rotated(h, 24);
        h *= PRIME_MX2;
        h ^= (h >> 35) + n;
        h *= PRIME_MX2;
        return h ^ h >> 28;
    }
    uint64_t low = ((number(SECRET + 24, 8) ^ number(SECRET + 32, 8)) + seed) ^ number(p, 8);
    uint64_t high = ((number(SECRET + 40, 8) ^ number(SECRET + 48, 8)) - seed) ^ number(p + n - 8, 8);
    return avalanche(n + reversed(low, 8) + high + folded(low, high));
}

static uint64_t medium_hash(const uint8_t *p, size_t n, uint64_t seed) {
    uint64_t h = n * PRIME64_1;
    if (n <= 128) {
        size_t rounds = (n - 1) / 32 + 1;
        for (size_t i = rounds; i-- > 0;) {
            h += mixed(p + 16 * i, 32 * i, seed);
            h += mixed(p + n - 16 * (i + 1), 32 * i + 16, seed);
        }
        return avalanche(h);
    }
    size_t chunks = n / 16;
    for (size_t i = 0; i < 8; i++) h += mixed(p + 16 * i, 16 * i, seed);
    h = avalanche(h);
    for (size_t i = 8; i < chunks; i++) h += mixed(p + 16 * i, 16 * (i - 8) + 3, seed);
    return avalanche(h + mixed(p + n - 16, 136 - 17, seed));
}

static void accumulate(uint64_t *lanes, const uint8_t *stripe, const uint8_t *secret) {
    for (int i = 0; i < 8; i++) {
        uint64_t value = number(stripe + 8 * i, 8), key = value ^ number(secret + 8 * i, 8);
        lanes[i % 2 ? i - 1 : i + 1] += value;
        lanes[i] += key % (UINT64_C(1) << 32) * (key >> 32);
    }
}

static uint64_t large_hash(const uint8_t *p, size_t n, uint64_t seed) {
    uint8_t secret[192];
    for (size_t i = 0; i < 12; i++) {
        uint64_t even = number(SECRET + 16 * i, 8) + seed, odd = number(SECRET + 16 * i + 8, 8) - seed;
        for (size_t k = 0; k < 8; k++, even /= 256, odd /= 256) {
            secret[16 * i + k] = (uint8_t)even;
            secret[16 * i + 8 + k] = (uint8_t)odd;
        }
    }
    uint64_t lanes[8] = {PRIME32_3, PRIME64_1, PRIME64_2, PRIME64_3, PRIME64_4, PRIME32_2, PRIME64_5, PRIME32_1};
    size_t at = 0, stripe = 0;
    for (; n - at > 64; at += 64) {
        accumulate(lanes, p + at, secret + 8 * stripe);
        if (++stripe < 16) continue;
        for (int i = 0; i < 8; i++) {
            lanes[i] ^= lanes[i] >> 47;
            lanes[i] ^= number(secret + 128 + 8 * i, 8);
            lanes[i] *= PRIME32_1;
        }
        stripe = 0;
    }
    accumulate(lanes, p + n - 64, secret + 121);
    uint64_t h = n * PRIME64_1;
    for (int i = 0; i < 4; i++) {
        h += folded(lanes[2 * i] ^ number(secret + 11 + 16 * i, 8), lanes[2 * i + 1] ^ number(secret + 19 + 16 * i, 8));
    }
    return avalanche(h);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    input in = {data, data + size};
    uint64_t seed = 0;
    uint32_t how = take8(&in), times = how & 1 ? 1 + take8(&in) % 40 : 1;
    if (how & 2) seed = take32(&in) | (uint64_t)take32(&in) << 32;
    size_t n = left(&in) * times;
    uint8_t *bytes = room(n);
    for (size_t i = 0; i < n; i++) bytes[i] = (uint8_t)(in.p[i % left(&in)] + i / left(&in));
    uint64_t expected = n <= 16 ? small_hash(bytes, n, seed)
                        : n <= 240 ? medium_hash(bytes, n, seed)
                                   : large_hash(bytes, n, seed);
    REQUIRE(tsr_hash(bytes, n, seed) == expected);
    free(bytes);
    return 0;
}
