"""Recipes `best` and `l2-paper`: from a module and unlabelled samples to a file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import tersor
from tersor import joint, learned
from tersor.cli import main
from tersor.errors import CalibrationError

CODE = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 10))

def learn():
    return torch.randn(128, 32, generator=torch.Generator().manual_seed(1))
"""


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 10)).eval()


def samples() -> torch.Tensor:
    return torch.randn(256, 64, generator=torch.Generator().manual_seed(1))


def divergence(model: nn.Module, path: Path) -> float:
    inputs = torch.randn(500, 64, generator=torch.Generator().manual_seed(2))
    other = network()
    tersor.load_into(other, path)
    with torch.no_grad():
        before, after = model(inputs).log_softmax(1), other(inputs).log_softmax(1)
    return float(nn.functional.kl_div(after, before, log_target=True, reduction="batchmean"))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few iterations: the recipes' own take minutes."""
    few = {"rounds": 2, "transformation_iterations": 20, "weight_iterations": 40}
    monkeypatch.setattr(joint, "BEST", replace(joint.BEST, **few))
    monkeypatch.setattr(joint, "L2_PAPER", replace(joint.L2_PAPER, **few))


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("recipe", ["best", "l2-paper"])
@pytest.mark.parametrize("ratio", [5, 8, 10, 14])
def test_file_of_the_asked_size(tmp_path: Path, recipe: str, ratio: int) -> None:
    model, path = network(), tmp_path / "m.tsr"
    before = {name: value.clone() for name, value in model.state_dict().items()}
    report = tersor.compress(model, path, ratio=ratio, recipe=recipe, calibration=samples())
    size = sum(value.nbytes for value in before.values()) // ratio
    assert size * 0.995 <= path.stat().st_size <= size
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert any("formula" in note or "is kept" in note for note in report.notes)
    assert [p.name for p in tmp_path.iterdir()] == ["m.tsr"]
    assert divergence(model, path) < 1.0 and np.isfinite(divergence(model, path))


@pytest.mark.parametrize(("iterations", "kept"), [(1, "finished"), (1600, "learned")])
def test_held_out_samples_choose_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, iterations: int, kept: str
) -> None:
    """What has learned next to nothing is not kept, and what has learned much is."""
    few = {"rounds": 1, "transformation_iterations": iterations, "weight_iterations": iterations}
    monkeypatch.setattr(joint, "BEST", replace(joint.BEST, **few))
    report = tersor.compress(network(), tmp_path / "best.tsr", ratio=20, recipe="best", calibration=samples())
    (note,) = [note for note in report.notes if "is kept" in note]
    assert note.startswith(f"{kept} is kept") and "finished " in note and "learned " in note


@pytest.mark.parametrize("ratio", [8, 12])
def test_finishing_changes_what_is_beside_the_levels_and_loses_less(
    tmp_path: Path, ratio: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is within the budget: levels make room for numbers that take more bytes once they are learned."""
    monkeypatch.setattr(learned, "HOPELESS", 1)  # whether learned weights are better still is chance
    files = {recipe: tmp_path / f"{recipe}.tsr" for recipe in ("balanced", "best")}
    inputs = torch.randn(1024, 64, generator=torch.Generator().manual_seed(1))
    for recipe, path in files.items():
        report = tersor.compress(
            network(),
            path,
            ratio=ratio,
            recipe=recipe,
            calibration=inputs,
            calibration_count=1024,  # type: ignore[arg-type]
        )
    assert any(note.startswith("finished is kept") for note in report.notes)
    size = sum(value.nbytes for value in network().state_dict().values()) // ratio
    assert size * 0.995 <= files["best"].stat().st_size <= size
    with tersor.open(files["best"]) as file:
        steps = [np.frombuffer(e.chain[0].parameters["steps"], "<u4") for e in file.entries if len(e.shape) == 2]
    assert len(steps) == 3 and all((palette & 0xFFFF == 0).all() for palette in steps)  # learned: two bytes each
    assert divergence(network(), files["best"]) < divergence(network(), files["balanced"])


def test_nothing_is_learned_where_rounding_without_data_is_far_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learned, "HOPELESS", 1)
    seen = set[str]()
    report = tersor.compress(
        network(), tmp_path / "best.tsr", ratio=8, recipe="best", calibration=samples(),
        progress=lambda label, *_: seen.add(label),
    )  # fmt: skip
    assert "learning steps" in seen and "learning" not in seen
    assert any("finished is kept" in note and "learned" not in note for note in report.notes)


@pytest.mark.usefixtures("short")
def test_best_beats_no_data(tmp_path: Path) -> None:
    model = network()
    tersor.compress(model, tmp_path / "best.tsr", ratio=12, recipe="best", calibration=samples())
    tersor.compress(model, tmp_path / "fast.tsr", ratio=12)
    assert divergence(model, tmp_path / "best.tsr") < divergence(model, tmp_path / "fast.tsr")


@pytest.mark.usefixtures("short")
def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The recipe that was asked for is the one that made the file."""
    (tmp_path / "learned_network.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    arguments = ["compress", "python:learned_network:make", "-o", "m.tsr", "--ratio", "10", "--recipe", "best"]
    arguments += ["--calibration", "python:learned_network:learn", "--set", "against_balanced=false"]
    main([*arguments, "--set", "patience=1"])
    assert "formula" in capsys.readouterr().out
    with tersor.open("m.tsr") as file:
        noted = file.manifest.meta["recipe"]
    assert (noted["method"], noted["recipe"], noted["patience"]) == ("joint", "best", 1)
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--force", "--set", "rate=1"])
    assert "recipe best has no setting 'rate': it has form" in str(end.value)


def test_needs_samples_and_a_size(tmp_path: Path) -> None:
    for wrong in ({"ratio": 8}, {"lossless": True, "calibration": samples()}):
        with pytest.raises(CalibrationError, match="learns for a size"):
            tersor.compress(network(), tmp_path / "m.tsr", recipe="best", **wrong)
