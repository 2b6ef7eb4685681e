/* Coder `runs`: any bytes decode or are refused, alike with every kind of vectors, in blocks of any size and as bytes, and as a
 * slow decoder written from the specification has it; what was encoded, in any room, decodes to itself. */
#include "builder.h"
#include "reference.h"
#include "runs.h"

/* By spec/FORMAT.md, section 6.7; 0 if that refuses it. */
static int slow(const stream *s, int32_t *out) {
    ref_prelude prelude;
    const uint8_t *p = s->data, *end = s->data + s->size;
    uint64_t levels, sum = 0, found = 0, at = 0;
    if (s->prelude_size < 2 || s->prelude[1] < 1 || s->prelude[1] > 15) return 0;
    const unsigned bits = s->prelude[1];
    uint8_t *head = copy(s->prelude, s->prelude_size);
    head[1] = 1;
    const int good = ref_prelude_read(&prelude, RANS, 0, head, s->prelude_size);
    free(head);
    if (!good || !ref_varint(&p, end, &levels) || levels > s->count) return 0;
    const uint64_t bytes = (levels * bits + 7) / 8;
    if ((uint64_t)(end - p) < bytes + 5) return 0;
    ref_bits low = {p, 8 * bytes, 0, 0}, again = low;
    for (uint64_t i = 0; i < levels; i++) sum += ref_number(&low, bits);
    if (ref_number(&low, (unsigned)(8 * bytes - levels * bits)) != 0 || levels + sum > s->count) return 0;
    const uint64_t tokens = levels + ((s->count - levels - sum) >> bits);
    ref_result r = ref_start(tokens);
    ref_coded(&r, &prelude, 0, s->type, p + bytes, end, 0, tokens);
    int right = ref_error(&r, tokens, TSR_BLOCK) == TSR_OK;
    for (uint64_t i = 0; right && i < tokens; i++) found += r.values[i] != 0;
    right = right && found == levels;
    memset(out, 0, s->count * sizeof *out);
    for (uint64_t i = 0; right && i < tokens; i++) {
        at += r.values[i] != 0 ? ref_number(&again, bits) : UINT64_C(1) << bits;
        if (r.values[i] != 0) out[at++] = r.values[i];
    }
    free(r.values);
    return right;
}

static tsr_error open_runs(stream *s, tsr_reader *reader, tsr_runs *runs) {
    static tsr_slot slots[1 << TSR_MAX_PRECISION];
    tsr_error error = tsr_prelude_open_runs(&s->opened, s->prelude, s->prelude_size);
    if (error == TSR_OK) error = tsr_runs_open(reader, runs, slots, &s->opened, s->type, s->data, s->size, s->count);
    if (error == TSR_OK && s->simd < runs->tokens.simd) runs->tokens.simd = s->simd;
    return error;
}

static tsr_error decode(stream *s, size_t block, int32_t *out) {
    tsr_runs *runs = room(sizeof *runs);
    tsr_reader reader;
    tsr_error error = open_runs(s, &reader, runs);
    if (error == TSR_OK) error = read_blocks(&reader, block, out);
    free(runs);
    return error;
}

static tsr_error decode_bytes(stream *s, uint8_t *out) {
    tsr_runs *runs = room(sizeof *runs);
    tsr_reader reader;
    tsr_error error = open_runs(s, &reader, runs);
    if (error == TSR_OK) error = tsr_reader_bytes(&reader, out, (size_t)s->count);
    if (error == TSR_OK) error = tsr_reader_close(&reader);
    free(runs);
    return error;
}

/* Levels of the table, and others, between runs of zeros; encoded in room of any size. */
static int encode(input *in, stream *s) {
    tsr_table table;
    uint32_t how = take8(in), share = take8(in), seed = 1 + take8(in), bits = 1 + take8(in) % TSR_MAX_RUN_BITS;
    write_prelude(in, s, 1, take8(in) % 6);
    s->prelude[1] = (uint8_t)bits;
    REQUIRE(tsr_prelude_open_runs(&s->opened, s->prelude, s->prelude_size) == TSR_OK);
    size_t position = s->opened.at[0];
    REQUIRE(tsr_table_read(&table, s->prelude, s->prelude_size, &position) == TSR_OK);
    s->values = room(s->count * sizeof *s->values);
    for (uint64_t i = 0; i < s->count; i++) {
        uint32_t x = i < 64 && left(in) > 8 ? take8(in) : (seed = seed * 1664525 + 1013904223) >> 24;
        int32_t level = how & 2 && x % 16 == 0 ? far_value(x, (uint32_t)i) : table.lowest + (int32_t)(x % table.alphabet);
        s->values[i] = (seed = seed * 1664525 + 1013904223) >> 24 < share ? clamp_to(s->type, level) : 0;
    }
    const size_t n = (size_t)s->count, enough = 64 + 4 * TSR_MAX_LANES + 20 * n;
    const size_t capacity = how & 1 ? take16(in) % (enough + 1) : enough;
    tsr_encoder encoder = make_encoder(&s->opened, 0, 1);
    uint8_t *out = room(capacity);
    int32_t *tokens = room(n * sizeof *tokens);
    uint16_t *scratch = room((n + 32) * sizeof *scratch);
    uint32_t *places = room(n * sizeof *places);
    tsr_error error = tsr_runs_encode(&encoder, bits, s->opened.lanes, s->values, n, out, capacity, tokens, scratch, places, &s->size);
    REQUIRE(error == TSR_OK || (error == TSR_TRUNCATED && capacity < enough));
    if (error == TSR_OK) s->data = copy(out, s->size);
    drop_encoder(&encoder);
    free(out);
    free(tokens);
    free(scratch);
    free(places);
    s->intact = 1;
    return error == TSR_OK;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    input in = {data, data + size};
    uint32_t how = take8(&in);
    stream s = {.type = (tsr_type)(how % 4), .count = take_count(&in, 1)};
    if (how < 0x40) {
        s.prelude = take_bytes(&in, take8(&in), &s.prelude_size);
        s.data = take_bytes(&in, left(&in), &s.size);
    } else if (!encode(&in, &s)) {
        drop_stream(&s);
        return 0;
    } else {
        damage_stream(&in, &s);
    }
    int32_t *expected = room(s.count * sizeof *expected), *out = room(s.count * sizeof *out);
    uint8_t *bytes = room(s.count);
    const int good = slow(&s, expected);
    if (s.intact) REQUIRE(good && memcmp(expected, s.values, s.count * sizeof *out) == 0);
    const size_t blocks[] = {TSR_BLOCK, 1 + take8(&in) % 100};
    const tsr_error first = decode(&s, TSR_BLOCK, out);
    REQUIRE((first == TSR_OK) == good && first != TSR_ARGUMENT);
    for (uint32_t k = 0; k < 2 * ((uint32_t)tsr_simd_best() + 1); k++) {
        s.simd = (tsr_simd)(k / 2);
        REQUIRE(decode(&s, blocks[k % 2], out) == first);
        if (good) REQUIRE(memcmp(out, expected, s.count * sizeof *out) == 0);
        if (s.type > TSR_I8) continue;
        REQUIRE(decode_bytes(&s, bytes) == first);
        for (uint64_t i = 0; good && i < s.count; i++) REQUIRE(bytes[i] == (uint8_t)expected[i]);
    }
    free(expected);
    free(out);
    free(bytes);
    drop_stream(&s);
    return 0;
}
