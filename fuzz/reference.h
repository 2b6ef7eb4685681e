/* Coders `rans`, `rans1` and `rans2d`, written a second time from spec/FORMAT.md, section 6, symbol by symbol and without any speed, to compare
 * the native core with. It also predicts which error the core reports when it decodes in blocks of a given size. */
#ifndef TERSOR_FUZZ_REFERENCE_H
#define TERSOR_FUZZ_REFERENCE_H

#include "streams.h"

typedef struct {
    const uint8_t *data;
    uint64_t bits, at;
    int bad;
} ref_bits;

static inline uint64_t ref_number(ref_bits *b, unsigned n) {
    uint64_t x = 0;
    for (unsigned i = 0; i < n; i++, b->at++) {
        if (b->at >= b->bits) {
            b->bad = 1;
            return 0;
        }
        if (b->data[b->at / 8] & 1 << b->at % 8) x += UINT64_C(1) << i;
    }
    return x;
}

static inline unsigned ref_ones(ref_bits *b, unsigned most) {
    unsigned n = 0;
    while (!b->bad && ref_number(b, 1) == 1) {
        if (++n > most) b->bad = 1;
    }
    return n;
}

static inline int64_t ref_golomb(ref_bits *b, unsigned k) {
    unsigned width = k + ref_ones(b, 31 - k);
    if (b->bad) return 0;
    return (int64_t)((UINT64_C(1) << width) + ref_number(b, width) - (UINT64_C(1) << k));
}

static inline int64_t ref_unzigzag(int64_t v) { return v % 2 ? -(v + 1) / 2 : v / 2; }

typedef struct {
    unsigned precision, alphabet;
    int64_t lowest;
    uint32_t frequency[TSR_MAX_ALPHABET], start[TSR_MAX_ALPHABET + 1];
} ref_table;

/* 1 if a table stands at bit b->at. */
static inline int ref_table_read(ref_table *t, ref_bits *b) {
    t->precision = 8 + (unsigned)ref_number(b, 3);
    t->lowest = ref_unzigzag(ref_golomb(b, 4));
    int64_t last = ref_golomb(b, 4), mode = ref_golomb(b, 3);
    if (b->bad || last > TSR_MAX_ALPHABET - 1 || mode > last) return 0;
    if (t->lowest < -(INT64_C(1) << 30) || t->lowest > INT64_C(1) << 30) return 0;
    t->alphabet = (unsigned)last + 1;
    int64_t most = 16 * ((int64_t)t->precision - 4) + 15, sum = 0;
    if (t->alphabet > 1) {
        int linear = (int)ref_number(b, 1);
        unsigned rice = (unsigned)ref_number(b, 3);
        for (int step = -1; step <= 1; step += 2) {
            int64_t c1 = 16 * ((int64_t)t->precision - 5), c2 = c1;
            for (int64_t k = mode + step; k >= 0 && k <= last; k += step) {
                int64_t guess = linear ? 2 * c1 - c2 : c1;
                guess = guess < 0 ? 0 : guess > most ? most : guess;
                int64_t residual = (int64_t)ref_ones(b, 1024 >> rice) << rice;
                residual += (int64_t)ref_number(b, rice);
                int64_t code = guess + ref_unzigzag(residual);
                if (b->bad || code < 0 || code > most) return 0;
                int64_t f = code < 32 ? code : (16 + code % 16) << (code / 16 - 1);
                t->frequency[k] = (uint32_t)f;
                sum += f;
                c2 = c1;
                c1 = code;
            }
        }
    }
    if (b->bad || sum >= INT64_C(1) << t->precision) return 0;
    t->frequency[mode] = (uint32_t)((INT64_C(1) << t->precision) - sum);
    t->start[0] = 0;
    for (unsigned k = 0; k < t->alphabet; k++) t->start[k + 1] = t->start[k] + t->frequency[k];
    return 1;
}

static inline int ref_varint(const uint8_t **p, const uint8_t *end, uint64_t *value) {
    *value = 0;
    for (unsigned k = 0; *p < end; k++) {
        uint64_t byte = *(*p)++;
        if (k == 9 && byte > 1) return 0;
        *value += (byte % 128) << 7 * k;
        if (byte < 128) return k == 0 || byte > 0;
    }
    return 0;
}

/* What decoding must give: an error when opening, or values with the places where something is wrong with them. */
typedef struct {
    tsr_error open;
    int32_t *values;
    uint64_t truncated_at, patch_at, range_at; /* UINT64_MAX: nowhere */
    int trailing;
} ref_result;

/* The symbol whose share of the slots holds `slot`. */
static inline unsigned ref_symbol(const ref_table *t, uint32_t slot) {
    unsigned low = 0, high = t->alphabet - 1; /* the last symbol that does not start after the slot */
    while (low < high) {
        unsigned middle = (low + high + 1) / 2;
        if (t->start[middle] <= slot) low = middle;
        else high = middle - 1;
    }
    return low;
}

static inline uint64_t ref_word(const uint8_t *p, unsigned bytes) {
    uint64_t x = 0;
    for (unsigned k = 0; k < bytes; k++) x += (uint64_t)p[k] << 8 * k;
    return x;
}

static inline void ref_patches(ref_result *r, uint64_t count, const uint8_t *p, const uint8_t *end, uint64_t n) {
    uint64_t at = 0;
    for (uint64_t k = 0; k < n; k++) {
        uint64_t gap = 0, value = 0, before = at;
        int good = ref_varint(&p, end, &gap) && gap < count - at;
        if (!good) { /* found where the patch before was applied, or when opening */
            if (k == 0) r->open = TSR_PATCH;
            else r->patch_at = before - 1;
            return;
        }
        at += gap;
        if (!ref_varint(&p, end, &value) || value > UINT32_MAX) {
            r->patch_at = at;
            return;
        }
        r->values[at] = (int32_t)ref_unzigzag((int64_t)value);
        at++;
    }
}

/* What the first piece of a stream says. */
typedef struct {
    ref_table *table; /* the classes of rows and columns have two more */
    unsigned lanes, tables;
    unsigned contexts; /* `rans1`: tables */
    uint64_t columns;  /* `rans2d`; 0: one table serves a chunk */
    uint8_t *row_class, *column_class;
} ref_prelude;

/* Modulo 2^32, as a signed number. */
static inline int64_t ref_wrapped(int64_t x) { return (int64_t)((uint64_t)(x + INT64_C(2147483648)) % (UINT64_C(1) << 32)) - INT64_C(2147483648); }

/* Where symbol number i of a `rans1` chunk stands. */
static inline uint64_t ref_place(uint64_t i, uint64_t count, unsigned lanes) {
    uint64_t block = i / 2048 * 2048, m = count - block < 2048 ? count - block : 2048, q = m / lanes, j = i - block;
    return block + (j < q * lanes ? (j % lanes) * q + j / lanes : j);
}

/* Number of the table of symbol i of the stream. */
static inline unsigned ref_table_of(const ref_prelude *p, unsigned chosen, uint64_t i) {
    return p->columns == 0 ? chosen : p->row_class[i / p->columns] + p->column_class[i % p->columns];
}

/* A chunk without its first byte. */
static inline void ref_coded(ref_result *r, const ref_prelude *prelude, unsigned chosen, tsr_type type, const uint8_t *p,
                             const uint8_t *end, uint64_t first, uint64_t count) {
    static const int64_t LOW[] = {0, -128, -32768, INT32_MIN}, HIGH[] = {255, 127, 32767, INT32_MAX};
    uint64_t patches, ignored;
    if (!ref_varint(&p, end, &patches) || patches > count) r->open = TSR_PATCH;
    const uint8_t *first_patch = p;
    for (uint64_t k = 0; r->open == TSR_OK && k < 2 * patches; k++) {
        if (!ref_varint(&p, end, &ignored)) r->open = TSR_PATCH;
    }
    if (r->open != TSR_OK) return;
    const uint8_t *patch_end = p;
    const unsigned lanes = prelude->lanes;

    int64_t before[TSR_MAX_LANES] = {0};
    uint64_t state[TSR_MAX_LANES] = {0}, there = (uint64_t)(end - p);
    tsr_error states = there < 4 * lanes ? TSR_TRUNCATED : TSR_OK;
    for (unsigned lane = 0; lane < lanes && states == TSR_OK; lane++, p += 4) {
        state[lane] = ref_word(p, 4);
        if (state[lane] < 65536) states = TSR_RANGE;
    }
    if (states == TSR_OK && (end - p) % 2) states = TSR_TRAILING;
    for (uint64_t i = 0; i < count && states == TSR_OK; i++) {
        const int64_t b = before[i % lanes];
        const unsigned context = (b < 0 ? -b : b) < prelude->contexts ? (unsigned)(b < 0 ? -b : b) : prelude->contexts - 1;
        const ref_table *table = &prelude->table[prelude->contexts > 0 ? context : ref_table_of(prelude, chosen, first + i)];
        uint64_t x = state[i % lanes];
        uint32_t slot = (uint32_t)(x % (UINT64_C(1) << table->precision));
        unsigned k = ref_symbol(table, slot);
        before[i % lanes] = prelude->contexts > 0 && b < 0 ? ref_wrapped(-(table->lowest + k)) : table->lowest + k;
        r->values[i] = (int32_t)before[i % lanes];
        x = table->frequency[k] * (x >> table->precision) + slot - table->start[k];
        if (x < 65536) {
            if (p == end) {
                r->truncated_at = i;
                break;
            }
            x = x << 16 | ref_word(p, 2);
            p += 2;
        }
        state[i % lanes] = x;
    }
    ref_patches(r, count, first_patch, patch_end, patches);
    if (r->open == TSR_OK) r->open = states;
    if (r->open != TSR_OK) return;
    r->trailing = p != end;
    for (unsigned lane = 0; lane < lanes; lane++) r->trailing |= state[lane] != 65536;
    uint64_t good = r->truncated_at < r->patch_at ? r->truncated_at : r->patch_at;
    for (uint64_t i = 0; i < count && i < good && r->range_at == UINT64_MAX; i++) {
        if (r->values[i] < LOW[type] || r->values[i] > HIGH[type]) r->range_at = i;
    }
    if (prelude->contexts > 0) { /* all of a block are in it before and after */
        int32_t *coded = r->values;
        r->values = room(count * sizeof *coded);
        for (uint64_t i = 0; i < count; i++) r->values[ref_place(i, count, lanes)] = coded[i];
        free(coded);
    }
}

/* The error of decoding in blocks: that of the first block with a defect; within it words come before patches, and
 * patches before ranges. */
static inline tsr_error ref_error(const ref_result *r, uint64_t count, uint64_t block) {
    if (r->open != TSR_OK) return r->open;
    for (uint64_t i = 0; i < count; i += block) {
        uint64_t end = count - i < block ? count : i + block;
        if (r->truncated_at < end) return TSR_TRUNCATED;
        if (r->patch_at < end) return TSR_PATCH;
        if (r->range_at < end) return TSR_RANGE;
    }
    return r->trailing ? TSR_TRAILING : TSR_OK;
}

static inline ref_result ref_start(uint64_t count) {
    ref_result r = {TSR_OK, NULL, UINT64_MAX, UINT64_MAX, UINT64_MAX, 0};
    r.values = room(count * sizeof *r.values);
    return r;
}

/* The classes of rows or columns, with table number `table`; NULL if they are not right. */
static inline uint8_t *ref_classes(const ref_prelude *prelude, unsigned table, const uint8_t *p, const uint8_t *end, uint64_t n) {
    ref_prelude own = {.table = prelude->table, .lanes = 1};
    ref_result r = ref_start(n);
    uint8_t *classes = NULL;
    ref_coded(&r, &own, table, TSR_U8, p, end, 0, n);
    if (ref_error(&r, n, n + 1) == TSR_OK) {
        classes = room(n);
        for (uint64_t i = 0; i < n; i++) classes[i] = (uint8_t)r.values[i];
    }
    free(r.values);
    return classes;
}

static inline unsigned ref_largest(const uint8_t *classes, uint64_t n) {
    unsigned largest = 0;
    for (uint64_t i = 0; i < n; i++) largest = classes[i] > largest ? classes[i] : largest;
    return largest;
}

/* Whether `data` is the prelude of a stream of `total` symbols. */
static inline int ref_prelude_read(ref_prelude *prelude, coder coder, uint64_t total, const uint8_t *data, size_t size) {
    static ref_table tables[TSR_MAX_TABLES];
    memset(prelude, 0, sizeof *prelude);
    prelude->table = tables;
    if (size < 2 || data[0] > 5 || data[1] == 0) return 0;
    prelude->lanes = 1u << data[0];
    prelude->tables = data[1];
    const uint8_t *p = data + 2, *end = data + size;
    uint64_t columns = 0, row_bytes = 0, rows = 0;
    const int alike = coder != RANS; /* all tables but those of classes */
    if (alike && data[1] > 64) return 0;
    if (coder == RANS1) prelude->contexts = prelude->tables;
    if (coder == RANS2D) {
        if (!ref_varint(&p, end, &columns) || !ref_varint(&p, end, &row_bytes)) return 0;
        if (columns == 0 || columns > 1 << 24 || columns > total) return 0;
        rows = (total + columns - 1) / columns;
        if (rows > 1 << 24) return 0;
    }
    ref_bits b = {data, 8 * (uint64_t)size, 8 * (uint64_t)(p - data), 0};
    for (unsigned k = 0; k < prelude->tables + (coder == RANS2D ? 2 : 0); k++) {
        if (!ref_table_read(&tables[k], &b)) return 0;
        if (alike && k < prelude->tables && (tables[k].precision > 13 || tables[k].precision != tables[0].precision))
            return 0;
    }
    if (b.at % 8 != 0 && ref_number(&b, (unsigned)(8 - b.at % 8)) != 0) return 0;
    p = data + b.at / 8;
    if (coder != RANS2D) return p == end;
    if (row_bytes > (uint64_t)(end - p)) return 0;
    prelude->row_class = ref_classes(prelude, prelude->tables, p, p + row_bytes, rows);
    prelude->column_class = ref_classes(prelude, prelude->tables + 1, p + row_bytes, end, columns);
    prelude->columns = columns;
    if (prelude->row_class == NULL || prelude->column_class == NULL) return 0;
    return ref_largest(prelude->row_class, rows) + ref_largest(prelude->column_class, columns) < prelude->tables;
}

static inline void ref_prelude_drop(ref_prelude *prelude) {
    free(prelude->row_class);
    free(prelude->column_class);
}

static inline void ref_plain(ref_result *r, tsr_type type, const uint8_t *p, const uint8_t *end, uint64_t count) {
    static const unsigned WIDTH[] = {1, 1, 2, 4};
    unsigned width = WIDTH[type];
    uint64_t due = count * width, there = (uint64_t)(end - p);
    if (there != due) r->open = there < due ? TSR_TRUNCATED : TSR_TRAILING;
    for (uint64_t i = 0; i < count && r->open == TSR_OK; i++) {
        int64_t x = (int64_t)ref_word(p + i * width, width), half = INT64_C(1) << (8 * width - 1);
        r->values[i] = (int32_t)(type == TSR_U8 || x < half ? x : x - 2 * half);
    }
}

static inline ref_result ref_decode(const stream *s) {
    ref_result r = ref_start(s->count);
    ref_prelude prelude;
    const uint8_t *p = s->data, *end = s->data + s->size;
    if (s->coder == PLAIN) {
        ref_plain(&r, s->type, p, end, s->count);
        return r;
    }
    if (!ref_prelude_read(&prelude, s->coder, s->total, s->prelude, s->prelude_size)) r.open = TSR_TABLE;
    else if (s->size == 0) r.open = TSR_TRUNCATED;
    else if (*p == 255) ref_plain(&r, s->type, p + 1, end, s->count);
    else if (*p >= (s->coder == RANS ? prelude.tables : 1)) r.open = TSR_TABLE;
    else ref_coded(&r, &prelude, *p, s->type, p + 1, end, s->first, s->count);
    ref_prelude_drop(&prelude);
    return r;
}

#endif
