/* Decoding of integer streams: patches, interleaved rANS (spec/FORMAT.md, sections 6.3, 6.4 and 6.6). */
#include "adaptive.h"
#include "bits.h"
#include "rans.h"
#include "runs.h"
#include "tersor.h"

static const uint32_t WIDTH[] = {1, 1, 2, 4};
static const int32_t LOWEST[] = {0, -128, -32768, INT32_MIN}, HIGHEST[] = {255, 127, 32767, INT32_MAX};

/* -- patches ----------------------------------------------------------------------------------------------------- */

/* Moves on to the next patch; `from` is the first position it may take. */
static tsr_error next_patch(tsr_reader *r, uint64_t from) {
    r->next_patch = UINT64_MAX;
    if (r->patches == 0) return r->patch == r->patch_end ? TSR_OK : TSR_PATCH;
    uint64_t gap;
    if (!read_varint(&r->patch, r->patch_end, &gap) || gap >= r->count - from) return TSR_PATCH;
    r->next_patch = from + gap;
    r->patches--;
    return TSR_OK;
}

/* Value number i of an output of integers of 32 bits, or of bytes. */
static inline void put(void *out, size_t i, int32_t value, int bytes) {
    if (bytes) ((uint8_t *)out)[i] = (uint8_t)value;
    else ((int32_t *)out)[i] = value;
}

static int fits(tsr_type type, int32_t value) { return value >= LOWEST[type] && value <= HIGHEST[type]; }

static tsr_error apply_patches(tsr_reader *r, void *out, size_t n, int bytes) {
    uint64_t end = r->position + n;
    int bad = 0;
    while (r->next_patch < end) {
        uint64_t zigzagged, at = r->next_patch;
        if (!read_varint(&r->patch, r->patch_end, &zigzagged) || zigzagged > UINT32_MAX) return TSR_PATCH;
        int32_t value = unzigzag((uint32_t)zigzagged);
        bad |= !fits(r->type, value);
        put(out, (size_t)(at - r->position), value, bytes);
        if (at + 1 == r->count) {
            r->next_patch = UINT64_MAX;
            if (r->patches != 0 || r->patch != r->patch_end) return TSR_PATCH;
        } else {
            tsr_error error = next_patch(r, at + 1);
            if (error != TSR_OK) return error;
        }
    }
    return bad ? TSR_RANGE : TSR_OK;
}

/* -- opening a chunk ---------------------------------------------------------------------------------------------- */

tsr_simd tsr_simd_best(void) {
#if TSR_X86
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("bmi2")) return TSR_SIMD_AVX512;
    if (__builtin_cpu_supports("avx2")) return TSR_SIMD_AVX2;
#endif
    return TSR_NEON ? TSR_SIMD_NEON : TSR_SIMD_NONE; /* every aarch64 has it */
}

tsr_error tsr_reader_open_plain(tsr_reader *r, tsr_type type, const uint8_t *data, size_t size, uint64_t count) {
    memset(r, 0, sizeof *r);
    r->type = type;
    r->data = data;
    r->end = data + size;
    r->count = count;
    r->next_patch = UINT64_MAX;
    uint64_t width = WIDTH[type];
    if (size / width < count) return TSR_TRUNCATED;
    return size == count * width ? TSR_OK : TSR_TRAILING;
}

/* Patches, states and words. */
static tsr_error open_coded(tsr_reader *r, tsr_type type, const uint8_t *data, size_t size, uint64_t count) {
    r->type = type;
    r->count = count;
    r->end = data + size;
    r->simd = tsr_simd_best();

    const uint8_t *p = data;
    uint64_t patches, ignored;
    if (!read_varint(&p, r->end, &patches) || patches > count || patches > UINT32_MAX) return TSR_PATCH;
    r->patch = p;
    for (uint64_t k = 0; k < 2 * patches; k++) {
        if (!read_varint(&p, r->end, &ignored)) return TSR_PATCH;
    }
    r->patch_end = p;
    r->patches = (uint32_t)patches;
    r->next_patch = UINT64_MAX;
    if (count > 0) {
        tsr_error error = next_patch(r, 0);
        if (error != TSR_OK) return error;
    }
    if ((size_t)(r->end - p) < 4 * (size_t)r->lanes) return TSR_TRUNCATED;
    for (uint32_t lane = 0; lane < r->lanes; lane++, p += 4) {
        r->state[lane] = load32(p);
        if (r->state[lane] < 0x10000) return TSR_RANGE;
    }
    r->data = p;
    return (size_t)(r->end - p) % 2 ? TSR_TRAILING : TSR_OK;
}

tsr_error tsr_reader_open_table(tsr_reader *r, tsr_slot *slots, const tsr_table *table, uint32_t lanes, tsr_type type,
                                const uint8_t *data, size_t size, uint64_t count) {
    memset(r, 0, sizeof *r);
    r->lanes = lanes;
    r->precision = table->precision;
    r->base = table->lowest;
    r->packed = tsr_packs(table->precision, table->alphabet);
    r->fits = fits(type, table->lowest) && fits(type, table->lowest + (int32_t)table->alphabet - 1);
    tsr_slots_fill(table, r->packed, r->base, slots);
    r->slots = slots;
    return open_coded(r, type, data, size, count);
}

tsr_error tsr_reader_open(tsr_reader *r, tsr_slot *slots, const tsr_prelude *prelude, tsr_type type, const uint8_t *data,
                          size_t size, uint64_t first, uint64_t count) {
    if (size < 1) return TSR_TRUNCATED;
    if (data[0] == TSR_VERBATIM) return tsr_reader_open_plain(r, type, data + 1, size - 1, count);
    if (prelude->columns == 0 && prelude->contexts == 0) {
        if (data[0] >= prelude->tables) return TSR_TABLE;
        tsr_table table;
        size_t position = prelude->at[data[0]];
        tsr_error error = tsr_table_read(&table, prelude->data, prelude->size, &position);
        if (error != TSR_OK) return error;
        return tsr_reader_open_table(r, slots, &table, prelude->lanes, type, data + 1, size - 1, count);
    }
    if (data[0] != 0) return TSR_TABLE;
    const int classed = prelude->columns > 0;
    if (classed && count > 0 && (first + count - 1) / prelude->columns >= prelude->rows) return TSR_ARGUMENT;
    memset(r, 0, sizeof *r);
    r->lanes = prelude->lanes;
    r->precision = prelude->precision;
    r->base = prelude->base;
    r->packed = prelude->packed;
    r->fits = fits(type, prelude->base) && fits(type, prelude->highest);
    if (!classed && prelude->base < 0) r->fits &= fits(type, -prelude->base) && fits(type, -prelude->highest); /* turned */
    r->slots = prelude->slots;
    r->contexts = prelude->contexts;
    r->prelude = classed ? prelude : NULL;
    r->first = first;
    return open_coded(r, type, data + 1, size - 1, count);
}

void tsr_reader_open_adaptive(tsr_reader *r, tsr_adaptive *chunk, tsr_type type, uint64_t count) {
    memset(r, 0, sizeof *r);
    r->type = type;
    r->count = count;
    r->adaptive = chunk;
}

/* -- decoding ----------------------------------------------------------------------------------------------------- */

TSR_VECTORISED void tsr_prelude_tables(const tsr_prelude *p, uint64_t first, uint8_t *tables, size_t n) {
    uint64_t row = first / p->columns, column = first % p->columns;
    for (size_t i = 0; i < n; row++, column = 0) {
        uint64_t left = p->columns - column;
        size_t run = left < n - i ? (size_t)left : n - i;
        const uint8_t *columns = p->column_class + column, above = p->row_class[row];
        for (size_t k = 0; k < run; k++) tables[i + k] = (uint8_t)(above + columns[k]);
        i += run;
    }
}

/* One symbol: slot, value, new state. `packed` and `precision` are constants where it is inlined into a loop. */
static inline uint32_t advance(const tsr_reader *r, uint32_t x, uint32_t table, int packed, int32_t *out) {
    const uint32_t precision = r->precision, mask = (UINT32_C(1) << precision) - 1;
    const uint32_t index = (table << precision) + (x & mask);
    if (packed) {
        uint32_t slot = ((const uint32_t *)r->slots)[index];
        *out = r->base + (int32_t)(slot >> 2 * precision);
        return ((slot >> precision & mask) + 1) * (x >> precision) + (slot & mask);
    }
    tsr_slot slot = ((const tsr_slot *)r->slots)[index];
    *out = slot.value;
    return slot.frequency * (x >> precision) + slot.bias;
}

/* Whole groups of `lanes` symbols while the words cannot run out; returns the symbols decoded. Inlined with constant
 * arguments, so that the lanes stay independent and nothing but the word pointer is carried along. */
static inline size_t decode_groups(tsr_reader *r, const uint8_t *tables, int32_t *out, size_t n, const uint32_t lanes,
                                   const int packed) {
    const uint8_t *p = r->data;
    uint32_t state[TSR_MAX_LANES];
    memcpy(state, r->state, lanes * sizeof *state);
    size_t i = 0;
    for (; i + lanes <= n && (size_t)(r->end - p) >= 2 * (size_t)lanes; i += lanes) {
        for (uint32_t lane = 0; lane < lanes; lane++) {
            uint32_t x = advance(r, state[lane], tables ? tables[i + lane] : 0, packed, out + i + lane);
            uint32_t low = x < 0x10000; /* arithmetic, not a branch: nobody can predict it */
            state[lane] = x << (16 * low) | (load16(p) & (0 - low));
            p += 2 * low;
        }
    }
    memcpy(r->state, state, lanes * sizeof *state);
    r->data = p;
    return i;
}

#define GROUPS(lanes, packed) (tables ? decode_groups(r, tables, out, n, lanes, packed) : decode_groups(r, NULL, out, n, lanes, packed))

static size_t decode_portable(tsr_reader *r, const uint8_t *tables, int32_t *out, size_t n) {
    switch (2 * r->lanes + (uint32_t)r->packed) {
        case 65: return GROUPS(32, 1);
        case 33: return GROUPS(16, 1);
        case 17: return GROUPS(8, 1);
        case 9: return GROUPS(4, 1);
        case 5: return GROUPS(2, 1);
        case 3: return GROUPS(1, 1);
        case 64: return GROUPS(32, 0);
        default: return decode_groups(r, tables, out, n, r->lanes, r->packed);
    }
}

static size_t decode_fast(tsr_reader *r, const uint8_t *tables, void *out, size_t n, int bytes) {
#if TSR_X86
    if (r->simd >= TSR_SIMD_AVX512 && r->lanes >= 16) return tsr_decode_avx512(r, tables, out, n, bytes);
    if (r->simd >= TSR_SIMD_AVX2 && r->lanes >= 8) return tsr_decode_avx2(r, tables, out, n, bytes);
#elif TSR_NEON
    if (r->simd >= TSR_SIMD_NEON && r->lanes >= 8) return tsr_decode_neon(r, tables, out, n, bytes);
#endif
    return bytes || r->contexts ? 0 : decode_portable(r, tables, out, n);
}

/* Symbol by symbol near the end of the words or of the chunk. */
static tsr_error decode_careful(tsr_reader *r, const uint8_t *tables, size_t from, void *out, size_t n, int bytes) {
    for (size_t i = from; i < n; i++) {
        const size_t lane = i % r->lanes;
        uint32_t *state = &r->state[lane], table = tables ? tables[i] : r->contexts ? tsr_context(r->before[lane], r->contexts) : 0;
        int32_t value;
        uint32_t x = advance(r, *state, table, r->packed, &value);
        if (r->contexts) r->before[lane] = value = tsr_turned(value, r->before[lane]);
        put(out, i, value, bytes);
        if (x < 0x10000) {
            if (r->end - r->data < 2) return TSR_TRUNCATED;
            x = x << 16 | load16(r->data);
            r->data += 2;
        }
        *state = x;
    }
    return TSR_OK;
}

static void read_plain(tsr_reader *r, int32_t *out, size_t n) {
    const uint8_t *p = r->data;
    switch (r->type) {
        case TSR_U8: for (size_t i = 0; i < n; i++) out[i] = p[i]; break;
        case TSR_I8: for (size_t i = 0; i < n; i++) out[i] = (int8_t)p[i]; break;
        case TSR_I16: for (size_t i = 0; i < n; i++) out[i] = (int16_t)load16(p + 2 * i); break;
        case TSR_I32: for (size_t i = 0; i < n; i++) out[i] = (int32_t)load32(p + 4 * i); break;
    }
    r->data += n * WIDTH[r->type];
}

TSR_VECTORISED static tsr_error check_type(tsr_type type, const int32_t *values, size_t n) {
    int32_t low = LOWEST[type], high = HIGHEST[type];
    int bad = 0;
    for (size_t i = 0; i < n; i++) bad |= (values[i] < low) | (values[i] > high);
    return bad ? TSR_RANGE : TSR_OK;
}

/* n symbols of a block from the order of the lanes to their own. */
static void restore_order(const tsr_reader *r, const int32_t *coded, int32_t *out, size_t n) {
    const size_t lanes = r->lanes, run = n / lanes, whole = run * lanes;
#if TSR_X86
    if (r->simd >= TSR_SIMD_AVX512 && lanes == 32 && n == TSR_BLOCK) {
        tsr_restore_avx512(coded, out);
        return;
    }
#endif
    for (size_t lane = 0; lane < lanes; lane++)
        for (size_t k = 0; k < run; k++) out[lane * run + k] = coded[k * lanes + lane];
    for (size_t i = whole; i < n; i++) out[i] = coded[i];
}

/* A block of a `rans1` stream. Patches count in the order of the lanes. */
static tsr_error decode_contexts(tsr_reader *r, int32_t *out, size_t n) {
    int32_t coded[TSR_BLOCK];
    if (r->position % TSR_BLOCK != 0 || (n != TSR_BLOCK && n != r->count - r->position)) return TSR_ARGUMENT;
    size_t done = decode_fast(r, NULL, coded, n, 0);
    tsr_error error = decode_careful(r, NULL, done, coded, n, 0);
    if (error == TSR_OK) error = apply_patches(r, coded, n, 0);
    if (error == TSR_OK) restore_order(r, coded, out, n);
    return error;
}

/* At most TSR_BLOCK symbols, or any number where there is one table. */
static tsr_error decode_symbols(tsr_reader *r, void *out, size_t n, int bytes) {
    uint8_t buffer[TSR_BLOCK + 16], *tables = NULL;
    if (r->prelude != NULL) {
        tables = buffer;
        tsr_prelude_tables(r->prelude, r->first + r->position, tables, n);
    }
    size_t done = decode_fast(r, tables, out, n, bytes);
    tsr_error error = decode_careful(r, tables, done, out, n, bytes);
    return error == TSR_OK ? apply_patches(r, out, n, bytes) : error;
}

static tsr_error decode_coded(tsr_reader *r, void *out, size_t n, int bytes) {
    tsr_error error = r->contexts > 0 ? decode_contexts(r, out, n) : decode_symbols(r, out, n, bytes);
    if (error == TSR_OK && !r->fits) error = check_type(r->type, out, n);
    r->position += n;
    return error;
}

tsr_error tsr_reader_next(tsr_reader *r, int32_t *out, size_t n) {
    if (n > r->count - r->position || n > TSR_BLOCK) return TSR_ARGUMENT;
    if (r->lanes > 0) return decode_coded(r, out, n, 0);
    tsr_error error = TSR_OK;
    if (r->adaptive != NULL) error = tsr_adaptive_next(r->adaptive, out, n);
    else if (r->runs != NULL) error = tsr_runs_next(r->runs, r->position, out, n, 0);
    else read_plain(r, out, n);
    r->position += n;
    return error;
}

TSR_VECTORISED static void narrow(const int32_t *values, size_t n, uint8_t *out) {
    for (size_t i = 0; i < n; i++) out[i] = (uint8_t)values[i];
}

tsr_error tsr_reader_bytes(tsr_reader *r, uint8_t *out, size_t n) {
    int32_t block[TSR_BLOCK];
    if (n > r->count - r->position || (r->type != TSR_U8 && r->type != TSR_I8)) return TSR_ARGUMENT;
    if (r->runs != NULL) {
        tsr_error error = tsr_runs_next(r->runs, r->position, out, n, 1);
        r->position += n;
        return error;
    }
    if (r->adaptive == NULL && r->lanes == 0) { /* verbatim */
        memcpy(out, r->data, n);
        r->data += n;
        r->position += n;
        return TSR_OK;
    }
    const int direct = r->adaptive == NULL && r->contexts == 0 && r->fits && r->simd > TSR_SIMD_NONE && r->lanes >= 8;
    const size_t most = direct && r->prelude == NULL ? n : TSR_BLOCK;
    for (size_t i = 0; i < n; i += most) {
        size_t part = n - i < most ? n - i : most;
        tsr_error error = direct ? decode_coded(r, out + i, part, 1) : tsr_reader_next(r, block, part);
        if (error != TSR_OK) return error;
        if (!direct) narrow(block, part, out + i);
    }
    return TSR_OK;
}

tsr_error tsr_reader_close(const tsr_reader *r) {
    if (r->position != r->count) return TSR_ARGUMENT;
    if (r->adaptive != NULL) return tsr_adaptive_close(r->adaptive);
    if (r->runs != NULL) return tsr_runs_close(r->runs);
    if (r->data != r->end || r->patch != r->patch_end || r->patches != 0) return TSR_TRAILING;
    for (uint32_t lane = 0; lane < r->lanes; lane++) {
        if (r->state[lane] != 0x10000) return TSR_TRAILING;
    }
    return TSR_OK;
}
