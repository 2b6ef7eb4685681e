"""Does the file have the asked size, on every network, and what are the weights in it worth?

For every network and ratio 4, 8, 12: bytes of the file, how far it is below the budget (goal: 0 to 0.5 %), metrics of
the weights that `tersor.load` gives, seconds to compress with one thread. Ratio 1 is the original.

    python -m benchmarks.sizes [--no-metrics] [NETWORK ...]    (without metrics, results go to sizes-only.jsonl)
"""

import sys
import tempfile
import time
from pathlib import Path

import torch

import tersor
from benchmarks.common import Results
from benchmarks.networks import load, names
from benchmarks.networks._common import read

RATIOS = (4, 8, 12)


def main(networks: list[str], *, judge: bool = True) -> None:
    torch.set_num_threads(1)
    with Results("sizes" if judge else "sizes-only") as results, tempfile.TemporaryDirectory() as folder:
        for name in networks or names():
            network = load(name)
            if judge:
                original = read(network.weights)
                source = sum(array.nbytes for array in original.values())
                results.add(network=name, ratio=1, bytes=source, metrics=network.evaluate(original))
                del original
            for ratio in RATIOS:
                path = Path(folder) / f"{name}.tsr"
                start = time.perf_counter()
                try:
                    report = tersor.compress(network.weights, path, ratio=ratio, overwrite=True, workers=1)
                except tersor.TersorError as error:
                    results.add(network=name, ratio=ratio, error=str(error).replace(str(network.weights), name))
                    continue
                seconds = time.perf_counter() - start
                budget = int(report.source_bytes / ratio)
                nbytes = path.stat().st_size
                results.add(
                    network=name, ratio=ratio, source_bytes=report.source_bytes, budget=budget, bytes=nbytes,
                    below_percent=100 * (budget - nbytes) / budget, snr_db=report.snr_db, seconds=seconds,
                    metrics=network.evaluate(tersor.load(path)) if judge else {},
                )  # fmt: skip


if __name__ == "__main__":
    main([a for a in sys.argv[1:] if a != "--no-metrics"], judge="--no-metrics" not in sys.argv)
