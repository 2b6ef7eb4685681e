"""Coder `rans2d`: rANS with a table for every class of weights (spec/FORMAT.md, section 6.4).

The levels of a tensor are not identically distributed: rows and columns differ in scale. Every row and every column
has a class on a logarithmic scale; a level is coded with the table number (class of its row + class of its column).
Classes are known before the first level is decoded, so that lanes stay independent.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tersor import _core
from tersor.coders import rans
from tersor.coders.varint import varint
from tersor.format.manifest import MAX_PRELUDE, PRELUDES

Integers = npt.NDArray[np.int32]
Classes = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.uint64]
Lines = npt.NDArray[np.float32]
Values = Callable[[int], Integers]

PRECISION = 12
"""Of all tables: the slots of a table fill 16 KiB, those of a dozen the second-level cache."""
PACKED = 256
"""Most different levels whose slots pack into 32 bits at that precision."""
WIDE_PRECISION = 13
WIDEST = 2048
"""Most different levels a stream may have: more are coded in two streams, high and low bits."""
PER_OCTAVE = 6
"""Resolution of the first classes, to a doubling of the scale."""
COARSER = (2, 3, 6)
"""What that resolution is divided by, to find the one that pays."""
MOST_OCTAVES = 8
"""Between the classes of the smallest and the largest scale."""
LEAST_PROMISE = 0.004
"""Share of the bits that classes of a side must promise before they are tried."""
MOST_TABLES = 64
TABLE_BITS = 7.0
"""Rough price of a level in a table, and of learning its frequency."""
LARGEST_SIDE = 2**24
LEAST_KERNEL = 16
"""Positions of a kernel from which on each filter may have a class of its own: fewer do not pay for it."""


@dataclass(frozen=True, eq=False)
class _Layout:
    """Levels as a matrix, met chunk by chunk."""

    values: Values
    chunks: int
    chunk: int
    rows: int
    columns: int
    lowest: int
    span: int

    def parts(self) -> Iterator[tuple[Integers, int]]:
        """Chunks, and the number of the first symbol of each."""
        return ((self.values(k), k * self.chunk) for k in range(self.chunks))

    def lines(self, other: Classes, *, by_row: bool) -> Lines | None:
        """Levels of every row, or column, under each class of the other side: (rows or columns, classes x span).

        None where lines are so short that the stream is no longer than this.
        """
        if other.max() > 0:
            return self._lines(other, by_row)
        return self._of_rows if by_row else self._of_columns

    @cached_property
    def _of_rows(self) -> Lines | None:
        return self._lines(np.zeros(self.columns, np.uint8), by_row=True)

    @cached_property
    def _of_columns(self) -> Lines | None:
        return self._lines(np.zeros(self.rows, np.uint8), by_row=False)

    def _lines(self, other: Classes, by_row: bool) -> Lines | None:
        width = (int(other.max()) + 1) * self.span
        if other.size < width:
            return None
        counts = np.zeros((self.rows if by_row else self.columns, width), np.float32)
        for part, first in self.parts():
            _core.side_histogram(part, first, other, by_row, self.lowest, self.span, counts)
        return counts


@dataclass(frozen=True, eq=False)
class _Classed:
    """Classes, and how often every level occurs under each pair of them: (classes of rows, of columns, span)."""

    rows: Classes
    columns: Classes
    lowest: int
    pairs: Counts

    @cached_property
    def counts(self) -> Counts:
        """How often every level occurs under each sum of classes, that is, in each table: (tables, span)."""
        by_row, by_column, span = self.pairs.shape
        counts = np.zeros((by_row + by_column - 1, span), np.uint64)
        for k, part in enumerate(self.pairs):
            counts[k : k + by_column] += part
        return counts

    @cached_property
    def bits(self) -> float:
        """Estimate of the coded size: payload, tables and classes."""
        payload, present = _core.entropies(self.counts)
        tables = TABLE_BITS * float(present.sum()) + 30 * len(self.counts)
        return float(payload.sum()) + tables + _side_bits(self.rows) + _side_bits(self.columns)

    def relabelled(self, axis: int, labels: npt.NDArray[np.integer]) -> _Classed:
        """With class k of the rows (axis 0) or columns (axis 1) called labels[k]; classes of one label become one.

        Labels never fall, and rise by one at most.
        """
        labels = labels - labels[0]
        pairs = np.add.reduceat(self.pairs, np.searchsorted(labels, _numbers(int(labels[-1]) + 1)), axis)
        labels = labels.astype(np.uint8)
        if axis == 0:
            return replace(self, pairs=pairs, rows=labels[self.rows])
        return replace(self, pairs=pairs, columns=labels[self.columns])


def _side_bits(classes: Classes) -> float:
    counts = np.bincount(classes)
    counts = counts[counts > 0]
    return float(-(counts * np.log2(counts / classes.size)).sum()) + 6 * counts.size + 48


@dataclass(frozen=True, eq=False)
class Plan2D:
    """How a stream will be coded: classes, tables, and the size this gives."""

    prelude: bytes
    nbytes: int  # predicted to within a few bytes a chunk
    chunk: int
    native: _core.Prelude

    def piece(self, chunk: int, values: Integers) -> bytes:
        """Encode chunk number `chunk`."""
        return _core.encode_chunk(values, self.native, 0, chunk * self.chunk)


def best_plan(
    values: Values, count: int, chunk: int, row_length: int, kernel: int, whole: rans.Histogram
) -> Plan2D | None:
    """The better of two plans: a class for every output, or for every filter (input and output) of a long `kernel`."""
    lengths = {row_length, kernel if kernel >= LEAST_KERNEL else row_length}
    plans = (plan(values, count, chunk, length, whole) for length in sorted(lengths))
    return min((p for p in plans if p is not None), key=lambda p: p.nbytes, default=None)


def plan(values: Values, count: int, chunk: int, row_length: int, whole: rans.Histogram) -> Plan2D | None:
    """Find classes for a stream of `count` levels, `row_length` to a row; `whole` counts them all.

    None where the levels are too many or too few for classes to be worth a try.
    """
    rows = -(-count // row_length)
    span = whole.counts.size
    if not 2 <= span <= WIDEST or whole.total != whole.counts.sum() or max(rows, row_length) > LARGEST_SIDE:
        return None
    layout = _Layout(values, -(-count // chunk), chunk, rows, row_length, whole.lowest, span)
    best = _start(layout, whole)
    if best is None:
        return None
    refined = _refine(layout, best)
    return _finish(_trim(min(best, refined, key=lambda c: c.bits)), count, chunk)


def _start(layout: _Layout, whole: rans.Histogram) -> _Classed | None:
    """Classes by the logarithm of the mean magnitude of rows and columns, at the resolution that pays.

    None if one table for everything is as good.
    """
    row_sums, column_sums = np.zeros(layout.rows), np.zeros(layout.columns)
    for part, first in layout.parts():
        _core.magnitudes(part, first, row_sums, column_sums)
    mean = row_sums.sum() / whole.total
    if mean == 0:
        return None
    sides = [(row_sums, layout.columns), (column_sums, layout.rows)]
    worth = [_promise(sums, n, mean) > LEAST_PROMISE * whole.entropy_bits for sums, n in sides]
    if not any(worth):
        return None
    rows, columns = (
        _octaves(sums, n, mean) if wanted else np.zeros(sums.size, np.uint8)
        for (sums, n), wanted in zip(sides, worth, strict=True)
    )
    fine = _count(layout, rows, columns)
    trials = (_coarser(fine, by) for by in COARSER)
    best = min((t for t in trials if len(t.counts) <= MOST_TABLES), key=lambda t: t.bits)
    return best if best.bits < whole.entropy_bits + TABLE_BITS * np.count_nonzero(whole.counts) else None


def _coarser(classed: _Classed, by: int) -> _Classed:
    for axis in (0, 1):
        classed = classed.relabelled(axis, (_numbers(classed.pairs.shape[axis]) + by // 2) // by)
    return classed


def _numbers(n: int) -> npt.NDArray[np.int64]:
    return np.arange(n, dtype=np.int64)


def _promise(sums: npt.NDArray[np.float64], n: int, mean: float) -> float:
    """Bits that knowing the scale of each side would save if levels were fine: mean log against log mean."""
    scale = (sums + 1) / (n + 1 / mean)
    return n * sums.size * float(np.log2(scale.mean()) - np.log2(scale).mean())


def _octaves(sums: npt.NDArray[np.float64], n: int, mean: float) -> Classes:
    """Classes of means of n magnitudes, from that of the smallest on.

    A pseudo-count keeps those that are all zero near the others.
    """
    scale = np.log2((sums + 1) / (n + 1 / mean))
    level = np.round(scale * PER_OCTAVE).astype(np.int64)
    middle, reach = int(np.median(level)), MOST_OCTAVES * PER_OCTAVE // 2
    level = np.clip(level, middle - reach, middle + reach - 1)
    return (level - level.min()).astype(np.uint8)


def _count(layout: _Layout, rows: Classes, columns: Classes) -> _Classed:
    for own, other, by_row in ((rows, columns, True), (columns, rows, False)):
        lines = layout.lines(other, by_row=by_row) if other.max() == 0 else None
        if lines is not None:
            return _Classed(rows, columns, layout.lowest, _pairs(layout, lines, own, by_row))
    pairs = np.zeros((int(rows.max()) + 1, int(columns.max()) + 1, layout.span), np.uint64)
    for part, first in layout.parts():
        _core.class_histogram(part, first, rows, columns, layout.lowest, layout.span, pairs.reshape(-1))
    return _Classed(rows, columns, layout.lowest, pairs)


def _pairs(layout: _Layout, lines: Lines, own: Classes, by_row: bool) -> Counts:
    """How often every level occurs under each pair of classes, of which `own` are those of the lines."""
    sums = np.zeros((int(own.max()) + 1, lines.shape[1]), np.uint64)
    _core.add_by_class(lines, own, sums.reshape(-1))
    pairs = sums.reshape(len(sums), -1, layout.span)
    return pairs if by_row else np.ascontiguousarray(pairs.transpose(1, 0, 2))


def _refine(layout: _Layout, classed: _Classed) -> _Classed:
    """Give every row, then every column, the class under which its levels and the class itself take the fewest bits."""
    for by_row in (True, False):
        own, other = (classed.rows, classed.columns) if by_row else (classed.columns, classed.rows)
        classes = int(own.max()) + 1
        if classes == 1:
            continue
        lines = layout.lines(other, by_row=by_row)
        costs = _costs(layout, classed, lines, by_row)
        used = np.bincount(own, minlength=classes)
        best = np.argmin(costs - np.log2((used + 0.5) / own.size), axis=1).astype(np.uint8)
        best -= best.min()
        rows, columns = (best, other) if by_row else (other, best)
        if lines is None:
            classed = _count(layout, rows, columns)
        else:
            classed = _Classed(rows, columns, layout.lowest, _pairs(layout, lines, best, by_row))
    return classed


def _costs(layout: _Layout, classed: _Classed, lines: Lines | None, by_row: bool) -> npt.NDArray[np.float32]:
    """Bits of the levels of every row or column under each of the classes of that side."""
    own, other = (classed.rows, classed.columns) if by_row else (classed.columns, classed.rows)
    bits, classes = _level_bits(classed.counts), int(own.max()) + 1
    if lines is not None:
        tables = np.add.outer(_numbers(lines.shape[1] // layout.span), _numbers(classes))
        return lines @ bits[tables].transpose(0, 2, 1).reshape(lines.shape[1], classes)
    costs = np.zeros((own.size, classes), np.float32)
    for part, first in layout.parts():
        _core.class_costs(
            part, first, own.size, other, by_row, layout.lowest, bits.T.ravel(), len(bits), costs.reshape(-1)
        )
    return costs


def _level_bits(counts: npt.NDArray[np.uint64]) -> npt.NDArray[np.float32]:
    """Bits of every level in every table; levels a table never met cost as much as a patch at most."""
    weighted = counts.astype(np.float64)
    totals = np.maximum(weighted.sum(1, keepdims=True), 1)
    neighbours = weighted.sum(0, keepdims=True) / max(1.0, weighted.sum())
    smooth = (weighted + 0.5 * neighbours) / (totals + 0.5)
    return np.minimum(-np.log2(np.maximum(smooth, 1e-30)), _core.PATCH_BITS).astype(np.float32)


def _trim(classed: _Classed) -> _Classed:
    """Merge the outermost classes with their neighbours while their tables cost more than they bring."""
    improved = True
    while improved:
        improved = False
        for axis in (0, 1):
            classes = _numbers(classed.pairs.shape[axis])
            if classes.size == 1:
                continue
            for labels in (np.minimum(classes, classes[-2]), np.maximum(classes, 1)):
                trial = classed.relabelled(axis, labels)
                if trial.bits < classed.bits:
                    classed, improved = trial, True
                    break
    return classed


def _finish(classed: _Classed, count: int, chunk: int) -> Plan2D | None:
    """Tables and the prelude; None if it has become too long."""
    precision = PRECISION if classed.counts.shape[1] <= PACKED else WIDE_PRECISION
    tables = [rans.fit(_histogram(classed.lowest, row), (precision, precision)) for row in classed.counts]
    payload = sum(
        t.payload_bits(_histogram(classed.lowest, row)) for t, row in zip(tables, classed.counts, strict=True)
    )
    chunks = -(-count // chunk)
    lanes = rans.lanes_for(payload / 8 / chunks)
    sides = [_code_classes(side) for side in (classed.rows, classed.columns)]
    head = bytes([lanes.bit_length() - 1, len(tables)]) + varint(classed.columns.size) + varint(len(sides[0][1]))
    tables += [side[0] for side in sides]
    prelude = rans.write_tables(head, tables) + sides[0][1] + sides[1][1]
    if len(prelude) > MAX_PRELUDE:  # classes of millions of rows
        return None
    native = _core.Prelude(np.frombuffer(prelude, np.uint8), PRELUDES.index("rans2d"), count)
    size = len(prelude) + payload / 8 + chunks * (2 + 2 * lanes)
    return Plan2D(prelude, math.ceil(size), chunk, native)


def _histogram(lowest: int, counts: npt.NDArray[np.uint64]) -> rans.Histogram:
    return rans.Histogram(lowest, counts, int(counts.sum()))


def _code_classes(classes: Classes) -> tuple[rans.Table, bytes]:
    """The table of a list of classes and the list coded with it: a chunk of one lane without its first byte."""
    values = classes.astype(np.int32)
    table = rans.fit(rans.Histogram.of(values))
    prelude = _core.Prelude(np.frombuffer(rans.prelude([table], 1), np.uint8))
    return table, _core.encode_chunk(values, prelude, 0)[1:]
