/* The native core of tersor: hashing, entropy coding and reconstruction. C11, no allocation, no global state.
 *
 * Every function is bounds-checked against the lengths it is given and may be fed hostile bytes. Functions return
 * TSR_OK or an error of tsr_error; on error the output is unspecified but nothing outside it was touched.
 * The file format these functions implement is spec/FORMAT.md; section numbers below refer to it. */
#ifndef TERSOR_H
#define TERSOR_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum {
    TSR_OK = 0,
    TSR_TABLE = 1,     /* a frequency table that breaks the rules of section 6.2 */
    TSR_TRUNCATED = 2, /* a stream that ends before its symbols do */
    TSR_TRAILING = 3,  /* bytes left over, or a coder that does not end in its starting state */
    TSR_PATCH = 4,     /* a patch list that breaks the rules of section 6.3 */
    TSR_RANGE = 5,     /* a value outside the type of its stream, or an index outside its table */
    TSR_ARGUMENT = 6   /* arguments that contradict each other: a mistake of the caller */
} tsr_error;

enum {
    TSR_MAX_PRECISION = 15,
    TSR_MIN_PRECISION = 8,
    TSR_MAX_ALPHABET = 4096,
    TSR_MAX_LANES = 32,
    TSR_MAX_TABLES = 255,
    TSR_BLOCK = 2048,     /* symbols decoded at a time: levels and weights stay in the first-level cache */
    TSR_LEAF = 65536,     /* elements under one leaf of a tensor's digest (section 5) */
    TSR_VERBATIM = 255,   /* table index of a chunk whose symbols are stored as they are */
    TSR_MAX_CLASSES = 64, /* tables of a `rans1` or `rans2d` stream */
    TSR_MAX_PRECISION_2D = 13,
    TSR_MAX_SIDE = 1 << 24, /* rows, and columns, of a `rans2d` stream */
    TSR_MAX_RUN_BITS = 15,
    TSR_MAX_TRELLIS = (1 << 30) - 1 /* largest level of a trellis: twice as much still fits */
};

/* -- hashing (section 2) ------------------------------------------------------------------------------------- */

/* XXH3, 64 bits, default secret, seeded. */
uint64_t tsr_hash(const void *data, size_t size, uint64_t seed);

/* -- frequency tables (section 6.2) --------------------------------------------------------------------------- */

typedef struct {
    int32_t lowest;                        /* value of symbol 0 */
    uint32_t alphabet;                     /* number of symbols, 1 to TSR_MAX_ALPHABET */
    uint32_t precision;                    /* frequencies sum to 2^precision */
    uint16_t frequency[TSR_MAX_ALPHABET];
} tsr_table;

/* Reads one table at bit `*position` of `data`; advances `*position`. */
tsr_error tsr_table_read(tsr_table *table, const uint8_t *data, size_t size, size_t *position);

/* Appends a table at bit `*position` of `data` (zeroed, `capacity` bytes). All frequencies but one must be representable
 * (see tsr_table_round) and `lowest` within +-2^30: TSR_TABLE if not. Picks the cheapest of the encodings that section
 * 6.2 allows. */
tsr_error tsr_table_write(const tsr_table *table, uint8_t *data, size_t capacity, size_t *position);

/* Turns counts (length table->alphabet) into representable frequencies of table->precision bits: every counted symbol
 * gets at least 1, the most frequent takes what is left. Fails with TSR_TABLE if there is no room. */
tsr_error tsr_table_round(tsr_table *table, const uint64_t *counts);

/* Bits of a table that tsr_table_write would append. */
tsr_error tsr_table_bits(const tsr_table *table, size_t *bits);

/* How often the values lowest, lowest + 1, ... occur; `total` also counts others. */
typedef struct {
    int32_t lowest;
    size_t size;
    const uint64_t *counts;
    uint64_t total;
} tsr_counted;

/* Rough price in bits of a value that a table lacks: position and value of a patch. */
#define TSR_PATCH_BITS 40.0
/* Values from which on the time of decoding is worth some size; fewer are decoded soon in any case. */
#define TSR_MANY (1 << 20)

/* Bits of what was counted under a table. */
double tsr_table_payload(const tsr_table *table, const tsr_counted *counted);

/* The table with which what was counted takes the fewest bytes, itself included, of a precision from `first` to `last`. */
void tsr_table_fit(tsr_table *table, const tsr_counted *counted, uint32_t first, uint32_t last);

/* Bits of an ideal code for each of `rows` rows of `span` counts, and how many of its counts are not 0. */
void tsr_entropies(const uint64_t *counts, size_t rows, size_t span, double *bits, uint64_t *present);

/* -- integer streams (section 6) ------------------------------------------------------------------------------ */

typedef struct {
    uint16_t frequency;
    uint16_t bias; /* slot minus the cumulative frequency of its symbol */
    int32_t value;
} tsr_slot;

/* Where alphabet and precision are small a slot fits in 32 bits: bias, frequency - 1 (`precision` bits each), value - base. One
 * look-up instead of two, and four times as many slots in the first-level cache. */
int tsr_packs(uint32_t precision, int64_t span);

/* Fills the 2^precision slots of a table: uint32_t if packed, else tsr_slot. */
void tsr_slots_fill(const tsr_table *table, int packed, int32_t base, void *slots);

/* The first piece of a stream, parsed once for all of its chunks. `data` must outlive it. */
typedef struct {
    const uint8_t *data;
    size_t size;
    uint32_t lanes, tables;
    size_t at[TSR_MAX_TABLES]; /* first bit of every table; with `rans2d`, two tables of classes follow */
    uint32_t contexts;         /* `rans1` (section 6.6): tables, by the level before; 0 with the others */
    uint32_t run_bits;         /* `runs` (section 6.7); 0 with the others */
    uint64_t columns, rows;    /* `rans2d` (section 6.4); columns is 0 with the others */
    /* Both: */
    uint32_t precision;        /* of all tables */
    int32_t base, highest;     /* of their values */
    int packed;
    const void *slots;         /* of all tables, one after another */
    /* `rans2d` alone: */
    size_t classes, row_bytes; /* where the coded classes begin, and the bytes of those of the rows */
    const uint8_t *row_class, *column_class;
} tsr_prelude;

/* Parses and checks the prelude of a `rans` stream. */
tsr_error tsr_prelude_open(tsr_prelude *prelude, const uint8_t *data, size_t size);

/* The same for a `rans1` stream; tsr_prelude_fill must follow. */
tsr_error tsr_prelude_open_1(tsr_prelude *prelude, const uint8_t *data, size_t size);

/* The same for a `runs` stream. */
tsr_error tsr_prelude_open_runs(tsr_prelude *prelude, const uint8_t *data, size_t size);

/* The same for a `rans2d` stream of `count` symbols; tsr_prelude_fill must follow. */
tsr_error tsr_prelude_open_2d(tsr_prelude *prelude, const uint8_t *data, size_t size, uint64_t count);

/* Room that tsr_prelude_fill needs for slots. */
size_t tsr_prelude_slot_bytes(const tsr_prelude *prelude);

/* Decodes the classes into prelude->rows and prelude->columns bytes, and fills the slots; all must outlive the prelude. `scratch` holds
 * 2^TSR_MAX_PRECISION slots. */
tsr_error tsr_prelude_fill(tsr_prelude *prelude, uint8_t *row_class, uint8_t *column_class, void *slots, tsr_slot *scratch);

/* The table of each of n symbols of a `rans2d` stream from number `first` on; they must lie in its rows. */
void tsr_prelude_tables(const tsr_prelude *prelude, uint64_t first, uint8_t *tables, size_t n);

typedef enum { TSR_U8 = 0, TSR_I8 = 1, TSR_I16 = 2, TSR_I32 = 3 } tsr_type;
typedef enum { TSR_SIMD_NONE = 0, TSR_SIMD_AVX2 = 1, TSR_SIMD_AVX512 = 2, TSR_SIMD_NEON = 1 } tsr_simd;

/* The best vectors of this processor. */
tsr_simd tsr_simd_best(void);

/* One chunk of an integer stream being decoded, block by block. */
typedef struct {
    const uint8_t *data, *end;        /* rest of the words (rans) or of the stored values (verbatim) */
    const uint8_t *patch, *patch_end; /* rest of the patch list */
    uint64_t position, count;         /* symbols decoded, symbols in all */
    uint64_t next_patch;              /* where the next patch goes, UINT64_MAX if there is none */
    uint32_t patches;                 /* patches left */
    uint32_t lanes;                   /* 0: the values are stored verbatim */
    uint32_t precision;
    tsr_type type;
    tsr_simd simd;                    /* set on opening; may be lowered */
    uint32_t state[TSR_MAX_LANES];
    const void *slots;
    int packed;
    int fits;                         /* all values of the tables are of the type */
    int32_t base;
    uint32_t contexts;                /* `rans1`: tables, by the level that the lane decoded before; else 0 */
    int32_t before[TSR_MAX_LANES];    /* that level */
    const tsr_prelude *prelude;       /* `rans2d`: the table changes with row and column; else NULL */
    uint64_t first;                   /* number of the first symbol in the stream, with `rans2d` */
    struct tsr_adaptive *adaptive;    /* `adaptive`: decodes by itself; else NULL */
    struct tsr_runs *runs;            /* `runs`: has a reader of its own; else NULL */
} tsr_reader;

/* Opens a `rans`, `rans1` or `rans2d` chunk whose first symbol is number `first` of the stream. `slots` must hold 2^TSR_MAX_PRECISION entries;
 * they and the prelude must outlive the reader. */
tsr_error tsr_reader_open(tsr_reader *reader, tsr_slot *slots, const tsr_prelude *prelude, tsr_type type, const uint8_t *data,
                          size_t size, uint64_t first, uint64_t count);

/* Opens what follows the first byte of a chunk, given its table. */
tsr_error tsr_reader_open_table(tsr_reader *reader, tsr_slot *slots, const tsr_table *table, uint32_t lanes, tsr_type type,
                                const uint8_t *data, size_t size, uint64_t count);

/* Opens plain little-endian values of `type`: the chunk of a `raw` stream, or what zstd unpacked. */
tsr_error tsr_reader_open_plain(tsr_reader *reader, tsr_type type, const uint8_t *data, size_t size, uint64_t count);

/* A reader of a chunk that tsr_adaptive_open (adaptive.h) has opened. */
void tsr_reader_open_adaptive(tsr_reader *reader, struct tsr_adaptive *chunk, tsr_type type, uint64_t count);

/* Decodes the next n <= TSR_BLOCK symbols into out. n must be a multiple of TSR_MAX_LANES, with `rans1` TSR_BLOCK, unless they are the
 * last ones. */
tsr_error tsr_reader_next(tsr_reader *reader, int32_t *out, size_t n);

/* The next n symbols of type u8 or i8 as bytes; n as above, but of any size. */
tsr_error tsr_reader_bytes(tsr_reader *reader, uint8_t *out, size_t n);

/* After the last symbol: everything was consumed and the coder is back in its starting state. */
tsr_error tsr_reader_close(const tsr_reader *reader);

/* -- reconstruction (section 7) -------------------------------------------------------------------------------- */

typedef enum { TSR_F32 = 0, TSR_F16 = 1, TSR_BF16 = 2, TSR_F64 = 3 } tsr_float;

typedef struct {
    const float *steps;        /* palette of steps */
    size_t step_count;
    const uint8_t *row_steps;  /* palette index of every row, or NULL: all rows use steps[0] */
    const float *column_steps; /* of every column, or NULL: 1 */
    const float *values;       /* of the levels 1, 2, ... in place of level + offset, or NULL */
    size_t value_count;
    uint8_t *states;           /* trellis: room for row_length states; else NULL */
    uint64_t rows, row_length; /* 0 where nothing of the above depends on them */
    float offset;
    tsr_float type;
    uint32_t low_bits;         /* 0 to 8: how many low bits of a level are in a stream of their own */
} tsr_uniform;

/* Decodes the chunk that starts at element `first` into `out` (reader->count elements of the type) and writes the
 * digest of each leaf of TSR_LEAF elements it covers to `leaves`. `low` is read if low_bits is not 0. */
tsr_error tsr_uniform_decode(const tsr_uniform *op, tsr_reader *reader, tsr_reader *low, uint64_t first, void *out,
                             uint64_t *leaves);

/* Joins byte planes (most significant first) of elements `width` bytes wide. `stored` planes are given, the rest is
 * zero; with `rotate` the sign bit was moved behind the mantissa (section 7.1). Every reader holds `count` symbols. */
tsr_error tsr_planes_decode(tsr_reader *readers, uint32_t stored, uint32_t width, int rotate, void *out,
                            uint64_t *leaves);

/* -- encoding --------------------------------------------------------------------------------------------------- */

/* Frequencies of all tables of a prelude as the encoder needs them: a row of `span` entries, frequency | start << 16, for each. */
typedef struct {
    uint32_t *entries;
    uint32_t *modes;      /* the entry that stands in for values a table lacks */
    int32_t lowest;
    uint32_t span, precision;
} tsr_encoder;

/* Finds lowest, span and precision for tables `from` to `to` - 1 of a prelude; TSR_ARGUMENT if they lie too far apart or
 * differ in precision. */
tsr_error tsr_encoder_open(tsr_encoder *encoder, const tsr_prelude *prelude, uint32_t from, uint32_t to);

/* Fills encoder->entries (span for each table) and encoder->modes, which the caller has set. */
tsr_error tsr_encoder_fill(tsr_encoder *encoder, const tsr_prelude *prelude, uint32_t from, uint32_t to);

/* What a `rans1` chunk codes for n levels, in the order of its lanes: each with its sign turned where the one before is negative, and
 * its table. */
void tsr_context_arrange(const tsr_encoder *encoder, uint32_t contexts, uint32_t lanes, const int32_t *values, size_t n,
                         int32_t *turned, uint8_t *tables);

/* Encodes n values as a chunk that starts with byte `table_index`. `tables` holds the table of every symbol, or is NULL: the
 * first. `turned` is what tsr_context_arrange made of the values, or NULL. Values a table lacks become patches. Returns the size
 * through `*size`; TSR_TRUNCATED if `capacity` is too small. `scratch` holds n + 32 words, `places` n numbers. */
tsr_error tsr_rans_encode(const tsr_encoder *encoder, uint32_t table_index, uint32_t lanes, const uint8_t *tables,
                          const int32_t *values, const int32_t *turned, size_t n, uint8_t *out, size_t capacity, uint16_t *scratch,
                          uint32_t *places, size_t *size);

/* Counts the values lowest .. lowest + alphabet - 1 into the first half of `counts`, which has room for twice the
 * alphabet; returns how many fell outside. */
uint64_t tsr_histogram(const int32_t *values, size_t n, int32_t lowest, uint32_t alphabet, uint64_t *counts);

/* Adds the magnitudes of n symbols from number `first` on to the sums of their rows and columns. */
void tsr_magnitudes(const int32_t *values, size_t n, uint64_t first, uint64_t columns, double *row_sums, double *column_sums);

/* Counts values lowest .. lowest + span - 1 by the class of the row and, of `classes`, that of the column, into rows of `span` counts;
 * returns how many fell outside. */
uint64_t tsr_class_histogram(const int32_t *values, size_t n, uint64_t first, uint64_t columns, const uint8_t *row_class,
                             const uint8_t *column_class, uint32_t classes, int32_t lowest, uint32_t span, uint64_t *counts);

/* Counts values lowest .. lowest + span - 1 of every row (by_row) or column under each of the `classes` of the other side, into
 * classes x span counts each: up to 2^24 a float is exact, and prices are in floats. */
void tsr_side_histogram(const int32_t *values, size_t n, uint64_t first, uint64_t columns, const uint8_t *other, uint32_t classes, int by_row,
                        int32_t lowest, uint32_t span, float *counts);

/* Adds the `span` counts of every member, a row or a column, to the sums of its class. */
void tsr_add_by_class(const float *counts, size_t members, uint32_t span, const uint8_t *classes, uint64_t *sums);

/* Counts turned levels by context, as tsr_context_arrange would give them where no level is patched, into `contexts` rows of 2 reach + 1
 * counts for the levels from -reach on; no level is larger. `counts` has room for four times as many, zero at first. */
void tsr_context_histogram(const int32_t *values, size_t n, uint32_t lanes, uint32_t contexts, uint32_t reach, uint64_t *counts);

/* Adds to `costs`, `classes` floats for every row (by_row) or column, the bits of its symbols under each class, given the classes of
 * the `other` side. `bits` has `tables` floats for every value from `lowest` on; other + classes - 1 < tables. */
void tsr_class_costs(const int32_t *values, size_t n, uint64_t first, uint64_t columns, const uint8_t *other, int by_row,
                     int32_t lowest, uint32_t span, const float *bits, uint32_t tables, uint32_t classes, float *costs);

/* Smallest and largest value; n > 0. */
void tsr_minmax(const int32_t *values, size_t n, int32_t *smallest, int32_t *largest);

/* Splits elements into byte planes, the inverse of tsr_planes_decode: planes[k] receives n bytes. */
void tsr_planes_split(const void *data, uint64_t n, uint32_t stored, uint32_t width, int rotate, uint8_t *const *planes);

/* Entropy-constrained rounding of n weights to levels of one step: minimises (w / step - q)^2 + bits[q] over the level
 * nearest to w / step, its neighbour towards zero, and zero. `bits` is the price (already times lambda) of the levels
 * -limit .. limit; beyond, it is that of the limit. Levels are clamped to +-2^24. */
void tsr_quantize(const float *weights, size_t n, float step, const float *bits, int32_t limit, int32_t *levels);

#ifdef __cplusplus
}
#endif
#endif
