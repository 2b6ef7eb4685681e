/* Chunks of coder `rans`: what was encoded decodes to itself; anything else decodes, or is refused with an error of the
 * file, never with one of the caller. */
#include "builder.h"
#include "streams.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static tsr_slot slots[1 << TSR_MAX_PRECISION];
    input in = {data, data + size};
    tsr_type type = (tsr_type)(take8(&in) % 4);
    uint64_t count = take_count(&in, 0);
    stream s = take_stream(&in, type, count);
    int32_t *out = room(s.count * sizeof *out);
    tsr_error error = decode_stream(&s, slots, TSR_BLOCK, out);
    REQUIRE(error != TSR_ARGUMENT);
    if (s.intact) REQUIRE(error == TSR_OK && memcmp(out, s.values, s.count * sizeof *out) == 0);
    free(out);
    drop_stream(&s);
    return 0;
}
