"""One tensor, compressed: its record, its pieces, and what the compression cost it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate, chain, pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tersor import _core
from tersor.coders import EncodedStream, chunk_data, open_prelude
from tersor.format.dtypes import Bytes
from tersor.format.layout import digest_of
from tersor.format.manifest import Entry, Step
from tersor.ops import open_entry
from tersor.ops.chunks import Chunk, Leaves

STRETCH = 2**16
"""Weights measured at a time."""


class Distortion(NamedTuple):
    """Sums over weights: of the squared error of the decoded ones, and of the squared original ones."""

    error: float = 0.0
    energy: float = 0.0

    @classmethod
    def between(cls, original: npt.NDArray[np.floating], decoded: npt.NDArray[np.floating]) -> Distortion:
        """That of `decoded` against `original`, a stretch at a time: float64 copies of a whole chunk would be large."""
        error = energy = 0.0
        with np.errstate(over="ignore"):
            for start in range(0, original.size, STRETCH):
                wide = original[start : start + STRETCH].astype(np.float64)
                difference = decoded[start : start + STRETCH] - wide
                error += float(np.square(difference, out=difference).sum())  # not BLAS: its sums depend on its threads
                energy += float(np.square(wide, out=wide).sum())
        return cls(error, energy)

    def __add__(self, other: Distortion) -> Distortion:  # type: ignore[override]
        return Distortion(self.error + other.error, self.energy + other.energy)


@dataclass(frozen=True, eq=False)
class Encoded:
    """A tensor as it will stand in the file, and what its decoded weights lost."""

    entry: Entry
    streams: tuple[EncodedStream, ...]
    distortion: Distortion = field(default_factory=Distortion)
    finite: bool = True  # False: there are NaN or infinite weights, kept bit for bit

    @property
    def pieces(self) -> Iterator[bytes]:
        """All pieces in the order of the file."""
        return chain.from_iterable(stream.pieces for stream in self.streams)

    @property
    def nbytes(self) -> int:
        """Bytes of its pieces in the file; its record in the manifest comes on top."""
        return self.entry.stored


def seal(
    name: str,
    dtype: str,
    shape: tuple[int, ...],
    step: Step,
    streams: list[EncodedStream],
    measure: Callable[[int, Bytes], Distortion] | None = None,
) -> Encoded:
    """Decode what was coded, as a reader will, to learn its digest and its distortion.

    `measure(start, decoded)` gives that of the decoded bytes that begin at byte `start` of the tensor.
    """
    draft = Entry(name, dtype, shape, 0, (step,))
    decoder = open_entry(draft, MemoryInputs(name, step, streams))
    leaves: list[Leaves] = []
    distortion = Distortion()
    for k, (start, end) in enumerate(pairwise(accumulate((n * decoder.width for n in decoder.counts), initial=0))):
        out = np.empty(end - start, np.uint8)
        leaves.append(decoder.decode(k, out))
        if measure is not None:
            distortion += measure(start, out)
    digest = digest_of(np.concatenate(leaves) if leaves else np.zeros(0, np.uint64), draft.words)
    entry = Entry(name, dtype, shape, digest, (step,))
    return Encoded(entry, tuple(streams), distortion)


class MemoryInputs:
    """The streams of a step that was just coded."""

    def __init__(self, name: str, step: Step, streams: list[EncodedStream]) -> None:
        self.where = f"tensor {name!r}"
        self._step = step
        self._streams = streams
        self._preludes: dict[int, _core.Prelude | None] = {}

    def prelude(self, stream: int) -> _core.Prelude | None:
        """The opened prelude of a stream, if it has one."""
        if stream not in self._preludes:
            record = self._step.streams[stream]
            self._preludes[stream] = open_prelude(record, self._streams[stream].pieces[0]) if record.preludes else None
        return self._preludes[stream]

    def chunk(self, stream: int, chunk: int) -> Chunk:
        """What a chunk of a stream is decoded from."""
        record, pieces = self._step.streams[stream], self._streams[stream].pieces
        data = chunk_data(record, chunk, pieces[record.preludes + chunk], self.where)
        return Chunk(self.prelude(stream), data)

    def keep(self, nbytes: int) -> None:
        """Whoever encodes has the whole tensor in memory: what its reader needs is little beside it."""
