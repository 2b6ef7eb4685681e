// What both files of bindings share: arrays as the core takes and gives them, and its errors as exceptions.
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

// bind_methods.cpp
void bind_feedback(nb::module_ &m);
void bind_rate(nb::module_ &m);
void bind_trellis(nb::module_ &m);

#endif
