"""Coder `rans`: interleaved range asymmetric numeral systems over integer tables (spec/FORMAT.md, section 6).

Duda, "Asymmetric numeral systems" (arXiv 1311.2540); interleaving after Giesen (arXiv 1402.3392). This module chooses
tables; the coding itself is native.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tersor import _core

Integers = npt.NDArray[np.int32]

MAX_ALPHABET = 4096
FARTHEST = 2**30
"""No table starts farther from zero; values out there are patches."""
PRECISIONS = (12, 13, 14, 15)
WIDE_PENALTY = 1.5e-3
"""Share of the size that slots too wide for 32 bits must save: they take two look-ups a symbol instead of one."""
DEEP_PENALTY = 7e-4
"""Share that each bit of precision beyond 12 must save where slots are narrow: they leave the first-level cache."""
MANY = 2**20
"""Symbols from which on the time of decoding is worth these shares; fewer are decoded soon in any case."""
FEW = 256
"""Different symbols up to which a large stream's table is searched for in fewer steps."""
MAX_TABLES = 255
LEAST_SAVING = 0.002
"""Share of a chunk that a table of its own must save: each one takes time to build when decoding."""
VERBATIM = 255
WIDEST = 65536
"""Most values a histogram lists."""
PATCH_BITS = 40.0
"""Rough price of a value outside the table: position and value."""


class Histogram(NamedTuple):
    """How often each value lowest, lowest + 1, ... occurs; `total` also counts values too far out to be listed."""

    lowest: int
    counts: npt.NDArray[np.uint64]
    total: int

    @classmethod
    def of(cls, values: Integers) -> Histogram:
        """Count `values`."""
        lowest, counts = _core.histogram(values)
        return cls(lowest, counts, values.size)

    def __add__(self, other: Histogram) -> Histogram:  # type: ignore[override]
        if self.counts.size == 0 or other.counts.size == 0:
            kept = self if other.counts.size == 0 else other
            return kept._replace(total=self.total + other.total)
        lowest = min(self.lowest, other.lowest)
        highest = max(self.lowest + self.counts.size, other.lowest + other.counts.size)
        if highest - lowest > WIDEST:  # list those around zero, as the native core does within one chunk
            lowest = min(max(lowest, -WIDEST // 2), WIDEST // 2)
            highest = max(lowest + 1, min(highest, lowest + WIDEST))
        counts = np.zeros(highest - lowest, np.uint64)
        for part in (self, other):
            first, last = max(lowest, part.lowest), min(highest, part.lowest + part.counts.size)
            if first < last:
                counts[first - lowest : last - lowest] += part.counts[first - part.lowest : last - part.lowest]
        return Histogram(lowest, counts, self.total + other.total)

    def split(self, low: int) -> tuple[Histogram, Histogram]:
        """Those of the listed values without their `low` lowest bits, and of these bits alone."""
        values = np.arange(self.lowest, self.lowest + self.counts.size)
        high, rest = values >> low, values & ((1 << low) - 1)
        first = int(high[0]) if high.size else 0
        return (
            Histogram(first, np.bincount(high - first, self.counts).astype(np.uint64), self.total),
            Histogram(0, np.bincount(rest, self.counts).astype(np.uint64), self.total),
        )

    @property
    def entropy_bits(self) -> float:
        """Bits of an ideal order-0 code for the listed values, without tables."""
        present = self.counts[self.counts > 0].astype(np.float64)
        return float(-(present * np.log2(present / present.sum())).sum()) if present.size else 0.0


def merge(parts: list[Histogram]) -> Histogram:
    """One histogram of everything in `parts`."""
    total = Histogram(0, np.zeros(0, np.uint64), 0)
    for part in parts:
        total = total + part
    return total


@dataclass(frozen=True, eq=False)
class Table:
    """Integer frequencies that sum to 2^precision, for the values from `lowest` on."""

    precision: int
    lowest: int
    frequencies: npt.NDArray[np.uint16]

    @cached_property
    def bits(self) -> npt.NDArray[np.float64]:
        """Bits of every symbol; that of a patch where the frequency is zero."""
        frequency = np.maximum(self.frequencies, 1).astype(np.float64)
        return np.where(self.frequencies == 0, PATCH_BITS, self.precision - np.log2(frequency))

    @cached_property
    def side_bytes(self) -> int:
        """Bytes the table takes in a prelude."""
        return len(prelude([self], 1)) - 2

    def payload_bits(self, histogram: Histogram) -> float:
        """Bits of the symbols in `histogram` under this table."""
        low, high = self.lowest, self.lowest + self.frequencies.size
        first, last = max(low, histogram.lowest), min(high, histogram.lowest + histogram.counts.size)
        if last <= first:
            return histogram.total * PATCH_BITS
        inside = histogram.counts[first - histogram.lowest : last - histogram.lowest].astype(np.float64)
        outside = histogram.total - inside.sum()
        return float(inside @ self.bits[first - low : last - low]) + outside * PATCH_BITS


def prelude(tables: list[Table], lanes: int) -> bytes:
    """The first piece of a stream: its lanes and tables."""
    return write_tables(bytes([lanes.bit_length() - 1, len(tables)]), tables)


def write_tables(head: bytes, tables: list[Table]) -> bytes:
    """Bytes, then tables as one string of bits."""
    entries = [(t.precision, t.lowest, t.frequencies) for t in tables]
    return _core.write_tables(np.frombuffer(head, np.uint8), entries)


def fit(histogram: Histogram, precisions: tuple[int, ...] = PRECISIONS) -> Table:
    """The table that codes `histogram`, itself included, in the fewest bytes.

    Searched: which rare outer values become patches, and the precision of the frequencies; in large streams of few
    different symbols one after the other, for there they hardly depend on each other. Inner values become patches
    where that costs less than the least frequency, which is taken from all others.
    """
    windows = _windows(histogram)
    best: tuple[float, Table] | None = None
    for precision in precisions:
        least: tuple[float, Table] | None = None
        chosen = 0
        for k, window in enumerate(windows):  # fewer and fewer symbols
            found = _priced(histogram, precision, *window, precision - precisions[0])
            if found is None:  # the precision has no room for that many
                continue
            if least is not None and found[0] >= least[0]:
                break
            least, chosen = found, k
        if least is None:
            continue
        if best is None and least[1].frequencies.size <= FEW and histogram.total >= MANY:
            windows = [windows[chosen]]
        if best is None or least[0] < best[0]:
            best = least
    if best is None:  # more symbols than any precision has room for cannot happen: 4096 < 2^13
        raise AssertionError("no table fits")
    return best[1]


def _priced(
    histogram: Histogram, precision: int, lowest: int, counts: npt.NDArray[np.uint64], depth: int
) -> tuple[float, Table] | None:
    """A table and what it costs, in bytes and in the time that decoding takes; None if the symbols are too many."""
    least = histogram.total / math.log(2) / 2**precision / (PATCH_BITS - precision)
    counts = np.where(counts >= min(least, counts.max()), counts, 0)
    used = np.flatnonzero(counts)
    lowest += int(used[0])
    frequencies = _core.round_table(np.ascontiguousarray(counts[used[0] : used[-1] + 1]), precision)
    if frequencies is None:
        return None
    table = Table(precision, lowest, frequencies)
    wide = frequencies.size > 1 << (32 - 2 * precision)
    size = table.payload_bits(histogram) / 8 + table.side_bytes
    slowness = WIDE_PENALTY if wide else DEEP_PENALTY * depth
    return size * (1 + slowness * (histogram.total >= MANY)), table


def _windows(histogram: Histogram) -> list[tuple[int, npt.NDArray[np.uint64]]]:
    """Ranges of values worth a table: all of them, and those left when values seen once, twice, ... become patches."""
    counts = histogram.counts
    if counts.size == 0 or not counts.any():
        return [(0, np.ones(1, np.uint64))]
    windows: dict[tuple[int, int], None] = {}
    for threshold in (1, 2, 3, 5, 9):
        kept = np.flatnonzero(counts >= threshold)
        if kept.size == 0:
            break
        first, last = int(kept[0]), int(kept[-1]) + 1
        if last - first > MAX_ALPHABET:
            first = _densest(counts)
            last = min(first + MAX_ALPHABET, counts.size)
        if abs(histogram.lowest + first) <= FARTHEST:
            windows[first, last] = None
    if not windows:
        return [(0, np.ones(1, np.uint64))]
    return [(histogram.lowest + a, counts[a:b]) for a, b in windows]


def _densest(counts: npt.NDArray[np.uint64]) -> int:
    """Start of the stretch of MAX_ALPHABET values that holds the most."""
    sums = np.concatenate([[0], np.cumsum(counts)])
    return int(np.argmax(sums[MAX_ALPHABET:] - sums[:-MAX_ALPHABET]))


@dataclass(frozen=True, eq=False)
class Plan:
    """How a stream will be coded: tables, the table of every chunk, lanes, and the size this gives."""

    tables: list[Table]
    choice: list[int]
    lanes: int
    prelude: bytes
    nbytes: int  # predicted to within a few bytes a chunk

    @cached_property
    def native(self) -> _core.Prelude:
        """The prelude as the native core reads it."""
        return _core.Prelude(np.frombuffer(self.prelude, np.uint8))

    def piece(self, chunk: int, values: Integers) -> bytes:
        """Encode chunk number `chunk`."""
        table = self.choice[chunk]
        if table == VERBATIM:
            return bytes([VERBATIM]) + values.astype(np.uint8).tobytes()
        return _core.encode_chunk(values, self.native, table)


def plan(histograms: list[Histogram], *, verbatim: bool = False, fast: bool = False) -> Plan:
    """Choose tables for a stream from the histograms of its chunks.

    One table for all chunks is the start; a chunk whose own table saves more than it costs gets one, later chunks
    may share it. With `verbatim` (byte planes), chunks that do not compress are stored as they are.
    """
    precisions = PRECISIONS[:1] if verbatim else PRECISIONS
    tables = [fit(merge(histograms), precisions)]
    choice: list[int] = []
    bits: list[float] = []
    for histogram in histograms:
        costs = [t.payload_bits(histogram) for t in tables]
        best = int(np.argmin(costs))
        rival = min(costs[best], 8.0 * histogram.total) if verbatim else costs[best]
        saving = costs[best] - histogram.entropy_bits  # at most: what no table can beat
        if len(histograms) > 1 and len(tables) < MAX_TABLES and saving > max(200, LEAST_SAVING * rival):
            own = fit(histogram, precisions)
            if own.payload_bits(histogram) + 8 * own.side_bytes < rival * (1 - LEAST_SAVING):
                best = len(tables)
                tables.append(own)
                costs.append(own.payload_bits(histogram))
        if verbatim and costs[best] >= 8 * histogram.total:
            choice.append(VERBATIM)
            bits.append(8.0 * histogram.total)
        else:
            choice.append(best)
            bits.append(costs[best])
    tables, choice = _drop_unused(tables, choice)
    lanes = lanes_for(max(bits) / 8, fast=fast)
    head = prelude(tables, lanes)
    coded = sum(c != VERBATIM for c in choice)
    size = len(head) + sum(bits) / 8 + 2 * len(choice) + coded * (2 + 2 * lanes)
    return Plan(tables, choice, lanes, head, int(size))


def _drop_unused(tables: list[Table], choice: list[int]) -> tuple[list[Table], list[int]]:
    used = sorted(set(choice) - {VERBATIM}) or [0]
    renumbered = {old: new for new, old in enumerate(used)} | {VERBATIM: VERBATIM}
    return [tables[k] for k in used], [renumbered[c] for c in choice]


def lanes_for(payload: float, *, fast: bool = False) -> int:
    """Lanes for chunks of so many bytes: each costs 3 bytes, kept below 0.1 %; at most 32, which decode fastest."""
    if fast and payload >= 2**14:
        return 32
    lanes = 1
    while lanes < 32 and 6000 * lanes <= payload:
        lanes *= 2
    return lanes
