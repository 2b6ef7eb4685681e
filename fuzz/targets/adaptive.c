/* Coder `adaptive`: any bytes decode or are refused, the same in blocks of any size; what was encoded decodes to itself,
 * and nothing shorter or longer does. Memory has exactly the size that is asked for. */
#include "adaptive.h"
#include "streams.h"

typedef struct {
    uint8_t *prelude, *memory;
    size_t prelude_size, memory_size;
    uint64_t first;
} setting;

static tsr_error decode(const setting *s, tsr_type type, const uint8_t *data, size_t size, size_t n, size_t block,
                        int32_t *out) {
    tsr_adaptive *chunk;
    tsr_error error = tsr_adaptive_open(&chunk, s->memory, s->memory_size, type, s->prelude, s->prelude_size, s->first,
                                        data, size, n);
    for (size_t i = 0; error == TSR_OK && i < n; i += block)
        error = tsr_adaptive_next(chunk, out + i, n - i < block ? n - i : block);
    return error == TSR_OK ? tsr_adaptive_close(chunk) : error;
}

/* A prelude of the input's own, or one that is valid. */
static setting take_setting(input *in) {
    setting s = {0};
    uint32_t how = take8(in);
    if (how < 0x20) {
        s.prelude = take_bytes(in, take8(in) % 20, &s.prelude_size);
    } else {
        uint8_t bytes[15];
        uint32_t columns = how & 1 ? 1 + take8(in) : 1 + take16(in), period = how & 2 ? take8(in) : 0;
        s.prelude_size = put_varint(bytes, columns);
        s.prelude_size += put_varint(bytes + s.prelude_size, period < 3 || period >= columns ? 0 : period);
        s.prelude_size += put_varint(bytes + s.prelude_size, how & 4 ? take32(in) : 0);
        s.prelude = copy(bytes, s.prelude_size);
    }
    s.first = how & 8 ? (uint64_t)take32(in) << 20 : 0;
    return s;
}

static void check_bytes(input *in, const setting *s) {
    size_t n = take_count(in, 0), block = 1 + take8(in), size;
    tsr_type type = (tsr_type)(take8(in) % 4);
    uint8_t *data = take_bytes(in, left(in), &size);
    int32_t *out = room(n * sizeof *out), *again = room(n * sizeof *again);
    tsr_error error = decode(s, type, data, size, n, TSR_BLOCK, out);
    tsr_error other = decode(s, type, data, size, n, block, again);
    REQUIRE(error != TSR_ARGUMENT && error != TSR_TABLE && error != TSR_PATCH);
    /* A value of another type and a missing byte may be found in either order: a block is decoded, then checked. */
    REQUIRE((error == TSR_OK) == (other == TSR_OK));
    REQUIRE(error != TSR_OK || memcmp(out, again, n * sizeof *out) == 0);
    free(data);
    free(out);
    free(again);
}

static void check_values(input *in, const setting *s) {
    uint32_t how = take8(in), seed = take8(in), wide = take8(in);
    size_t n = take_count(in, 0), enough = 64 + 160 * n, size = 0, capacity = how & 1 ? take16(in) % (n + 64) : enough;
    int32_t *values = room(n * sizeof *values), *out = room(n * sizeof *out);
    for (size_t i = 0; i < n; i++) {
        uint32_t x = i < 128 && left(in) > 0 ? take8(in) : (seed = seed * 1664525 + 1013904223) >> 24;
        values[i] = how & 2 && x % 8 == 0 ? far_value(x, (uint32_t)i) : (int32_t)(x % (1 + wide)) - (int32_t)(wide / 2);
    }
    uint8_t *data = room(capacity);
    tsr_error error = tsr_adaptive_encode(s->memory, s->memory_size, s->prelude, s->prelude_size, s->first, values, n, data,
                                          capacity, &size);
    REQUIRE(error == TSR_OK || (error == TSR_TRUNCATED && capacity < enough));
    if (error == TSR_OK) {
        REQUIRE(size <= capacity);
        uint8_t *longer = room(size + 1), *shorter = copy(data, size - 1);
        memcpy(longer, data, size);
        longer[size] = (uint8_t)seed;
        REQUIRE(decode(s, TSR_I32, longer, size, n, TSR_BLOCK, out) == TSR_OK);
        REQUIRE(memcmp(values, out, n * sizeof *out) == 0);
        REQUIRE(decode(s, TSR_I32, longer, size + 1, n, TSR_BLOCK, out) == TSR_TRAILING);
        REQUIRE(decode(s, TSR_I32, shorter, size - 1, n, TSR_BLOCK, out) == TSR_TRUNCATED);
        free(longer);
        free(shorter);
    }
    free(values);
    free(out);
    free(data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    input in = {data, data + size};
    uint32_t bytes = take8(&in) & 1;
    setting s = take_setting(&in);
    if (tsr_adaptive_prelude(s.prelude, s.prelude_size, &s.memory_size) == TSR_OK) {
        REQUIRE(s.memory_size < 4 << 20);
        s.memory = room(s.memory_size);
        tsr_adaptive *chunk;
        REQUIRE(tsr_adaptive_open(&chunk, s.memory, s.memory_size - 1, TSR_I32, s.prelude, s.prelude_size, 0, data, size,
                                  1) == TSR_ARGUMENT);
        if (bytes) {
            check_bytes(&in, &s);
        } else {
            check_values(&in, &s);
        }
        free(s.memory);
    }
    free(s.prelude);
    return 0;
}
