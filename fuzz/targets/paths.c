/* The fast decoder against a slow one written from the specification, and against itself in blocks of other sizes: the
 * same values, and the same error wherever decoding goes wrong. */
#include "builder.h"
#include "reference.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static tsr_slot slots[1 << TSR_MAX_PRECISION];
    input in = {data, data + size};
    tsr_type type = (tsr_type)(take8(&in) % 4);
    size_t blocks[] = {TSR_BLOCK, TSR_MAX_LANES, TSR_MAX_LANES * (1 + (size_t)take8(&in) % 70)};
    uint64_t count = take_count(&in, 0);
    stream s = take_stream(&in, type, count);
    ref_result expected = ref_decode(&s);
    if (s.intact) {
        REQUIRE(ref_error(&expected, s.count, TSR_BLOCK) == TSR_OK);
        REQUIRE(memcmp(expected.values, s.values, s.count * sizeof *s.values) == 0);
    }
    for (size_t k = 0; k < sizeof blocks / sizeof *blocks; k++) {
        int32_t *out = room(s.count * sizeof *out);
        tsr_error error = decode_stream(&s, slots, blocks[k], out);
        REQUIRE(error == ref_error(&expected, s.count, blocks[k]));
        if (error == TSR_OK) REQUIRE(memcmp(out, expected.values, s.count * sizeof *out) == 0);
        free(out);
    }
    free(expected.values);
    drop_stream(&s);
    return 0;
}
