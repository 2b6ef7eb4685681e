"""What format 1.1 added, put together by hand from spec/FORMAT.md: coder `rans2d` (section 6.4), ops `uniform2d`,
`companded` and `trellis` (sections 7.3 to 7.5). See handmade.py."""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from handmade import LEAF, Bits, Coder, Stream, Table, Tensor, Values, coded, narrowed, plain, raw_stream, varint

from tersor.coders import adaptive

# -- section 6.4: tables by row and column
# ---------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Classed:
    """What the prelude of a `rans2d` stream says. Fields that follow from others are computed unless given."""

    tables: Sequence[Table]
    rows: Sequence[int]
    columns: Sequence[int]
    lanes: int = 1
    row_table: Table | None = None  # of the classes
    column_table: Table | None = None
    table_count: int | None = None
    column_count: bytes | None = None
    row_bytes: bytes | None = None
    padding: int = 0
    tail: bytes = b""

    def prelude(self) -> bytes:
        """The first piece."""
        row_table = self.row_table or Table.of(np.array(self.rows))
        column_table = self.column_table or Table.of(np.array(self.columns))
        rows, columns = (
            coded(list(classes), [0] * len(classes), [table], 1)
            for classes, table in ((self.rows, row_table), (self.columns, column_table))
        )
        bits = Bits()
        for table in (*self.tables, row_table, column_table):
            table.write(bits)
        if self.padding:
            assert len(bits.bits) % 8
            bits.bits.append(self.padding)
        count = len(self.tables) if self.table_count is None else self.table_count
        head = bytes([self.lanes.bit_length() - 1, count])
        head += varint(len(self.columns)) if self.column_count is None else self.column_count
        head += varint(len(rows)) if self.row_bytes is None else self.row_bytes
        return head + bits.pack() + rows + columns + self.tail

    def numbers(self, first: int, count: int) -> list[int]:
        """Of the tables of symbols `first`, `first` + 1, ..."""
        places = (divmod(i, len(self.columns)) for i in range(first, first + count))
        return [self.rows[row] + self.columns[column] for row, column in places]

    def chunk(self, values: Sequence[int], first: int = 0, patches: Mapping[int, int] | None = None) -> bytes:
        """A chunk that starts at symbol `first`."""
        return b"\0" + coded(values, self.numbers(first, len(values)), self.tables, self.lanes, patches)

    def stream(self, values: Values, kind: str, chunk: int = LEAF, verbatim: Collection[int] = ()) -> Stream:
        """All values; the chunks with these numbers are stored as they are."""
        pieces = [self.prelude()]
        flat = values.reshape(-1)
        for k, at in enumerate(range(0, flat.size, chunk)):
            part = flat[at : at + chunk]
            pieces.append(b"\xff" + plain(part, kind) if k in verbatim else self.chunk(part.tolist(), at))
        return Stream("rans2d", kind, flat.size, tuple(pieces), chunk)


def by_class(
    tables: int, precision: int, *, spread: float = 1.0, lowest: int | None = None, span: int = 0
) -> list[Table]:
    """Tables from narrow to wide bells, each over `span` values (by default as many as it needs)."""
    made = []
    for k in range(tables):
        scale = spread * 1.3**k
        reach = span // 2 or int(3 * scale) + 1
        values = np.arange(-reach, reach + 1)
        counts = np.rint(1e5 * np.exp(-np.abs(values) / scale)).astype(np.int64) + 1
        made.append(Table.of_counts(-reach if lowest is None else lowest, counts, precision, rice=2))
    return made


def sampled(classed: Classed, count: int, seed: int) -> npt.NDArray[np.int64]:
    """Values as likely as their tables say."""
    rng = np.random.default_rng(seed)
    shares = [np.cumsum(table.frequencies) / (1 << table.precision) for table in classed.tables]
    numbers = classed.numbers(0, count)
    picked = [int(np.searchsorted(shares[t], x, "right")) for t, x in zip(numbers, rng.random(count), strict=True)]
    return np.array([classed.tables[t].lowest + k for t, k in zip(numbers, picked, strict=True)], np.int64)


# -- sections 7.3 to 7.5: steps by row and column
# ---------------------------------------------------------------------

NEXT = ((0, 7, 1, 6, 2, 5, 3, 4), (2, 5, 3, 4, 0, 7, 1, 6))
"""State after an even level, after an odd one."""


def followed(levels: npt.NDArray[np.int64], chunk: int) -> npt.NDArray[np.int64]:
    """The q' of section 7.5 for levels in rows and columns; the states start again with every chunk."""
    out = np.zeros(levels.size, np.int64)
    states = np.zeros(levels.shape[1], np.int64)
    for i, q in enumerate(levels.reshape(-1).tolist()):
        if i % chunk == 0:
            states[:] = 0
        column = i % levels.shape[1]
        t = int(states[column])
        out[i] = 2 * q - (t % 2) * ((q > 0) - (q < 0))
        states[column] = NEXT[q % 2][t]
    return out.reshape(levels.shape)


def scaled_tensor(
    name: str, dtype: str, levels: Values, steps: Sequence[float], columns: Sequence[float], *, op: str = "uniform2d",
    rows: Sequence[int] = (), places: Sequence[int] = (), offset: float = 0.0, values: Sequence[float] = (),
    kind: str = "i32", coder: Coder = raw_stream, row_coder: Coder = raw_stream, column_coder: Coder = raw_stream,
    chunk: int = LEAF,
) -> Tensor:  # fmt: skip
    """Op `uniform2d`, `companded` (with `values`) or `trellis`; the shape is that of the levels.

    `rows` and `places` number the steps of rows and columns.
    """
    wide = levels.astype(np.int64).reshape(levels.shape[0], -1)
    palettes = np.array(steps, np.float32), np.array(columns, np.float32)
    row_steps = palettes[0][list(rows) if len(steps) > 1 else [0] * wide.shape[0]].reshape(-1, 1)
    column_steps = palettes[1][list(places) if len(columns) > 1 else [0] * wide.shape[1]]
    streams = [coder(levels.astype(np.int64), kind, chunk=chunk)]
    if len(steps) > 1:
        streams.append(row_coder(np.array(rows, np.int64), "u8"))
    if len(columns) > 1:
        streams.append(column_coder(np.array(places, np.int64), "u8"))
    parameters = {"steps": palettes[0].astype("<f4").tobytes(), "columns": palettes[1].astype("<f4").tobytes()}
    with np.errstate(over="ignore", under="ignore"):
        if op == "companded":
            listed = np.array([1, *values], np.float32)
            parameters["values"] = listed[1:].astype("<f4").tobytes()
            b = listed[np.abs(wide)]
        else:
            parameters["offset"] = struct.pack("<f", offset)
            q = followed(wide, chunk) if op == "trellis" else wide
            b = np.abs(q).astype(np.float32) + np.float32(offset)
        d = (b * column_steps).astype(np.float32) * row_steps
    signed = np.where(wide == 0, np.float32(0), np.where(wide < 0, -d, d)).astype(np.float32)
    return Tensor(name, dtype, levels.shape, narrowed(signed, dtype), op, parameters, tuple(streams))


# -- section 6.5: adaptive models
# ---------------------------------------------------------------------------


def slow_to_decode(chunks: int) -> Tensor:
    """Chunks of 2^20 symbols that take eleven decisions each and, once these are learned, hardly a byte."""
    count = chunks * 2**20
    plan = adaptive.Plan(1, chunk=2**20)
    piece = plan.encode(0, np.full(2**20, 15, np.int32))
    levels = Stream("adaptive", "u8", count, (plan.prelude, *(piece,) * chunks), 2**20)
    return Tensor("w", "U8", (count,), bytes([15]) * count, "raw", {"planes": 1}, (levels,))
