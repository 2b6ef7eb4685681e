"""Coded pieces of a stream: in memory while they are few, in a temporary file once they are many."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import overload

SPOOL = 2**24
"""Bytes of a stream that stay in memory: those of a large tensor would double what compressing it takes."""


class Pieces(Sequence[bytes]):
    """A list of byte strings that are consumed once and then read one at a time. Not for several threads."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._file = tempfile.SpooledTemporaryFile(SPOOL)  # noqa: SIM115 - lives as long as the pieces
        self.sizes = tuple(self._file.write(piece) for piece in pieces)
        self._starts = list(accumulate(self.sizes, initial=0))

    def __len__(self) -> int:
        return len(self.sizes)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | list[bytes]:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        start, size = self._starts[range(len(self))[index]], self.sizes[index]
        self._file.seek(start)
        return self._file.read(size)

    def __del__(self) -> None:
        self._file.close()
