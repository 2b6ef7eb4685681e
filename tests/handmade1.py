"""What format 1.2 added, put together by hand from spec/FORMAT.md: coder `rans1` (section 6.6). See handmade.py."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from handmade import LEAF, Stream, Table, Values, coded, plain, prelude

BLOCK = 2048


def places(count: int, lanes: int) -> list[int]:
    """Where the symbols of a chunk stand that are coded as number 0, 1, ..."""
    found: list[int] = []
    for start in range(0, count, BLOCK):
        m = min(BLOCK, count - start)
        q = m // lanes
        found += [start + (j % lanes * q + j // lanes if j < q * lanes else j) for j in range(m)]
    return found


@dataclass(frozen=True, eq=False)
class Contexts:
    """Tables by the size of the level before."""

    tables: Sequence[Table]
    lanes: int = 1

    def prelude(self) -> bytes:
        """The first piece."""
        return prelude(self.tables, self.lanes)

    def chunk(self, values: Sequence[int], patches: Mapping[int, int] | None = None) -> bytes:
        """A chunk. `patches` (number in the order of coding -> value) come on top of those a table lacks."""
        decoded, symbols, numbers, patched = list[int](), list[int](), list[int](), dict[int, int]()
        for i, place in enumerate(places(len(values), self.lanes)):
            before = decoded[i - self.lanes] if i >= self.lanes else 0
            sign = -1 if before < 0 else 1
            table = self.tables[min(abs(before), len(self.tables) - 1)]
            symbol = sign * values[place]
            if not (0 <= symbol - table.lowest < len(table.frequencies) and table.frequencies[symbol - table.lowest]):
                patched[i], symbol = values[place], table.lowest + table.mode
            decoded.append(sign * symbol)
            symbols.append(symbol)
            numbers.append(min(abs(before), len(self.tables) - 1))
        return b"\0" + coded(symbols, numbers, self.tables, self.lanes, patched | dict(patches or {}))

    def stream(self, values: Values, kind: str, chunk: int = LEAF, verbatim: Collection[int] = ()) -> Stream:
        """All values; the chunks with these numbers are stored as they are."""
        pieces = [self.prelude()]
        flat = values.reshape(-1)
        for k, at in enumerate(range(0, flat.size, chunk)):
            part = flat[at : at + chunk]
            pieces.append(b"\xff" + plain(part, kind) if k in verbatim else self.chunk(part.tolist()))
        return Stream("rans1", kind, flat.size, tuple(pieces), chunk)


def by_size(count: int, precision: int, *, reach: int = 12) -> list[Table]:
    """Tables for levels that resemble the one before: bells that move up and widen."""
    values = np.arange(-reach, reach + 1)
    return [
        Table.of_counts(-reach, np.rint(1e5 * np.exp(-np.abs(values - k / 2) / (1 + k / 3))).astype(np.int64) + 1,
                        precision, rice=2)
        for k in range(count)
    ]  # fmt: skip


def similar(count: int, spread: float, seed: int) -> Values:
    """Integers each of which resembles the one before."""
    noise = np.random.default_rng(seed).laplace(0, spread, count + 1)
    return np.rint(noise[1:] + 0.6 * noise[:-1]).astype(np.int64)
