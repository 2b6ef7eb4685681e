"""Coded size of every large tensor against the empirical entropy of its levels; goal: at most 0.3 % above.

The coded size is that of all streams of levels of the tensor: tables, final states of the coder and patches in. The
entropy is that of the levels of the whole tensor, order 0. A tensor whose regions differ can come out below it, since
its chunks may have tables of their own. Sizes and checksums of pieces stand in the manifest, which is counted apart.

    python -m benchmarks.rate
"""

import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np

import tersor
from benchmarks.common import Results
from benchmarks.networks import load
from tersor import _core
from tersor.coders import CORE_TYPES
from tersor.format.layout import chunk_counts
from tersor.format.manifest import Entry
from tersor.format.reader import TensorFile, _EntryInputs

NETWORKS = ("minilm", "efficientnet_lite0", "fashion_resnet", "crepe_full")
RATIOS = (4, 8, 12)
LARGE = 100_000


class Rate(NamedTuple):
    """Bytes of one tensor's levels."""

    coded: int
    entropy: float
    tables: int  # the preludes
    states: int  # final states of the lanes of every chunk
    present: int  # levels that occur


def rate(file: TensorFile, entry: Entry, start: int) -> Rate:
    """Decode the levels of a tensor and weigh them."""
    inputs = _EntryInputs(file, entry, start)
    (step,) = entry.chain
    low = step.parameters["low"]
    streams = step.streams[: 2 if low else 1]
    levels = np.zeros(entry.count, np.int64)
    coded = tables = states = 0
    for number, stream in enumerate(streams):
        place = 0
        for k, count in enumerate(chunk_counts(stream.count, stream.chunk)):
            prelude, data = inputs.chunk(number, k)
            part = _core.decode_integers(prelude, CORE_TYPES[stream.type], data, count, place).astype(np.int64)
            levels[place : place + count] += part << low if number == 0 else part
            place += count
            if prelude is not None:
                states += 2 * prelude.lanes
        coded += stream.nbytes
        tables += sum(stream.sizes[: stream.preludes])
    _, counts = np.unique(levels, return_counts=True)
    entropy = float(-(counts * np.log2(counts / counts.sum())).sum()) / 8
    return Rate(coded, entropy, tables, states, counts.size)


def main() -> None:
    with Results("rate") as results, tempfile.TemporaryDirectory() as folder:
        for name in NETWORKS:
            network = load(name)
            for ratio in RATIOS:
                path = Path(folder) / f"{name}.tsr"
                report = tersor.compress(network.weights, path, ratio=ratio, overwrite=True, workers=1)
                with tersor.open(path) as file:
                    for entry, start in zip(file.entries, file._starts, strict=False):
                        if entry.count <= LARGE or not entry.chain or entry.chain[0].op != "uniform":
                            continue
                        found = rate(file, entry, start)
                        results.add(
                            network=name, ratio=ratio, tensor=entry.name, weights=entry.count,
                            entropy_bits_per_weight=8 * found.entropy / entry.count,
                            excess_percent=100 * (found.coded / found.entropy - 1), **found._asdict(),
                        )  # fmt: skip
                results.add(
                    network=name, ratio=ratio, file_bytes=report.file_bytes, manifest_bytes=report.overhead_bytes
                )


if __name__ == "__main__":
    main()
