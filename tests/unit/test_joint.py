"""Learning weights and transformation together, on networks that take a moment."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

import tersor  # noqa: E402
from tersor.errors import BudgetError, CalibrationError, SettingError, SourceError  # noqa: E402
from tersor.joint import BEST, L2_PAPER, Recipe, refine  # noqa: E402
from tersor.joint.student import Student, find_blocks, relative_error  # noqa: E402
from tersor.joint.transforms import FORMS  # noqa: E402
from tersor.sources.model import open_model  # noqa: E402

SHORT = dataclasses.replace(BEST, rounds=2, transformation_iterations=6, weight_iterations=14)


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.convolution(x)).relu()


class Network(nn.Module):
    """Two blocks, batch normalisation, a head."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.blocks = nn.Sequential(Block(width), Block(width))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


def network(seed: int = 0, make: Any = Network) -> nn.Module:
    """Weights of uneven spread, statistics from data."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = make()
        with torch.no_grad():
            for parameter in module.parameters():
                if parameter.dim() > 1:
                    parameter.mul_(torch.randn_like(parameter).abs() + 0.2)
            for sample in batches(seed=9):
                module.train()(sample)
    return module.eval()


def batches(count: int = 12, seed: int = 1) -> list[Tensor]:
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(rng.standard_normal((8, 3, 6, 6)).astype(np.float32)) for _ in range(count)]


def error(module: nn.Module, path: Path, seed: int = 5) -> float:
    """Relative squared error of the output on other samples, weights as decoded."""
    copy = network()
    copy.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in tersor.load(path).items()})
    x = torch.cat(batches(8, seed))
    with torch.no_grad():
        return float(relative_error([copy(x)], [module(x)]))


def compressed(module: Any, path: Path, recipe: Recipe = SHORT, ratio: float = 8, **options: Any) -> Any:
    refined = refine(module, batches(), ratio=ratio, recipe=recipe, **options)
    report = tersor.compress(refined.tensors, path, size=refined.budget, method=refined.method())
    assert 0.99 * refined.budget <= report.file_bytes <= refined.budget
    return refined


def test_learning_beats_rounding_at_the_same_size(tmp_path: Path) -> None:
    module = network()
    longer = dataclasses.replace(SHORT, transformation_iterations=20, weight_iterations=80)
    refined = compressed(module, tmp_path / "learned.tsr", longer)
    tersor.compress(module, tmp_path / "nearest.tsr", size=refined.budget)
    assert error(module, tmp_path / "learned.tsr") < 0.6 * error(module, tmp_path / "nearest.tsr")


def test_the_module_stays_as_it_is() -> None:
    module = network()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    modes = [part.training for part in module.modules()]
    flags = [p.requires_grad for p in module.parameters()]
    refine(module, batches(), ratio=8, recipe=SHORT)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert [part.training for part in module.modules()] == modes
    assert [p.requires_grad for p in module.parameters()] == flags
    assert not any(part._forward_hooks for part in module.modules())


def test_same_seed_same_result_other_seed_another() -> None:
    runs = [refine(network(), batches(), ratio=8, recipe=SHORT, seed=seed).tensors for seed in (0, 0, 1)]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])
    assert any(not torch.equal(runs[0][name], runs[2][name]) for name in runs[0])


@pytest.mark.parametrize("form", FORMS)
def test_every_form_makes_a_file_of_the_asked_size(form: str, tmp_path: Path) -> None:
    compressed(network(), tmp_path / "m.tsr", dataclasses.replace(SHORT, form=form))
    assert error(network(), tmp_path / "m.tsr") < 0.5


def test_steps_by_row(tmp_path: Path) -> None:
    recipe = dataclasses.replace(SHORT, form="linear", rows=True, patience=0)
    refined = compressed(network(), tmp_path / "m.tsr", recipe)
    steps = refined.transformations["blocks.0.convolution.weight"].parameters[0]
    assert steps.shape == (24, 1, 1, 1) and np.unique(steps).size > 1
    with pytest.raises(SettingError, match="row"):
        dataclasses.replace(SHORT, rows=True)


def test_recipe_of_the_paper_counts_down_to_the_target(tmp_path: Path) -> None:
    recipe = dataclasses.replace(
        L2_PAPER, rounds=2, transformation_iterations=60, weight_iterations=5, transformation_lr=1e-3, above=1e-4
    )
    refined = compressed(network(), tmp_path / "m.tsr", recipe, ratio=6)
    first, last = refined.history[0], refined.history[-1]
    assert max(first["bits"], last["bits"]) < 1.5 * last["target"]  # switching prices let it drift
    assert refined.paper_ratio == pytest.approx(32 * refined.weights / refined.bits)


@pytest.mark.parametrize("name", ["best", "l2-paper"])
def test_a_killed_run_ends_with_the_same_weights(name: str, tmp_path: Path) -> None:
    recipe = SHORT if name == "best" else dataclasses.replace(L2_PAPER, rounds=2, transformation_iterations=6,
                                                              weight_iterations=6)  # fmt: skip
    whole = refine(network(), batches(), ratio=8, recipe=recipe).tensors

    class Killed(Exception):
        pass

    def kill(label: str, done: int, total: int) -> None:
        if done > 0.8 * total:
            raise Killed

    with pytest.raises(Killed):
        refine(network(), batches(), ratio=8, recipe=recipe, folder=tmp_path, progress=kill)
    assert list(tmp_path.iterdir())
    seen: list[int] = []
    resumed = refine(network(), batches(), ratio=8, recipe=recipe, folder=tmp_path,
                     progress=lambda label, done, total: seen.append(done))  # fmt: skip
    assert seen[0] > 1, "it began from the start"
    assert all(torch.equal(whole[key], resumed.tensors[key]) for key in whole)
    assert [p.name for p in tmp_path.iterdir()] == ["learning.pt"]  # the caller's to delete


def test_a_checkpoint_of_another_run_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "learning.pt").write_bytes(b"damaged")
    a = refine(network(), batches(), ratio=8, recipe=SHORT, folder=tmp_path).tensors
    b = refine(network(), batches(), ratio=8, recipe=SHORT).tensors
    assert all(torch.equal(a[name], b[name]) for name in a)


class Odd(nn.Module):
    """A tied head, a layer without weights, a frozen one, and several outputs."""

    def __init__(self, kind: str = "tuple") -> None:
        super().__init__()
        self.kind = kind
        self.first = nn.Linear(16, 32)
        self.second = nn.Linear(32, 32)
        self.third = nn.Linear(32, 32)
        self.third.weight = self.second.weight
        self.shuffle = nn.Hardtanh(-8, 8)
        self.second.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Any:
        y = self.shuffle(self.third(self.second(self.first(x)).relu()))
        return (y, x) if self.kind == "tuple" else {"hidden": x, "logits": y}


@pytest.mark.parametrize("kind", ["tuple", "dict"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_odd_models(kind: str, dtype: torch.dtype, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = Odd(kind).to(dtype).eval()
    samples = [torch.randn(8, 16).to(dtype) for _ in range(10)]
    refined = refine(module, samples, ratio=3, recipe=SHORT)
    assert refined.tensors["third.weight"] is refined.tensors["second.weight"]
    assert all(value.dtype == dtype for value in refined.tensors.values())
    report = tersor.compress(refined.tensors, tmp_path / "m.tsr", size=refined.budget, method=refined.method())
    assert report.file_bytes <= refined.budget
    tersor.load_into(module, tmp_path / "m.tsr")


def test_named_blocks() -> None:
    module = network()
    assert find_blocks(module) == ["blocks.0", "blocks.1"]
    refine(module, batches(), ratio=8, recipe=SHORT, blocks=["blocks.1"])
    refine(module, batches(), ratio=8, recipe=SHORT, blocks=[])
    with pytest.raises(SettingError, match=r"no part 'blocks.7'.*blocks.0"):
        refine(module, batches(), ratio=8, recipe=SHORT, blocks=["blocks.7"])


def test_transformations_alone_leave_weights_alone() -> None:
    """Without weight iterations (table 6) nothing but steps and thresholds is learned, and statistics estimated."""
    module = network()
    recipe = dataclasses.replace(SHORT, weight_iterations=0, transformation_iterations=10, rounds=1)
    refined = refine(module, batches(), ratio=8, recipe=recipe)
    assert all(torch.equal(refined.tensors[n], p) for n, p in module.named_parameters() if ".norm." not in n)


def test_folding_changes_nothing_but_where_statistics_stand() -> None:
    module, sample = network(), batches()[0]
    student = Student(open_model(module), [], "cpu")
    own = dict(student.module.named_parameters())
    tensors, buffers = student.fold(own, student.buffers())
    with torch.no_grad():
        before, after = student.run(sample, own), student.run(sample, {**buffers, **tensors})
    assert torch.allclose(before[0], after[0], rtol=1e-4, atol=1e-5)
    assert torch.equal(buffers["blocks.0.norm.running_var"], torch.ones(24))
    assert not torch.equal(tensors["blocks.0.norm.weight"], own["blocks.0.norm.weight"])


def test_estimated_statistics_are_those_of_the_samples() -> None:
    module = network()
    student = Student(open_model(module), [], "cpu")
    buffers = student.estimate_statistics(batches(), dict(student.module.named_parameters()))
    with torch.no_grad():
        inputs = torch.cat([module.blocks[0].convolution(module.stem(x)) for x in batches()])  # type: ignore[index]
    assert torch.allclose(buffers["blocks.0.norm.running_mean"], inputs.mean((0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert torch.allclose(buffers["blocks.0.norm.running_var"], inputs.var((0, 2, 3)), rtol=0.05)
    assert int(buffers["blocks.0.norm.num_batches_tracked"]) == len(batches())
    assert student.module.blocks[0].norm.momentum == 0.1  # type: ignore[union-attr,index]


def test_matched_statistics_undo_a_change_of_scale() -> None:
    """Twice the weights before a normalisation layer: twice the mean and spread, the same function."""
    module = network()
    student = Student(open_model(module), [], "cpu")
    own = dict(student.module.named_parameters())
    doubled = {**own, "blocks.0.convolution.weight": 2 * own["blocks.0.convolution.weight"]}
    buffers = student.matched_statistics(batches(), doubled)
    sample = batches(1, 7)[0]
    with torch.no_grad():
        before, after = student.run(sample, own), student.run(sample, {**buffers, **doubled})
    assert torch.allclose(before[0], after[0], rtol=1e-3, atol=1e-4)


def test_a_size_that_cannot_be_reached() -> None:
    with pytest.raises(BudgetError, match="cannot be reached"):
        refine(network(), batches(), size=400, recipe=SHORT)


def test_weights_or_samples_that_are_not_finite() -> None:
    module = network()
    with torch.no_grad():
        module.head.weight[0, 0] = math.nan  # type: ignore[union-attr]
    with pytest.raises(SourceError, match=r"head\.weight"):
        refine(module, batches(), ratio=8, recipe=SHORT)
    with pytest.raises(CalibrationError, match="not finite"):
        refine(network(), [torch.full((4, 3, 6, 6), math.inf)] * 10, ratio=8, recipe=SHORT)


def test_gradients_that_overflow_end_learning_with_a_reason() -> None:
    module = network()
    huge = [batch * 1e30 for batch in batches()]  # squares of outputs leave float32
    recipe = dataclasses.replace(L2_PAPER, rounds=1, transformation_iterations=40, weight_iterations=1)
    with pytest.raises(CalibrationError, match="gradients are not finite"):
        refine(module, huge, ratio=8, recipe=recipe)


def test_models_without_weights_and_too_few_samples() -> None:
    with pytest.raises(SettingError, match="no weights"):
        refine(nn.Sequential(nn.Linear(3, 2), nn.ReLU()), [torch.zeros(2, 3)] * 10, size=10_000, recipe=SHORT)
    with pytest.raises(CalibrationError, match="too few"):
        refine(network(), batches(3), ratio=8, recipe=SHORT)
    with pytest.raises(CalibrationError, match="fails on"):
        refine(network(), [torch.zeros(2, 7)] * 10, ratio=8, recipe=SHORT)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"form": "cubic"}, "form"), ({"kernel": "box"}, "kernel"), ({"rounds": 0}, "rounds")],
)
def test_recipes_that_make_no_sense(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        dataclasses.replace(BEST, **change)
