"""Learning weights and their transformation together, to a target of bits (L2, equation 10, or a dual price)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tersor.errors import CalibrationError, SettingError
from tersor.joint.checkpoint import Checkpoint
from tersor.joint.recipe import Recipe
from tersor.joint.student import Student, relative_error, squared_error
from tersor.joint.tensors import LearnedTensors
from tersor.sources.running import Sample

CACHE_BYTES = 2**30
"""Outputs of the original that are kept in memory; beyond, they are computed again every time."""
LOWEST_RATE = 0.02
"""Share of the learning rate that is left at the end of a decaying schedule."""
SPREAD = 1.15
"""Steps this much finer and coarser tell what a bit buys."""
PRICED_BATCHES = 8
MOST_OVERFLOWS = 20
"""Iterations in a row with gradients that are not finite before learning gives up."""

Progress = Callable[[str, int, int], None]


@dataclass
class Trainer:
    """One run of learning. `target` is the bits that priced tensors may take together."""

    student: Student
    tensors: LearnedTensors
    buffers: dict[str, Tensor]
    samples: Sequence[Sample]
    held_out: Sequence[Sample]
    recipe: Recipe
    target: float
    seed: int
    checkpoint: Checkpoint | None = None
    progress: Progress = lambda *_: None
    retarget: Callable[[LearnedTensors], float] | None = None
    """Called after every round for a new target: what the files made of the tensors really take is known only then."""
    history: list[dict[str, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.original = {name: value.detach() for name, value in self.student.module.named_parameters()}
        self.teacher_buffers = self.student.buffers()
        self.error = relative_error if self.recipe.relative else squared_error
        self.price = 0.0
        self.done = 0  # iterations
        self._cache: dict[int, list[Tensor]] = {}
        self._cached = 0
        self._overflows = 0
        self._best: tuple[float, dict[str, Any]] | None = None
        self._waited = 0

    def run(self) -> None:
        """All rounds, from the last checkpoint on; the best state by held-out samples is left in `tensors`."""
        first = self._resume()
        self.student.batch_statistics(self.recipe.batch_statistics)
        try:
            if first == 0:
                self._start()
            for phase in range(first, 2 * self.recipe.rounds):
                if self._stopped:
                    break
                weights = phase % 2 == 1
                count = self.recipe.weight_iterations if weights else self.recipe.transformation_iterations
                self._phase(phase, count, weights)
                if weights:
                    self._end_round(phase // 2 + 1)
                self._save(phase + 1)
        finally:
            self.student.batch_statistics(False)
        if self.recipe.patience and self._best is not None:
            self.tensors.load(self._best[1])

    # -- rounds --------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Stretch steps to the target, and price a bit at what it buys there: loss for bits as all steps change."""
        if self.recipe.price == "dual":
            self.tensors.stretch(self.tensors.scale_for(self.target))
            (fine, dear), (coarse, cheap) = (self._exchange(scale) for scale in (1 / SPREAD, SPREAD))
            self.price = max(coarse - fine, 1e-3 * fine) / max(dear - cheap, 1.0)
        if self.recipe.patience:
            self._end_round(0)

    def _exchange(self, scale: float) -> tuple[float, float]:
        """Loss and bits with all steps of weights times `scale`."""
        with torch.no_grad():
            tensors = self.tensors.shadow(scale).tensors
            losses = [
                float(self._distortion(batch, tensors)) for batch in range(min(len(self.samples), PRICED_BATCHES))
            ]
        loss = sum(losses) / len(losses)
        if not math.isfinite(loss):
            raise CalibrationError(
                "the model's outputs are not finite",
                where="the first samples",
                remedy="check the weights and the samples",
            )
        return loss, self.tensors.entropy(scale)

    def _phase(self, phase: int, count: int, weights: bool) -> None:
        rate = self.recipe.rate_everywhere or not weights
        optimizer, rates = self._optimizer(weights)
        world, rank = _world()
        order = _order(len(self.samples), self.seed, phase)
        with _learning(optimizer):
            for _ in range(count):
                batch = [next(order) for _ in range(world)][rank]
                if self.recipe.relative:
                    decay = (1 + math.cos(math.pi * self.done / max(1, self.recipe.iterations))) / 2
                    for group, lr in zip(optimizer.param_groups, rates, strict=True):
                        group["lr"] = lr * max(decay, LOWEST_RATE)
                self._step(batch, optimizer, rate)
                self.done += 1
                self.progress("learning", self.done, self.recipe.iterations)

    def _step(self, batch: int, optimizer: torch.optim.Optimizer, rate: bool) -> None:
        optimizer.zero_grad(set_to_none=True)
        shadow = self.tensors.shadow()
        loss = self._distortion(batch, shadow.tensors)
        total = self.tensors.bits(shadow.codes) if rate else None
        if total is not None:
            if self.recipe.price == "switched":
                self.price = self.recipe.above if float(total.detach()) > self.target else self.recipe.below
            loss = loss + self.price * total
        loss.backward()
        leaves = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        _average(leaves)
        if not bool(torch.isfinite(torch.stack([p.grad.sum() for p in leaves if p.grad is not None])).all()):
            self._overflow()
            return
        self._overflows = 0
        optimizer.step()
        self.tensors.repair()
        if total is not None and self.recipe.price == "dual":
            excess = float(total.detach()) / self.target - 1
            self.price *= math.exp(_clipped(self.recipe.dual_rate * excess, 0.1))
            # Steps follow at once, the price decides among tensors and weights: bits stay near the target throughout.
            self.tensors.stretch(math.exp(_clipped(self.recipe.steering * excess, 0.02)))

    def _overflow(self) -> None:
        """Skip an iteration, but not too many in a row."""
        self._overflows += 1
        if self._overflows >= MOST_OVERFLOWS:
            bad = [name for name, latent in self.tensors.latents.items() if not _finite_gradient(latent)]
            raise CalibrationError(
                f"gradients are not finite {MOST_OVERFLOWS} times in a row",
                where=f"tensor {bad[0]!r}" if bad else "",
                remedy="lower the learning rates, or check the samples for extreme values",
            )

    def _end_round(self, number: int) -> None:
        """Score the tensors as they would be at the target, on held-out samples, and remember the best."""
        if self.retarget is not None and number:
            self.target = self.retarget(self.tensors)
        entropy = self.tensors.entropy()
        record = {"round": float(number), "bits": entropy, "target": self.target, "price": self.price}
        if self.recipe.patience:
            scale = self.tensors.scale_for(self.target)
            score = self.score(scale)
            record |= {"scale": scale, "held_out": score}
            if self._best is None or score < self._best[0]:
                self._best, self._waited = (score, self.tensors.state()), 0
            else:
                self._waited += 1
        self.history.append(record)

    @property
    def _stopped(self) -> bool:
        return bool(self.recipe.patience) and self._waited >= self.recipe.patience

    def score(self, scale: float = 1.0) -> float:
        """Mean relative squared error of the output on held-out samples."""
        with torch.no_grad():
            tensors = {**self.buffers, **self.tensors.shadow(scale).tensors}
            scores = list[float]()
            for sample in self.held_out:
                wanted = self.student.run(sample, {**self.teacher_buffers, **self.original})
                scores.append(float(relative_error(self.student.run(sample, tensors)[:1], wanted[:1])))
        return sum(scores) / len(scores)

    # -- one iteration -------------------------------------------------------------------------------------------------

    def _distortion(self, batch: int, tensors: Mapping[str, Tensor]) -> Tensor:
        wanted = self._wanted(batch)
        return self.error(self.student.run(self.samples[batch], {**self.buffers, **tensors}), wanted)

    def _wanted(self, batch: int) -> list[Tensor]:
        """Outputs of the original on a batch."""
        if batch in self._cache:
            return self._cache[batch]
        with torch.no_grad():
            found = self.student.run(self.samples[batch], {**self.teacher_buffers, **self.original})
        size = sum(t.numel() * t.element_size() for t in found)
        if self._cached + size <= CACHE_BYTES:
            self._cache[batch] = found
            self._cached += size
        return found

    def _optimizer(self, weights: bool) -> tuple[torch.optim.Optimizer, list[float]]:
        """Adam over what a phase learns, and the learning rate of every group at the start."""
        recipe, groups = self.recipe, list[dict[str, Any]]()
        if not weights or recipe.rate_everywhere:
            parameters = [p for name in self.tensors.parameters for p in self.tensors.learned(name)]
            if parameters:
                groups.append({"params": parameters, "lr": recipe.transformation_lr})
        if weights:
            for name, latent in self.tensors.latents.items():
                groups.append(
                    {"params": [latent], "lr": recipe.weight_lr * (self._pace(name) if recipe.relative else 1.0)}
                )
        if not groups:
            raise SettingError("there is nothing to learn", where=f"recipe {recipe.name}")
        return torch.optim.Adam(groups, fused=True), [group["lr"] for group in groups]

    def _pace(self, name: str) -> float:
        """What a tensor may move by: a typical step of weights, a fifth of their spread of other tensors."""
        if self.tensors.kinds[name] != "weight":
            return float(self.tensors.latents[name].square().mean().sqrt()) / 5 + 1e-12
        values = dict(zip(self.tensors.form(name).parameters, self.tensors.values(name), strict=True))
        scale = values.get("scale")
        return float((values["step"] if scale is None else values["step"] * scale).detach().median())

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def _save(self, phase: int) -> None:
        if self.checkpoint is not None:
            self.checkpoint.save(
                {
                    "phase": phase, "done": self.done, "price": self.price, "target": self.target,
                    "tensors": self.tensors.state(), "buffers": self.buffers, "history": self.history,
                    "best": self._best, "waited": self._waited,
                }
            )  # fmt: skip

    def _resume(self) -> int:
        state = self.checkpoint.load(self.student.device) if self.checkpoint is not None else None
        if state is None:
            return 0
        self.tensors.load(state["tensors"])
        self.buffers = state["buffers"]
        self.done, self.price, self.target = state["done"], state["price"], state["target"]
        self.history, self._best, self._waited = state["history"], state["best"], state["waited"]
        return state["phase"]


@contextmanager
def _learning(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """The optimizer's leaves require gradients, for as long as this lasts."""
    leaves = [p for group in optimizer.param_groups for p in group["params"]]
    for p in leaves:
        p.requires_grad_(True)
    try:
        yield
    finally:
        for p in leaves:
            p.grad = None
            p.requires_grad_(False)


def _order(count: int, seed: int, phase: int) -> Iterator[int]:
    """Batches in random order, again and again; the same for the same seed and phase."""
    generator = torch.Generator().manual_seed(1_000_003 * seed + phase)
    while True:
        yield from torch.randperm(count, generator=generator).tolist()


def _clipped(x: float, most: float) -> float:
    return max(-most, min(most, x))


def _finite_gradient(leaf: Tensor) -> bool:
    return leaf.grad is None or bool(torch.isfinite(leaf.grad).all())


def _world() -> tuple[int, int]:
    """Processes that learn together, and the number of this one."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size(), distributed.get_rank()
    return 1, 0


def _average(leaves: Sequence[Tensor]) -> None:
    """Average gradients over processes."""
    world, _ = _world()
    if world > 1:
        flat = torch.cat([p.grad.reshape(-1) for p in leaves if p.grad is not None])
        torch.distributed.all_reduce(flat)
        flat /= world
        start = 0
        for p in leaves:
            if p.grad is not None:
                p.grad.copy_(flat[start : start + p.numel()].view_as(p))
                start += p.numel()
