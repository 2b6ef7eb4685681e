"""How much of decoding is verification: the checksums of pieces and the digests of decoded tensors? Goal: at most 10 %.

Chunk after chunk is decoded on one thread, checks included, as always; the bytes that were hashed on the way, those of
the pieces and those of the decoded leaves, are hashed once more right after, from the caches they were in. The share
is the time of the second over that of the first; times of a chunk are the least of many rounds.

    python -m benchmarks.verification
"""

import tempfile
import time
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import numpy as np

import tersor
from benchmarks.common import Results
from tersor import _core
from tersor.format.dtypes import DTYPES
from tersor.format.layout import LEAF
from tersor.format.reader import TensorFile

ROUNDS = 40


def shares(data: bytes) -> dict[str, Any]:
    """Seconds of decoding a file, and of hashing its pieces and its leaves."""
    decoding = checksums = digests = 0.0
    with TensorFile(data, workers=1) as file:
        for name, entry in zip(file, file.entries, strict=True):
            if entry.tie is None:
                least = np.min([_chunks(file, name) for _ in range(ROUNDS)], axis=0).sum(axis=0)
                decoding, checksums, digests = decoding + least[0], checksums + least[1], digests + least[2]
    return {
        "decoding_seconds": decoding,
        "share_of_checksums": checksums / decoding,
        "share_of_digests": digests / decoding,
        "share": (checksums + digests) / decoding,
    }


def _chunks(file: TensorFile, name: str) -> list[tuple[float, float, float]]:
    """The three for every chunk of a tensor."""
    entry = file.entry(name)
    decoder = file._decoder(name)
    inputs = _pieces(file, name)
    leaf = LEAF * DTYPES[entry.dtype].width
    found: list[tuple[float, float, float]] = []
    for k, count in enumerate(decoder.counts):
        out = np.empty(count * decoder.width, np.uint8)
        out[::4096] = 0  # its pages are there
        begin = time.perf_counter()
        decoder.decode(k, out)
        decoded = time.perf_counter()
        for piece in inputs[k]:
            _core.hash(piece)
        checked = time.perf_counter()
        digests = sum(_hashed_where_it_was_written(out[at : at + leaf]) for at in range(0, out.size, leaf))
        found.append((decoded - begin, checked - decoded, digests))
    return found


def _hashed_where_it_was_written(leaf: np.ndarray) -> float:
    """Seconds of hashing a leaf that has just been written, as each has when the decoder hashes it: a whole chunk of
    several megabytes does not stay in the second cache."""
    leaf[:] = leaf.copy()
    begin = time.perf_counter()
    _core.hash(leaf)
    return time.perf_counter() - begin


def _pieces(file: TensorFile, name: str) -> list[list[bytes]]:
    """The pieces that every chunk of a tensor is decoded from."""
    index = list(file).index(name)
    (step,) = file.entries[index].chain
    at, by_chunk = file._starts[index], list[list[bytes]]()
    for stream in step.streams:
        bounds = list(pairwise(accumulate(stream.sizes, initial=at)))
        at += stream.nbytes
        for k, (a, b) in enumerate(bounds[stream.preludes :]):
            if k == len(by_chunk):
                by_chunk.append([])
            by_chunk[k].append(file._read(a, b - a))
    return by_chunk


def lines(origin: dict[str, Any], records: list[dict[str, Any]]) -> Iterator[str]:
    """The part of docs/damage.md that tells of it."""
    yield "## What finding it costs\n"
    yield (
        "Checksums of the stored pieces and digests of the decoded tensors are always verified. Their share of the\n"
        "time that decoding takes on one thread, checks included (goal: at most 10 %):\n"
    )
    yield "| file | million weights a second | checksums | digests | together |"
    yield "|---|---:|---:|---:|---:|"
    for r in records:
        shares = (r["share_of_checksums"], r["share_of_digests"], r["share"])
        yield f"| {r['what']} | {r['mega_weights_per_second']:.0f} | {' | '.join(f'{s:.1%}' for s in shares)} |"
    yield (
        f"\n`python -m benchmarks.verification`, commit {origin['commit']}, {origin['date']};\n"
        "raw figures: [benchmarks/results/verification.jsonl](../benchmarks/results/verification.jsonl).\n"
    )


def main() -> None:
    from benchmarks.networks import load
    from benchmarks.speed import bf16_copy, laplace

    minilm = load("minilm").weights
    lossy = {f"Laplace, {bits} bits": ({"layer.weight": laplace(bits)}, {"bits": bits}) for bits in (2, 3, 4)}
    jobs: dict[str, tuple[Any, dict[str, Any]]] = {
        **lossy,
        "MiniLM, 8x": (minilm, {"ratio": 8}),
        "MiniLM, fp32, lossless": (minilm, {"lossless": True}),
        "MiniLM, bf16, lossless": (bf16_copy(minilm), {"lossless": True}),
    }
    with Results("verification") as results, tempfile.TemporaryDirectory() as name:
        path = Path(name) / "model.tsr"
        for what, (source, size) in jobs.items():
            tersor.compress(source, path, overwrite=True, workers=1, **size)
            with tersor.open(path) as file:
                weights = sum(entry.count for entry in file.entries if entry.tie is None)
            found = shares(path.read_bytes())
            rate = weights / found["decoding_seconds"] / 1e6
            results.add(what=what, mega_weights_per_second=rate, **found)


if __name__ == "__main__":
    main()
