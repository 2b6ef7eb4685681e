"""From a factory, a file of weights and a function that gives samples to a finished file and its quality."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from helpers import run_tersor

import tersor
from tersor.errors import SourceError

CODE = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 10))

def inputs(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(256, 8, generator=generator) @ torch.randn(8, 32, generator=torch.Generator().manual_seed(99))

def learn():
    return inputs(1)

def other():
    return inputs(2)

def agreement(module):
    x = other()
    return (module(x).argmax(1) == make()(x).argmax(1)).float().mean()

def nan(module):
    return float("nan")
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "network_of_test.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


SOURCE = "python:network_of_test:make"


def test_calibration_pays(folder: Path) -> None:
    reports = {
        name: tersor.compress(SOURCE, f"{name}.tsr", ratio=12, evaluation="python:network_of_test:other", **options)
        for name, options in {"fast": {}, "balanced": {"calibration": "python:network_of_test:learn"}}.items()
    }
    quality = {name: report.quality for name, report in reports.items()}
    assert all(q is not None and q.divergence is not None for q in quality.values())
    fast, balanced = (quality[n].divergence.mean for n in ("fast", "balanced"))  # type: ignore[union-attr]
    assert 0 < balanced < fast / 2
    assert all(report.ratio >= 12 for report in reports.values())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_models_in_half_precision(folder: Path, dtype: torch.dtype) -> None:
    """Their biases are repaired, too, and stay of their dtype."""
    from network_of_test import learn, make  # type: ignore[import-not-found]

    model = make().to(dtype)
    report = tersor.compress(model, "h.tsr", ratio=5, calibration=learn().to(dtype), evaluation=learn().to(dtype))
    assert report.ratio >= 5 and report.quality is not None and report.quality.divergence is not None
    assert report.quality.divergence.mean < 0.01
    assert {row.dtype for row in report.tensors} == {"BF16" if dtype == torch.bfloat16 else "F16"}


def test_the_command_line(folder: Path) -> None:
    from tersor.sources import open_model

    torch.save(open_model(SOURCE).module.state_dict(), "weights.pt")
    done = run_tersor(
        "compress", SOURCE, "--weights", "weights.pt", "-o", "a.tsr", "--ratio", "8", "--json", "--calibration",
        "python:network_of_test:learn", "--calibration-count", "64", "--seed", "3", "--eval",
        "python:network_of_test:agreement",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["quality"]["before"] == 1 > report["quality"]["after"] > 0.6  # chance is 0.1
    shown = run_tersor("compress", SOURCE, "-o", "b.tsr", "--ratio", "8", "--eval", "python:network_of_test:other")
    assert shown.returncode == 0 and "KL divergence in nats over" in shown.stdout


def test_bad_input_fails_before_the_work(folder: Path) -> None:
    for arguments, message in (
        (("--calibration", "nowhere"), "no such file or folder"),
        (("--calibration", "python:network_of_test:missing"), "cannot find missing"),
        (("--eval", "python:network_of_test:nan"), "the metric is NaN"),
        (("--recipe", "balanced"), "needs samples"),
    ):
        done = run_tersor("compress", SOURCE, "-o", "c.tsr", "--ratio", "8", *arguments)
        assert done.returncode == 1 and message in done.stderr and done.stderr.count("tersor:") == 1, done.stderr
        assert not Path("c.tsr").exists()
    with pytest.raises(SourceError, match="holds weights only"):
        torch.save({"w": torch.ones(20, 20)}, "w.pt")
        tersor.compress("w.pt", "d.tsr", ratio=8, calibration=torch.ones(3, 20))
