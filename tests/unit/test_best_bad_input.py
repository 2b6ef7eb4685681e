"""Models and samples that recipe `best` meets beside the plain ones: what it makes of them, or says."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

import tersor  # noqa: E402
from tersor.errors import BudgetError, CalibrationError, TersorError  # noqa: E402
from tersor.joint import BEST, L2_PAPER, Recipe  # noqa: E402

SHORT = dataclasses.replace(BEST, rounds=1, transformation_iterations=4, weight_iterations=6)
WIDTH = 32


class Reversed(nn.Module):
    """A layer of its own, without weights."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flip(-1)


class Scaled(nn.Module):
    """A layer of its own, with weights of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(WIDTH, WIDTH) / WIDTH**0.5)
        self.gain = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.kernel) * self.gain


class Output(OrderedDict[str, Any]):
    """What models of transformers return: a mapping whose values are attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Odd(nn.Module):
    """Frozen and shared weights, layers of its own, outputs of a kind."""

    def __init__(self, kind: str = "tensor") -> None:
        super().__init__()
        self.kind = kind
        self.first, self.own = nn.Linear(WIDTH, WIDTH), Scaled()
        self.second, self.third = nn.Linear(WIDTH, WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.third.weight = self.second.weight
        self.reversed = Reversed()
        self.head = nn.Linear(WIDTH, 10)
        self.first.requires_grad_(False)

    def forward(self, x: Tensor) -> Any:
        y = self.third(self.reversed(self.second(self.own(self.first(x)).relu()).relu()))
        y = self.head(y)
        return {
            "tensor": lambda: y,
            "tuple": lambda: (y, None, (x,)),
            "dict": lambda: {"hidden": x, "logits": y},
            "output": lambda: Output(hidden=x, logits=y),
        }[self.kind]()


def model(kind: str = "tensor", dtype: Any = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return Odd(kind).to(dtype).eval()


def inputs(scale: float = 1, dtype: Any = torch.float32) -> Tensor:
    return scale * torch.randn(96, WIDTH, generator=torch.Generator().manual_seed(1)).to(dtype)


def made(path: Path, module: nn.Module, samples: Any, recipe: Recipe = SHORT, **size: Any) -> Any:
    size = size or {"ratio": 3}
    return tersor.compress(module, path, method=recipe, calibration=samples, workers=1, **size)


@pytest.mark.parametrize("kind", ["tensor", "tuple", "dict", "output"])
@pytest.mark.parametrize("recipe", [SHORT, dataclasses.replace(L2_PAPER, rounds=1, transformation_iterations=6,
                                                              weight_iterations=4)], ids=lambda r: r.name)  # fmt: skip
def test_odd_models_and_outputs(tmp_path: Path, kind: str, recipe: Recipe) -> None:
    module, path = model(kind), tmp_path / "m.tsr"
    before = {name: value.clone() for name, value in module.state_dict().items()}
    report = made(path, module, inputs(), recipe)
    assert 0.98 * report.source_bytes / 3 <= report.file_bytes <= report.source_bytes / 3
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert [p.requires_grad for p in module.first.parameters()] == [False, False]  # type: ignore[union-attr]
    tersor.load_into(module, path)
    assert torch.equal(module.third.weight, module.second.weight)  # type: ignore[union-attr,arg-type]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(tmp_path: Path, dtype: Any) -> None:
    made(tmp_path / "m.tsr", model(dtype=dtype), inputs(dtype=dtype), ratio=2)
    found = tersor.load(tmp_path / "m.tsr")
    assert all(np.isfinite(value.astype(np.float32)).all() for value in found.values())


def test_gradients_that_overflow(tmp_path: Path) -> None:
    """It says so, and keeps what was done: the next run goes on from there."""
    recipe = dataclasses.replace(L2_PAPER, rounds=1, transformation_iterations=40, weight_iterations=1)
    with pytest.raises(CalibrationError, match="gradients are not finite 20 times in a row") as caught:
        made(
            tmp_path / "m.tsr", nn.Sequential(nn.Linear(WIDTH, 64), nn.ReLU(), nn.Linear(64, 64)), inputs(1e30), recipe
        )
    assert "learning rates" in caught.value.remedy and not (tmp_path / "m.tsr").exists()


def test_a_target_that_cannot_be_met(tmp_path: Path) -> None:
    with pytest.raises(BudgetError) as caught:
        made(tmp_path / "m.tsr", model(), inputs(), size=300)
    assert caught.value.remedy and list(tmp_path.iterdir()) == []  # it would fail again: no journal


def test_a_failure_keeps_the_journal(tmp_path: Path) -> None:
    """Samples that the model takes at first, then not."""

    class Tired(Odd):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            Tired.calls += 1
            if Tired.calls > 60:
                raise RuntimeError("out of memory")
            return super().forward(x)

    torch.manual_seed(0)
    module = Tired().eval()
    with pytest.raises(TersorError, match="out of memory"):
        made(tmp_path / "m.tsr", module, inputs())
    assert [p.name for p in tmp_path.iterdir()] == [".m.tsr.journal"]
    Tired.calls = -10_000
    tersor.compress(module, tmp_path / "m.tsr", ratio=3, method=SHORT, calibration=inputs(), workers=1, resume=True)
    assert [p.name for p in tmp_path.iterdir()] == ["m.tsr"]
