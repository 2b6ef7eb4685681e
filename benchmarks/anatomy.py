"""Where a file's bytes are, and whether bits go where noise costs most.

For every tensor of a network: the bytes of its streams in tersor's files, by what they hold, and its sensitivity: what
the network's output loses (KL divergence or 1 - cosine) when noise of 1 % of the tensor's power is added to it alone.

    python -m benchmarks.anatomy [NETWORK ...]
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tersor
from benchmarks.baselines import Tensors, quantized
from benchmarks.calibrated import COUNT, TASKS
from benchmarks.common import Table
from benchmarks.networks import load
from benchmarks.networks._common import Network, read
from benchmarks.report._section import lost
from tersor.report.details import measure

RATIOS = {"crepe_tiny": 12.0, "fashion_resnet": 12.0, "vit_fashion": 10.0, "minilm": 8.0}
RECIPES = ("fast", "balanced")
POWER = 0.01


def sensitivities(network: Network, tensors: Tensors) -> dict[str, float]:
    """What noise in every matrix costs."""
    rng, found = np.random.default_rng(0), dict[str, float]()
    for name, array in tensors.items():
        if quantized(array):
            deviation = (POWER * np.square(array, dtype=np.float64).mean()) ** 0.5
            noise = rng.normal(0, deviation, array.shape).astype(np.float32)
            found[name] = lost({"metrics": network.evaluate({**tensors, name: array + noise})})
    return found


def run(table: Table, name: str, folder: Path) -> None:
    network, task, path = load(name), TASKS[name], folder / "file.tsr"
    sensitive = sensitivities(network, read(network.weights))
    for recipe in RECIPES:
        source: Any = network.weights
        given: dict[str, Any] = {}
        if recipe != "fast":
            source, given = task.model(), {"calibration": task.calibration(), "calibration_count": COUNT}
        tersor.compress(source, path, ratio=RATIOS[name], recipe=recipe, overwrite=True, workers=1, **given)
        with tersor.open(path) as file:
            for details in measure(file)[1]:
                tensor = details.row.name
                table.add(network=name, recipe=recipe, tensor=tensor, ratio=RATIOS[name],
                          weights=file.entry(tensor).count, parts=details.parts,
                          **({"sensitivity": sensitive[tensor]} if tensor in sensitive else {}))  # fmt: skip


def main(networks: list[str]) -> None:
    torch.set_num_threads(1)
    table = Table("anatomy", "network", "recipe", "tensor")
    for name in networks or RATIOS:
        with tempfile.TemporaryDirectory() as folder:
            run(table, name, Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
