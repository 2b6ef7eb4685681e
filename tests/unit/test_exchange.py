"""Precision moves to the tensors whose rounding does more to the output than was predicted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tersor.allocate.exchange import FARTHEST, exchanged, sensitivities  # noqa: E402
from tersor.calibration.collect import collect  # noqa: E402
from tersor.engine import compress  # noqa: E402
from tersor.evaluate.divergence import Evaluator  # noqa: E402
from tersor.methods import SecondOrder  # noqa: E402
from tersor.sources import Unit, open_model  # noqa: E402


def network() -> Any:
    torch.manual_seed(0)
    nn = torch.nn
    return nn.Sequential(nn.Linear(48, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 24)).eval()


def unit(name: str, count: int) -> Unit:
    return Unit(name, "F32", (count, 1), lambda: np.zeros(0, np.uint8))


def test_steps_follow_the_root_and_bits_balance() -> None:
    units = [unit("a", 1000), unit("b", 3000), unit("unknown", 50)]
    found = exchanged({"a": 2.0, "b": 0.5}, units, 1.0)
    assert set(found) == {"a", "b"}
    assert found["b"] / found["a"] == pytest.approx(2.0)  # four times as sensitive: half the step
    assert 1000 * np.log2(found["a"]) + 3000 * np.log2(found["b"]) == pytest.approx(0, abs=1e-9)
    assert exchanged({"a": 2.0, "b": 0.5}, units, 0.5)["b"] == pytest.approx(found["b"] ** 0.5)
    far = exchanged({"a": 1e9, "b": 1e-9}, units, 1.0)
    assert far["b"] / far["a"] <= 4**FARTHEST


def test_what_a_tensor_does_alone_is_about_what_is_predicted() -> None:
    torch.manual_seed(1)
    inputs = torch.randn(800, 48)
    model = open_model(network())
    bound = SecondOrder().bind(collect(model, [inputs]))
    units = [u for u in model.units() if bound.quantizes(u)]
    evaluator = Evaluator(model, [inputs[:400]])
    ratios = sensitivities(bound, units, 1e-7, lambda weights: evaluator(weights).mean)
    assert set(ratios) == {"0.weight", "2.weight", "4.weight"} and all(0.5 < r < 2 for r in ratios.values())
    assert sensitivities(bound, units, 1e-7, lambda _: 0.0) == {}


def test_the_recipe_keeps_what_held_out_samples_confirm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tersor import balanced

    seen: list[Any] = []

    def trial(self: Any, journal: Any, goal: Any, statistics: Any, settings: Any, coarser: Any = None) -> float:
        seen.append(coarser)
        return 0.5 + 0.1 * len([c for c in seen if c]) if coarser else 1.0

    monkeypatch.setattr(balanced.Balanced, "_trial", trial)
    torch.manual_seed(1)
    recipes: list[Any] = []
    learn = balanced.Balanced._learn
    monkeypatch.setattr(balanced.Balanced, "_learn", lambda self, *a: (recipes.append(self), learn(self, *a))[1])
    compress(network(), tmp_path / "a", ratio=9, calibration=torch.randn(320, 48), workers=1)
    first, second = (c for c in seen if c)
    assert first != second and recipes[0].coarser == first  # the second was worse
