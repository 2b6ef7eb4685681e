/* Decodes the battery of fuzz/portable.py, the tensors of the golden files, and compares their digests: `portable BATTERY`. */
#include "adaptive.h"
#include "common.h"
#include "runs.h"

static uint8_t *at, *end;

static uint64_t number(void) {
    uint64_t x = 0;
    REQUIRE(end - at >= 8);
    for (int k = 0; k < 8; k++) x |= (uint64_t)*at++ << 8 * k;
    return x;
}

static uint8_t *bytes(size_t *size) {
    *size = number();
    REQUIRE((size_t)(end - at) >= *size);
    uint8_t *data = at;
    at += *size;
    return data;
}

static float *floats(size_t *count) {
    size_t size;
    const uint8_t *data = bytes(&size);
    float *out = room(size);
    for (size_t k = 0; k < size / 4; k++) {
        uint32_t bits = (uint32_t)data[4 * k] | (uint32_t)data[4 * k + 1] << 8 | (uint32_t)data[4 * k + 2] << 16 |
                        (uint32_t)data[4 * k + 3] << 24;
        memcpy(out + k, &bits, 4);
    }
    *count = size / 4;
    if (size > 0) return out;
    free(out);
    return NULL;
}

typedef struct {
    tsr_prelude prelude;
    uint8_t *row_class, *column_class;
    void *slots;
    tsr_slot *own;
    tsr_runs *runs;
} opened;

/* One chunk: coder (0 plain, 1 rans, 2 rans2d, 3 adaptive, 4 rans1, 5 runs), type, first, count, total, prelude, data. */
static void open_chunk(tsr_reader *reader, opened *o) {
    uint64_t coder = number(), type = number(), first = number(), count = number(), total = number();
    size_t prelude_size, size;
    uint8_t *prelude = bytes(&prelude_size), *data = bytes(&size);
    memset(o, 0, sizeof *o);
    o->own = room(sizeof *o->own << TSR_MAX_PRECISION);
    if (coder == 0) {
        REQUIRE(tsr_reader_open_plain(reader, (tsr_type)type, data, size, count) == TSR_OK);
        return;
    }
    if (coder == 3) {
        size_t needed;
        tsr_adaptive *chunk;
        REQUIRE(tsr_adaptive_prelude(prelude, prelude_size, &needed) == TSR_OK);
        o->slots = room(needed);
        REQUIRE(tsr_adaptive_open(&chunk, o->slots, needed, (tsr_type)type, prelude, prelude_size, first, data, size, count) == TSR_OK);
        tsr_reader_open_adaptive(reader, chunk, (tsr_type)type, count);
        return;
    }
    if (coder == 5) {
        o->runs = room(sizeof *o->runs);
        REQUIRE(tsr_prelude_open_runs(&o->prelude, prelude, prelude_size) == TSR_OK);
        REQUIRE(tsr_runs_open(reader, o->runs, o->own, &o->prelude, (tsr_type)type, data, size, count) == TSR_OK);
        return;
    }
    if (coder == 1) {
        REQUIRE(tsr_prelude_open(&o->prelude, prelude, prelude_size) == TSR_OK);
    } else {
        REQUIRE((coder == 2 ? tsr_prelude_open_2d(&o->prelude, prelude, prelude_size, total)
                            : tsr_prelude_open_1(&o->prelude, prelude, prelude_size)) == TSR_OK);
        o->row_class = room(o->prelude.rows);
        o->column_class = room(o->prelude.columns);
        o->slots = room(tsr_prelude_slot_bytes(&o->prelude));
        REQUIRE(tsr_prelude_fill(&o->prelude, o->row_class, o->column_class, o->slots, o->own) == TSR_OK);
    }
    REQUIRE(tsr_reader_open(reader, o->own, &o->prelude, (tsr_type)type, data, size, first, count) == TSR_OK);
}

static void drop(opened *o) {
    free(o->row_class);
    free(o->column_class);
    free(o->slots);
    free(o->own);
    free(o->runs);
}

/* A tensor: its digest, its words and the width of one, its op (0 raw, 1 with steps), how it is cut, its chunks. */
static void check_tensor(void) {
    uint64_t digest = number(), words = number(), width = number(), op = number(), chunks = number(), chunk = number();
    uint8_t *out = room(words * width);
    uint64_t *leaves = room((words / TSR_LEAF + 1) * sizeof *leaves);
    tsr_reader readers[8];
    opened o[8];
    if (op == 0) {
        uint64_t planes = number(), rotate = number();
        for (uint64_t k = 0; k < chunks; k++) {
            for (uint64_t p = 0; p < planes; p++) open_chunk(&readers[p], &o[p]);
            REQUIRE(tsr_planes_decode(readers, (uint32_t)planes, (uint32_t)width, (int)rotate, out + k * chunk * width,
                                      leaves + k * chunk / TSR_LEAF) == TSR_OK);
            for (uint64_t p = 0; p < planes; p++) drop(&o[p]);
        }
    } else {
        size_t ignored, size;
        tsr_uniform u = {.type = (tsr_float)number()};
        u.rows = number();
        u.row_length = number();
        u.low_bits = (uint32_t)number();
        uint64_t trellis = number();
        float *steps = floats(&u.step_count), *offset = floats(&ignored);
        float *columns = floats(&ignored), *values = floats(&u.value_count);
        u.steps = steps;
        u.offset = *offset;
        u.column_steps = columns;
        u.values = values;
        u.row_steps = bytes(&size);
        if (size == 0) u.row_steps = NULL;
        if (trellis) u.states = room(u.row_length);
        for (uint64_t k = 0; k < chunks; k++) {
            open_chunk(&readers[0], &o[0]);
            if (u.low_bits > 0) open_chunk(&readers[1], &o[1]);
            REQUIRE(tsr_uniform_decode(&u, &readers[0], u.low_bits > 0 ? &readers[1] : NULL, k * chunk, out + k * chunk * width,
                                       leaves + k * chunk / TSR_LEAF) == TSR_OK);
            drop(&o[0]);
            if (u.low_bits > 0) drop(&o[1]);
        }
        free(u.states);
        free(steps);
        free(offset);
        free(columns);
        free(values);
    }
    size_t count = (words + TSR_LEAF - 1) / TSR_LEAF;
    uint8_t *joined = room(8 * count);
    for (size_t k = 0; k < 8 * count; k++) joined[k] = (uint8_t)(leaves[k / 8] >> 8 * (k % 8));
    REQUIRE(tsr_hash(joined, 8 * count, words) == digest);
    free(joined);
    free(out);
    free(leaves);
}

int main(int argc, char **argv) {
    static uint8_t battery[1 << 26];
    FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
    REQUIRE(file != NULL);
    at = battery;
    end = battery + fread(battery, 1, sizeof battery, file);
    fclose(file);
    uint64_t tensors = number();
    for (uint64_t k = 0; k < tensors; k++) check_tensor();
    REQUIRE(at == end);
    printf("%d tensors of golden files have their digests\n", (int)tensors);
    return 0;
}
