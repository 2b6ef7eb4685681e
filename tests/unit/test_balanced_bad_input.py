"""Input that the balanced recipe cannot use, or can only use in part: what it says, and what it makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import tersor  # noqa: E402
from tersor.engine import compress  # noqa: E402
from tersor.errors import CalibrationError  # noqa: E402
from tersor.report import Report  # noqa: E402

nn = torch.nn
WIDTH = 48


class Tail(nn.Module):
    """Layers between activations; no chain of modules where `again` calls one of them twice."""

    def __init__(self, *, again: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.last = nn.Linear(WIDTH, 64), nn.Linear(64, 64), nn.Linear(64, 10)
        self.unused = nn.Linear(64, 64)
        self.again = again

    def forward(self, x: Any) -> Any:
        x = self.second(self.first(x).relu()).relu()
        return self.last(self.second(x).relu() if self.again else x)


def inputs(count: int = 96) -> Any:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(1))


def made(tmp_path: Path, samples: Any, module: Any = None, **options: Any) -> Report:
    report = compress(module or Tail(), tmp_path / "x", bits=4, calibration=samples, workers=1, **options)
    assert all(np.isfinite(w).all() for w in tersor.load(tmp_path / "x").values())
    return report


def refused(tmp_path: Path, samples: Any, match: str, module: Any = None) -> CalibrationError:
    with pytest.raises(CalibrationError, match=match) as caught:
        made(tmp_path, samples, module)
    assert not (tmp_path / "x").exists() and caught.value.remedy
    return caught.value


def test_no_samples(tmp_path: Path) -> None:
    refused(tmp_path, [], "no samples")
    refused(tmp_path, inputs(0), "no samples")


def test_one_sample(tmp_path: Path) -> None:
    report = made(tmp_path, inputs(1))
    assert any("one sample only" in note for note in report.notes)


@pytest.mark.parametrize(
    "samples", [torch.randn(40, WIDTH + 1), torch.randn(40, WIDTH).double(), torch.ones(40, WIDTH, dtype=torch.int64)]
)
def test_samples_of_another_shape_or_dtype(tmp_path: Path, samples: Any) -> None:
    assert "sample 0" in str(refused(tmp_path, samples, "fails"))


def test_nan_in_activations(tmp_path: Path) -> None:
    class Root(Tail):
        def forward(self, x: Any) -> Any:
            return self.last(self.second(self.first(x).log()))

    assert "second.weight" in str(refused(tmp_path, inputs(), "NaN", Root()))


def test_a_layer_that_is_never_called(tmp_path: Path) -> None:
    report = made(tmp_path, inputs())
    assert any("unused.weight: never called" in note for note in report.notes)
    assert {t.name: t.nbytes for t in report.tensors}["unused.weight"] < 64 * 64 * 4 / 4


def test_dead_inputs(tmp_path: Path) -> None:
    samples = inputs()
    samples[:, :7] = 0
    assert any("first.weight: 7 of its inputs are always zero" in note for note in made(tmp_path, samples).notes)


def test_singular_covariances(tmp_path: Path) -> None:
    made(tmp_path, inputs()[:2].repeat(40, 1))  # of rank two
    (tmp_path / "x").unlink()
    made(tmp_path, torch.zeros(80, WIDTH))


def test_a_model_that_does_not_run_block_by_block(tmp_path: Path) -> None:
    report = made(tmp_path, inputs(), Tail(again=True))
    assert any("cannot be run block by block" in note for note in report.notes)


def test_a_metric_that_is_nan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "measured.py").write_text("def metric(module):\n    return float('nan')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(CalibrationError, match="NaN"):
        made(tmp_path, inputs(), evaluation="python:measured:metric")
