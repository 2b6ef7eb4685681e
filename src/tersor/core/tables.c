/* Frequency tables and preludes: what is read before the first symbol (spec/FORMAT.md, sections 6.1, 6.2, 6.4, 6.6 and 6.7). */
#include "bits.h"
#include "tersor.h"

typedef struct {
    const uint8_t *data;
    size_t bits, position;
    int failed;
} bit_reader;

static uint32_t read_bit(bit_reader *r) {
    if (r->position >= r->bits) {
        r->failed = 1;
        return 0;
    }
    uint32_t bit = r->data[r->position >> 3] >> (r->position & 7) & 1;
    r->position++;
    return bit;
}

static uint32_t read_bits(bit_reader *r, uint32_t n) {
    uint32_t x = 0;
    for (uint32_t i = 0; i < n; i++) x |= read_bit(r) << i;
    return x;
}

/* Number of one bits before the next zero, at most `most`. */
static uint32_t read_unary(bit_reader *r, uint32_t most) {
    uint32_t n = 0;
    while (!r->failed && read_bit(r)) {
        if (++n > most) r->failed = 1;
    }
    return n;
}

/* Exp-Golomb code of the given order. */
static uint32_t read_golomb(bit_reader *r, uint32_t order) {
    uint32_t width = order + read_unary(r, 31 - order);
    if (r->failed) return 0;
    return read_bits(r, width) + (UINT32_C(1) << width) - (UINT32_C(1) << order);
}

/* Codes of the symbols on one side of the mode, from the mode outwards. */
static tsr_error read_side(tsr_table *table, bit_reader *r, uint32_t order, uint32_t rice, uint32_t mode, int side,
                           uint32_t *sum) {
    int32_t largest = largest_code(table->precision), previous = starting_code(table->precision), before = previous;
    uint32_t n = side < 0 ? mode : table->alphabet - 1 - mode;
    for (uint32_t i = 1; i <= n; i++) {
        uint32_t quotient = read_unary(r, 1024 >> rice);
        if (r->failed) return TSR_TABLE;
        uint32_t residual = quotient << rice | read_bits(r, rice);
        int32_t code = predict(order, previous, before, largest) + unzigzag(residual);
        if (r->failed || code < 0 || code > largest) return TSR_TABLE;
        before = previous;
        previous = code;
        uint32_t frequency = code_frequency((uint32_t)code);
        table->frequency[side < 0 ? mode - i : mode + i] = (uint16_t)frequency;
        *sum += frequency; /* at most 4096 * 2^15: no overflow */
    }
    return TSR_OK;
}

tsr_error tsr_table_read(tsr_table *table, const uint8_t *data, size_t size, size_t *position) {
    bit_reader r = {data, size > SIZE_MAX / 8 ? SIZE_MAX : size * 8, *position, 0};
    table->precision = TSR_MIN_PRECISION + read_bits(&r, 3);
    table->lowest = unzigzag(read_golomb(&r, 4));
    uint32_t last = read_golomb(&r, 4);
    uint32_t mode = read_golomb(&r, 3), total = UINT32_C(1) << table->precision, sum = 0;
    if (r.failed || last >= TSR_MAX_ALPHABET || mode > last) return TSR_TABLE;
    if (table->lowest < -(INT32_C(1) << 30) || table->lowest > INT32_C(1) << 30) return TSR_TABLE;
    table->alphabet = last + 1;
    if (last > 0) {
        uint32_t order = read_bit(&r), rice = read_bits(&r, 3);
        tsr_error error = read_side(table, &r, order, rice, mode, -1, &sum);
        if (error == TSR_OK) error = read_side(table, &r, order, rice, mode, 1, &sum);
        if (error != TSR_OK) return error;
    }
    if (r.failed || sum >= total) return TSR_TABLE;
    table->frequency[mode] = (uint16_t)(total - sum); /* the mode takes what the others leave */
    *position = r.position;
    return TSR_OK;
}

/* -- slots ------------------------------------------------------------------------------------------------------- */

int tsr_packs(uint32_t precision, int64_t span) { return span <= INT64_C(1) << (32 - 2 * precision); }

TSR_VECTORISED static uint32_t *fill_run(uint32_t *slots, uint32_t frequency, uint32_t first) {
    for (uint32_t k = 0; k < frequency; k++) slots[k] = first + k;
    return slots + frequency;
}

void tsr_slots_fill(const tsr_table *table, int packed, int32_t base, void *slots) {
    uint32_t *narrow = slots;
    tsr_slot *wide = slots;
    const uint32_t p = table->precision, from = (uint32_t)table->lowest - (uint32_t)base;
    for (uint32_t symbol = 0; symbol < table->alphabet; symbol++) {
        uint32_t frequency = table->frequency[symbol];
        if (frequency == 0) continue;
        if (packed) {
            narrow = fill_run(narrow, frequency, (from + symbol) << 2 * p | (frequency - 1) << p);
            continue;
        }
        tsr_slot slot = {(uint16_t)frequency, 0, table->lowest + (int32_t)symbol};
        for (uint32_t k = 0; k < frequency; k++) {
            slot.bias = (uint16_t)k;
            *wide++ = slot;
        }
    }
}

/* -- preludes ---------------------------------------------------------------------------------------------------- */

/* Walks over `tables` tables from bit `position` on and notes where they begin; returns where they end in `*position`. */
static tsr_error walk_tables(tsr_prelude *p, uint32_t tables, size_t *position) {
    int64_t low = INT64_MAX, high = INT64_MIN;
    tsr_table table;
    for (uint32_t k = 0; k < tables; k++) {
        p->at[k] = *position;
        tsr_error error = tsr_table_read(&table, p->data, p->size, position);
        if (error != TSR_OK) return error;
        if (k >= p->tables) continue; /* a table of classes */
        if ((p->columns > 0 || p->contexts > 0) && k > 0 && table.precision != p->precision) return TSR_TABLE;
        p->precision = table.precision;
        if (table.lowest < low) low = table.lowest;
        if ((int64_t)table.lowest + table.alphabet > high) high = (int64_t)table.lowest + table.alphabet;
    }
    p->base = (int32_t)low;
    p->highest = (int32_t)(high - 1);
    p->packed = tsr_packs(p->precision, high - low);
    return TSR_OK;
}

static int padding_is_zero(const tsr_prelude *p, size_t position) {
    return position % 8 == 0 || p->data[position / 8] >> position % 8 == 0;
}

/* Lanes and number of tables. */
static tsr_error read_head(tsr_prelude *p, const uint8_t *data, size_t size, uint32_t most_tables) {
    memset(p, 0, sizeof *p);
    p->data = data;
    p->size = size;
    if (size < 2 || data[0] > 5 || data[1] == 0 || data[1] > most_tables) return TSR_TABLE;
    p->lanes = UINT32_C(1) << data[0];
    p->tables = data[1];
    return TSR_OK;
}

/* Tables and nothing else. */
static tsr_error read_tables(tsr_prelude *p) {
    size_t position = 16;
    tsr_error error = walk_tables(p, p->tables, &position);
    if (error != TSR_OK) return error;
    return (position + 7) / 8 == p->size && padding_is_zero(p, position) ? TSR_OK : TSR_TABLE;
}

tsr_error tsr_prelude_open(tsr_prelude *p, const uint8_t *data, size_t size) {
    tsr_error error = read_head(p, data, size, TSR_MAX_TABLES);
    return error == TSR_OK ? read_tables(p) : error;
}

tsr_error tsr_prelude_open_1(tsr_prelude *p, const uint8_t *data, size_t size) {
    tsr_error error = read_head(p, data, size, TSR_MAX_CLASSES);
    if (error != TSR_OK) return error;
    p->contexts = p->tables;
    error = read_tables(p);
    return error == TSR_OK && p->precision > TSR_MAX_PRECISION_2D ? TSR_TABLE : error;
}

tsr_error tsr_prelude_open_runs(tsr_prelude *p, const uint8_t *data, size_t size) {
    tsr_error error = read_head(p, data, size, TSR_MAX_RUN_BITS);
    if (error != TSR_OK) return error;
    p->run_bits = p->tables; /* in its place: there is one table */
    p->tables = 1;
    return read_tables(p);
}

tsr_error tsr_prelude_open_2d(tsr_prelude *p, const uint8_t *data, size_t size, uint64_t count) {
    tsr_error error = read_head(p, data, size, TSR_MAX_CLASSES);
    if (error != TSR_OK) return error;
    const uint8_t *next = data + 2;
    uint64_t row_bytes;
    if (!read_varint(&next, data + size, &p->columns) || !read_varint(&next, data + size, &row_bytes)) return TSR_TABLE;
    if (p->columns == 0 || p->columns > TSR_MAX_SIDE || p->columns > count || (count - 1) / p->columns >= TSR_MAX_SIDE)
        return TSR_TABLE;
    p->rows = (count - 1) / p->columns + 1;
    size_t position = 8 * (size_t)(next - data);
    error = walk_tables(p, p->tables + 2, &position);
    if (error != TSR_OK) return error;
    if (p->precision > TSR_MAX_PRECISION_2D || !padding_is_zero(p, position)) return TSR_TABLE;
    p->classes = (position + 7) / 8;
    if (row_bytes > size - p->classes) return TSR_TABLE;
    p->row_bytes = (size_t)row_bytes;
    return TSR_OK;
}

/* One list of classes: a chunk of one lane without its first byte. */
static tsr_error read_classes(const tsr_prelude *p, uint32_t table_index, const uint8_t *data, size_t size, uint8_t *classes,
                              uint64_t n, tsr_slot *scratch, uint32_t *largest) {
    tsr_reader reader;
    tsr_table table;
    size_t position = p->at[table_index];
    int32_t block[TSR_BLOCK];
    tsr_error error = tsr_table_read(&table, p->data, p->size, &position);
    if (error == TSR_OK) error = tsr_reader_open_table(&reader, scratch, &table, 1, TSR_U8, data, size, n);
    *largest = 0;
    for (uint64_t i = 0; error == TSR_OK && i < n;) {
        size_t part = n - i < TSR_BLOCK ? (size_t)(n - i) : TSR_BLOCK;
        error = tsr_reader_next(&reader, block, part);
        for (size_t k = 0; error == TSR_OK && k < part; k++, i++) {
            classes[i] = (uint8_t)block[k];
            if (classes[i] > *largest) *largest = classes[i];
        }
    }
    if (error == TSR_OK) error = tsr_reader_close(&reader);
    return error == TSR_OK ? TSR_OK : TSR_TABLE;
}

/* The classes of all rows, then those of all columns. */
static tsr_error read_sides(const tsr_prelude *p, uint8_t *row_class, uint8_t *column_class, tsr_slot *scratch) {
    const uint8_t *rows = p->data + p->classes, *columns = rows + p->row_bytes;
    uint32_t row = 0, column = 0;
    tsr_error error = read_classes(p, p->tables, rows, p->row_bytes, row_class, p->rows, scratch, &row);
    if (error == TSR_OK)
        error = read_classes(p, p->tables + 1, columns, (size_t)(p->data + p->size - columns), column_class, p->columns, scratch,
                             &column);
    return error == TSR_OK && row + column >= p->tables ? TSR_TABLE : error;
}

tsr_error tsr_prelude_fill(tsr_prelude *p, uint8_t *row_class, uint8_t *column_class, void *slots, tsr_slot *scratch) {
    tsr_error error = p->columns > 0 ? read_sides(p, row_class, column_class, scratch) : TSR_OK;
    if (error != TSR_OK) return error;
    const size_t width = p->packed ? sizeof(uint32_t) : sizeof(tsr_slot);
    for (uint32_t k = 0; k < p->tables; k++) {
        tsr_table table;
        size_t position = p->at[k];
        error = tsr_table_read(&table, p->data, p->size, &position);
        if (error != TSR_OK) return error;
        tsr_slots_fill(&table, p->packed, p->base, (uint8_t *)slots + width * ((size_t)k << p->precision));
    }
    p->row_class = row_class;
    p->column_class = column_class;
    p->slots = slots;
    return TSR_OK;
}

size_t tsr_prelude_slot_bytes(const tsr_prelude *p) {
    return ((size_t)p->tables << p->precision) * (p->packed ? sizeof(uint32_t) : sizeof(tsr_slot));
}
