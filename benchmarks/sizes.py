"""Does the file have the asked size, on every network, and what are the weights in it worth?

For every network and ratio 4, 8, 12: bytes of the file, how far it is below the budget (goal: 0 to 0.5 %), metrics of
the weights that `tersor.load` gives, CPU seconds to compress with one thread. Ratio 1 is the original.

    python -m benchmarks.sizes [--no-metrics] [NETWORK ...]

A row replaces that of its network and ratio in the results.
"""

import sys
import tempfile
import time
from pathlib import Path

import torch

import tersor
from benchmarks.common import Table
from benchmarks.networks import load, names
from benchmarks.networks._common import read

RATIOS = (4, 8, 12)


def run(table: Table, name: str, path: Path, *, judge: bool) -> None:
    """A network."""
    network = load(name)
    original = read(network.weights)
    source = sum(array.nbytes for array in original.values())
    table.add(network=name, ratio=1, bytes=source, metrics=network.evaluate(original) if judge else {})
    del original
    for ratio in RATIOS:
        start = time.process_time()
        try:
            report = tersor.compress(network.weights, path, ratio=ratio, overwrite=True, workers=1)
        except tersor.TersorError as error:
            table.add(network=name, ratio=ratio, error=str(error).replace(str(network.weights), name))
            continue
        seconds = time.process_time() - start
        budget = int(report.source_bytes / ratio)
        nbytes = path.stat().st_size
        table.add(
            network=name, ratio=ratio, source_bytes=report.source_bytes, budget=budget, bytes=nbytes,
            below_percent=100 * (budget - nbytes) / budget, snr_db=report.snr_db, seconds=seconds,
            metrics=network.evaluate(tersor.load(path)) if judge else {},
        )  # fmt: skip


def main(networks: list[str], *, judge: bool) -> None:
    torch.set_num_threads(1)
    table = Table("sizes", "network", "ratio")
    with tempfile.TemporaryDirectory() as folder:
        for name in networks or names():
            run(table, name, Path(folder) / "file.tsr", judge=judge)


if __name__ == "__main__":
    main([a for a in sys.argv[1:] if a != "--no-metrics"], judge="--no-metrics" not in sys.argv)
