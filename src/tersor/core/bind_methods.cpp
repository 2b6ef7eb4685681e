// Python bindings of what methods compute natively: rounding with feedback, the differentiable counter, the trellis.
#include "bind.h"

#include "feedback.h"
#include "rate.h"
#include "trellis.h"

// -- feedback.h ----------------------------------------------------------------------------------------------------------

namespace {

void feedback_round(Array<float, nb::ndim<2>> residual, Array<const float, nb::ndim<3>> factor, Floats row_step,
                    Floats column_step, Floats row_weight, Classes row_class, Classes column_class, Matrix bits,
                    float quadratic, Array<int32_t, nb::ndim<2>> levels) {
    size_t rows = residual.shape(0), columns = residual.shape(1), groups = factor.shape(0);
    if (groups == 0 || rows % groups || factor.shape(1) != columns || factor.shape(2) != columns ||
        levels.shape(0) != rows || levels.shape(1) != columns || row_step.size() != rows || row_weight.size() != rows ||
        row_class.size() != rows || column_step.size() != columns || column_class.size() != columns ||
        bits.shape(1) % 2 != 1 || columns > UINT32_MAX)
        throw StreamError("argument");
    if (rows == 0 || columns == 0) return;
    nb::gil_scoped_release release;
    std::unique_ptr<float[]> scratch(new float[TSR_LANES * (columns + TSR_PANEL)]);
    tsr_feedback problem = {static_cast<uint32_t>(columns), rows / groups, factor.data(), column_step.data(),
                            column_class.data(), bits.data(), static_cast<uint32_t>(bits.shape(0)),
                            static_cast<int32_t>(bits.shape(1) / 2), quadratic};
    check(tsr_feedback_round(&problem, rows, residual.data(), row_step.data(), row_weight.data(), row_class.data(),
                             levels.data(), scratch.get()));
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
          "row_class"_a, "column_class"_a, "bits"_a, "quadratic"_a, "levels"_a);
    m.def("feedback_count", &feedback_count, "levels"_a, "row_class"_a, "column_class"_a, "counts"_a);
}

// -- the differentiable counter (rate.h) ---------------------------------------------------------------------------

namespace {

using Doubles = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

tsr_counter open_counter(int kernel, double delta, int32_t lowest, uint32_t bins) {
    if (kernel < TSR_COSINE || kernel > TSR_TRIANGLE || !(delta > 0) || bins < 1 || bins > (1u << 24))
        throw StreamError("argument");
    tsr_counter counter;
    tsr_counter_open(&counter, static_cast<tsr_kernel>(kernel), delta, lowest, bins);
    return counter;
}

nb::tuple soft_count(Floats codes, int kernel, double delta, int32_t lowest, uint32_t bins) {
    tsr_counter counter = open_counter(kernel, delta, lowest, bins);
    std::vector<double> counts(bins + 1), densities(bins + 1), numbers(bins);
    {
        nb::gil_scoped_release release;
        std::vector<double> scratch(tsr_count_scratch(&counter));
        tsr_count(&counter, codes.data(), codes.size(), scratch.data(), counts.data(), densities.data(), numbers.data());
    }
    return nb::make_tuple(to_numpy(std::move(counts)), to_numpy(std::move(densities)), to_numpy(std::move(numbers)));
}

void soft_count_gradient(Floats codes, int kernel, double delta, int32_t lowest, uint32_t bins, Doubles edge, Doubles bin,
                         double scale, nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu> gradient) {
    tsr_counter counter = open_counter(kernel, delta, lowest, bins);
    if (edge.size() != size_t(bins) + 1 || bin.size() != bins || gradient.size() != codes.size()) throw StreamError("argument");
    nb::gil_scoped_release release;
    std::vector<double> scratch(tsr_count_scratch(&counter));
    std::vector<float> table(size_t(TSR_COEFFICIENTS) * TSR_CELLS * bins);
    tsr_count_gradient(&counter, codes.data(), codes.size(), edge.data(), bin.data(), scale, scratch.data(), table.data(),
                       gradient.data());
}

using Written = nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void joint_round_trip(Floats weights, float step, float threshold, Written codes, Written rebuilt) {
    if (codes.size() != weights.size() || rebuilt.size() != weights.size() || !(step > 0) || !(threshold > 0))
        throw StreamError("argument");
    nb::gil_scoped_release release;
    tsr_joint(weights.data(), weights.size(), step, threshold, codes.data(), rebuilt.data());
}

std::pair<double, double> joint_gradient(Floats codes, float step, float threshold, Floats by_rebuilt, Floats by_code,
                                         Written gradient) {
    size_t n = codes.size();
    if (by_rebuilt.size() != n || by_code.size() != n || gradient.size() != n) throw StreamError("argument");
    nb::gil_scoped_release release;
    double sums[2];
    tsr_joint_gradient(codes.data(), n, step, threshold, by_rebuilt.data(), by_code.data(), gradient.data(), sums);
    return {sums[0], sums[1]};
}

} // namespace

void bind_rate(nb::module_ &m) {
    using namespace nb::literals;
    m.def("soft_count", &soft_count, "codes"_a, "kernel"_a, "delta"_a, "lowest"_a, "bins"_a);
    m.def("soft_count_gradient", &soft_count_gradient, "codes"_a, "kernel"_a, "delta"_a, "lowest"_a, "bins"_a, "edge"_a,
          "bin"_a, "scale"_a, "gradient"_a);
    m.def("joint", &joint_round_trip, "weights"_a, "step"_a, "threshold"_a, "codes"_a, "rebuilt"_a);
    m.def("joint_gradient", &joint_gradient, "codes"_a, "step"_a, "threshold"_a, "by_rebuilt"_a, "by_code"_a, "gradient"_a);
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
