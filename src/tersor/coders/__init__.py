"""Integers <-> bytes. A stream is coded chunk by chunk; every coder is tried and the smallest result is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tersor import _core
from tersor.coders import adaptive, rans, rans1, rans2d, runs, zstd
from tersor.coders.pieces import Pieces
from tersor.format.layout import LEAF, checksum
from tersor.format.limits import Limits
from tersor.format.manifest import INTEGER_TYPES, PRELUDES, Stream

Integers = npt.NDArray[np.int32]
Plan = rans.Plan | rans1.Plan1 | rans2d.Plan2D | runs.PlanRuns | adaptive.Plan

NUMPY = {"u8": "u1", "i8": "i1", "i16": "<i2", "i32": "<i4"}
ZSTD_SAMPLE = 2**14
"""Symbols of a chunk that zstd is tried on before it gets the whole stream: it is slow, and rarely the smallest."""
LEAST_FOR_CLASSES = 256
"""Bytes below which several tables cannot pay."""
CLASS_SAVING = 0.002
"""Share of a stream that several tables must save: decoding takes somewhat longer with them."""
RUNS_LONGER = 1e-3
"""Share by which a stream may become longer with coder `runs`, which decodes sparse ones many times faster."""
LEAST_RIVALRY = 0.5
"""Share of what tables by row and column save that those by the level before must promise, to be counted in full."""
CORE_TYPES = {"u8": 0, "i8": 1, "i16": 2, "i32": 3}


@dataclass(frozen=True, eq=False)
class EncodedStream:
    """A stream and the bytes of its pieces."""

    stream: Stream
    pieces: Sequence[bytes]


@dataclass(frozen=True, eq=False)
class Symbols:
    """Integers to code, produced chunk by chunk as often as asked, so that they need not all be in memory."""

    count: int
    chunk: int
    values: Callable[[int], Integers]
    row_length: int = 0  # symbols in a row, where rows and columns may differ in scale; 0 where there are none
    kernel: int = 0  # positions of a convolution's kernel, which recur within a row; 0 where there is none
    slow: bool = False  # the coder `adaptive` may be used
    fast: bool = False  # bytes beside streams so large that the lanes that decode fastest do not count

    @classmethod
    def of(
        cls,
        values: npt.NDArray[np.integer],
        chunk: int = LEAF,
        row_length: int = 0,
        kernel: int = 0,
        slow: bool = False,
    ) -> Symbols:
        """Symbols that are in memory already."""
        flat = values.reshape(-1)

        def part(k: int) -> Integers:
            return flat[k * chunk : (k + 1) * chunk].astype(np.int32, copy=False)

        return cls(flat.size, chunk, part, row_length, kernel, slow)

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.count // self.chunk)

    @property
    def layout(self) -> tuple[Callable[[int], Integers], int, int]:
        """Values of a chunk, symbols in all, and of a chunk."""
        return self.values, self.count, self.chunk

    def __iter__(self) -> Iterator[Integers]:
        return map(self.values, range(self.chunks))


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
    histograms = histograms or _histograms(symbols)
    coder, plan = one_table(symbols, kind, histograms)
    limit = min(plan.nbytes, symbols.count * INTEGER_TYPES[kind])
    if symbols.slow:
        mixed = adaptive.plan(*symbols.layout, symbols.row_length, symbols.kernel)
        encoded = _encoded("adaptive", symbols, kind, _coded(mixed, symbols))
        if symbols.count / Limits.adaptive_expansion <= encoded.stream.nbytes < limit:
            return encoded
    if _zstd_looks_better(symbols, kind, limit):
        encoded = _encoded("zstd", symbols, kind, (zstd.pack(_plain(v, kind)) for v in symbols))
        if encoded.stream.nbytes < limit:
            return encoded
    other, tabled = several_tables(symbols, kind, histograms, plan.nbytes)
    if tabled is not None and tabled.nbytes < limit:
        return _encoded(other, symbols, kind, _coded(tabled, symbols))
    if plan.nbytes == limit:
        encoded = _encoded(coder, symbols, kind, _coded(plan, symbols))
        if encoded.stream.nbytes < symbols.count * INTEGER_TYPES[kind]:  # the plan guesses at patches
            return encoded
    return _encoded("raw", symbols, kind, (_plain(v, kind) for v in symbols))


def coded_bytes(symbols: Symbols, kind: str = "i32") -> int:
    """Bytes that `encode` will give, to 0.5 %, without coding anything. Where rows are given the gain of tables by
    row, column and level before is in; coders `zstd` and `adaptive` are not."""
    if symbols.count == 0:
        return 0
    histograms = _histograms(symbols)
    alone = one_table(symbols, kind, histograms)[1].nbytes
    _, several = several_tables(symbols, kind, histograms, alone)
    return min(alone, symbols.count * INTEGER_TYPES[kind], several.nbytes if several is not None else alone)


def _histograms(symbols: Symbols) -> list[rans.Histogram]:
    return [rans.Histogram.of(values) for values in symbols]


def one_table(symbols: Symbols, kind: str, histograms: list[rans.Histogram]) -> tuple[str, rans.Plan | runs.PlanRuns]:
    """Coder `rans`, or `runs` where that decodes much faster and is not noticeably longer."""
    plan = rans.plan(histograms, verbatim=kind == "u8", fast=symbols.fast)
    sparse = runs.plan(*symbols.layout, rans.merge(histograms))
    if sparse is not None and sparse.nbytes <= plan.nbytes * (1 + RUNS_LONGER):
        return "runs", sparse
    return "rans", plan


def several_tables(
    symbols: Symbols, kind: str, histograms: list[rans.Histogram], rival: int
) -> tuple[str, rans1.Plan1 | rans2d.Plan2D | None]:
    """Tables by row and column, or by the level before, if they save enough of `rival` bytes."""
    if symbols.row_length == 0 or kind == "u8" or rival < LEAST_FOR_CLASSES:
        return "rans", None
    whole = rans.merge(histograms)
    classed = rans2d.best_plan(*symbols.layout, symbols.row_length, symbols.kernel, whole)
    saved = 1 - classed.nbytes / rival if classed is not None else 0.0
    contexts = rans1.plan(*symbols.layout, whole, max(rans1.LEAST_PROMISE, LEAST_RIVALRY * saved))
    plans = (("rans2d", classed), ("rans1", contexts))
    paying = [(coder, plan) for coder, plan in plans if plan is not None and plan.nbytes < rival * (1 - CLASS_SAVING)]
    return min(paying, key=lambda pair: pair[1].nbytes, default=("rans", None))


def _coded(plan: Plan, symbols: Symbols) -> Iterator[bytes]:
    yield plan.prelude
    for k, values in enumerate(symbols):
        yield plan.piece(k, values)


def _plain(values: Integers, kind: str) -> bytes:
    return values.astype(NUMPY[kind]).tobytes()


def _zstd_looks_better(symbols: Symbols, kind: str, rival: int) -> bool:
    """Whether zstd beats `rival` bytes for the stream, judged by the beginnings of its first, middle and last chunk."""
    if not zstd.available() or rival < 32:
        return False
    parts = [symbols.values(k)[:ZSTD_SAMPLE] for k in sorted({0, symbols.chunks // 2, symbols.chunks - 1})]
    size = sum(len(zstd.pack(_plain(part, kind))) for part in parts)
    return size < rival * sum(part.size for part in parts) / symbols.count


def _encoded(coder: str, symbols: Symbols, kind: str, pieces: Iterable[bytes]) -> EncodedStream:
    kept = Pieces(pieces)
    checksums = tuple(map(checksum, kept))
    return EncodedStream(Stream(coder, kind, symbols.count, symbols.chunk, kept.sizes, checksums), kept)


def open_prelude(stream: Stream, data: bytes) -> _core.Prelude:
    """The first piece of a stream that has one, parsed for all of its chunks."""
    return _core.Prelude(np.frombuffer(data, np.uint8), PRELUDES.index(stream.coder), stream.count)


def chunk_data(stream: Stream, chunk: int, piece: bytes, where: str) -> npt.NDArray[np.uint8]:
    """The bytes of one chunk as the native core decodes them."""
    if stream.coder == "zstd":
        size = min(stream.chunk, stream.count - chunk * stream.chunk) * INTEGER_TYPES[stream.type]
        piece = zstd.unpack(piece, size, where)
    return np.frombuffer(piece, np.uint8)
