/* Interleaved rANS in vectors of aarch64, which has no gathers: slots are loaded one by one, all else is done four lanes at a time.
 * Bit-identical to the portable decoder in rans.c. */
#include "rans.h"

#if TSR_NEON
#include <arm_neon.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

/* By which of four lanes need a word: where in the next eight bytes their words lie, as the low halves of the lanes. */
#define RANK(m, lane) (((m) & 1) * ((lane) > 0) + ((m) >> 1 & 1) * ((lane) > 1) + ((m) >> 2 & 1) * ((lane) > 2))
#define WORD(m, lane) (m) >> (lane) & 1 ? 2 * RANK(m, lane) : 255, (m) >> (lane) & 1 ? 2 * RANK(m, lane) + 1 : 255, 255, 255
#define ROW(m) {WORD(m, 0), WORD(m, 1), WORD(m, 2), WORD(m, 3)}
static const uint8_t WORDS[16][16] = {ROW(0), ROW(1), ROW(2),  ROW(3),  ROW(4),  ROW(5),  ROW(6),  ROW(7),
                                      ROW(8), ROW(9), ROW(10), ROW(11), ROW(12), ROW(13), ROW(14), ROW(15)};

INLINE uint32x4_t packed_slots(const uint32_t *slots, uint32x4_t index) {
    uint32x4_t found = vdupq_n_u32(slots[vgetq_lane_u32(index, 0)]);
    found = vld1q_lane_u32(slots + vgetq_lane_u32(index, 1), found, 1);
    found = vld1q_lane_u32(slots + vgetq_lane_u32(index, 2), found, 2);
    return vld1q_lane_u32(slots + vgetq_lane_u32(index, 3), found, 3);
}

/* Two slots of eight bytes. */
INLINE uint32x4_t two_slots(const uint8_t *slots, uint32_t a, uint32_t b) {
    return vreinterpretq_u32_u8(vcombine_u8(vld1_u8(slots + sizeof(tsr_slot) * a), vld1_u8(slots + sizeof(tsr_slot) * b)));
}

INLINE void put(void *out, size_t i, int32x4_t values, const int bytes) {
    if (bytes) {
        uint16x4_t half = vmovn_u32(vreinterpretq_u32_s32(values));
        vst1_lane_u32((void *)((uint8_t *)out + i), vreinterpret_u32_u8(vmovn_u16(vcombine_u16(half, half))), 0);
    } else {
        vst1q_s32((int32_t *)out + i, values);
    }
}

INLINE size_t decode(tsr_reader *r, const uint8_t *tables, void *out, size_t n, const size_t vectors, const int packed, const int bytes,
                     const int contexts) {
    const uint8_t *p = r->data, *end = r->end;
    const uint32x4_t mask = vdupq_n_u32((UINT32_C(1) << r->precision) - 1), low16 = vdupq_n_u32(0xFFFF);
    const uint32x4_t last = vdupq_n_u32(r->contexts - 1), bit = {1, 2, 4, 8};
    const int32x4_t base = vdupq_n_s32(r->base), up = vdupq_n_s32((int)r->precision), down = vnegq_s32(up), twice = vaddq_s32(down, down);
    uint32x4_t x[8];
    int32x4_t before[8];
    UNROLL for (size_t k = 0; k < vectors; k++) x[k] = vld1q_u32(r->state + 4 * k);
    UNROLL for (size_t k = 0; contexts && k < vectors; k++) before[k] = vld1q_s32(r->before + 4 * k);
    size_t i = 0;
    for (; i + 4 * vectors <= n && (size_t)(end - p) >= 8 * vectors; i += 4 * vectors) {
        UNROLL for (size_t k = 0; k < vectors; k++) {
            uint32x4_t index = vandq_u32(x[k], mask), high = vshlq_u32(x[k], down), next;
            int32x4_t value;
            if (tables) {
                const uint8_t *t = tables + i + 4 * k;
                const uint32x4_t table = {t[0], t[1], t[2], t[3]};
                index = vorrq_u32(index, vshlq_u32(table, up));
            }
            if (contexts) {
                uint32x4_t table = vminq_u32(vreinterpretq_u32_s32(vabsq_s32(before[k])), last);
                index = vorrq_u32(index, vshlq_u32(table, up));
            }
            if (packed) {
                uint32x4_t slot = packed_slots(r->slots, index), less = vandq_u32(vshlq_u32(slot, down), mask);
                value = vaddq_s32(base, vreinterpretq_s32_u32(vshlq_u32(slot, twice)));
                next = vmlaq_u32(vaddq_u32(high, vandq_u32(slot, mask)), less, high);
            } else {
                uint32x4_t a = two_slots(r->slots, vgetq_lane_u32(index, 0), vgetq_lane_u32(index, 1));
                uint32x4_t b = two_slots(r->slots, vgetq_lane_u32(index, 2), vgetq_lane_u32(index, 3));
                uint32x4_t pair = vuzp1q_u32(a, b); /* frequency, bias */
                value = vreinterpretq_s32_u32(vuzp2q_u32(a, b));
                next = vmlaq_u32(vshrq_n_u32(pair, 16), vandq_u32(pair, low16), high);
            }
            if (contexts) {
                int32x4_t sign = vshrq_n_s32(before[k], 31);
                before[k] = value = vsubq_s32(veorq_s32(value, sign), sign);
            }
            put(out, i + 4 * k, value, bytes);
            uint32x4_t need = vcleq_u32(next, low16);
            const uint32_t which = vaddvq_u32(vandq_u32(need, bit));
            uint8x16_t words = vqtbl1q_u8(vcombine_u8(vld1_u8(p), vdup_n_u8(0)), vld1q_u8(WORDS[which]));
            next = vshlq_u32(next, vreinterpretq_s32_u32(vandq_u32(need, vdupq_n_u32(16))));
            x[k] = vorrq_u32(next, vreinterpretq_u32_u8(words));
            p += 2 * __builtin_popcount(which);
        }
    }
    UNROLL for (size_t k = 0; k < vectors; k++) vst1q_u32(r->state + 4 * k, x[k]);
    UNROLL for (size_t k = 0; contexts && k < vectors; k++) vst1q_s32(r->before + 4 * k, before[k]);
    r->data = p;
    return i;
}

INLINE size_t decode_lanes(tsr_reader *r, const uint8_t *tables, void *out, size_t n, const size_t vectors, int bytes) {
    if (r->contexts > 0) return r->packed ? decode(r, NULL, out, n, vectors, 1, 0, 1) : decode(r, NULL, out, n, vectors, 0, 0, 1);
    if (bytes) return r->packed ? decode(r, tables, out, n, vectors, 1, 1, 0) : decode(r, tables, out, n, vectors, 0, 1, 0);
    return r->packed ? decode(r, tables, out, n, vectors, 1, 0, 0) : decode(r, tables, out, n, vectors, 0, 0, 0);
}

size_t tsr_decode_neon(tsr_reader *r, const uint8_t *tables, void *out, size_t n, int bytes) {
    if (r->lanes == 32) return decode_lanes(r, tables, out, n, 8, bytes);
    return r->lanes == 16 ? decode_lanes(r, tables, out, n, 4, bytes) : decode_lanes(r, tables, out, n, 2, bytes);
}
#endif
