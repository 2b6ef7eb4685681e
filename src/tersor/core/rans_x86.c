/* Interleaved rANS in vectors: AVX-512 and AVX2. Bit-identical to the portable decoder in rans.c. */
#include "rans.h"

#if TSR_X86
#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 4")

/* -- AVX-512: 16 lanes a vector ------------------------------------------------------------------------------------ */

#define TARGET __attribute__((target("avx512f,bmi2,popcnt")))

/* Values as number i to i + 15 of the output: integers of 32 bits or their low bytes. */
TARGET INLINE void put_512(void *out, size_t i, __m512i values, const int bytes) {
    if (bytes) _mm_storeu_si128((__m128i *)((uint8_t *)out + i), _mm512_cvtepi32_epi8(values));
    else _mm512_storeu_si512((int32_t *)out + i, values);
}

/* How slots lie in memory: as tsr_slot, packed, or packed with the precision that streams of several tables have. */
enum { WIDE, PACKED, PACKED_12 };

/* Plain loads: many processors take longer for a gather, some several times as long. */
TARGET INLINE __m128i two_packed(const uint32_t *slots, uint64_t at) {
    return _mm_insert_epi32(_mm_cvtsi32_si128((int)slots[(uint32_t)at]), (int)slots[at >> 32], 1);
}

TARGET INLINE __m512i joined(const __m128i *quarters) {
    __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(quarters[0]), quarters[1], 1);
    __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(quarters[2]), quarters[3], 1);
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

TARGET INLINE __m512i packed_slots(const void *slots, __m512i index) {
    uint64_t at[8] __attribute__((aligned(64)));
    __m128i quarters[4];
    _mm512_store_si512(at, index);
    UNROLL for (int k = 0; k < 4; k++)
        quarters[k] = _mm_unpacklo_epi64(two_packed(slots, at[2 * k]), two_packed(slots, at[2 * k + 1]));
    return joined(quarters);
}

TARGET INLINE __m512i turned_512(__m512i value, __m512i before) {
    __m512i sign = _mm512_srai_epi32(before, 31);
    return _mm512_sub_epi32(_mm512_xor_si512(value, sign), sign);
}

/* Slots are looked up by table and the low bits of the state; words are handed out in the order of the lanes: expanded into
 * those that need one. Inlined with constants for the number of vectors, the kind of slots, several tables, bytes and contexts. */
TARGET INLINE size_t decode_512(tsr_reader *r, const uint8_t *tables, void *out, size_t n, const size_t vectors, const int kind,
                                const int bytes, const int contexts) {
    const uint8_t *p = r->data, *end = r->end;
    const uint32_t precision = kind == PACKED_12 ? 12 : r->precision;
    const __m512i mask = _mm512_set1_epi32((1 << precision) - 1), limit = _mm512_set1_epi32(0x10000);
    const __m512i base = _mm512_set1_epi32(r->base), low16 = _mm512_set1_epi32(0xFFFF);
    const void *values = (const uint8_t *)r->slots + offsetof(tsr_slot, value);
    const __m512i last = _mm512_set1_epi32((int)r->contexts - 1);
    __m512i x[2] = {_mm512_loadu_si512(r->state), _mm512_loadu_si512(r->state + 16)};
    __m512i before[2] = {_mm512_loadu_si512(r->before), _mm512_loadu_si512(r->before + 16)};
    size_t i = 0;
    for (; i + 16 * vectors <= n && (size_t)(end - p) >= 32 * vectors; i += 16 * vectors) {
        __m512i next[2];
        /* All look-ups first: the vectors depend on each other through the words alone. */
        UNROLL for (size_t k = 0; k < vectors; k++) {
            __m512i index = _mm512_and_si512(x[k], mask), high = _mm512_srli_epi32(x[k], precision);
            if (tables) {
                __m512i table = _mm512_cvtepu8_epi32(_mm_loadu_si128((const void *)(tables + i + 16 * k)));
                index = _mm512_or_si512(index, _mm512_slli_epi32(table, precision));
            }
            if (contexts) {
                __m512i table = _mm512_min_epu32(_mm512_abs_epi32(before[k]), last);
                index = _mm512_or_si512(index, _mm512_slli_epi32(table, precision));
            }
            __m512i value;
            if (kind != WIDE) {
                __m512i slot = packed_slots(r->slots, index);
                value = _mm512_add_epi32(base, _mm512_srli_epi32(slot, 2 * precision));
                __m512i plain = _mm512_add_epi32(high, _mm512_and_si512(slot, mask));
                next[k] = _mm512_mullo_epi32(_mm512_and_si512(_mm512_srli_epi32(slot, precision), mask), high);
                next[k] = _mm512_add_epi32(next[k], plain);
            } else {
                __m512i pair = _mm512_i32gather_epi32(index, r->slots, sizeof(tsr_slot)); /* frequency, bias */
                value = _mm512_i32gather_epi32(index, values, sizeof(tsr_slot));
                next[k] = _mm512_mullo_epi32(_mm512_and_si512(pair, low16), high);
                next[k] = _mm512_add_epi32(next[k], _mm512_srli_epi32(pair, 16));
            }
            if (contexts) before[k] = value = turned_512(value, before[k]);
            put_512(out, i + 16 * k, value, bytes);
        }
        UNROLL for (size_t k = 0; k < vectors; k++) {
            __mmask16 need = _mm512_cmplt_epu32_mask(next[k], limit);
            __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)p));
            words = _mm512_maskz_expand_epi32(need, words);
            x[k] = _mm512_mask_or_epi32(next[k], need, _mm512_slli_epi32(next[k], 16), words);
            p += 2 * _mm_popcnt_u32(need);
        }
    }
    _mm512_storeu_si512(r->state, x[0]);
    _mm512_storeu_si512(r->state + 16, x[1]);
    _mm512_storeu_si512(r->before, before[0]);
    _mm512_storeu_si512(r->before + 16, before[1]);
    r->data = p;
    return i;
}

/* 16 by 16 integers, rows `apart`, to columns `run` apart. */
TARGET INLINE void transpose_16(const int32_t *in, const size_t apart, int32_t *out, const size_t run) {
    __m512i a[16], b[16];
    for (int i = 0; i < 16; i++) a[i] = _mm512_loadu_si512(in + apart * (size_t)i);
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) { /* a[i + k]: column k of every four, of rows i to i + 3 */
        a[i] = _mm512_unpacklo_epi64(b[i], b[i + 2]);
        a[i + 1] = _mm512_unpackhi_epi64(b[i], b[i + 2]);
        a[i + 2] = _mm512_unpacklo_epi64(b[i + 1], b[i + 3]);
        a[i + 3] = _mm512_unpackhi_epi64(b[i + 1], b[i + 3]);
    }
    for (int k = 0; k < 4; k++) {
        __m512i low = _mm512_shuffle_i32x4(a[k], a[k + 4], 0x44), high = _mm512_shuffle_i32x4(a[k], a[k + 4], 0xEE);
        __m512i low2 = _mm512_shuffle_i32x4(a[k + 8], a[k + 12], 0x44), high2 = _mm512_shuffle_i32x4(a[k + 8], a[k + 12], 0xEE);
        _mm512_storeu_si512(out + run * (size_t)k, _mm512_shuffle_i32x4(low, low2, 0x88));
        _mm512_storeu_si512(out + run * (size_t)(k + 4), _mm512_shuffle_i32x4(low, low2, 0xDD));
        _mm512_storeu_si512(out + run * (size_t)(k + 8), _mm512_shuffle_i32x4(high, high2, 0x88));
        _mm512_storeu_si512(out + run * (size_t)(k + 12), _mm512_shuffle_i32x4(high, high2, 0xDD));
    }
}

TARGET void tsr_restore_avx512(const int32_t *coded, int32_t *out) {
    const size_t run = TSR_BLOCK / 32;
    for (size_t step = 0; step < run; step += 16)
        for (size_t lane = 0; lane < 32; lane += 16) transpose_16(coded + 32 * step + lane, 32, out + run * lane + step, run);
}

TARGET void tsr_arrange_avx512(const int32_t *values, int32_t *coded) {
    const size_t run = TSR_BLOCK / 32;
    for (size_t step = 0; step < run; step += 16)
        for (size_t lane = 0; lane < 32; lane += 16) transpose_16(values + run * lane + step, run, coded + 32 * step + lane, 32);
}

#define BY_KIND(tables, vectors, bytes, contexts)                                                                     \
    (!r->packed           ? decode_512(r, tables, out, n, vectors, WIDE, bytes, contexts)                            \
     : r->precision == 12 ? decode_512(r, tables, out, n, vectors, PACKED_12, bytes, contexts)                       \
                          : decode_512(r, tables, out, n, vectors, PACKED, bytes, contexts))

TARGET size_t tsr_decode_avx512(tsr_reader *r, const uint8_t *tables, void *out, size_t n, int bytes) {
    if (r->contexts > 0) return r->lanes == 32 ? BY_KIND(NULL, 2, 0, 1) : BY_KIND(NULL, 1, 0, 1);
    if (r->lanes != 32) return BY_KIND(tables, 1, bytes, 0);
    if (tables) return bytes ? BY_KIND(tables, 2, 1, 0) : BY_KIND(tables, 2, 0, 0);
    return bytes ? BY_KIND(NULL, 2, 1, 0) : BY_KIND(NULL, 2, 0, 0);
}
#undef BY_KIND
#undef TARGET

/* -- AVX2: 8 lanes a vector ---------------------------------------------------------------------------------------- */

#define TARGET __attribute__((target("avx2")))

TARGET INLINE void put_256(void *out, size_t i, __m256i values, const int bytes) {
    if (!bytes) {
        _mm256_storeu_si256((__m256i *)((int32_t *)out + i), values);
        return;
    }
    /* The low bytes of each half, then of both. */
    const __m256i low = _mm256_setr_epi32(0x0C080400, -1, -1, -1, 0x0C080400, -1, -1, -1);
    __m256i halves = _mm256_permutevar8x32_epi32(_mm256_shuffle_epi8(values, low), _mm256_setr_epi32(0, 4, 1, 1, 1, 1, 1, 1));
    _mm_storel_epi64((__m128i *)((uint8_t *)out + i), _mm256_castsi256_si128(halves));
}

TARGET INLINE size_t decode_256(tsr_reader *r, const uint8_t *tables, void *out, size_t n, const size_t vectors, const int packed,
                                const int bytes, const int contexts) {
    const uint8_t *p = r->data, *end = r->end;
    const __m256i mask = _mm256_set1_epi32((1 << r->precision) - 1), zero = _mm256_setzero_si256();
    const __m256i base = _mm256_set1_epi32(r->base), low16 = _mm256_set1_epi32(0xFFFF);
    const __m128i precision = _mm_cvtsi32_si128((int)r->precision), twice = _mm_cvtsi32_si128(2 * (int)r->precision);
    const int *slots = r->slots, *values = (const int *)((const uint8_t *)r->slots + offsetof(tsr_slot, value));
    const __m256i last = _mm256_set1_epi32((int)r->contexts - 1);
    __m256i x[4], before[4];
    UNROLL for (size_t k = 0; k < vectors; k++) x[k] = _mm256_loadu_si256((const __m256i *)r->state + k);
    UNROLL for (size_t k = 0; contexts && k < vectors; k++) before[k] = _mm256_loadu_si256((const __m256i *)r->before + k);
    size_t i = 0;
    for (; i + 8 * vectors <= n && (size_t)(end - p) >= 16 * vectors; i += 8 * vectors) {
        __m256i next[4];
        UNROLL for (size_t k = 0; k < vectors; k++) {
            __m256i index = _mm256_and_si256(x[k], mask), high = _mm256_srl_epi32(x[k], precision);
            if (tables) {
                __m256i table = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(tables + i + 8 * k)));
                index = _mm256_or_si256(index, _mm256_sll_epi32(table, precision));
            }
            if (contexts) {
                __m256i table = _mm256_min_epu32(_mm256_abs_epi32(before[k]), last);
                index = _mm256_or_si256(index, _mm256_sll_epi32(table, precision));
            }
            __m256i value;
            if (packed) {
                __m256i slot = _mm256_i32gather_epi32(slots, index, 4);
                value = _mm256_add_epi32(base, _mm256_srl_epi32(slot, twice));
                __m256i plain = _mm256_add_epi32(high, _mm256_and_si256(slot, mask));
                next[k] = _mm256_mullo_epi32(_mm256_and_si256(_mm256_srl_epi32(slot, precision), mask), high);
                next[k] = _mm256_add_epi32(next[k], plain);
            } else {
                __m256i pair = _mm256_i32gather_epi32(slots, index, sizeof(tsr_slot));
                value = _mm256_i32gather_epi32(values, index, sizeof(tsr_slot));
                next[k] = _mm256_mullo_epi32(_mm256_and_si256(pair, low16), high);
                next[k] = _mm256_add_epi32(next[k], _mm256_srli_epi32(pair, 16));
            }
            if (contexts) {
                __m256i sign = _mm256_srai_epi32(before[k], 31);
                before[k] = value = _mm256_sub_epi32(_mm256_xor_si256(value, sign), sign);
            }
            put_256(out, i + 8 * k, value, bytes);
        }
        UNROLL for (size_t k = 0; k < vectors; k++) {
            /* Which lanes need a word, one byte each; running sums of the bytes number the words. */
            __m256i need = _mm256_cmpeq_epi32(_mm256_srli_epi32(next[k], 16), zero);
            __m128i halves = _mm_packs_epi32(_mm256_castsi256_si128(need), _mm256_extracti128_si256(need, 1));
            uint64_t flags = (uint64_t)_mm_cvtsi128_si64(_mm_packs_epi16(halves, halves)) & UINT64_C(0x0101010101010101);
            uint64_t sums = flags * UINT64_C(0x0101010101010101);
            __m256i order = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)(sums << 8)));
            __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
            words = _mm256_or_si256(_mm256_slli_epi32(next[k], 16), _mm256_permutevar8x32_epi32(words, order));
            x[k] = _mm256_blendv_epi8(next[k], words, need);
            p += 2 * (sums >> 56);
        }
    }
    UNROLL for (size_t k = 0; k < vectors; k++) _mm256_storeu_si256((__m256i *)r->state + k, x[k]);
    UNROLL for (size_t k = 0; contexts && k < vectors; k++) _mm256_storeu_si256((__m256i *)r->before + k, before[k]);
    r->data = p;
    return i;
}

TARGET INLINE size_t decode_32_by_8(tsr_reader *r, const uint8_t *tables, void *out, size_t n, const int bytes) {
    if (tables) return r->packed ? decode_256(r, tables, out, n, 4, 1, bytes, 0) : decode_256(r, tables, out, n, 4, 0, bytes, 0);
    return r->packed ? decode_256(r, NULL, out, n, 4, 1, bytes, 0) : decode_256(r, NULL, out, n, 4, 0, bytes, 0);
}

TARGET INLINE size_t decode_256_contexts(tsr_reader *r, void *out, size_t n, const size_t vectors) {
    return r->packed ? decode_256(r, NULL, out, n, vectors, 1, 0, 1) : decode_256(r, NULL, out, n, vectors, 0, 0, 1);
}

TARGET size_t tsr_decode_avx2(tsr_reader *r, const uint8_t *tables, void *out, size_t n, int bytes) {
    if (r->contexts > 0) {
        if (r->lanes == 32) return decode_256_contexts(r, out, n, 4);
        return r->lanes == 16 ? decode_256_contexts(r, out, n, 2) : decode_256_contexts(r, out, n, 1);
    }
    if (r->lanes == 32) return bytes ? decode_32_by_8(r, tables, out, n, 1) : decode_32_by_8(r, tables, out, n, 0);
    const size_t vectors = r->lanes / 8;
    if (vectors == 2) return r->packed ? decode_256(r, tables, out, n, 2, 1, bytes, 0) : decode_256(r, tables, out, n, 2, 0, bytes, 0);
    return r->packed ? decode_256(r, tables, out, n, 1, 1, bytes, 0) : decode_256(r, tables, out, n, 1, 0, bytes, 0);
}
#endif
