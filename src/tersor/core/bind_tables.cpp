// Python bindings of what chooses and writes frequency tables.
#include "bind.h"

#include <algorithm>

namespace {

using CountRows = Array<const uint64_t, nb::ndim<2>>;

void check_precision(uint32_t precision) {
    if (precision < TSR_MIN_PRECISION || precision > TSR_MAX_PRECISION) throw StreamError("argument");
}

tsr_table open_table(uint32_t precision, int32_t lowest, const Frequencies &frequencies) {
    check_precision(precision);
    if (frequencies.size() < 1 || frequencies.size() > TSR_MAX_ALPHABET) throw StreamError("argument");
    tsr_table table{lowest, static_cast<uint32_t>(frequencies.size()), precision, {}};
    std::copy_n(frequencies.data(), frequencies.size(), table.frequency);
    return table;
}

tsr_counted open_counts(int32_t lowest, const Counts &counts, uint64_t total) {
    return {lowest, counts.size(), counts.data(), total};
}

nb::ndarray<nb::numpy, uint16_t, nb::ndim<1>> frequencies_of(const tsr_table &table) {
    return to_numpy(std::vector<uint16_t>(table.frequency, table.frequency + table.alphabet));
}

// Representable frequencies for the counts, or None where the precision has no room for that many symbols.
std::optional<nb::ndarray<nb::numpy, uint16_t, nb::ndim<1>>> round_table(Counts counts, uint32_t precision) {
    check_precision(precision);
    if (counts.size() < 1 || counts.size() > TSR_MAX_ALPHABET) throw StreamError("argument");
    tsr_table table{};
    table.alphabet = static_cast<uint32_t>(counts.size());
    table.precision = precision;
    if (tsr_table_round(&table, counts.data()) != TSR_OK) return std::nullopt;
    return frequencies_of(table);
}

// Tables as one string of bits, after `head`; each is (precision, lowest, frequencies).
nb::bytes write_tables(Input head, std::vector<nb::tuple> tables) {
    std::vector<uint8_t> data(head.data(), head.data() + head.size());
    size_t position = 8 * data.size();
    for (const nb::tuple &entry : tables) {
        const tsr_table table =
            open_table(nb::cast<uint32_t>(entry[0]), nb::cast<int32_t>(entry[1]), nb::cast<Frequencies>(entry[2]));
        data.resize(position / 8 + 65 + 64 * size_t(table.alphabet));
        check(tsr_table_write(&table, data.data(), data.size(), &position));
    }
    data.resize((position + 7) / 8);
    return to_bytes(data);
}

// The table (precision, lowest, frequencies) that codes the counts of the values from `lowest` on in the fewest bytes.
nb::tuple fit_table(int32_t lowest, Counts counts, uint64_t total, uint32_t first, uint32_t last) {
    check_precision(first);
    check_precision(last);
    tsr_table table;
    {
        nb::gil_scoped_release release;
        const tsr_counted counted = open_counts(lowest, counts, total);
        tsr_table_fit(&table, &counted, first, last);
    }
    return nb::make_tuple(table.precision, table.lowest, frequencies_of(table));
}

double payload_bits(uint32_t precision, int32_t table_lowest, Frequencies frequencies, int32_t lowest, Counts counts,
                    uint64_t total) {
    const tsr_table table = open_table(precision, table_lowest, frequencies);
    const tsr_counted counted = open_counts(lowest, counts, total);
    return tsr_table_payload(&table, &counted);
}

// Bits of an ideal code for every row of counts, and how many counts of it are not 0.
std::pair<nb::ndarray<nb::numpy, double, nb::ndim<1>>, nb::ndarray<nb::numpy, uint64_t, nb::ndim<1>>> entropies(CountRows counts) {
    std::vector<double> bits(counts.shape(0));
    std::vector<uint64_t> present(counts.shape(0));
    tsr_entropies(counts.data(), counts.shape(0), counts.shape(1), bits.data(), present.data());
    return {to_numpy(std::move(bits)), to_numpy(std::move(present))};
}

} // namespace

void bind_tables(nb::module_ &m) {
    using namespace nb::literals;
    m.attr("PATCH_BITS") = TSR_PATCH_BITS;
    m.attr("MANY") = static_cast<int>(TSR_MANY);
    m.def("round_table", &round_table, "counts"_a, "precision"_a);
    m.def("write_tables", &write_tables, "head"_a, "tables"_a);
    m.def("fit_table", &fit_table, "lowest"_a, "counts"_a, "total"_a, "first"_a, "last"_a);
    m.def("payload_bits", &payload_bits, "precision"_a, "table_lowest"_a, "frequencies"_a, "lowest"_a, "counts"_a, "total"_a);
    m.def("entropies", &entropies, "counts"_a);
}
