"""The entropy coders of tersor beside those of others, on the same integers, in one run.

For every stream (benchmarks/coding_streams.py) and coder: bytes, tables and other side information counted (sizes and
checksums in manifests not, for anybody); excess over the entropy of order 0 and over that of rows of known scale (for
real levels: of the histogram of every row, which no code reaches for short rows); million symbols a second of CPU time,
encoding and decoding, the best of rounds in which the coders take turns. Every coder's output is decoded and compared.
Coders of bytes get int8, or int16 where levels need it; tersor and constriction get int32, into new arrays.

Needs: benchmarks/networks/setup.sh; for the peers `pip install constriction==0.5.0 zstandard==0.25.0 brotli==1.2.1`,
Debian's libhtscodecs2 (`apt-get install libhtscodecs2`) and benchmarks/peers/setup.sh. Peers that are missing are left
out.

    python -m benchmarks.coding [NAME ...]    (NAME: iid, rows, codebook, delta, lowrank or a network; others stay)
"""

import ctypes
import ctypes.util
import importlib
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from benchmarks import coding_streams as streams
from benchmarks.coding_streams import Levels, Stream
from benchmarks.common import PEERS, Table
from tersor import _core
from tersor.coders import CORE_TYPES, Plan, Symbols, adaptive, one_table, rans, several_tables
from tersor.format.layout import chunk_counts
from tersor.format.manifest import PRELUDES

CHUNK = 2**20
"""Symbols of a chunk of all but `adaptive`."""
I32 = CORE_TYPES["i32"]
REFERENCE = "DeepCABAC"


class Coded(NamedTuple):
    nbytes: int
    data: Any
    narrow: bool = False  # levels fit in int8, to which they are decoded


class Coder(Protocol):
    """Codes one tensor at a time; seconds are of the CPU."""

    @property
    def name(self) -> str: ...

    def encode(self, levels: Levels) -> tuple[Coded, float]: ...

    def decode(self, coded: Coded, levels: Levels) -> float:
        """Raises ArithmeticError if something else than `levels` comes back."""
        ...


class Local(NamedTuple):
    """A coder in this process: what it takes is prepared beforehand and not timed."""

    name: str
    prepare: Callable[[Levels], npt.NDArray[Any]]
    pack: Callable[[npt.NDArray[Any]], Coded]
    unpack: Callable[[Coded], Any]

    def encode(self, levels: Levels) -> tuple[Coded, float]:
        prepared = self.prepare(levels)
        start = time.process_time()
        coded = self.pack(prepared)
        return coded, time.process_time() - start

    def decode(self, coded: Coded, levels: Levels) -> float:
        start = time.process_time()
        found = self.unpack(coded)
        seconds = time.process_time() - start
        wanted = self.prepare(levels)
        as_bytes = found.dtype == np.uint8  # coders that know nothing but bytes
        same = found.tobytes() == wanted.tobytes() if as_bytes else np.array_equal(found, wanted.reshape(-1))
        if not same:
            raise ArithmeticError(f"{self.name} does not give back what it was given")
        return seconds


class DeepCabac:
    """NNCodec's coder, in an environment of its own (peers/nncodec_coder.py)."""

    name = REFERENCE

    def __init__(self, folder: Path) -> None:
        python, script = PEERS / ".venv-nncodec" / "bin" / "python", PEERS / "nncodec_coder.py"
        if not python.exists():
            raise FileNotFoundError(python)
        self._path = folder / "levels.npy"
        self._process = subprocess.Popen([python, script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def encode(self, levels: Levels) -> tuple[Coded, float]:
        np.save(self._path, narrow(levels).reshape(levels.shape))
        answer = self._ask({"encode": str(self._path)})
        return Coded(answer["bytes"], None), answer["seconds"]

    def decode(self, coded: Coded, levels: Levels) -> float:
        del coded, levels  # the other process has kept its last ones
        answer = self._ask({"decode": True})
        if not answer["same"]:
            raise ArithmeticError(f"{self.name} does not give back what it was given")
        return answer["seconds"]


def narrow(levels: Levels) -> npt.NDArray[Any]:
    """As int8, int16 or int32, whatever holds the levels."""
    low, high = int(levels.min(initial=0)), int(levels.max(initial=0))
    kind = next(k for k in (np.int8, np.int16, np.int32) if np.iinfo(k).min <= low and high <= np.iinfo(k).max)
    return np.ascontiguousarray(levels.astype(kind))


def tersor_coders() -> Iterator[Coder]:
    """Of this package: one table (`rans`, or `runs` where levels are sparse); the smallest of these, `rans1` and
    `rans2d`, as in files (`fast`); `adaptive`."""

    def histograms(levels: Levels) -> list[rans.Histogram]:
        flat = levels.reshape(-1)
        return [rans.Histogram.of(flat[k : k + CHUNK]) for k in range(0, flat.size, CHUNK)]

    def coded(levels: Levels, counts: list[rans.Histogram], coder: str, plan: Plan) -> Coded:
        pieces = [plan.piece(k, part) for k, part in enumerate(Symbols.of(levels, CHUNK))]
        data = plan.prelude, pieces, levels.size, coder
        narrow = all(c.lowest >= -128 and c.lowest + c.counts.size <= 128 for c in counts)
        return Coded(len(plan.prelude) + sum(map(len, pieces)), data, narrow)

    def pack_rans(levels: Levels) -> Coded:
        counts = histograms(levels)
        return coded(levels, counts, *one_table(Symbols.of(levels, CHUNK), "i32", counts))

    def pack_fast(levels: Levels) -> Coded:
        counts, rows = histograms(levels), levels.size // len(levels) if levels.ndim > 1 else 0
        symbols = Symbols.of(levels, CHUNK, rows, math.prod(levels.shape[2:]) if levels.ndim > 2 else 0)
        single, alone = one_table(symbols, "i32", counts)
        coder, plan = several_tables(symbols, "i32", counts, alone.nbytes)
        return coded(levels, counts, single, alone) if plan is None else coded(levels, counts, coder, plan)

    def unpack_rans(coded: Coded) -> npt.NDArray[Any]:
        head, pieces, count, coder = coded.data
        prelude = _core.Prelude(np.frombuffer(head, np.uint8), PRELUDES.index(coder), count)
        counts = chunk_counts(count, CHUNK)
        data = [np.frombuffer(piece, np.uint8) for piece in pieces]
        if coded.narrow:
            out = np.empty(count, np.uint8)
            for k, part in enumerate(data):
                start = k * CHUNK
                _core.decode_bytes(out[start : start + counts[k]], prelude, CORE_TYPES["i8"], part, start)
            return out.view(np.int8)
        parts = [_core.decode_integers(prelude, I32, d, counts[k], k * CHUNK) for k, d in enumerate(data)]
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def pack_adaptive(levels: Levels) -> Coded:
        rows, kernel = levels.size // len(levels) if levels.ndim > 1 else 0, math.prod(levels.shape[2:])
        symbols = Symbols.of(levels, adaptive.CHUNK, rows, kernel if levels.ndim > 2 else 0)
        plan = adaptive.plan(symbols.values, symbols.count, symbols.chunk, symbols.row_length, symbols.kernel)
        pieces = [plan.piece(k, part) for k, part in enumerate(symbols)]
        return Coded(len(plan.prelude) + sum(map(len, pieces)), (plan.prelude, pieces, levels.size))

    def unpack_adaptive(coded: Coded) -> Levels:
        head, pieces, count = coded.data
        prelude = _core.Prelude(np.frombuffer(head, np.uint8), PRELUDES.index("adaptive"))
        parts = [
            _core.decode_integers(prelude, I32, np.frombuffer(piece, np.uint8), n, k * adaptive.CHUNK)
            for k, (piece, n) in enumerate(zip(pieces, chunk_counts(count, adaptive.CHUNK), strict=True))
        ]
        return np.concatenate(parts)

    yield Local("tersor rans", np.ascontiguousarray, pack_rans, unpack_rans)
    yield Local("tersor fast", np.ascontiguousarray, pack_fast, unpack_rans)
    yield Local("tersor adaptive", np.ascontiguousarray, pack_adaptive, unpack_adaptive)


def htscodecs() -> Iterator[Coder]:
    """rANS 32x16 with 16-bit frequencies (Bonfield); int16 goes as two planes of bytes."""
    found = ctypes.util.find_library("htscodecs")
    if found is None:
        raise FileNotFoundError("libhtscodecs")
    library, size = ctypes.CDLL(found), ctypes.c_uint
    order_1, lanes_32, stripe, pack = 0x01, 0x04, 0x08, 0x80
    library.rans_compress_bound_4x16.restype = size

    def packer(order: int) -> Callable[[npt.NDArray[Any]], Coded]:
        def run(values: npt.NDArray[Any]) -> Coded:
            width = values.itemsize
            chosen = order if width == 1 else order & order_1 | stripe | width << 8
            out = np.empty(library.rans_compress_bound_4x16(values.nbytes, chosen), np.uint8)
            used = size(out.nbytes)
            given = values.view(np.uint8).ctypes
            if not library.rans_compress_to_4x16(given, values.nbytes, out.ctypes, ctypes.byref(used), chosen):
                raise ArithmeticError("htscodecs failed")
            return Coded(used.value, (out[: used.value], values.dtype, values.size))

        return run

    def unpack(coded: Coded) -> npt.NDArray[Any]:
        data, kind, count = coded.data
        out = np.empty(count, kind)
        used = size(out.nbytes)
        library.rans_uncompress_to_4x16(data.ctypes, data.nbytes, out.ctypes, ctypes.byref(used))
        return out

    for name in ("rans_compress_to_4x16", "rans_uncompress_to_4x16"):
        function = getattr(library, name)
        function.restype = ctypes.c_void_p
        function.argtypes = [ctypes.c_void_p, size, ctypes.c_void_p, ctypes.c_void_p] + [ctypes.c_int] * ("_c" in name)
    for what, order in {"order 0": lanes_32, "order 1": lanes_32 | order_1, "PACK": lanes_32 | pack}.items():
        yield Local(f"htscodecs rANS 32x16 {what}", lambda v: narrow(v).reshape(-1), packer(order), unpack)


def constriction() -> Iterator[Coder]:
    """ANS with a table, whose frequencies are counted as 16 bits for every value between the extremes."""
    stack = importlib.import_module("constriction").stream
    words = np.uint32

    def pack(levels: Levels) -> Coded:
        low, counts = _core.histogram(levels.reshape(-1))
        counts = np.append(counts, 0)  # it refuses an alphabet of one
        model = stack.model.Categorical(counts / counts.sum(), perfect=False)
        coder = stack.stack.AnsCoder()
        coder.encode_reverse(levels.reshape(-1) - np.int32(low), model)
        data = coder.get_compressed()
        return Coded(data.nbytes + 2 * counts.size + 4, (data, model, low, levels.size))

    def unpack(coded: Coded) -> Levels:
        data, model, low, count = coded.data
        return stack.stack.AnsCoder(data.astype(words, copy=False)).decode(model, count) + np.int32(low)

    yield Local("constriction ANS", np.ascontiguousarray, pack, unpack)


def byte_coders() -> Iterator[Coder]:
    """General-purpose compressors."""
    zstd, brotli = importlib.import_module("zstandard"), importlib.import_module("brotli")

    def of(name: str, pack: Callable[[Any], bytes], unpack: Callable[[bytes], bytes]) -> Coder:
        def run(values: npt.NDArray[Any]) -> Coded:
            data = pack(values.view(np.uint8).data)
            return Coded(len(data), data)

        return Local(name, lambda v: narrow(v).reshape(-1), run, lambda c: np.frombuffer(unpack(c.data), np.uint8))

    yield of("zstd -1", zstd.ZstdCompressor(1).compress, zstd.ZstdDecompressor().decompress)
    yield of("zstd -9", zstd.ZstdCompressor(9).compress, zstd.ZstdDecompressor().decompress)
    yield of("brotli -5", lambda v: brotli.compress(bytes(v), quality=5), brotli.decompress)


def peers(folder: Path) -> Iterator[Coder]:
    """Those that are installed."""
    for make in (lambda: iter([DeepCabac(folder)]), htscodecs, constriction, byte_coders):
        try:
            yield from make()
        except (FileNotFoundError, ModuleNotFoundError) as error:
            print(f"left out: {error}", file=sys.stderr)


class Sum(NamedTuple):
    nbytes: int = 0
    encode: float = 0.0
    decode: float = 0.0


def run(coders: list[Coder], stream: Stream, rounds: int) -> dict[str, Sum]:
    """Bytes and the least seconds of every coder; tensor by tensor, the coders taking turns."""
    sums = {coder.name: Sum() for coder in coders}
    for tensor in stream.tensors:
        least = {coder.name: Sum(0, float("inf"), float("inf")) for coder in coders}
        for _ in range(rounds):
            for coder in coders:
                coded, encode = coder.encode(tensor)
                decode = coder.decode(coded, tensor)
                best = least[coder.name]
                least[coder.name] = Sum(coded.nbytes, min(best.encode, encode), min(best.decode, decode))
        for name, best in least.items():
            so_far = sums[name]
            sums[name] = Sum(so_far.nbytes + best.nbytes, so_far.encode + best.encode, so_far.decode + best.decode)
    return sums


def report(results: Table, stream: Stream, found: dict[str, Sum]) -> None:
    """One record a coder, and a copy of the narrow levels for scale."""
    count, entropy, ideal = stream.symbols, stream.entropy_bits / 8, stream.row_bits / 8
    reference = found.get(REFERENCE)
    for name, total in found.items():
        results.add(
            kind=stream.kind, stream=stream.name, coder=name, symbols=count, bytes=total.nbytes,
            bits_per_symbol=8 * total.nbytes / count, excess_percent=100 * (total.nbytes / entropy - 1),
            excess_over_rows_percent=100 * (total.nbytes / ideal - 1),
            against_deepcabac_percent=100 * (total.nbytes / reference.nbytes - 1) if reference else None,
            encode_mega_symbols_per_second=count / max(total.encode, 1e-9) / 1e6,
            decode_mega_symbols_per_second=count / max(total.decode, 1e-9) / 1e6,
        )  # fmt: skip


def memcpy(results: Table, count: int) -> None:
    """Million bytes a second of a copy, for scale."""
    source, target, best = np.ones(count, np.uint8), np.ones(count, np.uint8), float("inf")
    for _ in range(20):
        start = time.process_time()
        np.copyto(target, source)
        best = min(best, time.process_time() - start)
    results.add(kind="memcpy", symbols=count, mega_symbols_per_second=count / best / 1e6)


def every_stream(wanted: Callable[[str], bool]) -> Iterator[tuple[Stream, int]]:
    """Streams, and the rounds each is worth."""
    if wanted("iid") or wanted("rows"):
        yield from ((s, 3) for s in streams.synthetic(2**22))
    for network in filter(wanted, streams.NETWORKS):
        yield from ((s, 1) for s in streams.levels(network, (1.5, 2.0, 3.0, 4.0)))
    if wanted("codebook"):
        yield from ((streams.codebook(name, size), 1) for name in ("minilm", "fashion_resnet") for size in (16, 32))
    if wanted("delta"):
        yield from ((streams.delta(bits), 1) for bits in (0.3, 1.0, 2.0))
    if wanted("lowrank"):
        for network in ("minilm", "fashion_resnet"):
            yield from ((s, 1) for s in streams.lowrank(network, (1.5, 2.0, 3.0, 4.0)))


def main(names: list[str]) -> None:
    results = Table("coding", "kind", "stream", "coder")
    with tempfile.TemporaryDirectory() as folder:
        memcpy(results, 2**23)
        coders = [*tersor_coders(), *peers(Path(folder))]
        for stream, rounds in every_stream(lambda name: not names or name in names):
            report(results, stream, run(coders, stream, rounds))


if __name__ == "__main__":
    main(sys.argv[1:])
