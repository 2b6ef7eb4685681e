"""Coder `rans`: interleaved range asymmetric numeral systems over integer tables (spec/FORMAT.md, section 6).

Duda, "Asymmetric numeral systems" (arXiv 1311.2540); interleaving after Giesen (arXiv 1402.3392). This module chooses
tables; the coding itself is native.
"""

from __future__ import annotations

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
PRECISIONS = 12, 15
"""The least and the most that is tried."""
MANY = _core.MANY
"""Symbols from which on the time of decoding counts; fewer are decoded soon in any case."""
MAX_TABLES = 255
LEAST_SAVING = 0.002
"""Share of a chunk that a table of its own must save: each one takes time to build when decoding."""
VERBATIM = 255
WIDEST = 65536
"""Most values a histogram lists."""


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
        return float(_core.entropies(self.counts[None])[0][0])


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
    def side_bytes(self) -> int:
        """Bytes the table takes in a prelude."""
        return len(prelude([self], 1)) - 2

    def payload_bits(self, histogram: Histogram) -> float:
        """Bits of the symbols in `histogram` under this table."""
        return _core.payload_bits(self.precision, self.lowest, self.frequencies, *histogram)


def prelude(tables: list[Table], lanes: int) -> bytes:
    """The first piece of a stream: its lanes and tables."""
    return write_tables(bytes([lanes.bit_length() - 1, len(tables)]), tables)


def write_tables(head: bytes, tables: list[Table]) -> bytes:
    """Bytes, then tables as one string of bits."""
    entries = [(t.precision, t.lowest, t.frequencies) for t in tables]
    return _core.write_tables(np.frombuffer(head, np.uint8), entries)


def fit(histogram: Histogram, precisions: tuple[int, int] = PRECISIONS) -> Table:
    """The table, of a precision from one to another, that codes `histogram`, itself included, in the fewest bytes."""
    return Table(*_core.fit_table(*histogram, *precisions))


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
    precisions = (PRECISIONS[0], PRECISIONS[0]) if verbatim else PRECISIONS
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
