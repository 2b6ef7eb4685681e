/* Op `raw`: byte planes joined to words of every width, against a plain computation of the same. */
#include "builder.h"
#include "streams.h"

static uint64_t word(int32_t *const *planes, uint64_t i, uint32_t stored, uint32_t width, int rotate) {
    uint64_t v = 0;
    for (uint32_t k = 0; k < stored; k++) v = v * 256 + (uint64_t)planes[k][i];
    if (rotate) v = v / 2 + (v % 2 ? UINT64_C(1) << (8 * stored - 1) : 0);
    for (uint32_t k = stored; k < width; k++) v *= 256;
    return v;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    enum { MOST = 8 };
    static tsr_slot slots[MOST][1 << TSR_MAX_PRECISION];
    input in = {data, data + size};
    uint32_t shape = take8(&in), width = shape & 0x80 ? take8(&in) : 1u << (shape & 3), stored = 1 + take8(&in) % MOST;
    int rotate = (shape & 4) != 0, intact = 1;
    if (!(shape & 8)) stored = 1 + (stored - 1) % (width > 0 ? width : 1);
    stored = stored < MOST ? stored : MOST;
    uint64_t count = take_count(&in, 1);

    stream streams[MOST];
    tsr_reader readers[MOST];
    tsr_error error = TSR_OK;
    for (uint32_t k = 0; k < stored; k++) {
        streams[k] = take_stream(&in, shape & 0x40 && k + 1 == stored ? (tsr_type)(take8(&in) % 4) : TSR_U8, count);
        intact &= streams[k].intact && streams[k].type == TSR_U8;
    }
    for (uint32_t k = 0; k < stored && error == TSR_OK; k++) error = open_stream(&readers[k], slots[k], &streams[k]);
    if (error == TSR_OK) {
        uint8_t *out = room(streams[0].count * width);
        size_t leaf_count = (streams[0].count + TSR_LEAF - 1) / TSR_LEAF;
        uint64_t *leaves = room(leaf_count * sizeof *leaves);
        error = tsr_planes_decode(readers, stored, width, rotate, out, leaves);
        if (intact && stored <= width && (width == 1 || width == 2 || width == 4 || width == 8)) REQUIRE(error == TSR_OK);
        if (error == TSR_OK) {
            int32_t *planes[MOST];
            for (uint32_t k = 0; k < stored; k++) {
                planes[k] = room(streams[k].count * sizeof *planes[k]);
                REQUIRE(decode_stream(&streams[k], slots[0], TSR_BLOCK, planes[k]) == TSR_OK);
            }
            for (uint64_t i = 0; i < streams[0].count; i++) {
                uint64_t is = 0;
                for (uint32_t k = 0; k < width; k++) is |= (uint64_t)out[i * width + k] << 8 * k;
                REQUIRE(is == word(planes, i, stored, width, rotate));
            }
            for (uint32_t k = 0; k < stored; k++) free(planes[k]);
            for (uint64_t i = 0; i < streams[0].count; i += TSR_LEAF) {
                uint64_t n = streams[0].count - i < TSR_LEAF ? streams[0].count - i : TSR_LEAF;
                REQUIRE(leaves[i / TSR_LEAF] == tsr_hash(out + i * width, n * width, 0));
            }
        }
        free(out);
        free(leaves);
    }
    for (uint32_t k = 0; k < stored; k++) drop_stream(&streams[k]);
    return 0;
}
