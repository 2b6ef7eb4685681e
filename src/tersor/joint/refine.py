"""From a model and samples to learned weights and a method that codes them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tersor import _core
from tersor.allocate.budget import Budget
from tersor.allocate.price import AIM, predict
from tersor.errors import BudgetError, CalibrationError
from tersor.format import cbor
from tersor.format.manifest import Manifest
from tersor.format.writer import file_size
from tersor.job import HIGHEST_PRICE, LOWEST_PRICE
from tersor.joint.checkpoint import Checkpoint
from tersor.joint.recipe import BEST, Recipe
from tersor.joint.student import Student
from tersor.joint.tensors import LearnedTensors
from tersor.joint.training import Progress, Trainer
from tersor.methods import Nearest, keep
from tersor.methods.joint import Joint, Transformation
from tersor.ops.uniform import FLOATS
from tersor.sources import MappingSource, Unit
from tersor.sources.model import Model, open_model
from tersor.sources.running import Sample

HELD_OUT_SHARE = 0.1


@dataclass(frozen=True)
class Refined:
    """Learned weights under the names of the model's state dict, how they become levels, and how learning went.

    `tersor.compress(refined.tensors, path, size=refined.budget, method=refined.method())` makes the file.
    """

    label: str
    budget: int
    recipe: Recipe
    tensors: Mapping[str, Tensor]
    transformations: Mapping[str, Transformation]
    bits: float
    """Entropy of all levels that the rate counts, before the last stretch of steps."""
    weights: int
    """Weights that the rate counts."""
    history: Sequence[Mapping[str, float]] = field(default_factory=tuple)

    @property
    def paper_ratio(self) -> float:
        """The ratio by the paper's formula: 32 bits a weight against the entropy of levels, all else uncounted."""
        return 32 * self.weights / self.bits

    def method(self) -> Joint:
        """The method that codes them."""
        return Joint(self.recipe.noted, self.transformations)


def refine(
    source: Any,
    samples: Sequence[Sample],
    *,
    ratio: float | None = None,
    size: int | None = None,
    bits: float | None = None,
    recipe: Recipe = BEST,
    held_out: Sequence[Sample] | None = None,
    blocks: Sequence[str] | None = None,
    steps: Mapping[str, Any] | None = None,
    device: str | torch.device = "cpu",
    folder: str | os.PathLike[str] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Refined:
    """Learn weights and transformation of a model together, for a file of the asked size.

    `source` is what `open_model` takes; it is not changed. `samples` are batches of inputs, without labels; every tenth
    is held out unless `held_out` is given. `blocks` names the parts whose outputs are distilled beside the model's own
    (found by themselves if None). `steps` gives the steps to start from by tensor name, a number or one for each row;
    recipe `best` starts from those of method `nearest` at the target, `l2-paper` from 256 levels. With a `folder`, a
    run that was killed goes on from its last phase there and ends with the same weights; what it keeps there is the
    caller's to delete. Where `torch.distributed` is
    initialised, gradients are averaged and every process returns the same.

    Raises `CalibrationError` for samples or a model that cannot run, `SourceError` for weights that are not finite,
    `BudgetError` for a size that cannot be reached.
    """
    model = open_model(source)
    units = [unit for unit in model.units() if unit.tied_to is None]
    budget = Budget(ratio, size, bits).resolve(
        sum(unit.nbytes for unit in units), sum(unit.count for unit in units if unit.dtype in FLOATS)
    )
    learning, kept = _split(samples, held_out)
    student = Student(model, blocks, device)
    if recipe.relative and steps is None:
        steps = _nearest_steps(units, budget)
    tensors = LearnedTensors(units, dict(student.module.named_parameters()), recipe, steps)
    goal = _Goal(model, units, student.buffers(), budget)
    target = goal.target(tensors, goal.first_guess(tensors))
    if not recipe.batch_statistics and student.has_statistics:
        tensors, goal.buffers = _folded(
            student, tensors, target, learning, lambda own: LearnedTensors(units, own, recipe, steps)
        )
        target = goal.target(tensors, target)
    key = _key(model, budget, recipe, seed, len(learning), student.blocks)
    checkpoint = Checkpoint(Path(folder) / "learning.pt", key) if folder is not None else None
    trainer = Trainer(
        student, tensors, goal.buffers, learning, kept, recipe, target, seed, checkpoint, progress or (lambda *_: None),
        lambda learned: goal.target(learned, trainer.target),
    )  # fmt: skip
    trainer.run()
    return Refined(
        model.label,
        budget,
        recipe,
        goal.tensors(tensors, trainer.buffers),
        goal.transformations(tensors),
        tensors.entropy(),
        sum(tensors.latents[name].numel() for name in tensors.latents if tensors.priced(name)),
        tuple(trainer.history),
    )


def _split(samples: Sequence[Sample], held_out: Sequence[Sample] | None) -> tuple[list[Sample], list[Sample]]:
    """Samples to learn from and samples to judge by."""
    if held_out is not None:
        learning, kept = list(samples), list(held_out)
    else:
        every = round(1 / HELD_OUT_SHARE)
        kept = [sample for k, sample in enumerate(samples) if k % every == every - 1]
        learning = [sample for k, sample in enumerate(samples) if k % every != every - 1]
    if not learning or not kept:
        raise CalibrationError("there are too few samples", remedy="give at least 10 batches, or batches to hold out")
    return learning, kept


def _nearest_steps(units: Sequence[Unit], budget: int) -> dict[str, float]:
    """Steps of method `nearest` at about the budget: they know nothing of the data."""
    method = Nearest()
    samples = {u.name: s for u in units if method.quantizes(u) and (s := method.sample(u, u.load(), 2**16)) is not None}
    price = predict(lambda p: sum(s.nbytes(p) for s in samples.values()), 0.95 * budget, LOWEST_PRICE, HIGHEST_PRICE)
    return {name: sample.step(price) for name, sample in samples.items()}


def _key(model: Model, budget: int, recipe: Recipe, seed: int, samples: int, blocks: Sequence[str]) -> str:
    parts = [model.fingerprint(), budget, asdict(recipe), seed, samples, list(blocks)]
    return f"{_core.hash(cbor.encode(parts)):016x}"


def _folded(
    student: Student,
    tensors: LearnedTensors,
    target: float,
    samples: Sequence[Sample],
    rebuild: Callable[[Mapping[str, Tensor]], LearnedTensors],
) -> tuple[LearnedTensors, dict[str, Tensor]]:
    """Learned tensors, and buffers, with the running statistics of the weights as quantized at the target folded in."""
    with torch.no_grad():
        shadow = tensors.shadow(tensors.scale_for(target)).tensors
    statistics = student.matched_statistics(samples, shadow)
    own, buffers = student.fold(dict(student.module.named_parameters()), statistics)
    return rebuild(own), buffers


class _Goal:
    """What the file takes beside the levels that learning prices."""

    def __init__(self, model: Model, units: Sequence[Unit], buffers: dict[str, Tensor], budget: int) -> None:
        self.units = units
        self.budget = budget
        self.label = model.label
        self.state = {n: v for n, v in model.module.state_dict().items() if isinstance(v, Tensor)}
        self.aliases = _aliases(self.state)
        self.buffers = buffers

    def first_guess(self, tensors: LearnedTensors) -> float:
        """Bits that are left for priced levels if everything else takes two bytes a number."""
        priced = {name for name in tensors.latents if tensors.priced(name)}
        fixed = sum(2 * u.count + 50 for u in self.units if u.name not in priced) + 60 * len(priced)
        return max(8.0 * (self.budget - fixed), 0.05 * sum(tensors.latents[name].numel() for name in priced))

    def target(self, tensors: LearnedTensors, guess: float) -> float:
        """Bits that priced levels may take, from the size of the file with steps that take about `guess`."""
        scale = tensors.scale_for(guess)
        entropy = tensors.entropy(scale)
        beside = self.file_size(tensors, scale) - entropy / 8
        target = 8 * (self.budget * (1 - AIM) - beside)
        if target <= 0:
            raise BudgetError(
                f"{self.budget:,} bytes cannot be reached",
                where=self.label,
                remedy=f"everything beside the levels of weights takes {beside:,.0f} bytes already",
            )
        return target

    def file_size(self, tensors: LearnedTensors, scale: float) -> int:
        """Bytes of the file with the steps of weights times `scale`."""
        method = Joint({}, self.transformations(tensors))
        source = MappingSource(self.tensors(tensors, self.buffers))
        units = [unit for unit in source.units() if unit.tied_to is None]
        floats = [unit for unit in units if unit.dtype in FLOATS]
        small = sum(unit.count for unit in floats if not Nearest().quantizes(unit))
        finer = keep.finer(self.budget, sum(unit.count for unit in floats), small)
        encoded = [
            method.encode(unit, unit.load(), scale**2)
            if method.quantizes(unit)
            else keep.rounded(unit, unit.load(), finer)
            for unit in units
        ]
        return file_size(Manifest(tuple(part.entry for part in encoded)))

    def tensors(self, learned: LearnedTensors, buffers: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state dict with what was learned, in its own dtypes; tied tensors stay tied."""
        found: dict[str, Tensor] = {}
        for name, value in self.state.items():
            owner = self.aliases.get(name)
            if owner is not None:
                found[name] = found[owner]
                continue
            new = learned.latents.get(name, buffers.get(name, value))
            found[name] = new.detach().to(value.dtype).cpu().contiguous()
        return found

    def transformations(self, learned: LearnedTensors) -> dict[str, Transformation]:
        """Of every tensor that becomes levels."""
        found: dict[str, Transformation] = {}
        for name, kind in learned.kinds.items():
            if kind != "kept":
                values = tuple(np.asarray(v.detach().cpu().numpy(), np.float32) for v in learned.values(name))
                form = learned.recipe.form if kind == "weight" else "linear"
                found[name] = Transformation(form, values, kind == "weight")
        return found


def _aliases(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Names of tensors that share their memory with an earlier one, and that one's name."""
    aliases, owners = dict[str, str](), dict[tuple[Any, ...], str]()
    for name, value in state.items():
        identity = (value.data_ptr(), tuple(value.shape), tuple(value.stride()), value.dtype)
        if value.numel() and owners.setdefault(identity, name) != name:
            aliases[name] = owners[identity]
    return aliases
