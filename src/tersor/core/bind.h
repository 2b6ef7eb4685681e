// What the files of bindings share: arrays as the core takes and gives them, and its errors as exceptions.
#ifndef TERSOR_BIND_H
#define TERSOR_BIND_H

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "adaptive.h"
#include "tersor.h"

namespace nb = nanobind;

struct StreamError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

inline void check(tsr_error error) {
    static const char *const NAMES[] = {"ok", "table", "truncated", "trailing", "patch", "range", "argument"};
    if (error != TSR_OK) throw StreamError(NAMES[error]);
}

using Input = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Output = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Integers = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Counts = nb::ndarray<const uint64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Frequencies = nb::ndarray<const uint16_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

template <typename T> nb::ndarray<nb::numpy, T, nb::ndim<1>> to_numpy(std::vector<T> &&values) {
    auto *kept = new std::vector<T>(std::move(values));
    nb::capsule owner(kept, [](void *p) noexcept { delete static_cast<std::vector<T> *>(p); });
    return nb::ndarray<nb::numpy, T, nb::ndim<1>>(kept->data(), {kept->size()}, owner);
}

inline nb::bytes to_bytes(const std::vector<uint8_t> &data) {
    return nb::bytes(reinterpret_cast<const char *>(data.data()), data.size());
}

template <typename T, typename D> using Array = nb::ndarray<T, D, nb::c_contig, nb::device::cpu>;
using Classes = Array<const uint8_t, nb::ndim<1>>;
using Matrix = Array<const float, nb::ndim<2>>;

// What a prelude belongs to.
enum { RANS, RANS1, RANS2D, ADAPTIVE, RUNS };

// The first piece of a stream, parsed: lanes, tables and, with rans2d, the classes of rows and columns. Read-only, so that threads share it.
struct Prelude {
    std::vector<uint8_t> data, row_class, column_class;
    std::vector<uint64_t> slots;
    tsr_prelude state{};
    size_t adaptive = 0; // bytes that a chunk of an adaptive stream needs to be decoded

    // `count`: symbols of a rans2d stream.
    Prelude(Input input, int coder, uint64_t count) : data(input.data(), input.data() + input.size()) {
        nb::gil_scoped_release release;
        switch (coder) {
            case RANS: check(tsr_prelude_open(&state, data.data(), data.size())); return;
            case RANS1: check(tsr_prelude_open_1(&state, data.data(), data.size())); break;
            case RANS2D: check(tsr_prelude_open_2d(&state, data.data(), data.size(), count)); break;
            case RUNS: check(tsr_prelude_open_runs(&state, data.data(), data.size())); return;
            case ADAPTIVE: check(tsr_adaptive_prelude(data.data(), data.size(), &adaptive)); return;
            default: throw StreamError("argument");
        }
        row_class.resize(state.rows);
        column_class.resize(state.columns);
        slots.resize((tsr_prelude_slot_bytes(&state) + 7) / 8);
        std::unique_ptr<tsr_slot[]> scratch(new tsr_slot[size_t(1) << TSR_MAX_PRECISION]);
        check(tsr_prelude_fill(&state, row_class.data(), column_class.data(), slots.data(), scratch.get()));
    }
    Prelude(const Prelude &) = delete;
};
// bind_runs.cpp
void bind_runs(nb::module_ &m);

// bind_tables.cpp
void bind_tables(nb::module_ &m);

// bind_methods.cpp
void bind_feedback(nb::module_ &m);
void bind_rate(nb::module_ &m);
void bind_trellis(nb::module_ &m);

#endif
