"""Coder `rans1`: rANS with a table for every size of the level before (spec/FORMAT.md, section 6.6).

Neighbouring levels resemble each other in size and sign where kernels are long. Each lane runs along 64 neighbours, so
that the level before is known to it without waiting for another lane; levels behind a negative one have their sign
turned, which halves the tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tersor import _core
from tersor.coders import rans, rans2d
from tersor.format.manifest import PRELUDES

Integers = npt.NDArray[np.int32]
Counts = npt.NDArray[np.uint64]

MOST_CONTEXTS = 16
LARGEST = 1023
"""Farthest level from zero: more are coded in two streams, high and low bits."""
SAMPLE = 2**16
"""Symbols of the middle chunk that decide whether it is worth a closer look."""
LEAST_PROMISE = 0.002
"""Share of the bits that contexts must save there."""
TABLE_BITS = 7.0
"""Rough price of a level in a table."""


@dataclass(frozen=True, eq=False)
class Plan1:
    """How a stream will be coded: tables, and the size this gives."""

    prelude: bytes
    nbytes: int  # predicted to within a few bytes a chunk
    native: _core.Prelude

    def piece(self, chunk: int, values: Integers) -> bytes:
        """Encode a chunk; they are all coded alike."""
        del chunk
        return _core.encode_chunk(values, self.native)


def plan(
    values: Callable[[int], Integers], count: int, chunk: int, whole: rans.Histogram, least: float = LEAST_PROMISE
) -> Plan1 | None:
    """Tables for a stream of `count` levels; `whole` counts them all.

    None where one table is as good, or a sample promises to save less than a share `least`.
    """
    reach = max(-whole.lowest, whole.lowest + whole.counts.size - 1)
    if whole.counts.size < 2 or whole.total != whole.counts.sum() or reach > LARGEST:
        return None
    chunks = -(-count // chunk)
    lanes = rans.lanes_for(whole.entropy_bits / 8 / chunks)
    sample = np.ascontiguousarray(values(chunks // 2)[:SAMPLE])
    if _best(_count([sample], lanes, reach))[1] > rans.Histogram.of(sample).entropy_bits * (1 - least):
        return None
    contexts, _ = _best(_count((values(k) for k in range(chunks)), lanes, reach))
    return _finish(contexts, reach, lanes, chunks)


def _count(parts: Iterable[Integers], lanes: int, reach: int) -> Counts:
    """How often every level from -reach on occurs in each context: (MOST_CONTEXTS, 2 reach + 1)."""
    counts = np.zeros((MOST_CONTEXTS, 2 * reach + 1), np.uint64)
    for part in parts:
        _core.context_histogram(part, lanes, reach, counts.reshape(-1))
    return counts


def _best(counts: Counts) -> tuple[Counts, float]:
    """Counts with the last contexts made one as that is shorter, and an estimate of the bits, tables included."""
    bits, last = _bits(counts), _bits(np.cumsum(counts[::-1], axis=0, dtype=np.uint64)[::-1])
    totals = np.cumsum(bits) - bits + last
    k = int(np.argmin(totals))
    return np.concatenate([counts[:k], counts[k:].sum(0, keepdims=True, dtype=np.uint64)]), float(totals[k])


def _bits(counts: Counts) -> npt.NDArray[np.float64]:
    """Of every row, with its table."""
    bits, present = _core.entropies(counts)
    return bits + TABLE_BITS * present + 30 * (present > 0)


def _finish(contexts: Counts, reach: int, lanes: int, chunks: int) -> Plan1 | None:
    """Tables and the prelude; None where one context is left."""
    if len(contexts) == 1:
        return None
    used = np.flatnonzero(contexts.any(0))
    first, behind = int(used[0]), int(used[-1]) + 1
    precision = rans2d.PRECISION if behind - first <= rans2d.PACKED else rans2d.WIDE_PRECISION
    histograms = [rans.Histogram(-reach, row, int(row.sum())) for row in contexts]
    tables = [rans.fit(histogram, (precision, precision)) for histogram in histograms]
    payload = sum(table.payload_bits(histogram) for table, histogram in zip(tables, histograms, strict=True))
    prelude = rans.prelude(tables, lanes)
    native = _core.Prelude(np.frombuffer(prelude, np.uint8), PRELUDES.index("rans1"))
    return Plan1(prelude, math.ceil(len(prelude) + payload / 8 + chunks * (2 + 2 * lanes)), native)
