/* Streams for the targets that decode: built with the encoder, damaged or not, or bytes of the input as they are. */
#ifndef TERSOR_FUZZ_STREAMS_H
#define TERSOR_FUZZ_STREAMS_H

#include "common.h"

typedef enum { PLAIN, RANS, RANS1, RANS2D } coder;

/* One chunk of a stream. `intact`: it was encoded from `values` and must decode to them. */
typedef struct {
    coder coder;
    tsr_type type;
    uint64_t first, count, total; /* symbols before the chunk, in it, in the stream; `rans` needs the second alone */
    uint8_t *prelude, *data;      /* of exactly these sizes */
    size_t prelude_size, size;
    int intact;
    int32_t *values;
    tsr_prelude opened;           /* set when the stream is opened, as these */
    uint8_t *row_class, *column_class;
    void *slots;
    tsr_simd simd;                /* the best vectors that decoding may use */
} stream;

static inline void close_stream(stream *s) {
    free(s->row_class);
    free(s->column_class);
    free(s->slots);
    s->row_class = s->column_class = s->slots = NULL;
}

static inline void drop_stream(stream *s) {
    close_stream(s);
    free(s->prelude);
    free(s->data);
    free(s->values);
}

/* Parses the prelude of a stream that has one. */
static inline tsr_error open_prelude(stream *s) {
    static tsr_slot scratch[1 << TSR_MAX_PRECISION];
    if (s->coder == RANS) return tsr_prelude_open(&s->opened, s->prelude, s->prelude_size);
    tsr_error error = s->coder == RANS1 ? tsr_prelude_open_1(&s->opened, s->prelude, s->prelude_size)
                                        : tsr_prelude_open_2d(&s->opened, s->prelude, s->prelude_size, s->total);
    if (error != TSR_OK) return error;
    close_stream(s);
    if (s->coder == RANS2D) {
        s->row_class = room(s->opened.rows);
        s->column_class = room(s->opened.columns);
    }
    s->slots = malloc(tsr_prelude_slot_bytes(&s->opened));
    REQUIRE(s->slots != NULL);
    return tsr_prelude_fill(&s->opened, s->row_class, s->column_class, s->slots, scratch);
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

/* One with this precision and roughly this lowest value: the tables of a `rans1` or `rans2d` stream resemble each other. */
static inline void take_similar_table(input *in, tsr_table *table, uint32_t precision, int32_t lowest) {
    uint64_t counts[256];
    uint32_t wide = take8(in), first = take8(in), slope = take8(in);
    table->precision = precision;
    table->alphabet = wide < 0xF0 ? 1 + wide % 24 : 256 - wide % 16;
    table->lowest = lowest + (int32_t)(first % 16);
    for (uint32_t k = 0; k < table->alphabet; k++) counts[k] = 1 + (k * slope + first) % 41;
    if (tsr_table_round(table, counts) == TSR_OK) return;
    table->alphabet = 1;
    table->frequency[0] = (uint16_t)(1u << precision);
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

/* An encoder with room of exactly the size it asks for. */
static inline tsr_encoder make_encoder(const tsr_prelude *prelude, uint32_t from, uint32_t to) {
    tsr_encoder encoder;
    REQUIRE(tsr_encoder_open(&encoder, prelude, from, to) == TSR_OK);
    encoder.entries = room(sizeof *encoder.entries * encoder.span * (to - from));
    encoder.modes = room(sizeof *encoder.modes * (to - from));
    REQUIRE(tsr_encoder_fill(&encoder, prelude, from, to) == TSR_OK);
    return encoder;
}

static inline void drop_encoder(tsr_encoder *encoder) {
    free(encoder->entries);
    free(encoder->modes);
}

/* A prelude with a few tables, at least one. */
static inline void write_prelude(input *in, stream *s, uint32_t tables, uint32_t lanes_log2) {
    static uint8_t prelude[TSR_MAX_ALPHABET * 8 * 4];
    tsr_table table;
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
    REQUIRE(tsr_prelude_open(&s->opened, s->prelude, s->prelude_size) == TSR_OK);
    REQUIRE(s->opened.tables == tables && s->opened.lanes == UINT32_C(1) << lanes_log2);
}

/* A number as it stands in a prelude. */
static inline size_t put_varint(uint8_t *p, uint64_t x) {
    size_t n = 0;
    for (; x > 127; x >>= 7) p[n++] = (uint8_t)(x & 127) | 128;
    p[n++] = (uint8_t)x;
    return n;
}

/* Classes up to `most`, coded with `table`: a chunk of one lane. Returns the size. */
static inline size_t encode_classes(input *in, tsr_table *table, uint64_t n, uint32_t most, uint8_t *out, size_t capacity) {
    static uint8_t prelude[1 << 18];
    int32_t *values = room(n * sizeof *values);
    uint16_t *scratch = room((n + 32) * sizeof *scratch);
    uint32_t *places = room(n * sizeof *places);
    uint32_t seed = take8(in), how = take8(in);
    uint64_t counts[TSR_MAX_CLASSES + 1] = {1};
    for (uint64_t i = 0; i < n; i++) {
        values[i] = (int32_t)((how & 1 ? i / 7 + seed : (seed = seed * 1664525 + 1013904223) >> 20) % (most + 1));
        counts[values[i]]++;
    }
    table->precision = TSR_MIN_PRECISION + (how >> 1) % 8;
    table->lowest = 0;
    table->alphabet = most + 1;
    if (how >= 0xE0 || tsr_table_round(table, counts) != TSR_OK) take_table(in, table); /* many patches */
    size_t position = 16, size = 0;
    memset(prelude, 0, 64 + 50 * (size_t)table->alphabet);
    prelude[1] = 1;
    REQUIRE(tsr_table_write(table, prelude, sizeof prelude, &position) == TSR_OK);
    tsr_prelude opened;
    REQUIRE(tsr_prelude_open(&opened, prelude, (position + 7) / 8) == TSR_OK);
    tsr_encoder encoder = make_encoder(&opened, 0, 1);
    REQUIRE(tsr_rans_encode(&encoder, 0, 1, NULL, values, NULL, n, out, capacity, scratch, places, &size) == TSR_OK);
    drop_encoder(&encoder);
    free(values);
    free(scratch);
    free(places);
    return size;
}

/* How a prelude may break a rule: by sums of classes, or by the precision of some tables or of one. */
typedef enum { RIGHT, CLASSES, PRECISION, ODD_PRECISION } defect;

/* The prelude of a `rans2d` stream; `lowest` receives those of its tables, `alphabet` their sizes. */
static inline void write_prelude_2d(input *in, stream *s, int32_t *lowest, uint32_t *alphabet, defect wrong) {
    static uint8_t prelude[1 << 18], chunk[2][1 << 20]; /* the first is zero between calls */
    static tsr_table table, side[2];
    uint32_t many = take8(in), tables = many < 0xF0 ? 1 + many % 5 : 1 + take8(in) % TSR_MAX_CLASSES, lanes_log2 = take8(in) % 6;
    uint32_t precision = wrong == PRECISION ? 14 : TSR_MIN_PRECISION + take8(in) % 6, shape = take8(in), most = take8(in) % tables;
    int32_t near = (int32_t)(shape & 128 ? take32(in) % (1u << 31) : take8(in)) - (shape & 128 ? 1 << 30 : 128);
    if (near > (1 << 30) - 16) near = (1 << 30) - 16;
    uint64_t columns = shape % 4 == 0 ? 1 : shape % 4 == 1 ? s->total : 1 + (shape & 64 ? take16(in) : take8(in)) % s->total;
    uint64_t n[2] = {(s->total + columns - 1) / columns, columns};
    size_t bytes[2];
    for (int k = 0; k < 2; k++)
        bytes[k] = encode_classes(in, &side[k], n[k], k ? tables - (wrong != CLASSES) - most : most, chunk[k], sizeof chunk[k]) - 1;
    prelude[0] = (uint8_t)lanes_log2;
    prelude[1] = (uint8_t)tables;
    size_t at = 2;
    at += put_varint(prelude + at, columns);
    at += put_varint(prelude + at, bytes[0]);
    size_t position = 8 * at;
    for (uint32_t k = 0; k < tables + 2; k++) {
        if (k < tables) {
            take_similar_table(in, &table, precision + (wrong == ODD_PRECISION && k == most), near);
            lowest[k] = table.lowest;
            alphabet[k] = table.alphabet;
        }
        const tsr_table *next = k < tables ? &table : &side[k - tables];
        REQUIRE(tsr_table_write(next, prelude, sizeof prelude, &position) == TSR_OK);
    }
    at = (position + 7) / 8;
    s->prelude_size = at + bytes[0] + bytes[1];
    s->prelude = room(s->prelude_size);
    memcpy(s->prelude, prelude, at);
    memset(prelude, 0, at);
    memcpy(s->prelude + at, chunk[0] + 1, bytes[0]);
    memcpy(s->prelude + at + bytes[0], chunk[1] + 1, bytes[1]);
    if (wrong != RIGHT) return;
    REQUIRE(open_prelude(s) == TSR_OK);
    REQUIRE(s->opened.tables == tables && s->opened.columns == columns && s->opened.rows == n[0]);
}

/* The prelude of a `rans1` stream, as the above. */
static inline void write_prelude_1(input *in, stream *s, int32_t *lowest, uint32_t *alphabet, defect wrong) {
    static uint8_t prelude[1 << 18]; /* zero between calls */
    static tsr_table table;
    uint32_t many = take8(in), tables = many < 0xF0 ? 1 + many % 6 : 1 + take8(in) % TSR_MAX_CLASSES, lanes_log2 = take8(in) % 6;
    uint32_t precision = wrong == PRECISION ? 14 : TSR_MIN_PRECISION + take8(in) % 6, odd = take8(in) % tables;
    int32_t near = many & 1 ? -(int32_t)take8(in) / 8 : (int32_t)(take32(in) % (1u << 31)) - (1 << 30);
    if (near > (1 << 30) - 16) near = (1 << 30) - 16;
    prelude[0] = (uint8_t)lanes_log2;
    prelude[1] = (uint8_t)tables;
    size_t position = 16;
    for (uint32_t k = 0; k < tables; k++) {
        take_similar_table(in, &table, precision + (wrong == ODD_PRECISION && k == odd), near);
        lowest[k] = table.lowest;
        alphabet[k] = table.alphabet;
        REQUIRE(tsr_table_write(&table, prelude, sizeof prelude, &position) == TSR_OK);
    }
    s->prelude_size = (position + 7) / 8;
    s->prelude = copy(prelude, s->prelude_size);
    memset(prelude, 0, s->prelude_size);
    if (wrong != RIGHT) return;
    REQUIRE(open_prelude(s) == TSR_OK);
    REQUIRE(s->opened.contexts == tables && s->opened.columns == 0);
}

/* Values that their tables have, and outliers. `tables` may be NULL: all have the first. */
static inline void take_values(input *in, stream *s, const uint8_t *tables, const int32_t *lowest, const uint32_t *alphabet) {
    s->values = room(s->count * sizeof *s->values);
    uint32_t outliers = take8(in), seed = 1 + take8(in);
    for (uint64_t i = 0; i < s->count; i++) {
        uint32_t x = i < 64 && left(in) > 8 ? take8(in) : (seed = seed * 1664525 + 1013904223) >> 24, k = tables ? tables[i] : 0;
        int outlier = outliers > 0x80 && i % (256 - outliers + 1) == 0;
        s->values[i] = clamp_to(s->type, outlier ? far_value(x, (uint32_t)i) : lowest[k] + (int32_t)(x % alphabet[k]));
    }
}

/* The table of every symbol of the chunk of a `rans2d` stream. */
static inline uint8_t *tables_of(const stream *s) {
    uint8_t *tables = room(s->count);
    for (uint64_t i = 0; i < s->count; i++) {
        uint64_t number = s->first + i;
        tables[i] = (uint8_t)(s->row_class[number / s->opened.columns] + s->column_class[number % s->opened.columns]);
    }
    return tables;
}

/* The values of a stream of any coder into a chunk. */
static inline tsr_error encode_chunk(const stream *s, uint32_t chosen, uint8_t *chunk, size_t capacity, size_t *size) {
    static uint16_t scratch[1 << 17];
    static uint32_t places[1 << 17];
    tsr_encoder encoder = make_encoder(&s->opened, chosen, s->coder == RANS ? chosen + 1 : s->opened.tables);
    uint8_t *tables = s->coder == RANS2D ? tables_of(s) : s->coder == RANS1 ? room(s->count) : NULL;
    int32_t *turned = s->coder == RANS1 ? room(s->count * sizeof *turned) : NULL;
    if (s->coder == RANS1)
        tsr_context_arrange(&encoder, s->opened.contexts, s->opened.lanes, s->values, s->count, turned, tables);
    tsr_error error = tsr_rans_encode(&encoder, chosen, s->opened.lanes, tables, s->values, turned, s->count, chunk, capacity,
                                      scratch, places, size);
    drop_encoder(&encoder);
    free(tables);
    free(turned);
    return error;
}

/* Encodes values into an intact chunk. */
static inline void encode_stream(input *in, stream *s) {
    static uint8_t chunk[1 << 21];
    int32_t lowest[TSR_MAX_CLASSES];
    uint32_t alphabet[TSR_MAX_CLASSES], chosen = 0;
    uint8_t *tables = NULL;
    if (s->coder == RANS) {
        tsr_table table;
        uint32_t number = 1 + take8(in) % 3;
        chosen = take8(in) % number;
        write_prelude(in, s, number, take8(in) % 6);
        size_t position = s->opened.at[chosen];
        REQUIRE(tsr_table_read(&table, s->prelude, s->prelude_size, &position) == TSR_OK);
        *lowest = table.lowest;
        *alphabet = table.alphabet;
    } else if (s->coder == RANS1) {
        write_prelude_1(in, s, lowest, alphabet, RIGHT);
    } else {
        write_prelude_2d(in, s, lowest, alphabet, RIGHT);
        tables = tables_of(s);
    }
    take_values(in, s, tables, lowest, alphabet);
    free(tables);
    REQUIRE(encode_chunk(s, chosen, chunk, sizeof chunk, &s->size) == TSR_OK);
    s->data = copy(chunk, s->size);
    s->intact = 1;
}

/* Values as they are; coders with a prelude mark them. */
static inline void store_plain(input *in, stream *s) {
    static const size_t WIDTH[] = {1, 1, 2, 4};
    int32_t lowest[TSR_MAX_CLASSES];
    uint32_t alphabet[TSR_MAX_CLASSES];
    if (s->coder == RANS) write_prelude(in, s, 1, 0);
    if (s->coder == RANS1) write_prelude_1(in, s, lowest, alphabet, RIGHT);
    if (s->coder == RANS2D) write_prelude_2d(in, s, lowest, alphabet, RIGHT);
    size_t width = WIDTH[s->type], head = s->coder != PLAIN, given = left(in) < 256 ? left(in) : 256;
    s->size = head + s->count * width;
    s->data = room(s->size);
    if (head > 0) s->data[0] = TSR_VERBATIM;
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
        } else if (what < 0xC8) {
            change_byte(in, s->prelude, s->prelude_size < 8 ? s->prelude_size : 8); /* lanes, tables, columns, sizes */
        } else if (what < 0xD0) {
            change_byte(in, s->data, s->size < 8 ? s->size : 8); /* table number, patches, first states */
        } else if (what < 0xE0) {
            s->count ^= UINT64_C(1) << take8(in) % 8;
            if (s->total < s->first + s->count) s->total = s->first + s->count;
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
    static const coder CODERS[] = {RANS, RANS, PLAIN, RANS, RANS, RANS1, RANS2D, RANS2D};
    stream s = {.type = type, .count = count, .total = count, .simd = tsr_simd_best()};
    uint32_t kind = take8(in) % 8, choice;
    if (kind < 2) { /* bytes as they are: those of this stream, or all that are left */
        choice = take8(in) % 8;
        s.coder = choice == 7 ? PLAIN : choice > 4 ? RANS2D : choice > 2 ? RANS1 : RANS;
        if (kind == 1) s.count = s.total = take16(in) % (4 * TSR_BLOCK);
        s.prelude = take_bytes(in, take8(in), &s.prelude_size);
        s.data = take_bytes(in, kind == 0 ? take8(in) : left(in), &s.size);
        return s;
    }
    s.coder = CODERS[kind];
    if (kind == 3) s.coder = (coder)(RANS + take8(in) % 3);
    if (s.coder == RANS2D) { /* not always the whole stream, which is never empty */
        choice = take8(in);
        s.first = choice & 1 ? take8(in) : 0;
        s.total = s.first + count + (choice & 2 ? take8(in) : 0) + (count == 0);
        if (choice >= 0xE0) {
            int32_t lowest[TSR_MAX_CLASSES];
            uint32_t alphabet[TSR_MAX_CLASSES];
            write_prelude_2d(in, &s, lowest, alphabet, (defect)(1 + choice % 3));
            s.data = take_bytes(in, take8(in), &s.size);
            return s;
        }
    }
    if (s.coder == RANS1 && (choice = take8(in)) >= 0xE0) {
        int32_t lowest[TSR_MAX_CLASSES];
        uint32_t alphabet[TSR_MAX_CLASSES];
        write_prelude_1(in, &s, lowest, alphabet, choice % 2 ? PRECISION : ODD_PRECISION);
        s.data = take_bytes(in, take8(in), &s.size);
        return s;
    }
    if (kind < 4) store_plain(in, &s);
    else encode_stream(in, &s);
    damage_stream(in, &s);
    return s;
}

static inline tsr_error open_stream(tsr_reader *reader, tsr_slot *slots, stream *s) {
    if (s->coder == PLAIN) return tsr_reader_open_plain(reader, s->type, s->data, s->size, s->count);
    tsr_error error = open_prelude(s);
    if (error == TSR_OK) error = tsr_reader_open(reader, slots, &s->opened, s->type, s->data, s->size, s->first, s->count);
    if (error == TSR_OK && s->simd < reader->simd) reader->simd = s->simd;
    return error;
}

/* Decodes what an open reader holds, in blocks of `block` symbols, as the ops do with TSR_BLOCK. */
static inline tsr_error read_blocks(tsr_reader *reader, size_t block, int32_t *out) {
    tsr_error error = TSR_OK;
    for (uint64_t i = 0; error == TSR_OK && i < reader->count; i += block) {
        size_t n = reader->count - i < block ? (size_t)(reader->count - i) : block;
        int32_t *part = room(n * sizeof *part);
        error = tsr_reader_next(reader, part, n);
        memcpy(out + i, part, n * sizeof *part);
        free(part);
    }
    return error == TSR_OK ? tsr_reader_close(reader) : error;
}

static inline tsr_error decode_stream(stream *s, tsr_slot *slots, size_t block, int32_t *out) {
    tsr_reader reader;
    tsr_error error = open_stream(&reader, slots, s);
    return error == TSR_OK ? read_blocks(&reader, block, out) : error;
}

/* The same for bytes, all at once. */
static inline tsr_error decode_stream_bytes(stream *s, tsr_slot *slots, uint8_t *out) {
    tsr_reader reader;
    tsr_error error = open_stream(&reader, slots, s);
    if (error == TSR_OK) error = tsr_reader_bytes(&reader, out, (size_t)s->count);
    return error == TSR_OK ? tsr_reader_close(&reader) : error;
}

#endif
