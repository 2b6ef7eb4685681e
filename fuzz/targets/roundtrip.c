/* The encoder: tables survive writing and reading, values survive encoding and decoding, whatever the room; nothing is
 * written outside it. */
#include "streams.h"

/* Counts to frequencies to bits to frequencies. */
static void round_table(const tsr_table *table, size_t capacity, size_t start) {
    static tsr_table again;
    uint8_t *data = room(capacity);
    memset(data, 0, capacity);
    size_t written = start, read = start;
    tsr_error error = tsr_table_write(table, data, capacity, &written);
    REQUIRE(error == TSR_OK || error == TSR_TRUNCATED);
    if (error == TSR_OK) {
        REQUIRE(written <= 8 * capacity);
        REQUIRE(tsr_table_read(&again, data, capacity, &read) == TSR_OK && read == written);
        REQUIRE(again.precision == table->precision && again.alphabet == table->alphabet);
        REQUIRE(again.lowest == table->lowest);
        REQUIRE(memcmp(again.frequency, table->frequency, table->alphabet * sizeof *table->frequency) == 0);
    } else {
        REQUIRE(capacity < 64 + 50 * (size_t)table->alphabet);
    }
    free(data);
}

/* A table nobody rounded: refused, or written as one that can be read. */
static void arbitrary_table(input *in) {
    static tsr_table table, again;
    static uint8_t data[1 << 16];
    uint32_t total = 0, most, n = 1 + take8(in) % 64;
    table.precision = TSR_MIN_PRECISION + take8(in) % 8;
    table.lowest = (int32_t)take32(in);
    most = UINT32_C(1) << table.precision;
    table.alphabet = n;
    for (uint32_t k = 0; k < n; k++) {
        uint32_t frequency = k + 1 == n ? most - total : take16(in) % (most - total + 1);
        table.frequency[k] = (uint16_t)(frequency > 65535 ? 65535 : frequency);
        total += table.frequency[k];
    }
    size_t written = 0, read = 0;
    memset(data, 0, sizeof data);
    if (tsr_table_write(&table, data, sizeof data, &written) != TSR_OK) return;
    REQUIRE(tsr_table_read(&again, data, sizeof data, &read) == TSR_OK && read == written);
    REQUIRE(again.precision == table.precision && again.alphabet == n && again.lowest == table.lowest);
    REQUIRE(memcmp(again.frequency, table.frequency, n * sizeof *table.frequency) == 0);
}

static void encode_values(input *in, const tsr_table *table) {
    static tsr_slot slots[1 << TSR_MAX_PRECISION];
    static uint8_t prelude[1 << 18];
    uint32_t lanes = 1u << take8(in) % 6, how = take8(in), seed = take8(in);
    size_t n = take_count(in, 0), enough = 1 + 10 + 15 * n + 4 * lanes + 2 * n, size = 0, position = 16;
    size_t capacity = how & 1 ? take16(in) % (enough + 1) : enough;
    int32_t *values = room(n * sizeof *values), *out = room(n * sizeof *out);
    for (size_t i = 0; i < n; i++) {
        uint32_t x = i < 128 && left(in) > 0 ? take8(in) : (seed = seed * 1664525 + 1013904223) >> 24;
        int outlier = how & 2 && x % 8 == 0;
        values[i] = outlier ? (int32_t)(x << 25 ^ (uint32_t)i * 2654435761u) : table->lowest + (int32_t)(x % table->alphabet);
    }
    uint8_t *chunk = room(capacity);
    memset(prelude, 0, 64 + 50 * (size_t)table->alphabet);
    for (prelude[0] = 0; 1u << prelude[0] < lanes;) prelude[0]++;
    prelude[1] = 1;
    REQUIRE(tsr_table_write(table, prelude, sizeof prelude, &position) == TSR_OK);
    stream s = {.coder = RANS, .type = TSR_I32, .count = n, .prelude = prelude, .prelude_size = (position + 7) / 8, .values = values,
                .simd = tsr_simd_best()};
    REQUIRE(tsr_prelude_open(&s.opened, prelude, s.prelude_size) == TSR_OK);
    tsr_error error = encode_chunk(&s, 0, chunk, capacity, &size);
    REQUIRE(error == TSR_OK || ((error == TSR_TRUNCATED || capacity == 0) && capacity < enough));
    if (error == TSR_OK) {
        REQUIRE(size <= capacity);
        s.data = copy(chunk, size);
        s.size = size;
        REQUIRE(decode_stream(&s, slots, TSR_BLOCK, out) == TSR_OK);
        REQUIRE(memcmp(values, out, n * sizeof *out) == 0);
        free(s.data);
    }
    free(values);
    free(out);
    free(chunk);
}

/* Tables by class or context: a prelude and a chunk, then the chunk again in any room. */
static void encode_classed(input *in) {
    static tsr_slot slots[1 << TSR_MAX_PRECISION];
    tsr_type type = (tsr_type)(take8(in) % 4);
    uint32_t how = take8(in), room_left = take16(in);
    stream s = {.coder = how & 4 ? RANS1 : RANS2D, .type = type, .count = take_count(in, 0), .simd = tsr_simd_best()};
    s.first = how & 1 ? take16(in) % 5000 : 0;
    s.total = s.first + s.count + (how & 2 ? take8(in) : 0) + (s.count == 0);
    encode_stream(in, &s);
    size_t capacity = room_left % (s.size + 2), size = 0;
    uint8_t *chunk = room(capacity);
    int32_t *out = room(s.count * sizeof *out);
    tsr_error error = encode_chunk(&s, 0, chunk, capacity, &size);
    REQUIRE(capacity >= s.size ? error == TSR_OK : error == TSR_TRUNCATED || capacity == 0);
    if (error == TSR_OK) REQUIRE(size == s.size && memcmp(chunk, s.data, size) == 0);
    REQUIRE(decode_stream(&s, slots, TSR_BLOCK, out) == TSR_OK);
    REQUIRE(memcmp(out, s.values, s.count * sizeof *out) == 0);
    drop_stream(&s);
    free(chunk);
    free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static tsr_table table;
    input in = {data, data + size};
    uint32_t how = take8(&in);
    if (how < 0x30) {
        arbitrary_table(&in);
        return 0;
    }
    if (how >= 0xA0) {
        encode_classed(&in);
        return 0;
    }
    size_t start = how & 1 ? take8(&in) : 0, less = how & 2 ? take16(&in) : 0;
    take_table(&in, &table);
    size_t enough = 64 + 50 * (size_t)table.alphabet + start / 8 + 1;
    if (how & 2) {
        size_t capacity = less % enough;
        if (start <= 8 * capacity) round_table(&table, capacity, start);
    } else {
        round_table(&table, enough, start);
    }
    encode_values(&in, &table);
    return 0;
}
