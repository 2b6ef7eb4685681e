/* Coder `runs`: levels that are nearly all zero, as tokens of an interleaved rANS stream and low parts of runs (spec/FORMAT.md, section 6.7). */
#include "runs.h"
#include "bits.h"

/* -- decoding ----------------------------------------------------------------------------------------------------- */

/* Low part number i. Three bytes hold it, and more follow the last one. */
static inline uint32_t low_part(const tsr_runs *r, uint64_t i) {
    const uint64_t bit = i * r->bits;
    const uint8_t *p = r->low + bit / 8;
    return (load16(p) | (uint32_t)p[2] << 16) >> bit % 8 & ((UINT32_C(1) << r->bits) - 1);
}

tsr_error tsr_runs_open(tsr_reader *reader, tsr_runs *r, tsr_slot *slots, const tsr_prelude *prelude, tsr_type type,
                        const uint8_t *data, size_t size, uint64_t count) {
    const uint8_t *end = data + size;
    uint64_t rest = count;
    tsr_table table;
    size_t position = prelude->at[0];
    if (count > UINT32_MAX) return TSR_ARGUMENT;
    r->bits = prelude->run_bits;
    if (!read_varint(&data, end, &r->levels)) return TSR_TRUNCATED;
    if (r->levels > count) return TSR_RANGE;
    const uint64_t bits = r->levels * r->bits, bytes = (bits + 7) / 8;
    if ((uint64_t)(end - data) < bytes + 5) return TSR_TRUNCATED; /* no patches and one state */
    r->low = data;
    if (bits % 8 != 0 && data[bytes - 1] >> bits % 8 != 0) return TSR_TRAILING;
    for (uint64_t i = 0; i < r->levels; i++) {
        const uint64_t taken = low_part(r, i) + 1;
        if (taken > rest) return TSR_RANGE;
        rest -= taken;
    }
    tsr_error error = tsr_table_read(&table, prelude->data, prelude->size, &position);
    if (error != TSR_OK) return error;
    error = tsr_reader_open_table(&r->tokens, slots, &table, prelude->lanes, type, data + bytes, (size_t)(end - data - bytes),
                                  r->levels + (rest >> r->bits));
    r->used = r->behind = r->next = r->filled = 0;
    r->level = 0; /* until the first token is read, there is a zero in place 0 */
    r->at = count > 0 ? 0 : UINT64_MAX;
    memset(reader, 0, sizeof *reader);
    reader->type = type;
    reader->count = count;
    reader->runs = r;
    return error;
}

/* The next tokens; none if all were read. */
static tsr_error fill(tsr_runs *r) {
    const uint64_t left = r->tokens.count - r->tokens.position;
    r->next = 0;
    r->filled = left < TSR_BLOCK ? (size_t)left : TSR_BLOCK;
    return tsr_reader_next(&r->tokens, r->token, r->filled);
}

/* Moves on to the next level that is not zero. */
static tsr_error advance(tsr_runs *r) {
    for (;;) {
        while (r->next < r->filled && r->token[r->next] == 0) {
            r->behind += UINT64_C(1) << r->bits;
            r->next++;
        }
        if (r->next < r->filled) break;
        tsr_error error = fill(r);
        if (error != TSR_OK) return error;
        if (r->filled == 0) {
            r->at = UINT64_MAX;
            return TSR_OK;
        }
    }
    if (r->used == r->levels) return TSR_TRAILING;
    r->level = r->token[r->next++];
    r->at = r->behind + low_part(r, r->used++);
    r->behind = r->at + 1;
    return TSR_OK;
}

tsr_error tsr_runs_next(tsr_runs *r, uint64_t position, void *out, size_t n, int bytes) {
    memset(out, 0, bytes ? n : n * sizeof(int32_t));
    while (r->at - position < n) {
        const size_t i = (size_t)(r->at - position);
        if (bytes) ((uint8_t *)out)[i] = (uint8_t)r->level;
        else ((int32_t *)out)[i] = r->level;
        tsr_error error = advance(r);
        if (error != TSR_OK) return error;
    }
    return TSR_OK;
}

tsr_error tsr_runs_close(const tsr_runs *r) {
    if (r->at != UINT64_MAX || r->used != r->levels) return TSR_TRAILING;
    return tsr_reader_close(&r->tokens);
}

/* -- encoding ----------------------------------------------------------------------------------------------------- */

TSR_VECTORISED void tsr_runs_count(const int32_t *values, size_t n, uint64_t *skips) {
    for (size_t i = 0, from = 0; from <= n; from = i + 1) {
        i = tsr_next_level(values, from, n);
        for (uint32_t bits = 0; bits <= TSR_MAX_RUN_BITS; bits++) skips[bits] += (i - from) >> bits;
    }
}

/* Tokens of n levels, and the low part of every level that is not zero; returns how many tokens. */
static size_t split(const int32_t *values, size_t n, uint32_t bits, int32_t *tokens, uint16_t *parts, size_t *levels) {
    size_t count = 0, found = 0;
    for (size_t i, from = 0;; from = i + 1) {
        i = tsr_next_level(values, from, n);
        for (size_t skips = (i - from) >> bits; skips > 0; skips--) tokens[count++] = 0;
        if (i == n) break;
        parts[found++] = (uint16_t)((i - from) & ((UINT32_C(1) << bits) - 1));
        tokens[count++] = values[i];
    }
    *levels = found;
    return count;
}

static uint8_t *write_parts(uint8_t *p, const uint16_t *parts, size_t n, uint32_t bits) {
    uint32_t held = 0, filled = 0;
    for (size_t i = 0; i < n; i++) {
        held |= (uint32_t)parts[i] << filled;
        for (filled += bits; filled >= 8; filled -= 8, held >>= 8) *p++ = (uint8_t)held;
    }
    if (filled > 0) *p++ = (uint8_t)held;
    return p;
}

tsr_error tsr_runs_encode(const tsr_encoder *e, uint32_t bits, uint32_t lanes, const int32_t *values, size_t n, uint8_t *out,
                          size_t capacity, int32_t *tokens, uint16_t *scratch, uint32_t *places, size_t *size) {
    size_t levels, count = split(values, n, bits, tokens, scratch, &levels);
    if (capacity < 10 + (levels * bits + 7) / 8) return TSR_TRUNCATED;
    uint8_t *p = out;
    for (size_t left = levels; left > 127; left >>= 7) *p++ = (uint8_t)(left | 128);
    *p = (uint8_t)(levels >> 7 * (p - out));
    p = write_parts(p + 1, scratch, levels, bits) - 1;
    const uint8_t last = *p; /* there is one table: its number, which comes first, is not stored */
    tsr_error error = tsr_rans_encode(e, 0, lanes, NULL, tokens, NULL, count, p, capacity - (size_t)(p - out), scratch, places, size);
    *p = last;
    if (error == TSR_OK) *size += (size_t)(p - out);
    return error;
}
