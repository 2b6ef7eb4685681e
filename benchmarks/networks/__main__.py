"""Print networks with the metrics of their original weights: `python -m benchmarks.networks [NAME ...]`."""

import math
import sys
import time

import torch

from . import load, names
from ._common import read


def main() -> None:
    torch.set_num_threads(1)
    print(f"{'network':19} {'bytes':>11} {'weights':>11} {'seconds':>7}  metrics of the original")
    for name in sys.argv[1:] or names():
        network = load(name)
        tensors = read(network.weights)
        start = time.perf_counter()
        metrics = network.evaluate(tensors)
        seconds = time.perf_counter() - start
        figures = ", ".join(f"{key} {value:.4f}" for key, value in metrics.items())
        count = sum(math.prod(array.shape) for array in tensors.values())
        print(
            f"{name:19} {network.weights.stat().st_size:11,} {count:11,} {seconds:7.1f}  {figures}",
            flush=True,
        )


if __name__ == "__main__":
    main()
