"""Coder `runs`: levels that are nearly all zero (spec/FORMAT.md, section 6.7).

A token is a level behind fewer than 2^k zeros, whose number is stored in k bits, or stands for 2^k zeros. Runs of
levels that do not depend on each other are geometric, and so are their numbers of whole 2^k: one table of the levels,
zero included, codes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tersor import _core
from tersor.coders import rans
from tersor.format.manifest import PRELUDES

Integers = npt.NDArray[np.int32]

MOST_LEVELS = 1 / 16
"""Share of levels that are not zero from which on there is nothing to gain."""
FEWEST = 2**16
"""Symbols below which the speed of decoding does not matter."""
LONGER = 3e-4
"""Share by which the stream may become longer where that makes tokens fewer, which are what decoding takes time for."""
MAX_BITS = 15
PRECISIONS = 12, 13


@dataclass(frozen=True, eq=False)
class PlanRuns:
    """How a stream will be coded: the table of its tokens, and the size this gives."""

    prelude: bytes
    nbytes: int  # predicted to within a few bytes a chunk
    native: _core.Prelude

    def piece(self, chunk: int, values: Integers) -> bytes:
        """Encode a chunk; they are all coded alike."""
        del chunk
        return _core.encode_runs(values, self.native)


def plan(values: Callable[[int], Integers], count: int, chunk: int, whole: rans.Histogram) -> PlanRuns | None:
    """A plan for a stream of `count` levels; `whole` counts them all. None where they are too few, or too many of them
    are not zero."""
    zero = -whole.lowest
    zeros = int(whole.counts[zero]) if 0 <= zero < whole.counts.size else 0
    levels = count - zeros
    if count < FEWEST or levels > MOST_LEVELS * count or whole.total != whole.counts.sum():
        return None
    chunks = -(-count // chunk)
    skips = np.zeros(MAX_BITS + 1, np.uint64)
    for k in range(chunks):
        _core.count_runs(values(k), skips)
    tokens = [_tokens(whole, zero, number) for number in skips]
    sizes = [t.entropy_bits + bits * levels for bits, t in enumerate(tokens)]
    bits = max(k for k in range(1, MAX_BITS + 1) if sizes[k] <= min(sizes[1:]) * (1 + LONGER))
    table = rans.fit(tokens[bits], PRECISIONS)
    payload = table.payload_bits(tokens[bits]) / 8
    lanes = rans.lanes_for(payload / chunks)
    prelude = rans.write_tables(bytes([lanes.bit_length() - 1, bits]), [table])
    native = _core.Prelude(np.frombuffer(prelude, np.uint8), PRELUDES.index("runs"))
    size = len(prelude) + payload + bits * levels / 8 + chunks * (4 + 2 * lanes)
    return PlanRuns(prelude, math.ceil(size), native)


def _tokens(whole: rans.Histogram, zero: int, skips: np.uint64) -> rans.Histogram:
    """The levels that are not zero, and tokens of zeros."""
    counts = whole.counts.copy()
    counts[zero] = skips
    return rans.Histogram(whole.lowest, counts, int(counts.sum()))
