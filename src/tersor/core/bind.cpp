// Python bindings of the native core. Buffers in, bytes or arrays out; the interpreter lock is released around work.
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

namespace {

struct StreamError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

void check(tsr_error error) {
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

nb::bytes to_bytes(const std::vector<uint8_t> &data) {
    return nb::bytes(reinterpret_cast<const char *>(data.data()), data.size());
}

// One chunk of an integer stream and the room its slots need.
struct Reader {
    tsr_reader state;
    std::unique_ptr<tsr_slot[]> slots;

    void open(const std::optional<Input> &prelude, int type, const Input &data, uint64_t count) {
        if (type < TSR_U8 || type > TSR_I32) throw StreamError("argument");
        if (!prelude) {
            check(tsr_reader_open_plain(&state, static_cast<tsr_type>(type), data.data(), data.size(), count));
            return;
        }
        slots.reset(new tsr_slot[size_t(1) << TSR_MAX_PRECISION]);
        check(tsr_reader_open(&state, slots.get(), static_cast<tsr_type>(type), prelude->data(), prelude->size(),
                              data.data(), data.size(), count));
    }
};

size_t leaves_of(uint64_t count) { return static_cast<size_t>((count + TSR_LEAF - 1) / TSR_LEAF); }

uint64_t hash(Input data, uint64_t seed) {
    nb::gil_scoped_release release;
    return tsr_hash(data.data(), data.size(), seed);
}

void check_prelude(Input data) {
    nb::gil_scoped_release release;
    check(tsr_prelude_check(data.data(), data.size()));
}

nb::ndarray<nb::numpy, int32_t, nb::ndim<1>> decode_integers(std::optional<Input> prelude, int type, Input data,
                                                              uint64_t count) {
    std::vector<int32_t> out;
    {
        nb::gil_scoped_release release;
        Reader reader;
        reader.open(prelude, type, data, count);
        out.resize(count);
        for (uint64_t i = 0; i < count; i += TSR_BLOCK) {
            uint64_t n = count - i < TSR_BLOCK ? count - i : TSR_BLOCK;
            check(tsr_reader_next(&reader.state, out.data() + i, static_cast<size_t>(n)));
        }
        check(tsr_reader_close(&reader.state));
    }
    return to_numpy(std::move(out));
}

nb::ndarray<nb::numpy, uint64_t, nb::ndim<1>> decode_uniform(Output out, int type, std::optional<Input> prelude,
                                                              int level_type, Input data, uint64_t count, Floats steps,
                                                              std::optional<Input> row_steps, uint64_t row_length,
                                                              uint64_t first, float offset, uint32_t low_bits,
                                                              std::optional<Input> low_prelude,
                                                              std::optional<Input> low_data) {
    static const size_t WIDTH[] = {4, 2, 2, 8};
    if (type < TSR_F32 || type > TSR_F64 || out.size() / WIDTH[type] != count || out.size() % WIDTH[type] != 0 ||
        (low_bits > 0) != low_data.has_value())
        throw StreamError("argument");
    std::vector<uint64_t> leaves(leaves_of(count));
    {
        nb::gil_scoped_release release;
        Reader reader, low;
        reader.open(prelude, level_type, data, count);
        if (low_data) low.open(low_prelude, TSR_U8, *low_data, count);
        tsr_uniform op = {steps.data(),
                          steps.size(),
                          row_steps ? row_steps->data() : nullptr,
                          row_steps ? row_steps->size() : 0,
                          row_length,
                          offset,
                          static_cast<tsr_float>(type),
                          low_bits};
        check(tsr_uniform_decode(&op, &reader.state, low_data ? &low.state : nullptr, first, out.data(), leaves.data()));
    }
    return to_numpy(std::move(leaves));
}

nb::ndarray<nb::numpy, uint64_t, nb::ndim<1>> decode_planes(Output out, std::vector<std::optional<Input>> preludes,
                                                             std::vector<Input> data, uint64_t count, uint32_t width,
                                                             bool rotate) {
    size_t stored = data.size();
    if (stored < 1 || stored > 8 || preludes.size() != stored || width < 1 || width > 8 ||
        out.size() / width != count || out.size() % width != 0)
        throw StreamError("argument");
    std::vector<uint64_t> leaves(leaves_of(count));
    {
        nb::gil_scoped_release release;
        Reader readers[8];
        tsr_reader states[8];
        for (size_t k = 0; k < stored; k++) {
            readers[k].open(preludes[k], TSR_U8, data[k], count);
            states[k] = readers[k].state;
        }
        check(tsr_planes_decode(states, static_cast<uint32_t>(stored), width, rotate, out.data(), leaves.data()));
    }
    return to_numpy(std::move(leaves));
}

// Counts of the values in [smallest, smallest + 65536) after clipping the range around zero; with the lowest value.
std::pair<int32_t, nb::ndarray<nb::numpy, uint64_t, nb::ndim<1>>> histogram(Integers values) {
    enum { WIDEST = 65536 };
    std::vector<uint64_t> counts;
    int32_t low = 0, high = 0;
    if (values.size() > 0) {
        nb::gil_scoped_release release;
        tsr_minmax(values.data(), values.size(), &low, &high);
        if (static_cast<int64_t>(high) - low >= WIDEST) {
            low = low < -WIDEST / 2 ? -WIDEST / 2 : low > WIDEST / 2 ? WIDEST / 2 : low;
            int64_t top = static_cast<int64_t>(low) + WIDEST - 1;
            high = high < top ? high : static_cast<int32_t>(top);
        }
        uint32_t alphabet = high < low ? 1 : static_cast<uint32_t>(high - low) + 1;
        counts.resize(2 * static_cast<size_t>(alphabet));
        tsr_histogram(values.data(), values.size(), low, alphabet, counts.data());
        counts.resize(alphabet);
    }
    return {low, to_numpy(std::move(counts))};
}

// Representable frequencies for the counts, or None where the precision has no room for that many symbols.
std::optional<nb::ndarray<nb::numpy, uint16_t, nb::ndim<1>>> round_table(Counts counts, uint32_t precision) {
    if (counts.size() < 1 || counts.size() > TSR_MAX_ALPHABET || precision < TSR_MIN_PRECISION ||
        precision > TSR_MAX_PRECISION)
        throw StreamError("argument");
    tsr_table table{};
    table.alphabet = static_cast<uint32_t>(counts.size());
    table.precision = precision;
    if (tsr_table_round(&table, counts.data()) != TSR_OK) return std::nullopt;
    return to_numpy(std::vector<uint16_t>(table.frequency, table.frequency + table.alphabet));
}

nb::bytes write_prelude(uint32_t lanes_log2, std::vector<nb::tuple> tables) {
    std::vector<uint8_t> data(2 + tables.size() * (TSR_MAX_ALPHABET * 64 + 64));
    if (lanes_log2 > 5 || tables.empty() || tables.size() > 255) throw StreamError("argument");
    data[0] = static_cast<uint8_t>(lanes_log2);
    data[1] = static_cast<uint8_t>(tables.size());
    size_t position = 16;
    for (const nb::tuple &entry : tables) {
        tsr_table table{};
        table.precision = nb::cast<uint32_t>(entry[0]);
        table.lowest = nb::cast<int32_t>(entry[1]);
        auto frequencies = nb::cast<Frequencies>(entry[2]);
        if (table.precision < TSR_MIN_PRECISION || table.precision > TSR_MAX_PRECISION ||
            frequencies.size() < 1 || frequencies.size() > TSR_MAX_ALPHABET)
            throw StreamError("argument");
        table.alphabet = static_cast<uint32_t>(frequencies.size());
        for (size_t k = 0; k < frequencies.size(); k++) table.frequency[k] = frequencies.data()[k];
        check(tsr_table_write(&table, data.data(), data.size(), &position));
    }
    data.resize((position + 7) / 8);
    return to_bytes(data);
}

nb::bytes encode_chunk(Integers values, Input prelude, uint32_t table_index) {
    size_t n = values.size(), size = 0;
    std::unique_ptr<uint8_t[]> out;
    {
        nb::gil_scoped_release release;
        tsr_table table;
        uint32_t lanes;
        check(tsr_prelude_read(&table, table_index, prelude.data(), prelude.size(), &lanes));
        size_t capacity = 64 + 4 * TSR_MAX_LANES + 18 * n; // a patch takes 15 bytes at most, a symbol 2
        out.reset(new uint8_t[capacity]);
        std::unique_ptr<uint16_t[]> scratch(new uint16_t[n + 1]);
        check(tsr_rans_encode(&table, table_index, lanes, values.data(), n, out.get(), capacity, scratch.get(), &size));
    }
    return nb::bytes(reinterpret_cast<const char *>(out.get()), size);
}

nb::ndarray<nb::numpy, uint8_t, nb::ndim<1>> split_planes(Input data, uint32_t stored, uint32_t width, bool rotate) {
    if (width < 1 || width > 8 || stored < 1 || stored > width || data.size() % width != 0) throw StreamError("argument");
    size_t n = data.size() / width;
    std::vector<uint8_t> out(n * stored);
    {
        nb::gil_scoped_release release;
        uint8_t *planes[8];
        for (uint32_t k = 0; k < stored; k++) planes[k] = out.data() + k * n;
        tsr_planes_split(data.data(), n, stored, width, rotate, planes);
    }
    return to_numpy(std::move(out));
}

void quantize(Floats weights, float step, Floats bits,
              nb::ndarray<int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu> levels) {
    if (levels.size() != weights.size() || bits.size() % 2 != 1 || !(step > 0)) throw StreamError("argument");
    nb::gil_scoped_release release;
    tsr_quantize(weights.data(), weights.size(), step, bits.data(), static_cast<int32_t>(bits.size() / 2), levels.data());
}

} // namespace

NB_MODULE(_core, m) {
    using namespace nb::literals;
    nb::exception<StreamError>(m, "StreamError", PyExc_ValueError);
    m.attr("LEAF") = static_cast<int>(TSR_LEAF);
    m.def("hash", &hash, "data"_a, "seed"_a = 0);
    m.def("check_prelude", &check_prelude, "data"_a);
    m.def("decode_integers", &decode_integers, "prelude"_a.none(), "type"_a, "data"_a, "count"_a);
    m.def("decode_uniform", &decode_uniform, "out"_a, "type"_a, "prelude"_a.none(), "level_type"_a, "data"_a, "count"_a,
          "steps"_a, "row_steps"_a.none(), "row_length"_a, "first"_a, "offset"_a,
          "low_bits"_a = 0, "low_prelude"_a.none() = nb::none(), "low_data"_a.none() = nb::none());
    m.def("decode_planes", &decode_planes, "out"_a, "preludes"_a, "data"_a, "count"_a, "width"_a, "rotate"_a);
    m.def("histogram", &histogram, "values"_a);
    m.def("round_table", &round_table, "counts"_a, "precision"_a);
    m.def("write_prelude", &write_prelude, "lanes_log2"_a, "tables"_a);
    m.def("encode_chunk", &encode_chunk, "values"_a, "prelude"_a, "table_index"_a);
    m.def("split_planes", &split_planes, "data"_a, "stored"_a, "width"_a, "rotate"_a);
    m.def("quantize", &quantize, "weights"_a, "step"_a, "bits"_a, "levels"_a);
}
