/* What the fuzz targets share: taking an input apart, choosing sizes, building streams that are valid or nearly so. */
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

/* -- streams ------------------------------------------------------------------------------------------------------------ */

/* One chunk of a stream. `intact`: it was encoded from `values` and must decode to them. */
typedef struct {
    tsr_type type;
    uint64_t count;
    int plain;               /* a chunk of coder `raw`: no prelude */
    uint8_t *prelude, *data; /* of exactly these sizes */
    size_t prelude_size, size;
    int intact;
    int32_t *values;
} stream;

static inline void drop_stream(stream *s) {
    free(s->prelude);
    free(s->data);
    free(s->values);
}

static inline int32_t clamp_to(tsr_type type, int32_t x) {
    switch (type) {
        case TSR_U8: return (uint8_t)x;
        case TSR_I8: return (int8_t)x;
        case TSR_I16: return (int16_t)x;
        default: return x;
    }
}

/* A table from the input: an alphabet and counts, rounded by the encoder. */
static inline void take_table(input *in, tsr_table *table) {
    uint64_t counts[TSR_MAX_ALPHABET];
    uint32_t shape = take8(in), wide = take8(in);
    table->precision = TSR_MIN_PRECISION + shape % 8;
    table->alphabet = wide < 0xF0 ? 1 + wide % 32 : wide == 0xF7 ? TSR_MAX_ALPHABET : 200 + wide % 8 * 33;
    table->lowest = shape & 8 ? (int32_t)(take32(in) & 0x7FFFFFFF) - (1 << 30) : (int32_t)take8(in) - 128;
    uint32_t from = take8(in);
    for (uint32_t k = 0; k < table->alphabet; k++) {
        uint32_t byte = left(in) > 0 && k < 64 ? take8(in) : (k * 37 + from) & 255;
        counts[k] = byte < 32 ? 0 : (uint64_t)(byte & 31) << (byte >> 5) * 3;
    }
    if (tsr_table_round(table, counts) == TSR_OK) return;
    table->alphabet = 1;
    table->frequency[0] = (uint16_t)(1u << table->precision);
}

/* A value far from any table: around the limit of some number of bits, or anywhere. */
static inline int32_t far_value(uint32_t x, uint32_t i) {
    uint32_t limit = UINT32_MAX >> (x >> 3 & 15);
    switch (x & 7) {
        case 0: return (int32_t)(limit >> 1);
        case 1: return (int32_t)(limit >> 1) + (limit >> 1 < INT32_MAX);
        case 2: return -(int32_t)(limit >> 1);
        case 3: return -(int32_t)(limit >> 1) - 1;
        default: return (int32_t)((x << 24 | x << 9) ^ i);
    }
}

/* Encodes values into an intact chunk. */
static inline void encode_stream(input *in, stream *s) {
    static uint8_t prelude[TSR_MAX_ALPHABET * 8 * 4];
    static uint16_t scratch[1 << 17];
    static uint8_t chunk[1 << 21];
    tsr_table table;
    uint32_t tables = 1 + take8(in) % 3, chosen = take8(in) % tables, lanes_log2 = take8(in) % 6;
    size_t position = 16;
    memset(prelude, 0, sizeof prelude);
    prelude[0] = (uint8_t)lanes_log2;
    prelude[1] = (uint8_t)tables;
    for (uint32_t k = 0; k < tables; k++) {
        take_table(in, &table);
        REQUIRE(tsr_table_write(&table, prelude, sizeof prelude, &position) == TSR_OK);
    }
    s->prelude_size = (position + 7) / 8;
    s->prelude = copy(prelude, s->prelude_size);
    uint32_t lanes;
    REQUIRE(tsr_prelude_read(&table, chosen, s->prelude, s->prelude_size, &lanes) == TSR_OK);
    REQUIRE(lanes == UINT32_C(1) << lanes_log2);

    s->values = room(s->count * sizeof *s->values);
    uint32_t outliers = take8(in), seed = 1 + take8(in);
    for (uint64_t i = 0; i < s->count; i++) {
        uint32_t x = i < 64 && left(in) > 8 ? take8(in) : (seed = seed * 1664525 + 1013904223) >> 24;
        int outlier = outliers > 0x80 && i % (256 - outliers + 1) == 0;
        int32_t value = outlier ? far_value(x, (uint32_t)i) : table.lowest + (int32_t)(x % table.alphabet);
        s->values[i] = clamp_to(s->type, value);
    }
    size_t size = 0;
    REQUIRE(tsr_rans_encode(&table, chosen, lanes, s->values, s->count, chunk, sizeof chunk, scratch, &size) == TSR_OK);
    s->data = copy(chunk, size);
    s->size = size;
    s->intact = 1;
}

static inline void store_plain(input *in, stream *s, int verbatim) {
    static const size_t WIDTH[] = {1, 1, 2, 4};
    size_t width = WIDTH[s->type], head = verbatim ? 1 : 0, given = left(in) < 256 ? left(in) : 256;
    s->size = head + s->count * width;
    s->data = room(s->size);
    if (verbatim) s->data[0] = TSR_VERBATIM;
    for (size_t i = 0; i < s->size - head; i++) s->data[head + i] = given > 0 ? in->p[i % given] : (uint8_t)(i * 7);
    s->values = room(s->count * sizeof *s->values);
    for (uint64_t i = 0; i < s->count; i++) {
        uint32_t x = 0;
        for (size_t k = 0; k < width; k++) x |= (uint32_t)s->data[head + i * width + k] << 8 * k;
        s->values[i] = clamp_to(s->type, (int32_t)x);
    }
    s->intact = 1;
}

static inline void change_byte(input *in, uint8_t *p, size_t n) {
    uint32_t at = take16(in), change = take8(in);
    if (n > 0) p[at % n] ^= (uint8_t)(change ? change : 1);
}

/* A few changed bytes, or another size. */
static inline void damage_stream(input *in, stream *s) {
    uint32_t edits = take8(in);
    if (edits < 0x60) return;
    s->intact = 0;
    for (uint32_t k = 0; k < 1 + edits % 4; k++) {
        uint32_t what = take8(in);
        if (what < 0x50) {
            change_byte(in, s->prelude, s->prelude_size);
        } else if (what < 0xC0) {
            change_byte(in, s->data, s->size);
        } else if (what < 0xD0) {
            change_byte(in, s->data, s->size < 8 ? s->size : 8); /* table number, patches, first states */
        } else if (what < 0xE0) {
            s->count ^= UINT64_C(1) << take8(in) % 8;
        } else { /* as many bytes more or less as a small signed number says */
            size_t bytes = (size_t)(what & 3) + 1, kept = what & 4 || bytes > s->size ? s->size : s->size - bytes;
            size_t size = what & 4 ? s->size + bytes : kept;
            uint8_t *other = room(size);
            if (kept > 0) memcpy(other, s->data, kept);
            free(s->data);
            s->data = other;
            s->size = size;
        }
    }
}

/* A chunk of `count` symbols: bytes of the input as they are, or something valid, perhaps damaged. */
static inline stream take_stream(input *in, tsr_type type, uint64_t count) {
    stream s = {.type = type, .count = count};
    uint32_t kind = take8(in) % 8;
    if (kind < 2) { /* bytes as they are: those of this stream, or all that are left */
        s.plain = take8(in) % 8 == 7;
        if (kind == 1) s.count = take16(in) % (4 * TSR_BLOCK);
        s.prelude = take_bytes(in, take8(in), &s.prelude_size);
        s.data = take_bytes(in, kind == 0 ? take8(in) : left(in), &s.size);
        return s;
    }
    if (kind == 2) {
        s.plain = 1;
        store_plain(in, &s, 0);
    } else if (kind == 3) {
        store_plain(in, &s, 1);
    } else {
        encode_stream(in, &s);
    }
    damage_stream(in, &s);
    return s;
}

static inline tsr_error open_stream(tsr_reader *reader, tsr_slot *slots, const stream *s) {
    if (s->plain) return tsr_reader_open_plain(reader, s->type, s->data, s->size, s->count);
    return tsr_reader_open(reader, slots, s->type, s->prelude, s->prelude_size, s->data, s->size, s->count);
}

/* Decodes in blocks of `block` symbols, as the ops do with TSR_BLOCK. */
static inline tsr_error decode_stream(const stream *s, tsr_slot *slots, size_t block, int32_t *out) {
    tsr_reader reader;
    tsr_error error = open_stream(&reader, slots, s);
    for (uint64_t i = 0; error == TSR_OK && i < s->count; i += block) {
        size_t n = s->count - i < block ? (size_t)(s->count - i) : block;
        int32_t *part = room(n * sizeof *part);
        error = tsr_reader_next(&reader, part, n);
        memcpy(out + i, part, n * sizeof *part);
        free(part);
    }
    return error == TSR_OK ? tsr_reader_close(&reader) : error;
}

#endif
