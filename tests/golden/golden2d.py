"""What the golden files for format 1.1 hold: coder `rans2d`, ops `uniform2d`, `companded`, `trellis`; see make.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import handmade as hm
import handmade2d as h2
import numpy as np

LANES = (1, 2, 4, 8, 16, 32)
FLOATS = ("F32", "F16", "BF16", "F64")
OPS = ("uniform2d", "companded", "trellis")
Items = Iterator[tuple[str, Callable[[], list[hm.Item]]]]


def classes(count: int, most: int, seed: int) -> list[int]:
    """Of rows or columns, all of them used if there are enough."""
    drawn = np.random.default_rng(seed).integers(0, most + 1, count)
    drawn[: most + 1] = np.arange(most + 1)[:count]
    return drawn.tolist()


def bell(shape: tuple[int, ...], spread: float, seed: int) -> hm.Values:
    """Integers as trained weights give them."""
    return np.rint(np.random.default_rng(seed).standard_normal(shape) * spread).astype(np.int64)


def matrix(name: str, classed: h2.Classed, shape: tuple[int, ...], seed: int, *, kind: str = "i16", dtype: str = "F32",
           chunk: int = hm.LEAF, levels: hm.Values | None = None, **options: Any) -> hm.Tensor:  # fmt: skip
    """Levels by class, with one step for all."""
    if levels is None:
        levels = h2.sampled(classed, int(np.prod(shape)), seed)

    def coder(values: hm.Values, kind: str, chunk: int) -> hm.Stream:
        return classed.stream(values, kind, chunk, **options)

    return h2.scaled_tensor(name, dtype, levels.reshape(shape), [0.5], [1.0], kind=kind, coder=coder, chunk=chunk)


# -- coder rans2d


def coder_items() -> Items:
    """Lanes, precisions, shapes, tables, classes, chunks, patches, types."""
    for lanes in LANES:
        for precision in range(8, 14):
            yield f"rans2d-lanes{lanes}-precision{precision}", partial(_lanes, lanes, precision)
        yield f"rans2d-lanes{lanes}-long", partial(_long, lanes)
    for precision, span in ((8, 600), (8, 65600), (11, 1100), (12, 250), (12, 260), (13, 60), (13, 70), (13, 3000)):
        yield f"rans2d-precision{precision}-span{span}", partial(_span, precision, span)
    yield "rans2d-one-row", partial(_shape, 1, 300)
    yield "rans2d-one-column", partial(_shape, 300, 1)
    yield "rans2d-one-symbol", partial(_shape, 1, 1)
    yield "rans2d-rows-of-the-coder", _other_rows
    for count in (1, 2, 64):
        yield f"rans2d-tables{count}", partial(_tables, count)
    yield "rans2d-classes-of-one-side", _one_side
    yield "rans2d-classes-patched", _patched_classes
    yield "rans2d-classes-unused", _unused
    yield "rans2d-classes-of-precision15", _precise_classes
    yield "rans2d-tables-far-apart", _far_apart
    yield "rans2d-table-of-one-symbol", _certain
    yield "rans2d-patches", _patches
    for kind in hm.TYPES:
        yield f"rans2d-{kind}", partial(_kind, kind)
    yield "rans2d-verbatim", _verbatim
    for name, count, columns, chunk, verbatim in (
        ("two", 65536 + 700, 1000, 65536, ()), ("one-row", 65536 + 9, 65536 + 9, 65536, ()),
        ("one-column", 65536 + 9, 1, 65536, ()), ("three", 2 * 65536 + 5, 4097, 65536, (1,)),
        ("exact", 131072, 512, 65536, (0,)), ("of-131072", 131072 + 3, 777, 131072, ()),
    ):  # fmt: skip
        yield f"rans2d-chunks-{name}", partial(_chunks, count, columns, chunk, verbatim)
    yield "rans2d-planes", _planes
    yield "rans2d-uniform", _uniform
    yield "rans2d-side-streams", _side_streams


def _lanes(lanes: int, precision: int) -> list[hm.Item]:
    """Fewer symbols than lanes, as many, a few more; rows longer and shorter than the lanes."""
    tables = h2.by_class(5, precision)
    shapes = (
        {(1, 1), (1, lanes), (3, lanes + 1), (lanes + 1, 3), (9, 37)} if precision in (8, 12, 13) else {(5, lanes + 6)}
    )
    return [
        matrix(f"{rows}x{row}", h2.Classed(tables, classes(rows, 2, rows), classes(row, 2, row), lanes), (rows, row),
               rows * row)
        for rows, row in sorted(shapes)
    ]  # fmt: skip


def _long(lanes: int) -> list[hm.Item]:
    """Beyond the blocks of 2048 symbols that a fast decoder works with, packed slots and not."""
    items: list[hm.Item] = []
    for name, precision, span in (("packed", 12, 0), ("plain", 13, 200)):
        classed = h2.Classed(
            h2.by_class(3, precision, spread=0.3, span=span), classes(43, 1, 1), classes(101, 1, 2), lanes
        )
        items.append(matrix(name, classed, (43, 101), lanes))
    return items


def _span(precision: int, span: int) -> list[hm.Item]:
    """Values that fit 32 bits beside two fields of the precision, or just do not."""
    near, far = h2.by_class(2, precision)
    tables = [near, replace(far, lowest=near.lowest + span - len(far.codes))]
    classed = h2.Classed(tables, classes(9, 1, 3), [0] * 20, 8)
    return [matrix("w", classed, (9, 20), span, kind="i32")]


def _shape(rows: int, row: int) -> list[hm.Item]:
    classed = h2.Classed(h2.by_class(6, 11), classes(rows, 3, 4), classes(row, 2, 5), 4)
    return [matrix("w", classed, (rows, row), 6)]


def _other_rows() -> list[hm.Item]:
    """The columns of the coder need not be those of the tensor; its last row may be short."""
    tables = h2.by_class(4, 12)
    items: list[hm.Item] = []
    for columns in (1, 7, 11, 24, 119, 120):
        classed = h2.Classed(tables, classes(-(-120 // columns), 1, columns), classes(columns, 2, 7), 2)
        items.append(matrix(f"{columns}", classed, (10, 12), columns))
    return items


def _tables(count: int) -> list[hm.Item]:
    tables = [hm.Table.of(np.arange(k, k + 5), 9) for k in range(count)]
    half = count // 2
    classed = h2.Classed(tables, classes(80, half, 1), classes(70, count - 1 - half, 2), 1)
    single = h2.Classed(tables, [0], classes(70, count - 1, 3), 2)
    return [matrix("both", classed, (80, 70), 8), matrix("one row", single, (1, 70), 9)]


def _one_side() -> list[hm.Item]:
    tables = h2.by_class(3, 12)
    by_row, by_column = (
        h2.Classed(tables, classes(20, 2, 1), [0] * 15, 2),
        h2.Classed(tables, [0] * 20, classes(15, 2, 1), 2),
    )
    return [matrix("rows", by_row, (20, 15), 1), matrix("columns", by_column, (20, 15), 2)]


def _patched_classes() -> list[hm.Item]:
    """Classes that the table of classes lacks."""
    tables = h2.by_class(7, 10)
    table = hm.Table(1, (0,), 8)
    classed = h2.Classed(tables, [1, 0, 1, 3, 1], [1, 1, 2, 1, 0, 3], 1, table, table)
    far = h2.Classed(tables, [1, 0, 1, 3, 1], [0, 0, 2, 0], 1, hm.Table(-(10**9), (0,), 12), hm.Table(300, (0, 5), 8))
    return [matrix("near", classed, (5, 6), 1), matrix("far", far, (5, 4), 2)]


def _unused() -> list[hm.Item]:
    """Tables above the largest sum of classes."""
    return [matrix("w", h2.Classed(h2.by_class(9, 12), [0, 1, 0], [3, 1, 1, 2], 1), (3, 4), 1)]


def _precise_classes() -> list[hm.Item]:
    rows, columns = classes(300, 3, 8), classes(40, 1, 9)
    sides = hm.Table.of(np.array(rows), 15, predictor=1, rice=3), hm.Table.of(np.array(columns), 14)
    classed = h2.Classed(h2.by_class(5, 9), rows, columns, 16, *sides)
    return [matrix("w", classed, (300, 40), 3)]


def _far_apart() -> list[hm.Item]:
    tables = [hm.Table(-(2**30), (3, 200, 9), 12, 1, rice=4), hm.Table(0, (0,), 12), hm.Table(2**30, (9, 3), 12)]
    return [matrix("w", h2.Classed(tables, [0, 1, 1], [0, 1, 0, 1, 1], 4), (3, 5), 2, kind="i32", dtype="F64")]


def _certain() -> list[hm.Item]:
    """No word is ever needed where a table has one symbol."""
    tables = [hm.Table(7, (0,), 13), hm.Table(-3, (0,), 13)]
    mixed = [hm.Table(0, (0,), 12), *h2.by_class(1, 12)]
    return [
        matrix("certain", h2.Classed(tables, [0, 1], [0] * 40, 32), (2, 40), 1),
        matrix("mixed", h2.Classed(mixed, [0, 1, 0, 0, 1], [0] * 9, 2), (5, 9), 2),
    ]


def _patches() -> list[hm.Item]:
    classed = h2.Classed(h2.by_class(3, 12), classes(40, 1, 1), classes(90, 1, 2), 32)
    levels = h2.sampled(classed, 3600, 3)
    levels[[0, 1, 89, 90, 2047, 2048, 3599]] = 9000, -(2**31), 50, -50, 2**31 - 1, 77, -9000
    return [matrix("w", classed, (40, 90), 0, kind="i32", levels=levels)]


def _kind(kind: str) -> list[hm.Item]:
    low, high = {"u8": (0, 255), "i8": (-128, 127), "i16": (-32768, 32767), "i32": (-(2**31), 2**31 - 1)}[kind]
    classed = h2.Classed(
        [replace(t, lowest=max(low, -3)) for t in h2.by_class(3, 12)], [0, 1, 0, 0], classes(30, 1, 1), 2
    )
    levels = h2.sampled(classed, 120, 4)
    levels[[3, 50, 51, 119]] = low, high, low, high
    stream = classed.stream(levels, kind)
    dtype = "F64" if kind == "i32" else "BF16"
    tensor = h2.scaled_tensor("w", dtype, levels.reshape(4, 30), [0.25], [1.0])
    return [replace(tensor, streams=(stream,))]


def _verbatim() -> list[hm.Item]:
    classed = h2.Classed(h2.by_class(2, 12), [0, 1], [0, 0, 0], 8)
    levels = np.array([1, -2, 300, 0, 5, -30000])
    return [matrix(kind, classed, (2, 3), 0, kind=kind, levels=levels, verbatim=(0,)) for kind in ("i16", "i32")]


def _chunks(count: int, columns: int, chunk: int, verbatim: Sequence[int]) -> list[hm.Item]:
    """Sparse, so that the files are small. `columns` are the coder's; the tensor has one row where they do not fit."""
    tables = [
        hm.Table(-1, (1, 1, 1), 12, mode=1, rice=4), hm.Table(-2, (1, 2, 1, 3, 1), 12, mode=2, rice=4),
        hm.Table(0, (1, 30), 12, rice=4),
    ]  # fmt: skip
    rows = -(-count // columns)
    row_class, column_class = ([k // 97 % 2 for k in range(n)] for n in (rows, columns))
    classed = h2.Classed(tables, row_class, column_class, 2)
    levels = np.zeros(count, np.int64)
    levels[::9973] = 1
    levels[[0, 65535, count // 2, count - 1]] = -1, 1, 200, 1
    shape = (rows, columns) if rows * columns == count else (1, count)
    if shape[1] > 70000:
        shape = (count, 1)
    kind = "u8" if verbatim else "i16"
    if verbatim:
        levels = np.abs(levels)
    return [matrix("w", classed, shape, 0, kind=kind, dtype="F16", chunk=chunk, levels=levels, verbatim=verbatim)]


def _planes() -> list[hm.Item]:
    """Other ops may use the coder too."""
    classed = h2.Classed(
        [hm.Table(100, (40, 40, 0, 40), 12, mode=2), hm.Table(90, (9,) * 20, 12)], [0, 1, 0], [0] * 25, 4
    )
    values = h2.sampled(classed, 75, 5)
    data = values.astype(np.uint8).tobytes()
    return [hm.Tensor("w", "U8", (75,), data, "raw", {"planes": 1}, (classed.stream(values, "u8"),))]


def _uniform() -> list[hm.Item]:
    classed = h2.Classed(h2.by_class(3, 12, spread=4), classes(12, 1, 1), classes(20, 1, 2), 2)
    levels = h2.sampled(classed, 240, 6).reshape(12, 20)
    plain = hm.uniform_tensor("plain", "BF16", levels, [0.01], offset=-0.05, kind="i8",
                              coder=lambda values, kind, chunk: classed.stream(values, kind, chunk))  # fmt: skip
    low = hm.uniform_tensor("low", "F32", levels * 4 + 3, [0.01, 1.0], rows=[0, 1] * 6, low=2, kind="i8",
                            coder=lambda values, kind, chunk: classed.stream(values, kind, chunk))  # fmt: skip
    return [plain, low]


def _side_streams() -> list[hm.Item]:
    classed = h2.Classed([hm.Table(0, (30, 30), 9), hm.Table(1, (0,), 9)], [0, 1, 0], [0] * 7, 1)
    numbers = h2.sampled(classed, 20, 7)

    def coder(values: hm.Values, kind: str) -> hm.Stream:
        return classed.stream(values, kind)

    return [
        h2.scaled_tensor("w", "F32", bell((20, 20), 4, 8), [0.5, 2.0], [1.0, 3.0], rows=numbers.tolist(),
                         places=numbers.tolist(), kind="i8", row_coder=coder, column_coder=coder)
    ]  # fmt: skip


# -- ops by rows and columns


def op_items() -> Items:
    """Dtypes, palettes, ranks, offsets, values, states; the corners of every float."""
    for op in OPS:
        for dtype in FLOATS:
            yield f"{op}-{dtype.lower()}", partial(_palettes, op, dtype)
        yield f"{op}-ranks", partial(_ranks, op)
        yield f"{op}-types", partial(_types, op)
        yield f"{op}-rows-inside-blocks", partial(_blocks, op)
        yield f"{op}-chunks", partial(_restart, op)
    for name, offset in (
        ("positive", 0.37),
        ("negative", -0.11),
        ("almost-minus-one", -0.99999994),
        ("large", 12345.678),
    ):
        yield f"uniform2d-offset-{name}", partial(_offsets, "uniform2d", offset)
        yield f"trellis-offset-{name}", partial(_offsets, "trellis", offset)
    for dtype in FLOATS:
        yield f"uniform2d-{dtype.lower()}-order-of-rounding", partial(_order, dtype)
    yield "uniform2d-large-levels", _large_levels
    for count in (1, 2, 4096):
        yield f"companded-values{count}", partial(_values, count)
    yield "companded-not-monotonic", _codebook
    yield "trellis-every-transition", _transitions
    yield "trellis-large-levels", _large_trellis


def _named(op: str, count: int = 200) -> dict[str, Any]:
    values = (np.arange(1, count + 1) ** 1.4 * 0.7).astype(np.float32).tolist()
    return {"op": op} | ({"values": values} if op == "companded" else {})


def _palette(count: int) -> list[float]:
    return (0.01 * 1.02 ** np.arange(count)).astype(np.float32).tolist()


def _palettes(op: str, dtype: str) -> list[hm.Item]:
    """One step, two, three, all; of rows and of columns."""
    items: list[hm.Item] = []
    for k, m in ((1, 1), (1, 2), (3, 1), (2, 3), (256, 1), (1, 256), (256, 256)):
        rows, row = (k + 2, 5) if k > m else (4, m + 3)
        if k == m == 256:
            rows, row = 258, 257
        levels = bell((rows, row), 2 if k == m == 256 else 9, k + m)
        coder = partial(hm.rans_stream, lanes=4) if k + m > 200 else hm.raw_stream
        items.append(
            h2.scaled_tensor(f"{k} and {m}", dtype, levels, _palette(k), _palette(m),
                             rows=[i * 7 % k for i in range(rows)], places=[i * 5 % m for i in range(row)],
                             kind="i8", coder=coder, **_named(op))
        )  # fmt: skip
    return items


def _ranks(op: str) -> list[hm.Item]:
    shapes = [(6,), (3, 4), (3, 2, 2), (2, 1, 3, 2), (2, 3, 1, 1, 2), (1, 7), (7, 1), (1,), (1, 1, 1, 1, 1, 1, 1, 5)]
    items: list[hm.Item] = []
    for k, shape in enumerate(shapes):
        row = int(np.prod(shape[1:], dtype=np.int64))
        items.append(
            h2.scaled_tensor(f"{shape}", FLOATS[k % 4], bell(shape, 5, k), [1.0, 0.3], [0.1, 0.7, 2.0],
                             rows=[i % 2 for i in range(shape[0])], places=[(i + 1) % 3 for i in range(row)],
                             **_named(op))
        )  # fmt: skip
    return items


def _types(op: str) -> list[hm.Item]:
    levels = bell((5, 30), 8, 3)
    return [
        h2.scaled_tensor(f"{kind} {coder.__name__}", "F32", levels + 100 * (kind == "u8"), [0.5], [1.0, 0.1],
                         places=[k % 2 for k in range(30)], kind=kind, coder=coder, **_named(op))
        for kind in hm.TYPES for coder in (hm.raw_stream, hm.zstd_stream, hm.rans_stream)
    ]  # fmt: skip


def _sparse(shape: tuple[int, int]) -> hm.Values:
    levels = np.zeros(shape[0] * shape[1], np.int64)
    levels[:: 1 + levels.size // 400] = 1
    levels[[0, levels.size // 2, -1]] = -2, 3, 2
    return levels.reshape(shape)


def _blocks(op: str) -> list[hm.Item]:
    """Rows that end inside, at and beyond the blocks of 2048 symbols that a fast decoder works with."""
    return [
        h2.scaled_tensor(f"rows of {row}", "F16", _sparse((rows, row)), [1.0, 3.0, 5.0], [1.0, 0.5],
                         rows=[k % 3 for k in range(rows)], places=[k // 5 % 2 for k in range(row)],
                         coder=hm.zstd_stream, row_coder=hm.zstd_stream, column_coder=hm.zstd_stream, **_named(op))
        for rows, row in ((2050, 1), (3, 2047), (3, 2048), (3, 2049), (3, 4100))
    ]  # fmt: skip


def _restart(op: str) -> list[hm.Item]:
    """Chunks that end inside a row: with a trellis, the states of all columns start again."""
    items: list[hm.Item] = []
    for rows, row, chunk in ((100, 1000, 65536), (2, 65536, 65536), (65540, 1, 65536), (3, 70000, 131072)):
        levels = _sparse((rows, row))
        levels[:, : 1 + row // 300] += 1  # odd levels in every row: states that are not 0 when a chunk ends
        items.append(
            h2.scaled_tensor(f"{rows}x{row}", "BF16", levels, [1.0], [0.5, 0.25], places=[k % 2 for k in range(row)],
                             kind="i8", coder=hm.zstd_stream, column_coder=hm.zstd_stream, chunk=chunk, **_named(op))
        )  # fmt: skip
    return items


def _offsets(op: str, offset: float) -> list[hm.Item]:
    return [
        h2.scaled_tensor(dtype, dtype, bell((6, 11), 5, 9), [0.1, 0.3], [1.1, 0.9], rows=[0, 1] * 3,
                         places=[0] + [1, 0] * 5, op=op, offset=offset, kind="i8")
        for dtype in FLOATS
    ]  # fmt: skip


def _order(dtype: str) -> list[hm.Item]:
    """Columns first: another order overflows, underflows or rounds differently."""
    columns = [3e38, 1e-30, 1e-45, 0.1, 1.0000001, 7e-4]
    steps = [1e-38, 1e30, 0.3, 1.0000001, 65000.0, 1e-3]
    levels = np.tile(np.array([1, -2, 3, -7, 8, 1]), (6, 1)) * np.array([[1], [-1], [1], [5], [1], [-3]])
    return [
        h2.scaled_tensor(
            f"offset {offset}", dtype, levels, steps, columns, rows=range(6), places=range(6), offset=offset
        )
        for offset in (0.0, 0.1)
    ]


def _large_levels() -> list[hm.Item]:
    levels = np.array([[2**24, 2**24 + 1, -(2**24) - 3, 2**25 + 2], [2**31 - 1, -(2**31), 2**30 + 64, -(2**30) - 192]])
    return [
        h2.scaled_tensor(dtype, dtype, levels, [1.1920929e-7], [1.0, 3.0], places=[0, 1, 1, 0], offset=0.5)
        for dtype in ("F32", "F16", "BF16")
    ]


def _values(count: int) -> list[hm.Item]:
    """Levels up to the last of the list; one of the values is subnormal, one the largest there is."""
    values = np.geomspace(1e-45, 3.4028235e38, count).astype(np.float32).tolist() if count > 1 else [0.75]
    levels = np.array([[0, count, -count, 1, -1, count // 2, -(count // 3)]])
    return [
        h2.scaled_tensor(dtype, dtype, levels, [step], [1.0], op="companded", values=values, kind="i16")
        for dtype, step in (("F32", 1.0), ("F16", 1e-20), ("BF16", 0.5), ("F64", 2.0))
    ]


def _codebook() -> list[hm.Item]:
    values = [3.0, 0.25, 100.0, 0.25, 1.0]
    levels = bell((7, 12), 2, 5).clip(-5, 5)
    return [
        h2.scaled_tensor(
            "w", "F16", levels, [0.5, 1.0], [1.0], rows=[0, 1] * 3 + [0], op="companded", values=values, kind="i8"
        )
    ]


def _transitions() -> list[hm.Item]:
    """A column for each way of eight parities: every state meets even and odd, positive, negative and zero levels."""
    parities = (np.arange(256)[None, :] >> np.arange(8)[:, None]) & 1
    signs = np.where((np.arange(8)[:, None] * 37 + np.arange(256)) % 3 == 0, -1, 1)
    sizes = parities + 2 * ((np.arange(8)[:, None] * 11 + np.arange(256) * 5) % 3)
    return [
        h2.scaled_tensor(dtype, dtype, sizes * signs, [0.125], [1.0], op="trellis", kind="i8", offset=offset)
        for dtype, offset in (("F32", 0.0), ("F16", -0.05))
    ]


def _large_trellis() -> list[hm.Item]:
    most = 2**30 - 1
    levels = np.array([[most, -most, most, 1, 2**24 + 1]] * 4) * np.array([[1], [-1], [1], [-1]])
    return [h2.scaled_tensor(dtype, dtype, levels, [1.0], [1.0], op="trellis") for dtype in ("F64", "F32", "F16")]
