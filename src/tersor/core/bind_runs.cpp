// Python bindings of the encoding half of coder runs.
#include "bind.h"

#include "runs.h"

namespace {

void count_runs(Integers values, Array<uint64_t, nb::ndim<1>> skips) {
    if (skips.size() != TSR_MAX_RUN_BITS + 1) throw StreamError("argument");
    nb::gil_scoped_release release;
    tsr_runs_count(values.data(), values.size(), skips.data());
}

nb::bytes encode_runs(Integers values, const Prelude &prelude) {
    const size_t n = values.size();
    const uint32_t bits = prelude.state.run_bits;
    if (bits == 0) throw StreamError("argument");
    std::unique_ptr<uint8_t[]> out;
    size_t size = 0;
    {
        nb::gil_scoped_release release;
        tsr_encoder encoder;
        check(tsr_encoder_open(&encoder, &prelude.state, 0, 1));
        std::vector<uint32_t> entries(encoder.span);
        uint32_t mode;
        encoder.entries = entries.data();
        encoder.modes = &mode;
        check(tsr_encoder_fill(&encoder, &prelude.state, 0, 1));
        const size_t capacity = 64 + 4 * TSR_MAX_LANES + 20 * n; // a patch takes 15 bytes at most, a symbol 2, a low part 2
        out.reset(new uint8_t[capacity]);
        std::unique_ptr<int32_t[]> tokens(new int32_t[n]);
        std::unique_ptr<uint16_t[]> scratch(new uint16_t[n + 32]);
        std::unique_ptr<uint32_t[]> places(new uint32_t[n]);
        check(tsr_runs_encode(&encoder, bits, prelude.state.lanes, values.data(), n, out.get(), capacity, tokens.get(),
                              scratch.get(), places.get(), &size));
    }
    return nb::bytes(reinterpret_cast<const char *>(out.get()), size);
}

} // namespace

void bind_runs(nb::module_ &m) {
    using namespace nb::literals;
    m.def("count_runs", &count_runs, "values"_a, "skips"_a);
    m.def("encode_runs", &encode_runs, "values"_a, "prelude"_a);
}
