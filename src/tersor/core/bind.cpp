// Python bindings of coding and reconstruction. Buffers in, bytes or arrays out; the interpreter lock is released around work.
#include "bind.h"

#include "adaptive.h"
#include "runs.h"

namespace {

using PreludePointer = const Prelude *;

// One chunk of an integer stream and the room its slots need.
struct Reader {
    tsr_reader state;
    std::unique_ptr<tsr_slot[]> slots;
    std::unique_ptr<uint64_t[]> memory;
    std::unique_ptr<tsr_runs> runs;

    void open(PreludePointer prelude, int type, const Input &data, uint64_t first, uint64_t count) {
        if (type < TSR_U8 || type > TSR_I32) throw StreamError("argument");
        if (!prelude) {
            check(tsr_reader_open_plain(&state, static_cast<tsr_type>(type), data.data(), data.size(), count));
            return;
        }
        if (prelude->adaptive > 0) {
            memory.reset(new uint64_t[(prelude->adaptive + 7) / 8]);
            tsr_adaptive *chunk;
            check(tsr_adaptive_open(&chunk, memory.get(), prelude->adaptive, static_cast<tsr_type>(type),
                                    prelude->data.data(), prelude->data.size(), first, data.data(), data.size(), count));
            tsr_reader_open_adaptive(&state, chunk, static_cast<tsr_type>(type), count);
            return;
        }
        if (prelude->slots.empty()) slots.reset(new tsr_slot[size_t(1) << TSR_MAX_PRECISION]);
        if (prelude->state.run_bits > 0) {
            runs.reset(new tsr_runs);
            check(tsr_runs_open(&state, runs.get(), slots.get(), &prelude->state, static_cast<tsr_type>(type), data.data(),
                                data.size(), count));
            return;
        }
        check(tsr_reader_open(&state, slots.get(), &prelude->state, static_cast<tsr_type>(type), data.data(), data.size(),
                              first, count));
    }
};

size_t leaves_of(uint64_t count) { return static_cast<size_t>((count + TSR_LEAF - 1) / TSR_LEAF); }

uint64_t hash(Input data, uint64_t seed) {
    nb::gil_scoped_release release;
    return tsr_hash(data.data(), data.size(), seed);
}

nb::ndarray<nb::numpy, int32_t, nb::ndim<1>> decode_integers(PreludePointer prelude, int type, Input data,
                                                              uint64_t count, uint64_t first, int simd) {
    std::vector<int32_t> out;
    {
        nb::gil_scoped_release release;
        Reader reader;
        reader.open(prelude, type, data, first, count);
        tsr_reader &coded = reader.runs ? reader.runs->tokens : reader.state;
        if (simd < coded.simd) coded.simd = static_cast<tsr_simd>(simd < 0 ? 0 : simd);
        out.resize(count);
        for (uint64_t i = 0; i < count; i += TSR_BLOCK) {
            uint64_t n = count - i < TSR_BLOCK ? count - i : TSR_BLOCK;
            check(tsr_reader_next(&reader.state, out.data() + i, static_cast<size_t>(n)));
        }
        check(tsr_reader_close(&reader.state));
    }
    return to_numpy(std::move(out));
}

// Symbols of type u8 or i8 into their bytes.
void decode_bytes(Output out, PreludePointer prelude, int type, Input data, uint64_t first) {
    if (type != TSR_U8 && type != TSR_I8) throw StreamError("argument");
    nb::gil_scoped_release release;
    Reader reader;
    reader.open(prelude, type, data, first, out.size());
    check(tsr_reader_bytes(&reader.state, out.data(), out.size()));
    check(tsr_reader_close(&reader.state));
}

nb::ndarray<nb::numpy, uint64_t, nb::ndim<1>> decode_uniform(Output out, int type, PreludePointer prelude,
                                                              int level_type, Input data, uint64_t count, Floats steps,
                                                              std::optional<Input> row_steps, uint64_t row_length,
                                                              uint64_t first, float offset, uint32_t low_bits,
                                                              PreludePointer low_prelude,
                                                              std::optional<Input> low_data,
                                                              std::optional<Floats> column_steps,
                                                              std::optional<Floats> values, bool trellis, uint64_t rows) {
    static const size_t WIDTH[] = {4, 2, 2, 8};
    if (type < TSR_F32 || type > TSR_F64 || out.size() / WIDTH[type] != count || out.size() % WIDTH[type] != 0 ||
        (low_bits > 0) != low_data.has_value() || (row_steps && row_steps->size() != rows) ||
        (column_steps && column_steps->size() != row_length))
        throw StreamError("argument");
    std::vector<uint64_t> leaves(leaves_of(count));
    {
        nb::gil_scoped_release release;
        Reader reader, low;
        reader.open(prelude, level_type, data, first, count);
        if (low_data) low.open(low_prelude, TSR_U8, *low_data, first, count);
        std::unique_ptr<uint8_t[]> states(trellis ? new uint8_t[row_length] : nullptr);
        tsr_uniform op = {steps.data(),
                          steps.size(),
                          row_steps ? row_steps->data() : nullptr,
                          column_steps ? column_steps->data() : nullptr,
                          values ? values->data() : nullptr,
                          values ? values->size() : 0,
                          states.get(),
                          rows,
                          row_length,
                          offset,
                          static_cast<tsr_float>(type),
                          low_bits};
        check(tsr_uniform_decode(&op, &reader.state, low_data ? &low.state : nullptr, first, out.data(), leaves.data()));
    }
    return to_numpy(std::move(leaves));
}

nb::ndarray<nb::numpy, uint64_t, nb::ndim<1>> decode_planes(Output out, std::vector<PreludePointer> preludes,
                                                             std::vector<Input> data, uint64_t first, uint64_t count,
                                                             uint32_t width, bool rotate) {
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
            readers[k].open(preludes[k], TSR_U8, data[k], first, count);
            states[k] = readers[k].state;
        }
        check(tsr_planes_decode(states, static_cast<uint32_t>(stored), width, rotate, out.data(), leaves.data()));
    }
    return to_numpy(std::move(leaves));
}

// Counts of values that all lie near zero, as a rule: one pass. Where they do not, nothing is left in `counts`.
int32_t count_near_zero(const Integers &values, std::vector<uint64_t> &counts) {
    enum { REACH = 512 };
    counts.resize(4 * REACH);
    if (tsr_histogram(values.data(), values.size(), -REACH, 2 * REACH, counts.data()) > 0) {
        counts.clear();
        return 0;
    }
    size_t first = 0, end = 2 * REACH;
    while (counts[first] == 0) first++;
    while (counts[end - 1] == 0) end--;
    counts.resize(end);
    counts.erase(counts.begin(), counts.begin() + static_cast<ptrdiff_t>(first));
    return static_cast<int32_t>(first) - REACH;
}

// Counts of the values in [smallest, smallest + 65536) after clipping the range around zero; with the lowest value.
std::pair<int32_t, nb::ndarray<nb::numpy, uint64_t, nb::ndim<1>>> histogram(Integers values) {
    enum { WIDEST = 65536, MANY = 4096 };
    std::vector<uint64_t> counts;
    int32_t low = 0, high = 0;
    if (values.size() > 0) {
        nb::gil_scoped_release release;
        if (values.size() > MANY) low = count_near_zero(values, counts);
        if (counts.empty()) {
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
    }
    return {low, to_numpy(std::move(counts))};
}

template <typename T> using Into = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

void check_place(size_t n, uint64_t first, uint64_t rows, uint64_t columns) {
    if (columns < 1 || (n > 0 && (first + n - 1) / columns >= rows)) throw StreamError("argument");
}

void magnitudes(Integers values, uint64_t first, Into<double> rows, Into<double> columns) {
    check_place(values.size(), first, rows.size(), columns.size());
    nb::gil_scoped_release release;
    tsr_magnitudes(values.data(), values.size(), first, columns.size(), rows.data(), columns.data());
}

uint8_t largest(const Classes &classes) {
    uint8_t most = 0;
    for (size_t i = 0; i < classes.size(); i++) most = classes.data()[i] > most ? classes.data()[i] : most;
    return most;
}

uint64_t class_histogram(Integers values, uint64_t first, Classes rows, Classes columns, int32_t lowest, uint32_t span,
                         Into<uint64_t> counts) {
    check_place(values.size(), first, rows.size(), columns.size());
    const uint32_t classes = largest(columns) + 1u;
    if (counts.size() / span / classes < largest(rows) + size_t(1)) throw StreamError("argument");
    nb::gil_scoped_release release;
    return tsr_class_histogram(values.data(), values.size(), first, columns.size(), rows.data(), columns.data(), classes,
                               lowest, span, counts.data());
}

// Levels of every row (by_row) or column, of which there are counts.shape(0), by the class of the other side.
void side_histogram(Integers values, uint64_t first, Classes other, bool by_row, int32_t lowest, uint32_t span,
                    Array<float, nb::ndim<2>> counts) {
    const uint64_t side = counts.shape(0), columns = by_row ? other.size() : side;
    const size_t classes = largest(other) + size_t(1);
    check_place(values.size(), first, by_row ? side : other.size(), columns);
    if (span < 1 || counts.shape(1) != classes * span || counts.shape(1) > UINT32_MAX) throw StreamError("argument");
    nb::gil_scoped_release release;
    tsr_side_histogram(values.data(), values.size(), first, columns, other.data(), static_cast<uint32_t>(classes), by_row, lowest,
                       span, counts.data());
}

void add_by_class(Matrix counts, Classes classes, Into<uint64_t> sums) {
    const size_t members = counts.shape(0), span = counts.shape(1);
    if (classes.size() != members || sums.size() < (largest(classes) + size_t(1)) * span) throw StreamError("argument");
    nb::gil_scoped_release release;
    tsr_add_by_class(counts.data(), members, static_cast<uint32_t>(span), classes.data(), sums.data());
}

// Costs of the classes of rows given those of columns, or the other way round; `side` rows or columns there are of the wanted kind.
void class_costs(Integers values, uint64_t first, uint64_t side, Classes other, bool by_row, int32_t lowest, Floats bits,
                 uint32_t tables, Into<float> costs) {
    size_t classes = side > 0 ? costs.size() / side : 0;
    check_place(values.size(), first, by_row ? side : other.size(), by_row ? other.size() : side);
    if (tables < 1 || classes < 1 || largest(other) + classes > tables) throw StreamError("argument");
    nb::gil_scoped_release release;
    tsr_class_costs(values.data(), values.size(), first, by_row ? other.size() : side, other.data(), by_row, lowest,
                    static_cast<uint32_t>(bits.size() / tables), bits.data(), tables, static_cast<uint32_t>(classes),
                    costs.data());
}

// How often a level occurs by the size of the one before it: (contexts, 2 reach + 1), see tsr_context_histogram.
void context_histogram(Integers values, uint32_t lanes, uint32_t reach, Into<uint64_t> counts) {
    const size_t span = 2 * size_t(reach) + 1;
    int32_t low = 0, high = 0;
    if (values.size() > 0) tsr_minmax(values.data(), values.size(), &low, &high);
    if (lanes < 1 || lanes > TSR_MAX_LANES || counts.size() < span || counts.size() % span != 0 ||
        static_cast<int64_t>(high) > reach || static_cast<int64_t>(low) < -static_cast<int64_t>(reach))
        throw StreamError("argument");
    nb::gil_scoped_release release;
    std::vector<uint64_t> found(4 * counts.size());
    tsr_context_histogram(values.data(), values.size(), lanes, static_cast<uint32_t>(counts.size() / span), reach, found.data());
    for (size_t k = 0; k < counts.size(); k++) counts.data()[k] += found[k];
}

// A chunk: with rans, by table number `table`; with rans1 and rans2d, by the tables that the symbols before it, or rows and columns, choose.
nb::bytes encode_chunk(Integers values, const Prelude &prelude, uint32_t table, uint64_t first) {
    size_t n = values.size(), size = 0;
    const bool classed = prelude.state.columns > 0, several = !prelude.slots.empty();
    uint32_t from = several ? 0 : table, to = several ? prelude.state.tables : table + 1;
    if (to > prelude.state.tables || (classed && n > 0 && (first + n - 1) / prelude.state.columns >= prelude.state.rows))
        throw StreamError("argument");
    std::unique_ptr<uint8_t[]> out;
    {
        nb::gil_scoped_release release;
        tsr_encoder encoder;
        check(tsr_encoder_open(&encoder, &prelude.state, from, to));
        std::vector<uint32_t> entries(size_t(encoder.span) * (to - from)), modes(to - from);
        encoder.entries = entries.data();
        encoder.modes = modes.data();
        check(tsr_encoder_fill(&encoder, &prelude.state, from, to));
        std::vector<uint8_t> tables(several ? n + 16 : 0);
        std::unique_ptr<int32_t[]> turned(several && !classed ? new int32_t[n] : nullptr);
        if (classed) tsr_prelude_tables(&prelude.state, first, tables.data(), n);
        if (turned)
            tsr_context_arrange(&encoder, prelude.state.contexts, prelude.state.lanes, values.data(), n, turned.get(), tables.data());
        size_t capacity = 64 + 4 * TSR_MAX_LANES + 18 * n; // a patch takes 15 bytes at most, a symbol 2
        out.reset(new uint8_t[capacity]);
        std::unique_ptr<uint16_t[]> scratch(new uint16_t[n + 32]);
        std::unique_ptr<uint32_t[]> places(new uint32_t[n]);
        check(tsr_rans_encode(&encoder, from, prelude.state.lanes, several ? tables.data() : nullptr, values.data(), turned.get(),
                              n, out.get(), capacity, scratch.get(), places.get(), &size));
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

// -- coder adaptive --------------------------------------------------------------------------------------------------

// Memory for a chunk; 8-byte words, so that it is aligned.
std::vector<uint64_t> adaptive_memory(const Input &prelude) {
    size_t memory;
    check(tsr_adaptive_prelude(prelude.data(), prelude.size(), &memory));
    return std::vector<uint64_t>((memory + 7) / 8);
}

nb::bytes encode_adaptive(Integers values, Input prelude, uint64_t first) {
    std::vector<uint8_t> out;
    size_t size = 0;
    {
        nb::gil_scoped_release release;
        std::vector<uint64_t> memory = adaptive_memory(prelude);
        tsr_error error = TSR_TRUNCATED;
        for (size_t most : {6, 160}) { // bytes a value: nearly always enough, and always enough
            if (error != TSR_TRUNCATED) break;
            out.resize(64 + most * values.size());
            error = tsr_adaptive_encode(memory.data(), 8 * memory.size(), prelude.data(), prelude.size(), first,
                                        values.data(), values.size(), out.data(), out.size(), &size);
        }
        check(error);
        out.resize(size);
    }
    return to_bytes(out);
}

void bind_adaptive(nb::module_ &m) {
    using namespace nb::literals;
    m.def("encode_adaptive", &encode_adaptive, "values"_a, "prelude"_a, "first"_a);
}

} // namespace

NB_MODULE(_core, m) {
    using namespace nb::literals;
    nb::exception<StreamError>(m, "StreamError", PyExc_ValueError);
    m.attr("LEAF") = static_cast<int>(TSR_LEAF);
    m.def("hash", &hash, "data"_a, "seed"_a = 0);
    nb::class_<Prelude>(m, "Prelude")
        .def(nb::init<Input, int, uint64_t>(), "data"_a, "coder"_a = static_cast<int>(RANS), "count"_a = 0)
        .def_prop_ro("lanes", [](const Prelude &p) { return p.state.lanes; });
    m.def("decode_integers", &decode_integers, "prelude"_a.none(), "type"_a, "data"_a, "count"_a, "first"_a = 0,
          "simd"_a = static_cast<int>(TSR_SIMD_AVX512));
    m.def("decode_bytes", &decode_bytes, "out"_a, "prelude"_a.none(), "type"_a, "data"_a, "first"_a = 0);
    m.def("decode_uniform", &decode_uniform, "out"_a, "type"_a, "prelude"_a.none(), "level_type"_a, "data"_a, "count"_a,
          "steps"_a, "row_steps"_a.none(), "row_length"_a, "first"_a, "offset"_a,
          "low_bits"_a = 0, "low_prelude"_a.none() = nb::none(), "low_data"_a.none() = nb::none(),
          "column_steps"_a.none() = nb::none(), "values"_a.none() = nb::none(), "trellis"_a = false, "rows"_a = 0);
    m.def("decode_planes", &decode_planes, "out"_a, "preludes"_a, "data"_a, "first"_a, "count"_a, "width"_a, "rotate"_a);
    m.def("histogram", &histogram, "values"_a);
    m.def("magnitudes", &magnitudes, "values"_a, "first"_a, "rows"_a, "columns"_a);
    m.def("context_histogram", &context_histogram, "values"_a, "lanes"_a, "reach"_a, "counts"_a);
    m.def("class_histogram", &class_histogram, "values"_a, "first"_a, "rows"_a, "columns"_a, "lowest"_a, "span"_a, "counts"_a);
    m.def("side_histogram", &side_histogram, "values"_a, "first"_a, "other"_a, "by_row"_a, "lowest"_a, "span"_a, "counts"_a);
    m.def("add_by_class", &add_by_class, "counts"_a, "classes"_a, "sums"_a);
    m.def("class_costs", &class_costs, "values"_a, "first"_a, "side"_a, "other"_a, "by_row"_a, "lowest"_a, "bits"_a, "tables"_a,
          "costs"_a);
    m.def("encode_chunk", &encode_chunk, "values"_a, "prelude"_a, "table"_a = 0, "first"_a = 0);
    m.def("split_planes", &split_planes, "data"_a, "stored"_a, "width"_a, "rotate"_a);
    m.def("quantize", &quantize, "weights"_a, "step"_a, "bits"_a, "levels"_a);
    bind_adaptive(m);
    bind_runs(m);
    bind_tables(m);
    bind_feedback(m);
    bind_rate(m);
    bind_trellis(m);
}
