"""Integers <-> bytes. A stream is coded chunk by chunk; every coder is tried and the smallest result is kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tersor.coders import rans, zstd
from tersor.format.layout import LEAF, checksum
from tersor.format.manifest import INTEGER_TYPES, Stream

Integers = npt.NDArray[np.int32]

NUMPY = {"u8": "u1", "i8": "i1", "i16": "<i2", "i32": "<i4"}
ZSTD_SAMPLE = 2**14
"""Symbols of a chunk that zstd is tried on before it gets the whole stream: it is slow, and rarely the smallest."""
CORE_TYPES = {"u8": 0, "i8": 1, "i16": 2, "i32": 3}


@dataclass(frozen=True, eq=False)
class EncodedStream:
    """A stream and the bytes of its pieces."""

    stream: Stream
    pieces: tuple[bytes, ...]


@dataclass(frozen=True, eq=False)
class Symbols:
    """Integers to code, produced chunk by chunk as often as asked, so that they need not all be in memory."""

    count: int
    chunk: int
    values: Callable[[int], Integers]

    @classmethod
    def of(cls, values: npt.NDArray[np.integer], chunk: int = LEAF) -> Symbols:
        """Symbols that are in memory already."""
        flat = values.reshape(-1)
        return cls(flat.size, chunk, lambda k: flat[k * chunk : (k + 1) * chunk].astype(np.int32, copy=False))

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.count // self.chunk)


def integer_type(lowest: int, highest: int) -> str:
    """The narrowest signed type that holds both."""
    for kind in ("i8", "i16"):
        reach = 1 << (8 * INTEGER_TYPES[kind] - 1)
        if -reach <= lowest and highest < reach:
            return kind
    return "i32"


def encode(symbols: Symbols, kind: str, histograms: list[rans.Histogram] | None = None) -> EncodedStream:
    """Code `symbols` of integer type `kind` with whichever coder gives the fewest bytes."""
    if symbols.count == 0:
        return EncodedStream(Stream("raw", kind, 0, symbols.chunk, (), ()), ())
    if histograms is None:
        histograms = [rans.Histogram.of(symbols.values(k)) for k in range(symbols.chunks)]
    plan = rans.plan(histograms, verbatim=kind == "u8")
    stored = symbols.count * INTEGER_TYPES[kind]
    if _zstd_looks_better(symbols, kind, min(plan.nbytes, stored)):
        pieces = [zstd.pack(_plain(symbols.values(k), kind)) for k in range(symbols.chunks)]
        if sum(map(len, pieces)) < min(plan.nbytes, stored):
            return _encoded("zstd", symbols, kind, pieces)
    if plan.nbytes < stored:
        pieces = [plan.prelude, *(plan.pieces(k, symbols.values(k)) for k in range(symbols.chunks))]
        if sum(map(len, pieces)) < stored:  # the plan guesses at patches: far values take more
            return _encoded("rans", symbols, kind, pieces)
    return _encoded("raw", symbols, kind, [_plain(symbols.values(k), kind) for k in range(symbols.chunks)])


def _plain(values: Integers, kind: str) -> bytes:
    return values.astype(NUMPY[kind]).tobytes()


def _zstd_looks_better(symbols: Symbols, kind: str, rival: int) -> bool:
    """Whether zstd beats `rival` bytes for the stream, judged by the beginnings of its first, middle and last chunk."""
    if not zstd.available() or rival < 32:
        return False
    parts = [symbols.values(k)[:ZSTD_SAMPLE] for k in sorted({0, symbols.chunks // 2, symbols.chunks - 1})]
    size = sum(len(zstd.pack(_plain(part, kind))) for part in parts)
    return size < rival * sum(part.size for part in parts) / symbols.count


def _encoded(coder: str, symbols: Symbols, kind: str, pieces: list[bytes]) -> EncodedStream:
    sizes, checksums = tuple(map(len, pieces)), tuple(map(checksum, pieces))
    return EncodedStream(Stream(coder, kind, symbols.count, symbols.chunk, sizes, checksums), tuple(pieces))


def chunk_input(
    stream: Stream, chunk: int, prelude: bytes, piece: bytes, where: str
) -> tuple[npt.NDArray[np.uint8] | None, npt.NDArray[np.uint8]]:
    """What the native core needs to decode one chunk: the prelude if the coder has one, and the bytes."""
    if stream.coder == "zstd":
        size = min(stream.chunk, stream.count - chunk * stream.chunk) * INTEGER_TYPES[stream.type]
        piece = zstd.unpack(piece, size, where)
    head = np.frombuffer(prelude, np.uint8) if stream.coder == "rans" else None
    return head, np.frombuffer(piece, np.uint8)
