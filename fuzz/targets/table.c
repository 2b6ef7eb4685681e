/* Frequency tables and preludes as they stand in a file: the core and the specification agree on what is one. */
#include "reference.h"

static void same_table(const tsr_table *table, const ref_table *expected) {
    REQUIRE(table->precision == expected->precision && table->alphabet == expected->alphabet);
    REQUIRE(table->lowest == expected->lowest);
    uint32_t sum = 0;
    for (uint32_t k = 0; k < table->alphabet; k++) {
        REQUIRE(table->frequency[k] == expected->frequency[k]);
        sum += table->frequency[k];
    }
    REQUIRE(sum == UINT32_C(1) << table->precision);
}

/* Whatever can be read can be written, and reads the same again. */
static void write_again(const tsr_table *table) {
    static uint8_t data[TSR_MAX_ALPHABET * 64];
    static tsr_table again;
    size_t written = 0, read = 0;
    memset(data, 0, 64 + 32 * (size_t)table->alphabet);
    REQUIRE(tsr_table_write(table, data, 64 + 32 * (size_t)table->alphabet, &written) == TSR_OK);
    REQUIRE(tsr_table_read(&again, data, (written + 7) / 8, &read) == TSR_OK && read == written);
    REQUIRE(again.precision == table->precision && again.alphabet == table->alphabet && again.lowest == table->lowest);
    REQUIRE(memcmp(again.frequency, table->frequency, table->alphabet * sizeof *table->frequency) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static tsr_table table;
    static ref_table expected;
    if (size < 1) return 0;
    uint32_t choice = data[0];
    uint8_t *rest = copy(data + 1, size - 1);
    size_t position = choice >> 5;
    ref_bits bits = {rest, 8 * (uint64_t)(size - 1), position, 0};
    int good = ref_table_read(&expected, &bits);
    tsr_error error = tsr_table_read(&table, rest, size - 1, &position);
    REQUIRE(error == (good ? TSR_OK : TSR_TABLE));
    if (good) {
        REQUIRE(position == bits.at);
        same_table(&table, &expected);
        write_again(&table);
    }

    tsr_prelude prelude;
    ref_prelude whole;
    good = ref_prelude_read(&whole, RANS, 0, rest, size - 1);
    error = tsr_prelude_open(&prelude, rest, size - 1);
    REQUIRE(error == (good ? TSR_OK : TSR_TABLE));
    if (good) REQUIRE(prelude.lanes == whole.lanes && prelude.tables == whole.tables);
    for (uint32_t k = 0; good && k < prelude.tables; k++) {
        position = prelude.at[k];
        REQUIRE(tsr_table_read(&table, rest, size - 1, &position) == TSR_OK);
        same_table(&table, &whole.table[k]);
    }
    free(rest);
    return 0;
}
