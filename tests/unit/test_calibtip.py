"""A number of bits for every layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import tersor  # noqa: E402
from tersor.calibration.collect import collect  # noqa: E402
from tersor.errors import BudgetError  # noqa: E402
from tersor.methods import CalibTip  # noqa: E402
from tersor.methods.calibtip import WIDTHS  # noqa: E402
from tersor.sources import open_model  # noqa: E402


@pytest.fixture
def module() -> Any:
    torch.manual_seed(0)
    found = torch.nn.Sequential(torch.nn.Linear(32, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64), torch.nn.ReLU(),
                                torch.nn.Linear(64, 16))  # fmt: skip
    found[4].weight.data *= 10
    return found


@pytest.fixture
def inputs() -> Any:
    torch.manual_seed(1)
    return torch.randn(400, 8) @ torch.randn(8, 32)


def test_plans_are_the_best_of_the_tables(module: Any, inputs: Any) -> None:
    model = open_model(module)
    bound = CalibTip().bind(collect(model, [inputs]))
    units = [u for u in model.units() if bound.quantizes(u)]
    tables = [bound.table(u, u.load()) for u in units]
    for table in tables:
        assert table.losses == sorted(table.losses, reverse=True) and table.sizes == sorted(table.sizes)
        assert table.losses[0] > 100 * table.losses[-1] > 0
    room = float(np.mean([sum(t.sizes[0] for t in tables), sum(t.sizes[-1] for t in tables)]))
    plan = bound.planned(units, room)
    assert plan is not None and set(plan.widths) == {u.name for u in units}
    encoded = [plan.encode(u, u.load(), 0.0).nbytes for u in units]
    assert encoded == [t.sizes[WIDTHS.index(plan.widths[u.name])] for u, t in zip(units, tables, strict=True)]
    assert sum(encoded) <= room and bound.planned(units, 10.0) is None
    dear, cheap = (sum(bound.encode(u, u.load(), price).nbytes for u in units) for price in (1.0, 1e-15))
    assert dear == sum(t.sizes[0] for t in tables) and cheap == sum(t.sizes[-1] for t in tables)


def test_whole_files(module: Any, inputs: Any, tmp_path: Path) -> None:
    options: dict[str, Any] = {"calibration": inputs[:300], "evaluation": inputs[300:], "workers": 1}
    found: list[float] = []
    for ratio in (4, 6):
        report = tersor.compress(module, tmp_path / f"{ratio}", ratio=ratio, method=CalibTip(), **options)
        assert 0.8 * report.source_bytes < ratio * report.file_bytes <= report.source_bytes
        assert report.quality is not None and report.quality.divergence is not None
        found.append(report.quality.divergence.mean)
    assert 0 < found[0] < found[1]
    with pytest.raises(BudgetError, match="cannot be reached"):
        tersor.compress(module, tmp_path / "x", ratio=200, method=CalibTip(), **options)
    report = tersor.compress(module, tmp_path / "y", max_divergence=found[1], method=CalibTip(), **options)
    assert report.quality is not None and report.quality.divergence is not None
    assert report.quality.divergence.mean <= found[1]
