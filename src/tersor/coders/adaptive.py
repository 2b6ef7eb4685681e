"""Coder `adaptive`: mixed adaptive models of binary decisions (spec/ADAPTIVE.md), slower and smaller than `rans`.

Binary decisions with adaptive contexts for weights: Wiedemann et al., "DeepCABAC" (arXiv 1907.11900); logistic mixing:
Mahoney, "Adaptive weighing of context models for lossless data compression" (2005). The coding itself is native; this
module says where a symbol's neighbours are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tersor import _core
from tersor.coders.varint import varint

Integers = npt.NDArray[np.int32]

CHUNK = 2**20
"""Learning starts anew in each chunk, so they are as large as the format allows."""
MAX_COLUMNS = 2**16
MIN_PERIOD, MAX_PERIOD = 3, 2**12
SAMPLE = 2**15
"""Symbols that alternatives are tried on."""


@dataclass(frozen=True)
class Plan:
    """What all chunks of a stream share."""

    columns: int  # symbols in a row
    period: int = 0  # distance of equal positions of a convolution's kernel, 0 if there is none
    centre: int = 0  # the differences from it are coded
    chunk: int = CHUNK  # symbols

    @property
    def prelude(self) -> bytes:
        """The first piece of the stream."""
        zigzag = 2 * self.centre if self.centre >= 0 else -2 * self.centre - 1
        return b"".join(map(varint, (self.columns, self.period, zigzag)))

    def piece(self, chunk: int, values: Integers) -> bytes:
        """Encode chunk number `chunk`."""
        return self.encode(chunk * self.chunk, values)

    def encode(self, first: int, values: Integers) -> bytes:
        """Encode values as the chunk that starts at symbol `first` of the stream."""
        return _core.encode_adaptive(values, np.frombuffer(self.prelude, np.uint8), first)


def plan(values: Callable[[int], Integers], count: int, chunk: int, row_length: int, kernel: int) -> Plan:
    """The best plan for levels given chunk by chunk, `row_length` to a row, in which the `kernel` positions of a
    convolution recur; tries alternatives on a sample."""
    columns = row_length if 0 < row_length <= MAX_COLUMNS else max(kernel, 1)
    period = kernel if MIN_PERIOD <= kernel < min(columns, MAX_PERIOD + 1) else 0
    middle = -(-count // chunk) // 2
    sample = np.ascontiguousarray(values(middle)[:SAMPLE])
    centre = int(np.median(sample)) if sample.size and sample.min() >= 0 else 0  # indices of a codebook
    plans = [Plan(columns, p, c, chunk) for p in {0: None, period: None} for c in {0: None, centre: None}]
    if len(plans) == 1:
        return plans[0]
    return min(plans, key=lambda p: len(p.piece(middle, sample)))
