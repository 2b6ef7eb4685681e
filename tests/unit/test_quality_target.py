"""Files as small as a bound on the loss of quality allows."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import tersor  # noqa: E402
from tersor.allocate.quality import MOST_TRIALS, QualityTarget, Trial, best, search  # noqa: E402
from tersor.errors import BudgetError, CalibrationError, SettingError, TersorError  # noqa: E402
from tersor.evaluate import quality  # noqa: E402

CODE = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(48, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 24))
    module[4].weight.data *= 20  # outputs that tell classes apart
    return module

def inputs(seed):
    return torch.randn(40, 16, 48, generator=torch.Generator().manual_seed(seed))

def learn():
    return inputs(1)

def other():
    return inputs(2)

def agreement(module):
    x = other()
    return (module(x).argmax(-1) == make()(x).argmax(-1)).float().mean()

def zero(module):
    return 0.0

def falling(module, calls=[]):
    calls.append(module)
    return 1 - len(calls) / 100

def nan_later(module, calls=[]):
    calls.append(module)
    return float("nan") if len(calls) > 2 else 1.0
"""
SOURCE = "python:quality_network_of_test:make"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "quality_network_of_test.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def reference(name: str) -> str:
    return f"python:quality_network_of_test:{name}"


# -- the search --------------------------------------------------------------------------------------------------------


def file_of(price: float) -> int:
    return int(1e6 * (10 - math.log2(price) / 2)) if price < 2**18 else 10**6


LOSSES: dict[str, Callable[[float], float]] = {
    "proportional": lambda price: price,
    "quadratic": lambda price: price**2 / 50,
    "in steps": lambda price: math.floor(price * 7) / 7,
    "never worse": lambda price: 0.0,
    "lost at once": lambda price: 0.0 if price < 0.1 else math.inf,
    "gains at first": lambda price: price - 0.1 if price > 0.01 else -0.01,
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("start", [1e-7, 0.2, 3e4])
def test_the_search_ends_beside_the_limit(name: str, start: float) -> None:
    loss = LOSSES[name]
    trials = search(0.3, lambda price: Trial(file_of(price), loss(price)), start)
    found = best(trials, 0.3)
    assert found is not None and loss(found) <= 0.3 and len(trials) < MOST_TRIALS
    larger = found
    while file_of(larger) > 0.994 * file_of(found) and file_of(larger) > 10**6:
        larger *= 1.001
    assert loss(larger) > 0.3 or file_of(found) == 10**6


def test_known_trials_are_not_measured_again() -> None:
    measured: list[float] = []

    def measure(price: float) -> Trial:
        measured.append(price)
        return Trial(file_of(price), price)

    trials = search(0.3, measure, 1e-3)
    once = list(measured)
    assert search(0.3, measure, 1e-3, dict(list(trials.items())[:3])) == trials
    assert measured[len(once) :] == once[3:]


def test_a_limit_that_no_price_meets() -> None:
    trials = search(0.3, lambda price: Trial(min(file_of(price), 2 * 10**7), 1.0), 1.0)
    assert best(trials, 0.3) is None and len(trials) < MOST_TRIALS


def test_targets_that_make_no_sense() -> None:
    for values in ({}, {"max_divergence": 0.1, "max_drop": 0.1}, {"max_divergence": 0.0}, {"max_drop": -0.1},
                   {"max_divergence": math.nan}, {"max_drop": math.inf}):  # fmt: skip
        with pytest.raises(BudgetError):
            QualityTarget(**values)  # type: ignore[arg-type]
    assert QualityTarget(max_drop=0.1).loss(quality.Quality(before=-2.0, after=-2.1)) == pytest.approx(0.05)


# -- whole files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ways", [{}, {"calibration": reference("learn")}], ids=["nearest", "balanced"])
def test_the_smallest_file_within_a_divergence(folder: Path, ways: dict[str, Any]) -> None:
    options: dict[str, Any] = {"evaluation": reference("other"), "workers": 1, **ways}
    report = tersor.compress(SOURCE, "a.tsr", max_divergence=0.004, **options)
    assert report.quality is not None and report.quality.divergence is not None
    assert report.quality.divergence.mean <= 0.004
    assert report.meta["target"] == {"max_divergence": 0.004} and report.meta["budget"] is None
    assert not list(folder.glob(".*journal"))
    smaller = tersor.compress(SOURCE, "b.tsr", size=int(report.file_bytes * 0.95), **options)
    assert smaller.quality is not None and smaller.quality.divergence is not None
    assert smaller.quality.divergence.mean > 0.004


def test_held_out_samples_stand_in(folder: Path) -> None:
    for recipe in ("fast", "balanced"):
        report = tersor.compress(
            SOURCE, f"{recipe}.tsr", max_divergence=0.01, calibration=reference("learn"), recipe=recipe, workers=1
        )  # type: ignore[arg-type]
        assert report.quality is not None and report.quality.divergence is not None
        assert 0.005 < report.quality.divergence.mean <= 0.01 and report.quality.divergence.rows < 40 * 16
    report = tersor.compress(  # the metric is reported, the bound holds on held-out samples
        SOURCE, "c.tsr", max_divergence=0.01, calibration=reference("learn"), evaluation=reference("agreement")
    )
    assert report.quality is not None and report.quality.after is not None
    assert report.file_bytes == (folder / "balanced.tsr").stat().st_size


def test_the_smallest_file_within_a_drop(folder: Path) -> None:
    options: dict[str, Any] = {"evaluation": reference("agreement"), "workers": 1}
    sizes: list[int] = []
    for drop in (0.1, 0.02, 0.004):
        report = tersor.compress(SOURCE, f"{drop}.tsr", max_drop=drop, **options)
        assert report.quality is not None and report.quality.before == 1
        assert report.quality.after is not None and 1 - report.quality.after <= drop + 1e-6
        sizes.append(report.file_bytes)
    assert sizes[0] < sizes[1] < sizes[2] < 0.6 * report.source_bytes


def test_a_killed_search_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {"max_divergence": 0.004, "evaluation": reference("other"), "workers": 1}
    tersor.compress(SOURCE, "whole.tsr", **options)
    measure, calls = quality.Assessment.__call__, list[Any]()

    def counted(self: Any, file: Any) -> Any:
        calls.append(file)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return measure(self, file)

    monkeypatch.setattr(quality.Assessment, "__call__", counted)
    with pytest.raises(KeyboardInterrupt):
        tersor.compress(SOURCE, "killed.tsr", **options)
    again = tersor.compress(SOURCE, "killed.tsr", resume=True, **options)
    resumed = len(calls) - 4
    tersor.compress(SOURCE, "third.tsr", **options)
    assert resumed == len(calls) - 4 - resumed - 3 and again.file_bytes > 0
    assert (folder / "killed.tsr").read_bytes() == (folder / "whole.tsr").read_bytes()


def test_what_cannot_be_done_is_said(folder: Path) -> None:
    metric, data = reference("agreement"), reference("other")
    wrong: list[tuple[dict[str, Any], type[TersorError], str]] = [
        ({"max_drop": 0.01}, SettingError, "there is none"),
        ({"max_drop": 0.01, "evaluation": data}, SettingError, "there is none"),
        ({"max_divergence": 0.01}, SettingError, "no samples"),
        ({"max_divergence": 0.01, "evaluation": metric}, SettingError, "no samples"),
        ({"max_divergence": 0.01, "ratio": 8, "evaluation": data}, BudgetError, "contradict"),
        ({"max_divergence": 0.01, "lossless": True, "evaluation": data}, BudgetError, "contradict"),
        ({"max_divergence": 0.01, "max_drop": 0.01, "evaluation": data}, BudgetError, "exactly one"),
        ({"max_divergence": 0.01, "evaluation": data, "dry_run": True}, BudgetError, "dry run"),
        ({"max_drop": 0.01, "evaluation": reference("zero")}, CalibrationError, "is 0"),
        ({}, BudgetError, "not settled"),
    ]
    for options, kind, message in wrong:
        with pytest.raises(kind, match=message):
            tersor.compress(SOURCE, "x.tsr", **options)
    assert not list(folder.glob(".*journal")) and not (folder / "x.tsr").exists()


def test_every_bit_is_kept_where_nothing_less_is_good_enough(folder: Path) -> None:
    report = tersor.compress(SOURCE, "x.tsr", max_divergence=1e-17, evaluation=reference("other"), workers=1)
    assert report.quality is not None and report.quality.divergence is not None
    assert report.quality.divergence.mean == 0 and report.recipe == {"method": "lossless"}
    with pytest.raises(BudgetError, match=r"max_drop 0.001 cannot be met: .*loses 0\.\d+"):
        tersor.compress(SOURCE, "y.tsr", max_drop=0.001, evaluation=reference("falling"), workers=1)


def test_a_metric_that_is_nan_later_keeps_the_work(folder: Path) -> None:
    with pytest.raises(CalibrationError, match="NaN"):
        tersor.compress(SOURCE, "x.tsr", max_drop=0.01, evaluation=reference("nan_later"))
    assert (folder / ".x.tsr.journal" / "sizes.jsonl").read_text().count("loss") == 1
    assert not (folder / "x.tsr").exists()


def test_networks_whose_weights_are_all_kept(folder: Path) -> None:
    report = tersor.compress(
        torch.nn.Linear(3, 2), "x.tsr", max_divergence=0.1, evaluation=torch.from_numpy(np.eye(3, dtype=np.float32))
    )
    assert report.quality is not None and report.quality.divergence is not None
    assert report.quality.divergence.mean <= 0.1


@pytest.mark.parametrize(("text", "kept"), [("2%", 0.98), ("0.02", 0.98)])
def test_on_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str], text: str, kept: float) -> None:
    import json

    from tersor.cli import main

    try:
        main(["compress", SOURCE, "-o", "x.tsr", "--max-drop", text, "--eval", reference("agreement"), "--json"])
    except SystemExit as exit:
        assert not exit.code
    report = json.loads(capsys.readouterr().out)
    assert report["meta"]["target"] == {"max_drop": 0.02} and report["quality"]["after"] >= kept
