"""How far is decoding from the machine's limits, and what do tables and estimates cost?

- `memory`: GB/s of copying and filling, one thread and two; every other record is to be read beside it.
- `mode`: million weights a second of CPU time for coders, outputs and rates; bytes read and written a weight; how many
  times as long it takes as a copy of the output.
- `threads`: two chunks on two threads against one after the other, by the clock, beside two threads that copy: least of
  many short rounds, some of which find both cores free.
- `estimate`: speed of `coders.coded_bytes` and its error against what is coded.
- `tables`: share of preludes (tables and classes) in whole files; those of tensors below 65,536 weights apart, all that
  sharing tables between small tensors could save.

Times are the least of rounds in which everything takes turns. Instructions a weight are counted in the disassembly (see
docs/decisions/0006): this machine's counters are not to be had.

    python -m benchmarks.roofline
"""

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

import tersor
from benchmarks.common import Results, fastest
from benchmarks.networks import load
from tersor import _core
from tersor.coders import CORE_TYPES, Symbols, coded_bytes, encode, rans, rans1, rans2d
from tersor.format.layout import LEAF
from tersor.format.manifest import PRELUDES

COUNT, CHUNK, ROW = 2**22, 2**20, 512
SHORT = 2**18
"""Symbols of a chunk for threads: a fraction of a millisecond, in which both cores may be free."""
ROUNDS, SHORT_ROUNDS = 9, 1500
RATES = {"1.5 bits": 0.49, "3 bits": 1.46, "4 bits": 2.94}
"""Scale of Laplace variables that have this entropy once rounded."""
NETWORKS, RATIO = ("crepe_tiny", "fashion_resnet"), 8
Levels = npt.NDArray[np.int32]


class Coded(NamedTuple):
    prelude: _core.Prelude
    pieces: list[npt.NDArray[np.uint8]]
    chunk: int

    @property
    def nbytes(self) -> int:
        return sum(piece.nbytes for piece in self.pieces)


def levels_of(spread: float, correlation: float, scale: float) -> Levels:
    """Laplace levels; scales of rows spread, or neighbours that resemble each other."""
    rng = np.random.default_rng(1)
    noise = rng.laplace(0, scale, COUNT + 1)
    noise = (noise[1:] + correlation * noise[:-1]).reshape(-1, ROW) * np.exp(
        spread * rng.standard_normal((COUNT // ROW, 1))
    )
    return np.rint(noise).clip(-127, 127).astype(np.int32).reshape(-1)


def coded(levels: Levels, coder: str, chunk: int = CHUNK) -> Coded:
    """By this coder, whether it is the smallest or not."""
    symbols = Symbols.of(levels, chunk, ROW)
    histograms = [rans.Histogram.of(part) for part in symbols]
    whole = rans.merge(histograms)
    plans: dict[str, Callable[[], Any]] = {
        "rans": lambda: rans.plan(histograms),
        "rans1": lambda: rans1.plan(*symbols.layout, whole),
        "rans2d": lambda: rans2d.plan(*symbols.layout, ROW, whole),
    }
    plan = plans[coder]()
    pieces = [np.frombuffer(plan.piece(k, part), np.uint8) for k, part in enumerate(symbols)]
    head = np.frombuffer(plan.prelude, np.uint8)
    return Coded(_core.Prelude(head, PRELUDES.index(coder), COUNT), pieces, chunk)


def to_bytes(stream: Coded, out: npt.NDArray[np.uint8], k: int) -> None:
    n, first = stream.chunk, k * stream.chunk
    _core.decode_bytes(out[first : first + n], stream.prelude, CORE_TYPES["i8"], stream.pieces[k], first)


def to_floats(stream: Coded, out: npt.NDArray[np.uint8], k: int) -> None:
    """Fused with reconstruction; digests of the leaves in."""
    n, first, step = stream.chunk, k * stream.chunk, np.ones(1, np.float32)
    part = out[4 * first : 4 * (first + n)]
    _core.decode_uniform(part, 0, stream.prelude, CORE_TYPES["i8"], stream.pieces[k], n, step, None, 0, first, 0.0)


def chunks(work: Callable[[int], None], count: int = COUNT // CHUNK) -> None:
    for k in range(count):
        work(k)


DECODERS = {1: to_bytes, 4: to_floats}
NAMES = {1: "int8", 4: "float32"}
"""By bytes a weight."""


def copying(source: npt.NDArray[np.uint8], target: npt.NDArray[np.uint8], k: int) -> None:
    """One half of them."""
    half = source.size // 2
    np.copyto(target[k * half : (k + 1) * half], source[k * half : (k + 1) * half])


def streams() -> Iterator[tuple[str, str, Levels]]:
    """Coder, name, levels it is for."""
    for rate, scale in RATES.items():
        yield "rans", rate, levels_of(0.0, 0.0, scale)
        yield "rans2d", rate, levels_of(0.5, 0.0, scale)
        yield "rans1", rate, levels_of(0.0, 0.6, scale)


def speeds(results: Results) -> None:
    """Speeds of all coders and outputs beside copies."""
    outputs = {1: np.ones(COUNT, np.uint8), 4: np.ones(4 * COUNT, np.uint8)}
    sources = {width: out.copy() for width, out in outputs.items()}
    calls: dict[str, Callable[[], Any]] = {"fill 4": lambda: outputs[4].fill(1)}
    calls |= {f"copy {width}": partial(np.copyto, out, sources[width]) for width, out in outputs.items()}
    modes: dict[str, tuple[str, str, int, float]] = {}
    for coder, rate, levels in streams():
        stream = coded(levels, coder)
        for width, decode in DECODERS.items():
            name = f"{coder}, {rate}, {width}"
            modes[name] = coder, rate, width, stream.nbytes / COUNT
            calls[name] = partial(chunks, partial(decode, stream, outputs[width]))
    found = fastest(calls, ROUNDS)
    for what in ("copy", "fill"):
        results.add(kind="memory", what=what, gigabytes_per_second=4 * COUNT / found[f"{what} 4"].cpu / 1e9)
    for name, (coder, rate, width, read) in modes.items():
        seconds = found[name].cpu
        results.add(
            kind="mode", coder=coder, rate=rate, output=NAMES[width], bytes_read=read, bytes_written=width,
            mega_weights_per_second=COUNT / seconds / 1e6, gigabytes_per_second=(read + width) * COUNT / seconds / 1e9,
            times_copy=seconds / found[f"copy {width}"].cpu,
        )  # fmt: skip


def threads(results: Results) -> None:
    """Two chunks at once against two in turn."""
    outputs = {1: np.ones(COUNT, np.uint8), 4: np.ones(4 * COUNT, np.uint8)}
    source = outputs[4].copy()
    works: dict[str, Callable[[int], None]] = {"copy of float32": partial(copying, source, outputs[4])}
    for coder, rate, levels in streams():
        if rate == "3 bits":
            stream = coded(levels, coder, SHORT)
            works |= {f"{coder} to {NAMES[w]}": partial(decode, stream, outputs[w]) for w, decode in DECODERS.items()}
    calls: dict[str, Callable[[], Any]] = {}
    with ThreadPoolExecutor(2) as pool:
        for name, work in works.items():
            calls[name] = partial(chunks, work, 2)
            calls[f"{name}, two"] = lambda work=work: list(pool.map(work, range(2)))
        found = fastest(calls, SHORT_ROUNDS)
    for name in works:
        results.add(kind="threads", what=name, speedup=found[name].wall / found[f"{name}, two"].wall)


def estimates(results: Results) -> None:
    """`coded_bytes` with and without rows."""
    for coder, rate, levels in streams():
        for row_length in (0, ROW):
            symbols = Symbols.of(levels, CHUNK, row_length)
            found = fastest({"estimate": partial(coded_bytes, symbols, "i8")}, ROUNDS)["estimate"]
            size = encode(symbols, "i8").stream.nbytes
            results.add(
                kind="estimate", levels=f"for {coder}, {rate}", rows=row_length > 0, bytes=size,
                error_percent=100 * (coded_bytes(symbols, "i8") / size - 1),
                mega_weights_per_second=COUNT / found.cpu / 1e6,
            )  # fmt: skip


def tables(results: Results, folder: Path) -> None:
    """Bytes of preludes in files."""
    for name in NETWORKS:
        path = folder / f"{name}.tsr"
        report = tersor.compress(load(name).weights, path, ratio=RATIO, overwrite=True, workers=1)
        total = small = 0
        with tersor.open(path) as file:
            for entry in file.entries:
                heads = sum(sum(s.sizes[: s.preludes]) for step in entry.chain for s in step.streams)
                total += heads
                small += heads * (entry.count < LEAF)
        results.add(
            kind="tables", network=name, ratio=RATIO, file_bytes=report.file_bytes, table_bytes=total,
            of_small_tensors=small, share_percent=100 * total / report.file_bytes,
        )  # fmt: skip


def main() -> None:
    with Results("roofline") as results, tempfile.TemporaryDirectory() as folder:
        speeds(results)
        threads(results)
        estimates(results)
        tables(results, Path(folder))


if __name__ == "__main__":
    main()
