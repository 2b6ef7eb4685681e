"""Sizes and quality do not get worse unnoticed: small networks against figures that are checked in.

Weights and samples come from numpy, whose stream of random numbers is the same everywhere. `nearest` and lossless
coding round in numpy: their figures are the same on every machine but for a level here and there. `balanced` makes hard
choices, and how a machine's BLAS sums can turn one: the error of one network differed by a fifth between two machines.
Errors are therefore geometric means of several. Tolerances are at the top. `python tests/regression/test_figures.py`
writes the figures anew; the change of figures.json shows in the commit.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import tersor

FIGURES = Path(__file__).parent / "figures.json"
WINDOW = 0.005
"""A file of an asked size may be this share below it."""
WHOLE = 0.002
"""Lossless bytes."""
ERROR = {"nearest": 0.04, "balanced": 0.15}
"""Error of the outputs: half a per cent of the bytes is worth 2 to 3 % of it."""
RATIOS = (6, 10)
NETWORKS = 6


def network(seed: int) -> nn.Module:
    """Two convolutions and two matrices, heavy-tailed, rows of unequal scale, as trained ones are: 47,000 weights."""
    module = nn.Sequential(
        nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(256, 96), nn.ReLU(), nn.Linear(96, 10),
    )  # fmt: skip
    rng = np.random.default_rng(seed)
    for tensor in module.state_dict().values():
        rows = tensor.shape[0], *(1,) * (tensor.ndim - 1)
        width = max(1, tensor[0].numel())
        scale = np.exp(rng.normal(0, 0.4, rows)) / np.sqrt(width)
        tensor.copy_(torch.from_numpy((rng.laplace(0, 1, tensor.shape) * scale).astype(np.float32)))
    return module.eval()


def images(seed: int, count: int) -> torch.Tensor:
    """Smooth noise: neighbours are alike, as in photos."""
    noise = np.random.default_rng(seed).standard_normal((count, 3, 10, 10)).astype(np.float32)
    return torch.from_numpy(sum(noise[:, :, i : i + 8, j : j + 8] for i in range(3) for j in range(3)) / 3)


def error(seed: int, path: Path) -> float:
    """Mean squared error of the outputs over their power, on images that nobody learned from."""
    module, other, x = network(seed), network(seed), images(2, 256)
    tersor.load_into(other, path)
    with torch.inference_mode():
        wanted, found = module(x), other(x)
    return float((found - wanted).square().mean() / wanted.square().mean())


def measure(folder: Path) -> dict[str, dict[str, float]]:
    """Every figure: mean bytes of the files, and the geometric mean of the errors of their outputs."""
    found = dict[str, dict[str, float]]()
    ways: dict[str, dict[str, Any]] = {
        "nearest": {},
        "balanced": {"recipe": "balanced", "calibration": images(1, 128)},
    }
    for way, options in ways.items():
        for ratio in RATIOS:
            sizes, errors = list[int](), list[float]()
            for seed in range(NETWORKS):
                path = folder / f"{way}-{ratio}-{seed}.tsr"
                report = tersor.compress(network(seed), path, ratio=ratio, workers=1, **options)
                sizes.append(report.file_bytes)
                errors.append(error(seed, path))
            found[f"{way} {ratio}x"] = {"bytes": float(np.mean(sizes)), "error": float(np.exp(np.log(errors).mean()))}
    report = tersor.compress(network(0), folder / "whole.tsr", lossless=True, workers=1)
    return found | {"lossless": {"bytes": report.file_bytes}}


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, float]]:
    return measure(tmp_path_factory.mktemp("regression"))


def test_sizes_are_as_checked_in(figures: dict[str, dict[str, float]]) -> None:
    for name, wanted in json.loads(FIGURES.read_text()).items():
        share = WHOLE if name == "lossless" else WINDOW
        assert figures[name]["bytes"] == pytest.approx(wanted["bytes"], rel=share), name


def test_quality_is_as_checked_in(figures: dict[str, dict[str, float]]) -> None:
    """Better is a reason to write the figures anew, so that it stays."""
    for name, wanted in json.loads(FIGURES.read_text()).items():
        if "error" in wanted:
            share = ERROR[name.split()[0]]
            assert figures[name]["error"] == pytest.approx(wanted["error"], rel=share), name


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        FIGURES.write_text(json.dumps(measure(Path(name)), indent=1) + "\n")
