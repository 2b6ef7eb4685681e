/* Encoding of integer streams: interleaved rANS, from the last symbol to the first (spec/FORMAT.md, section 6.3). */
#include "bits.h"
#include "rans.h"

#if TSR_X86
#include <immintrin.h>
#endif

enum { WIDEST_SPAN = 1 << 16 };

tsr_error tsr_encoder_open(tsr_encoder *e, const tsr_prelude *prelude, uint32_t from, uint32_t to) {
    int64_t low = INT64_MAX, high = INT64_MIN;
    e->precision = 0;
    for (uint32_t k = from; k < to; k++) {
        tsr_table table;
        size_t position = prelude->at[k];
        tsr_error error = tsr_table_read(&table, prelude->data, prelude->size, &position);
        if (error != TSR_OK) return error;
        if (e->precision != 0 && table.precision != e->precision) return TSR_ARGUMENT;
        e->precision = table.precision;
        if (table.lowest < low) low = table.lowest;
        if ((int64_t)table.lowest + table.alphabet > high) high = (int64_t)table.lowest + table.alphabet;
    }
    if (from >= to || high - low > WIDEST_SPAN) return TSR_ARGUMENT;
    e->lowest = (int32_t)low;
    e->span = (uint32_t)(high - low);
    return TSR_OK;
}

tsr_error tsr_encoder_fill(tsr_encoder *e, const tsr_prelude *prelude, uint32_t from, uint32_t to) {
    memset(e->entries, 0, sizeof(uint32_t) * e->span * (to - from));
    for (uint32_t k = from; k < to; k++) {
        tsr_table table;
        size_t position = prelude->at[k];
        tsr_error error = tsr_table_read(&table, prelude->data, prelude->size, &position);
        if (error != TSR_OK) return error;
        uint32_t start = 0, mode = 0;
        uint32_t *entries = e->entries + (size_t)e->span * (k - from), first = (uint32_t)(table.lowest - e->lowest);
        for (uint32_t symbol = 0; symbol < table.alphabet; symbol++) {
            uint32_t frequency = table.frequency[symbol];
            if (frequency > table.frequency[mode]) mode = symbol;
            entries[first + symbol] = frequency ? frequency | start << 16 : 0;
            start += frequency;
        }
        e->modes[k - from] = (uint32_t)(e->span * (k - from)) + first + mode;
    }
    return TSR_OK;
}

/* LEB128; returns the end, or NULL if there is no room. */
static uint8_t *write_varint(uint8_t *p, const uint8_t *end, uint64_t x) {
    do {
        if (p == NULL || p == end) return NULL;
        *p++ = (uint8_t)((x & 127) | (x > 127 ? 128 : 0));
        x >>= 7;
    } while (x != 0);
    return p;
}

/* Entry of a value, or 0 if its table lacks it. */
static inline uint32_t entry_of(const tsr_encoder *e, int32_t value, uint32_t table) {
    uint32_t symbol = (uint32_t)value - (uint32_t)e->lowest;
    return symbol < e->span ? e->entries[e->span * table + symbol] : 0;
}

/* What is to be patched, from the last place to the first. */
typedef struct {
    uint32_t *places;
    size_t count;
} patch_list;

static uint8_t *write_patches(const patch_list *patches, const int32_t *values, size_t n, uint32_t runs, uint8_t *p, const uint8_t *end) {
    p = write_varint(p, end, patches->count);
    uint32_t from = 0;
    for (size_t k = patches->count; k-- > 0 && p != NULL;) {
        uint32_t at = patches->places[k];
        p = write_varint(p, end, at - from);
        p = write_varint(p, end, zigzag(values[runs > 0 ? tsr_lane_order(at, n, runs) : at]));
        from = at + 1;
    }
    return p;
}

#if TSR_X86
#define TARGET __attribute__((target("avx512f,bmi2,popcnt")))
enum { FEW_CONTEXTS = 16, FARTHEST = 1 << 20 };

/* The levels of each table that are next to each other and have entries, its mode among them. */
typedef struct {
    int32_t lowest[FEW_CONTEXTS], highest[FEW_CONTEXTS];
} tsr_known;

static void find_known(const tsr_encoder *e, uint32_t contexts, tsr_known *known) {
    memset(known, 0, sizeof *known);
    for (uint32_t k = 0; k < contexts; k++) {
        const uint32_t *entries = e->entries + (size_t)e->span * k;
        uint32_t low = e->modes[k] - e->span * k, high = low;
        while (low > 0 && entries[low - 1] != 0) low--;
        while (high + 1 < e->span && entries[high + 1] != 0) high++;
        known->lowest[k] = e->lowest + (int32_t)low;
        known->highest[k] = e->lowest + (int32_t)high;
    }
}

/* tsr_context_arrange for a whole block of 32 lanes, sixteen neighbours at once; 0, and nothing done, where a level may be patched. */
TARGET static int arrange_512(const tsr_known *known, uint32_t contexts, const int32_t *values, int32_t *before, int32_t *turned,
                              uint8_t *tables) {
    enum { RUN = TSR_BLOCK / 32, LEVEL = 8 /* bits of a table */ };
    const __m512i lowest = _mm512_loadu_si512(known->lowest), highest = _mm512_loadu_si512(known->highest);
    const __m512i most = _mm512_set1_epi32((int)contexts - 1);
    int32_t pairs[TSR_BLOCK];
    __mmask16 beyond = 0;
    for (size_t lane = 0; lane < 32; lane++) {
        __m512i last = _mm512_set1_epi32(before[lane]);
        for (size_t i = RUN * lane; i < RUN * (lane + 1); i += 16) {
            __m512i level = _mm512_loadu_si512(values + i), previous = _mm512_alignr_epi32(level, last, 15);
            __m512i sign = _mm512_srai_epi32(previous, 31), table = _mm512_min_epu32(_mm512_abs_epi32(previous), most);
            last = level;
            level = _mm512_sub_epi32(_mm512_xor_si512(level, sign), sign);
            beyond |= _mm512_cmplt_epi32_mask(level, _mm512_permutexvar_epi32(table, lowest)) |
                      _mm512_cmpgt_epi32_mask(level, _mm512_permutexvar_epi32(table, highest));
            _mm512_storeu_si512(pairs + i, _mm512_or_si512(_mm512_slli_epi32(level, LEVEL), table));
        }
    }
    if (beyond) return 0;
    for (size_t lane = 0; lane < 32; lane++) before[lane] = values[RUN * lane + RUN - 1];
    tsr_arrange_avx512(pairs, turned);
    for (size_t i = 0; i < TSR_BLOCK; i += 16) {
        __m512i pair = _mm512_loadu_si512(turned + i);
        _mm_storeu_si128((void *)(tables + i), _mm512_cvtepi32_epi8(pair));
        _mm512_storeu_si512(turned + i, _mm512_srai_epi32(pair, LEVEL));
    }
    return 1;
}
#undef TARGET
#endif

void tsr_context_arrange(const tsr_encoder *e, uint32_t contexts, uint32_t lanes, const int32_t *values, size_t n, int32_t *turned,
                         uint8_t *tables) {
    int32_t before[TSR_MAX_LANES] = {0};
    size_t i = 0;
#if TSR_X86
    const int wide = lanes == 32 && contexts <= FEW_CONTEXTS && e->lowest >= -FARTHEST && e->lowest <= FARTHEST &&
                     tsr_simd_best() >= TSR_SIMD_AVX512;
    tsr_known known;
    if (wide) find_known(e, contexts, &known);
#endif
    while (i < n) {
#if TSR_X86
        if (wide && n - i >= TSR_BLOCK && arrange_512(&known, contexts, values + i, before, turned + i, tables + i)) {
            i += TSR_BLOCK;
            continue;
        }
#endif
        const size_t start = i, size = n - i < TSR_BLOCK ? n - i : TSR_BLOCK, run = size / lanes;
        for (size_t step = 0; i < start + size; step++) {
            const size_t stride = step < run ? run : 1, from = step < run ? start + step : i;
            for (uint32_t lane = 0; lane < lanes && i < start + size; lane++, i++) {
                const int32_t value = values[from + lane * stride];
                const uint32_t context = tsr_context(before[lane], contexts);
                tables[i] = (uint8_t)context;
                turned[i] = tsr_turned(value, before[lane]);
                /* The decoder goes by what it decoded, before any patch. */
                const int32_t mode = e->lowest + (int32_t)(e->modes[context] - e->span * context);
                before[lane] = entry_of(e, turned[i], context) ? value : tsr_turned(mode, before[lane]);
            }
        }
    }
}

/* Symbols from .. to - 1, backwards, in steps of single lanes; returns where the words begin, and lists what a table lacks. */
static uint16_t *encode_portable(const tsr_encoder *e, const uint8_t *tables, const int32_t *values, size_t from, size_t to,
                                 uint32_t lanes, uint32_t *state, uint16_t *word, patch_list *patches) {
    const uint32_t precision = e->precision;
    for (size_t i = to; i-- > from;) {
        uint32_t table = tables ? tables[i] : 0, entry = entry_of(e, values[i], table);
        if (entry == 0) {
            entry = e->entries[e->modes[table]]; /* a patch overrides it */
            patches->places[patches->count++] = (uint32_t)i;
        }
        uint32_t frequency = entry & 0xFFFF, *mine = state + (i & (lanes - 1)), x = *mine;
        if ((uint64_t)x >= (uint64_t)frequency << (32 - precision)) {
            *--word = (uint16_t)x;
            x >>= 16;
        }
        *mine = (x / frequency << precision) + x % frequency + (entry >> 16);
    }
    return word;
}

#if TSR_X86
#define TARGET __attribute__((target("avx512f,bmi2,popcnt")))

/* Entries of sixteen symbols from registers: 32 of them in every pair. A gather takes several times as long. */
TARGET static inline __m512i look_up(const __m512i (*registers)[2], __m512i symbol, const int pairs) {
    __m512i entry = _mm512_permutex2var_epi32(registers[0][0], symbol, registers[0][1]);
    for (int k = 1; k < pairs; k++) {
        __m512i other = _mm512_permutex2var_epi32(registers[k][0], symbol, registers[k][1]);
        entry = _mm512_mask_mov_epi32(entry, _mm512_cmpge_epu32_mask(symbol, _mm512_set1_epi32(32 * k)), other);
    }
    return entry;
}

/* `groups` groups of 32 lanes in two vectors, of 16 in one or of 8 in half of one, backwards. Quotients come from float division, rounded down: at most 2^20 for the
 * precisions that come here, so that they are one too small at most, which the remainder tells. */
TARGET static inline __attribute__((always_inline)) uint16_t *encode_512(const tsr_encoder *e, const uint8_t *tables,
                                                                        const int32_t *values, size_t groups, uint32_t *state,
                                                                        uint16_t *word, patch_list *patches, const int pairs,
                                                                        const uint32_t lanes) {
    const int vectors = lanes == 32 ? 2 : 1;
    const __mmask16 used = lanes == 8 ? 0xFF : 0xFFFF;
    const __m512i lowest = _mm512_set1_epi32(e->lowest), span = _mm512_set1_epi32((int)e->span);
    const __m512i low16 = _mm512_set1_epi32(0xFFFF), one = _mm512_set1_epi32(1), whole = _mm512_set1_epi32(1 << e->precision);
    const __m512i numbers = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m128i precision = _mm_cvtsi32_si128((int)e->precision), rest = _mm_cvtsi32_si128(32 - (int)e->precision);
    __m512i registers[4][2];
    for (uint32_t k = 0; k < 2 * (uint32_t)pairs; k++) {
        const uint32_t from = 16 * k < e->span ? 16 * k : 0, there = e->span - from;
        registers[k / 2][k % 2] = _mm512_maskz_loadu_epi32((__mmask16)(there < 16 ? (1u << there) - 1 : 0xFFFF), e->entries + from);
    }
    __m512i x[2] = {_mm512_loadu_si512(state), _mm512_loadu_si512(state + 16)};
    for (size_t g = groups; g-- > 0;) {
        for (int k = vectors - 1; k >= 0; k--) {
            const size_t i = lanes * g + 16 * (size_t)k;
            __m512i symbol = _mm512_sub_epi32(_mm512_maskz_loadu_epi32(used, values + i), lowest), table = _mm512_setzero_si512();
            __mmask16 known = _mm512_mask_cmplt_epu32_mask(used, symbol, span);
            if (tables) {
                const void *own = tables + i;
                table = _mm512_cvtepu8_epi32(lanes == 8 ? _mm_loadl_epi64(own) : _mm_loadu_si128(own));
                symbol = _mm512_add_epi32(symbol, _mm512_mullo_epi32(table, span));
            }
            __m512i entry = pairs ? _mm512_maskz_mov_epi32(known, look_up(registers, symbol, pairs))
                                  : _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), known, symbol, e->entries, 4);
            __mmask16 lacking = _mm512_mask_testn_epi32_mask(used, entry, entry);
            if (lacking) {
                __m512i mode = _mm512_i32gather_epi32(table, e->modes, 4);
                entry = _mm512_mask_i32gather_epi32(entry, lacking, mode, e->entries, 4);
                for (uint32_t left = lacking; left != 0; left &= ~(UINT32_C(1) << (31 - (uint32_t)__builtin_clz(left))))
                    patches->places[patches->count++] = (uint32_t)i + 31 - (uint32_t)__builtin_clz(left);
            }
            __m512i frequency = _mm512_and_si512(entry, low16), start = _mm512_srli_epi32(entry, 16);
            /* x >= frequency << (32 - precision), where the right side may be 2^32 */
            __m512i most = _mm512_sub_epi32(_mm512_sll_epi32(frequency, rest), one);
            __mmask16 emits = _mm512_mask_cmpgt_epu32_mask(used, x[k], most);
            /* Sixteen words are stored, those that count last; the others lie where the next ones go. */
            __m512i count = _mm512_set1_epi32(_mm_popcnt_u32(emits)), packed = _mm512_maskz_compress_epi32(emits, x[k]);
            packed = _mm512_permutexvar_epi32(_mm512_add_epi32(numbers, count), packed);
            _mm256_storeu_si256((__m256i *)(word - 16), _mm512_cvtepi32_epi16(packed));
            word -= _mm_popcnt_u32(emits);
            x[k] = _mm512_mask_srli_epi32(x[k], emits, x[k], 16);
            __m512 dividend = _mm512_cvt_roundepu32_ps(x[k], _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
            __m512 ratio = _mm512_div_round_ps(dividend, _mm512_cvtepu32_ps(frequency), _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
            __m512i quotient = _mm512_cvttps_epu32(ratio);
            __m512i remainder = _mm512_sub_epi32(x[k], _mm512_mullo_epi32(quotient, frequency));
            __mmask16 above = _mm512_cmpge_epu32_mask(remainder, frequency);
            __m512i next = _mm512_add_epi32(_mm512_sll_epi32(quotient, precision), _mm512_add_epi32(remainder, start));
            x[k] = _mm512_mask_add_epi32(next, above, next, _mm512_sub_epi32(whole, frequency));
        }
    }
    _mm512_storeu_si512(state, x[0]);
    _mm512_storeu_si512(state + 16, x[1]);
    return word;
}

TARGET static inline __attribute__((always_inline)) uint16_t *encode_groups(const tsr_encoder *e, const uint8_t *tables,
                                                                           const int32_t *values, size_t groups, uint32_t *state,
                                                                           uint16_t *word, patch_list *patches, const uint32_t lanes) {
    if (tables) return encode_512(e, tables, values, groups, state, word, patches, 0, lanes);
    if (e->span <= 32) return encode_512(e, NULL, values, groups, state, word, patches, 1, lanes);
    if (e->span <= 128) return encode_512(e, NULL, values, groups, state, word, patches, 4, lanes);
    return encode_512(e, NULL, values, groups, state, word, patches, 0, lanes);
}

TARGET static uint16_t *encode_vectors(const tsr_encoder *e, const uint8_t *tables, const int32_t *values, size_t groups,
                                       uint32_t *state, uint16_t *word, patch_list *patches, uint32_t lanes) {
    if (lanes == 32) return encode_groups(e, tables, values, groups, state, word, patches, 32);
    if (lanes == 16) return encode_groups(e, tables, values, groups, state, word, patches, 16);
    return encode_groups(e, tables, values, groups, state, word, patches, 8);
}
#undef TARGET
#endif

tsr_error tsr_rans_encode(const tsr_encoder *e, uint32_t table_index, uint32_t lanes, const uint8_t *tables,
                          const int32_t *values, const int32_t *turned, size_t n, uint8_t *out, size_t capacity, uint16_t *scratch,
                          uint32_t *places, size_t *size) {
    if (lanes < 1 || lanes > TSR_MAX_LANES || (lanes & (lanes - 1)) != 0 || capacity < 1 || n > UINT32_MAX) return TSR_ARGUMENT;
    out[0] = (uint8_t)table_index;
    const uint8_t *end = out + capacity;

    uint32_t state[TSR_MAX_LANES];
    for (uint32_t lane = 0; lane < TSR_MAX_LANES; lane++) state[lane] = 0x10000;
    uint16_t *last = scratch + n + 32, *word = last; /* filled backwards: the decoder reads what was written last */
    const int32_t *coded = turned ? turned : values;
    patch_list patches = {places, 0};
    size_t whole = 0;
#if TSR_X86
    if (lanes >= 8 && e->precision >= 12 && tsr_simd_best() >= TSR_SIMD_AVX512) whole = n / lanes;
    word = encode_portable(e, tables, coded, lanes * whole, n, lanes, state, word, &patches);
    if (whole > 0) word = encode_vectors(e, tables, coded, whole, state, word, &patches, lanes);
#else
    word = encode_portable(e, tables, coded, whole, n, lanes, state, word, &patches);
#endif
    uint8_t *p = write_patches(&patches, values, n, turned ? lanes : 0, out + 1, end);
    if (p == NULL) return TSR_TRUNCATED;
    size_t words = (size_t)(last - word);
    if ((size_t)(end - p) < 4 * (size_t)lanes + 2 * words) return TSR_TRUNCATED;
    for (uint32_t lane = 0; lane < lanes; lane++, p += 4) store32(p, state[lane]);
    for (size_t i = 0; i < words; i++, p += 2) store16(p, word[i]);
    *size = (size_t)(p - out);
    return TSR_OK;
}
