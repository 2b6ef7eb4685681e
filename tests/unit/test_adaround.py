"""Learned rounding against all ways to round, and against rounding to the nearest."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

torch = pytest.importorskip("torch")

from tersor.methods.adaround import adaround  # noqa: E402

Array = npt.NDArray[np.float64]


def problem(
    seed: int, groups: int, rows: int, n: int
) -> tuple[npt.NDArray[np.float32], Array, npt.NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    covariance = np.stack([0.8 ** np.abs(np.subtract.outer(np.arange(n), np.arange(n)))] * groups)
    covariance *= np.arange(1, groups + 1)[:, None, None]
    return rng.normal(0, 1, (rows, n)).astype(np.float32), covariance, rng.uniform(0.3, 0.6, rows).astype(np.float32)


def losses(change: Array, covariance: Array) -> Array:
    grouped = change.reshape(len(covariance), -1, covariance.shape[1])
    return np.einsum("gri,gij,grj->gr", grouped, covariance, grouped).reshape(-1)


def test_nearly_as_good_as_the_best_of_all() -> None:
    weights, covariance, steps = problem(0, 2, 20, 8)
    found = adaround(weights, covariance, steps, 500, 0.03, 1.0)
    floor = np.floor(weights / steps[:, None])
    assert ((found.levels - floor) * (found.levels - floor - 1) == 0).all()
    own = losses(found.weights() - weights, covariance)
    every = [
        losses(((floor + np.array(ups)) * steps[:, None] - weights).astype(np.float64), covariance)
        for ups in product((0, 1), repeat=8)
    ]
    best = np.min(every, axis=0)
    nearest = losses((np.rint(weights / steps[:, None]) * steps[:, None] - weights).astype(np.float64), covariance)
    assert (own >= best * (1 - 1e-5)).all()
    assert own.sum() < 1.2 * best.sum() and nearest.sum() > 2 * best.sum()


def test_weights_on_the_grid_stay_there_and_nothing_changes_from_run_to_run() -> None:
    weights, covariance, steps = problem(1, 1, 6, 10)
    on_grid = np.rint(weights / steps[:, None]) * steps[:, None]
    np.testing.assert_array_equal(
        adaround(on_grid.astype(np.float32), covariance, steps, 50, 0.03, 1.0).levels,
        np.rint(weights / steps[:, None]),
    )
    first, second = (adaround(weights, covariance, steps, 50, 0.03, 1.0).levels for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_whole_files(tmp_path: Path) -> None:
    import tersor
    from tersor.methods import AdaRound

    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(32, 48), torch.nn.ReLU(), torch.nn.Linear(48, 16))
    x = torch.randn(400, 8) @ torch.randn(8, 32)
    found: dict[str, float] = {}
    ways: dict[str, Any] = {
        "learned": AdaRound(iterations=200),
        "nearest": AdaRound(iterations=0),
    }
    for name, method in ways.items():
        report = tersor.compress(
            module, tmp_path / name, ratio=6, method=method, calibration=x[:300], evaluation=x[300:], workers=1
        )
        assert report.file_bytes <= report.source_bytes / 6 and report.recipe["method"] == "adaround"
        assert report.quality is not None and report.quality.divergence is not None
        found[name] = report.quality.divergence.mean
    assert found["learned"] < found["nearest"]
