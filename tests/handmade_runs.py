"""What format 1.3 added, put together by hand from spec/FORMAT.md: coder `runs` (section 6.7). See handmade.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from handmade import LEAF, Bits, Stream, Table, Values, coded, prelude, split, varint


@dataclass(frozen=True, eq=False)
class Runs:
    """One table of tokens, and the bits of low parts."""

    table: Table
    bits: int
    lanes: int = 1

    def prelude(self) -> bytes:
        """The first piece."""
        data = prelude([self.table], self.lanes)
        return data[:1] + bytes([self.bits]) + data[2:]

    def tokens(self, values: Sequence[int]) -> tuple[list[int], list[int]]:
        """Those of a chunk, and the low parts."""
        tokens, parts, zeros = list[int](), list[int](), 0
        for value in values:
            if value != 0:
                tokens += [0] * (zeros >> self.bits) + [value]
                parts.append(zeros % (1 << self.bits))
            zeros = 0 if value else zeros + 1
        return tokens + [0] * (zeros >> self.bits), parts

    def chunk(self, values: Sequence[int]) -> bytes:
        """A chunk; what the table lacks is patched."""
        tokens, parts = self.tokens(values)
        return varint(len(parts)) + self.parts(parts) + self.body(tokens)

    def parts(self, parts: Sequence[int]) -> bytes:
        """Low parts as they are stored."""
        bits = Bits()
        for part in parts:
            bits.number(part, self.bits)
        return bits.pack()

    def body(self, tokens: Sequence[int], patches: Mapping[int, int] | None = None) -> bytes:
        """Tokens as they are stored. `patches` (number of a token -> value) come on top of those the table lacks."""
        return coded(tokens, [0] * len(tokens), [self.table], self.lanes, patches)

    def stream(self, values: Values, kind: str = "i8", chunk: int = LEAF) -> Stream:
        """All values."""
        if values.size == 0:
            return Stream("runs", kind, 0, (), chunk)
        pieces = (self.prelude(), *(self.chunk(part.tolist()) for part in split(values, chunk)))
        return Stream("runs", kind, values.size, pieces, chunk)


def sparse(count: int, share: float, seed: int, spread: float = 1.0) -> Values:
    """Integers of which this share is not zero."""
    rng = np.random.default_rng(seed)
    size = 1 + np.floor(rng.exponential(spread, count)).astype(np.int64)
    return np.where(rng.random(count) < share, size * rng.choice([-1, 1], count), 0)


def table(bits: int, share: float, precision: int = 12, reach: int = 6) -> Table:
    """For the tokens of such integers: mostly zeros."""
    values = np.arange(-reach, reach + 1)
    skips = 1 / (1 - (1 - share) ** (1 << bits)) - 1
    counts = np.where(values == 0, max(skips, 1e-3), np.exp(-abs(values)) / 2 * (np.e - 1))
    return Table.of_counts(-reach, np.rint(1e6 * counts).astype(np.int64) + 1, precision, rice=2)
