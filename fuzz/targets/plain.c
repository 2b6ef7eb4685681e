/* Plain values of every type: the size decides alone, and each value is its bytes. */
#include "streams.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const size_t WIDTH[] = {1, 1, 2, 4};
    input in = {data, data + size};
    tsr_type type = (tsr_type)(take8(&in) % 4);
    uint32_t how = take8(&in);
    size_t width = WIDTH[type], block = 1 + take8(&in) * 8, n;
    uint64_t count = how < 0xC0 ? left(&in) / width : how < 0xE0 ? take16(&in) : UINT64_MAX / (1 + take8(&in));
    uint8_t *bytes = take_bytes(&in, left(&in), &n);
    tsr_reader reader;
    tsr_error error = tsr_reader_open_plain(&reader, type, bytes, n, count);
    REQUIRE(error == (n / width < count ? TSR_TRUNCATED : n == count * width ? TSR_OK : TSR_TRAILING));
    for (uint64_t i = 0; error == TSR_OK && i < count; i += block) {
        size_t here = count - i < block ? (size_t)(count - i) : block;
        REQUIRE(tsr_reader_close(&reader) == TSR_ARGUMENT);
        int32_t *out = room(here * sizeof *out);
        REQUIRE(tsr_reader_next(&reader, out, here) == TSR_OK);
        for (size_t k = 0; k < here; k++) {
            uint32_t x = 0;
            for (size_t b = 0; b < width; b++) x |= (uint32_t)bytes[(i + k) * width + b] << 8 * b;
            REQUIRE(out[k] == clamp_to(type, (int32_t)x));
        }
        free(out);
    }
    if (error == TSR_OK) {
        int32_t beyond;
        REQUIRE(tsr_reader_next(&reader, &beyond, 1) == TSR_ARGUMENT);
        REQUIRE(tsr_reader_close(&reader) == TSR_OK);
    }
    free(bytes);
    return 0;
}
