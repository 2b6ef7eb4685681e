// Python bindings of what methods compute natively: rounding with feedback, the differentiable counter, the trellis.
#include "bind.h"

#include "feedback.h"
#include "rate.h"
#include "trellis.h"

#include <algorithm>
#include <cmath>

// -- feedback.h ----------------------------------------------------------------------------------------------------------

namespace {

void feedback_round(Array<float, nb::ndim<2>> residual, Array<const float, nb::ndim<3>> factor, Floats row_step,
                    Floats column_step, Floats row_weight, Classes row_class, Classes column_class, Matrix bits,
                    float quadratic, Matrix row_factor, Array<const float, nb::ndim<3>> spared,
                    Array<float, nb::ndim<2>> errors, Array<int32_t, nb::ndim<2>> levels) {
    size_t rows = residual.shape(0), columns = residual.shape(1), groups = factor.shape(0);
    if (groups == 0 || rows % groups || factor.shape(1) != columns || factor.shape(2) != columns ||
        levels.shape(0) != rows || levels.shape(1) != columns || row_step.size() != rows || row_weight.size() != rows ||
        row_class.size() != rows || column_step.size() != columns || column_class.size() != columns ||
        bits.shape(1) % 2 != 1 || columns > UINT32_MAX ||
        row_factor.shape(0) != rows ||
        (row_factor.shape(1) > 1 &&
         (spared.shape(0) != groups || spared.shape(1) != columns || spared.shape(2) != columns ||
          errors.shape(0) != rows || errors.shape(1) != columns)))
        throw StreamError("argument");
    if (rows == 0 || columns == 0) return;
    nb::gil_scoped_release release;
    std::unique_ptr<float[]> scratch(new float[TSR_LANES * (3 * columns + TSR_PANEL)]);
    tsr_feedback problem = {static_cast<uint32_t>(columns), rows / groups, factor.data(), column_step.data(),
                            column_class.data(), bits.data(), static_cast<uint32_t>(bits.shape(0)),
                            static_cast<int32_t>(bits.shape(1) / 2), quadratic, row_factor.shape(1),
                            row_factor.data(), spared.data()};
    check(tsr_feedback_round(&problem, rows, residual.data(), row_step.data(), row_weight.data(), row_class.data(),
                             errors.data(), levels.data(), scratch.get()));
}

void feedback_count(Array<const int32_t, nb::ndim<2>> levels, Classes row_class, Classes column_class,
                    Array<uint64_t, nb::ndim<2>> counts) {
    if (row_class.size() != levels.shape(0) || column_class.size() != levels.shape(1) || counts.shape(0) == 0 ||
        counts.shape(1) % 2 != 1)
        throw StreamError("argument");
    nb::gil_scoped_release release;
    tsr_feedback_count(levels.shape(0), levels.shape(1), levels.data(), row_class.data(), column_class.data(),
                       static_cast<uint32_t>(counts.shape(0)), static_cast<int32_t>(counts.shape(1) / 2), counts.data());
}

} // namespace

void bind_feedback(nb::module_ &m) {
    using namespace nb::literals;
    m.def("feedback_round", &feedback_round, "residual"_a, "factor"_a, "row_step"_a, "column_step"_a, "row_weight"_a,
          "row_class"_a, "column_class"_a, "bits"_a, "quadratic"_a, "row_factor"_a, "spared"_a, "errors"_a, "levels"_a);
    m.def("feedback_count", &feedback_count, "levels"_a, "row_class"_a, "column_class"_a, "counts"_a);
}

// -- the differentiable counter (rate.h) ---------------------------------------------------------------------------

namespace {

using Written = nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Tensors = std::vector<Floats>;
using Results = std::vector<Written>;

template <typename List> void check_sizes(const Tensors &tensors, const List &others) {
    if (others.size() != tensors.size()) throw StreamError("argument");
    for (size_t i = 0; i < tensors.size(); i++)
        if (others[i].size() != tensors[i].size()) throw StreamError("argument");
}

// Bits of every tensor's codes and their gradients; NaN for codes that are not finite or span more than `most` levels.
std::vector<double> soft_bits(const Tensors &codes, int kernel, double resolution, uint32_t most, const Results &gradients) {
    if (kernel < TSR_COSINE || kernel > TSR_TRIANGLE || !(resolution > 0) || most > (1u << 24)) throw StreamError("argument");
    check_sizes(codes, gradients);
    nb::gil_scoped_release release;
    std::vector<double> bits, scratch;
    std::vector<float> table;
    for (size_t i = 0; i < codes.size(); i++) {
        size_t n = codes[i].size();
        float low = 0, high = 0;
        if (n > 0) tsr_range(codes[i].data(), n, &low, &high);
        double lowest = std::floor(low + 0.5), bins = std::floor(high + 0.5) - lowest + 1;
        if (!(std::max(-low, high) < float(INT32_MAX)) || bins > most) {
            bits.push_back(NAN);
        } else if (low == high) { // one level, certain
            std::fill_n(gradients[i].data(), n, 0.0f);
            bits.push_back(0);
        } else {
            tsr_counter counter;
            tsr_counter_open(&counter, static_cast<tsr_kernel>(kernel), (double(high) - low) / resolution,
                             static_cast<int32_t>(lowest), static_cast<uint32_t>(bins));
            scratch.resize(std::max(scratch.size(), tsr_bits_scratch(&counter)));
            table.resize(std::max(table.size(), size_t(TSR_COEFFICIENTS) * TSR_CELLS * counter.bins));
            bits.push_back(tsr_bits(&counter, codes[i].data(), n, scratch.data(), table.data(), gradients[i].data()));
        }
    }
    return bits;
}

void joint_round_trip(const Tensors &weights, Floats steps, Floats thresholds, const Results &codes, const Results &rebuilt) {
    check_sizes(weights, codes);
    check_sizes(weights, rebuilt);
    if (steps.size() != weights.size() || thresholds.size() != weights.size()) throw StreamError("argument");
    nb::gil_scoped_release release;
    for (size_t i = 0; i < weights.size(); i++)
        tsr_joint(weights[i].data(), weights[i].size(), steps(i), thresholds(i), codes[i].data(), rebuilt[i].data());
}

// `gradients` of weights: none if it is empty.
void joint_gradient(const Tensors &codes, Floats steps, Floats thresholds, const Tensors &by_rebuilt, const Tensors &by_code,
                    const Results &gradients, Written step_gradients, Written threshold_gradients) {
    check_sizes(codes, by_rebuilt);
    check_sizes(codes, by_code);
    if (!gradients.empty()) check_sizes(codes, gradients);
    for (size_t size : {steps.size(), thresholds.size(), step_gradients.size(), threshold_gradients.size()})
        if (size != codes.size()) throw StreamError("argument");
    nb::gil_scoped_release release;
    for (size_t i = 0; i < codes.size(); i++)
        tsr_joint_gradient(codes[i].data(), codes[i].size(), steps(i), thresholds(i), by_rebuilt[i].data(),
                           by_code[i].data(), gradients.empty() ? nullptr : gradients[i].data(), &step_gradients(i),
                           &threshold_gradients(i));
}

} // namespace

void bind_rate(nb::module_ &m) {
    using namespace nb::literals;
    m.def("soft_bits", &soft_bits, "codes"_a, "kernel"_a, "resolution"_a, "most"_a, "gradients"_a);
    m.def("joint", &joint_round_trip, "weights"_a, "steps"_a, "thresholds"_a, "codes"_a, "rebuilt"_a);
    m.def("joint_gradient", &joint_gradient, "codes"_a, "steps"_a, "thresholds"_a, "by_rebuilt"_a, "by_code"_a,
          "gradients"_a, "step_gradients"_a, "threshold_gradients"_a);
}

// -- trellis.h -----------------------------------------------------------------------------------------------------------

namespace {

void trellis_round(Floats target, Floats weight, Floats fold, Classes row_class, uint32_t column_class, Matrix bits,
                   uint64_t first, uint64_t row_length, uint64_t chunk, Array<int32_t, nb::ndim<1>> levels,
                   Array<int32_t, nb::ndim<1>> values) {
    size_t rows = target.size();
    if (weight.size() != rows || fold.size() != rows || row_class.size() != rows || levels.size() != rows ||
        values.size() != rows || bits.shape(0) == 0 || bits.shape(1) % 2 != 1)
        throw StreamError("argument");
    nb::gil_scoped_release release;
    std::unique_ptr<tsr_node[]> nodes(new tsr_node[rows]);
    tsr_column column = {rows, target.data(), weight.data(), fold.data(), row_class.data(), column_class,
                         static_cast<uint32_t>(bits.shape(0)), bits.data(), static_cast<int32_t>(bits.shape(1) / 2),
                         first, row_length, chunk};
    check(tsr_trellis_round(&column, levels.data(), values.data(), nodes.get()));
}

} // namespace

void bind_trellis(nb::module_ &m) {
    using namespace nb::literals;
    m.def("trellis_round", &trellis_round, "target"_a, "weight"_a, "fold"_a, "row_class"_a, "column_class"_a, "bits"_a,
          "first"_a, "row_length"_a, "chunk"_a, "levels"_a, "values"_a);
}
