/* The fast decoder, with every kind of vectors this processor has and without, in blocks of several sizes, against a slow one
 * written from the specification: the same values, and the same error wherever decoding goes wrong. */
#include "builder.h"
#include "reference.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static tsr_slot slots[1 << TSR_MAX_PRECISION];
    input in = {data, data + size};
    tsr_type type = (tsr_type)(take8(&in) % 4);
    size_t blocks[] = {TSR_BLOCK, TSR_MAX_LANES, TSR_MAX_LANES * (1 + (size_t)take8(&in) % 64)};
    uint64_t count = take_count(&in, 0);
    stream s = take_stream(&in, type, count);
    ref_result expected = ref_decode(&s);
    if (s.intact) {
        REQUIRE(ref_error(&expected, s.count, TSR_BLOCK) == TSR_OK);
        REQUIRE(memcmp(expected.values, s.values, s.count * sizeof *s.values) == 0);
    }
    for (size_t k = 0; k < (sizeof blocks / sizeof *blocks) * ((size_t)tsr_simd_best() + 1); k++) {
        size_t block = s.coder == RANS1 ? TSR_BLOCK : blocks[k % (sizeof blocks / sizeof *blocks)];
        s.simd = (tsr_simd)(k / (sizeof blocks / sizeof *blocks));
        int32_t *out = room(s.count * sizeof *out);
        tsr_error error = decode_stream(&s, slots, block, out);
        REQUIRE(error == ref_error(&expected, s.count, block));
        if (error == TSR_OK) REQUIRE(memcmp(out, expected.values, s.count * sizeof *out) == 0);
        free(out);
    }
    for (uint32_t simd = 0; s.type <= TSR_I8 && simd <= (uint32_t)tsr_simd_best(); simd++) {
        s.simd = (tsr_simd)simd;
        uint8_t *out = room(s.count);
        tsr_error error = decode_stream_bytes(&s, slots, out);
        REQUIRE((error == TSR_OK) == (ref_error(&expected, s.count, TSR_BLOCK) == TSR_OK));
        for (uint64_t i = 0; error == TSR_OK && i < s.count; i++) REQUIRE(out[i] == (uint8_t)expected.values[i]);
        free(out);
    }
    free(expected.values);
    drop_stream(&s);
    return 0;
}
