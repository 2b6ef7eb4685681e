"""What stands beside the levels of a finished file, learned by distillation: steps, biases, gains.

Levels stay as second-order rounding left them, so that nothing of its error feedback is undone (the last phase of
EfficientQAT, arXiv 2407.11062, for whole networks). Learned numbers take more bytes than round ones: where there is no
room for them, levels are rounded once more for a smaller file. Held-out samples decide whether all that is kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tersor.balanced import Balanced
from tersor.calibration.samples import mixed
from tersor.coders import EncodedStream
from tersor.encoded import Distortion, Encoded, MemoryInputs, seal
from tersor.errors import BudgetError
from tersor.evaluate.measures import divergence
from tersor.format.dtypes import Bytes
from tersor.format.manifest import Step
from tersor.job import Goal
from tersor.joint.student import Student
from tersor.journal import Journal, StoredUnit
from tersor.methods import keep
from tersor.methods.nearest import to_float32
from tersor.ops.chunks import read_all
from tersor.ops.uniform import FLOATS
from tersor.sources import Unit

PASSES = 15
"""Over the calibration samples."""
RATE = 3e-3
"""Learning rate at the start: of logarithms of steps, and of other tensors in their root mean squares."""
DISTURBANCE = 0.01
"""Relative change of numbers that shows how many bytes they take once they are learned."""
SPARE = 0.0005
"""Share of the file that is left free, for the bytes that learned numbers really take differ from those foreseen."""


class Grid(NamedTuple):
    """A tensor on its grid: decoded weights (rows, columns), and by how much each step of its palettes has changed."""

    weights: Tensor
    rows: Tensor  # logarithms of factors, one for each step of the palette
    columns: Tensor
    row_index: Tensor
    column_index: Tensor
    shape: tuple[int, ...]

    @classmethod
    def of(cls, unit: Unit, done: StoredUnit, decoded: npt.NDArray[Any], device: torch.device) -> Grid:
        """That of an encoded unit, nothing changed."""
        step, streams = _contents(done)
        inputs, weights = MemoryInputs(unit.name, step, streams), torch.from_numpy(np.array(decoded, np.float32))
        weights = weights.reshape(unit.shape[0], -1)
        indices, number = list[Tensor](), 1
        palettes = [np.frombuffer(step.parameters[key], "<f4") for key in ("steps", "columns")]
        for palette, side in zip(palettes, weights.shape, strict=True):
            index = np.zeros(side, np.int64)
            if palette.size > 1:
                index = read_all(inputs, number, step.streams[number]).astype(np.int64)
                number += 1
            indices.append(torch.from_numpy(index).to(device))
        rows, columns = (torch.zeros(palette.size, device=device) for palette in palettes)
        return cls(weights.to(device), rows, columns, indices[0], indices[1], unit.shape)

    def tensor(self) -> Tensor:
        """The weights, differentiable in the changes."""
        scaled = self.weights * self.columns.exp()[self.column_index] * self.rows.exp()[self.row_index][:, None]
        return scaled.reshape(self.shape)

    def encoded(self, unit: Unit, done: StoredUnit) -> Encoded:
        """The unit with the same levels and changed steps."""
        step, streams = _contents(done)
        changed = dict[str, bytes]()
        for key, change in (("steps", self.rows), ("columns", self.columns)):
            # two bytes each, as of biases: the first steps are powers of a root of 2, and the manifest is compressed
            short = torch.from_numpy(np.frombuffer(step.parameters[key], "<f4") * change.exp().cpu().numpy()).bfloat16()
            changed[key] = short.float().numpy().astype("<f4").tobytes()

        def measure(start: int, out: Bytes) -> Distortion:
            original = to_float32(unit.load()[start : start + out.size], unit.dtype)
            return Distortion.between(original, to_float32(out, unit.dtype))

        step = replace(step, parameters={**step.parameters, **changed})
        return seal(unit.name, unit.dtype, unit.shape, step, streams, measure)


def _contents(done: StoredUnit) -> tuple[Step, list[EncodedStream]]:
    (step,), pieces = done.entry.chain, done.pieces()
    return step, [EncodedStream(stream, list(islice(pieces, len(stream.sizes)))) for stream in step.streams]


class Tuned(NamedTuple):
    """What is learned, and the other tensors that the model runs with; what is learned among the latter changes."""

    grids: dict[str, Grid]
    vectors: dict[str, Tensor]
    state: dict[str, Tensor]

    def disturb(self, generator: torch.Generator) -> None:
        """Change everything a little, at random: learned numbers take as many bytes as these."""
        changes = [c for grid in self.grids.values() for c in (grid.rows, grid.columns)]
        for tensor, other in [*((c, 1.0) for c in changes), *((v, v.clone()) for v in self.vectors.values())]:
            noise = torch.randn(tensor.shape, generator=generator).to(tensor.device)
            tensor += DISTURBANCE * noise * other

    def tensors(self) -> dict[str, Tensor]:
        """What the model runs with, differentiable in what is learned."""
        return self.state | {name: grid.tensor() for name, grid in self.grids.items()}


class Finished(Balanced):
    """A job of `balanced` whose steps, biases and gains are learned at the end."""

    def fit(self, journal: Journal, goal: Goal) -> float:
        """What `balanced` does, then learning, as far as held-out samples confirm it."""
        price = super().fit(journal, goal)
        if self.evaluator is None or not isinstance(goal, int):
            return price
        before, finished = self.measure(self.decoded(journal)), price
        spare = goal - round(goal * SPARE) - self._growth(journal, price)
        with suppress(BudgetError):
            if self.job.size(price) > spare:
                finished = self.fitted(journal, spare, price)
            student = Student(self.model, [], self.device or "cpu")
            learned = self._leaves(student, self.decoded(journal))
            self._distil(student, learned)
            fits = self._substitute(journal, "finished", learned, goal, finished)
            if fits and self.measure(self.decoded(journal)) < before:
                return finished
        return self.fitted(journal, goal, price)

    def _growth(self, journal: Journal, price: float) -> int:
        """Bytes that the file grows by when numbers beside its levels are learned."""
        learned = self._leaves(Student(self.model, [], self.device or "cpu"), self.decoded(journal))
        learned.disturb(torch.Generator().manual_seed(self.seed))
        size, done = self.job.size(price), dict(self.job.done)
        self._substitute(journal, "disturbed", learned, 2 * size, price)
        size, self.job.done = self.job.size(price) - size, done
        return size

    def _substitute(self, journal: Journal, key: str, learned: Tuned, budget: int, price: float) -> bool:
        """Put what was learned in place of what is done; not if the file became too large."""
        done = dict(self.job.done)

        def encode(unit: Unit) -> Encoded:
            if unit.name in learned.grids:
                return learned.grids[unit.name].encoded(unit, done[unit.name])
            return self.job.rounded(unit, keep.elements(learned.vectors[unit.name].cpu().numpy(), unit.dtype))

        units = [u for u in self.job.own if u.name in learned.grids or u.name in learned.vectors]
        return self.job.substitute(journal, key, units, encode, budget, price)

    def _leaves(self, student: Student, decoded: Mapping[str, npt.NDArray[Any]]) -> Tuned:
        """Grids and other tensors as they were decoded, nothing changed."""
        own = dict(student.module.named_parameters())
        state = {
            n: torch.from_numpy(np.array(decoded[n])).to(student.device) for n in student.buffers() if n in decoded
        }
        grids, vectors = dict[str, Grid](), dict[str, Tensor]()
        for unit in self.job.own:
            if unit.name not in own or unit.dtype not in FLOATS:
                continue
            done, value = self.job.done[unit.name], decoded[unit.name]
            if done.entry.chain[0].op == "uniform2d":
                grids[unit.name] = Grid.of(unit, done, value, student.device)
            else:
                state[unit.name] = torch.from_numpy(np.array(value, np.float32)).to(student.device)
                if done.finite and np.ptp(value) > 0:  # tensors of ones and zeros take next to nothing as they are
                    vectors[unit.name] = state[unit.name]
        return Tuned(grids, vectors, state)

    def _distil(self, student: Student, learned: Tuned) -> None:
        """Distil the original's outputs, on samples and their mixtures, for it labels whatever it is given."""
        assert self.evaluator is not None
        changes = [change for grid in learned.grids.values() for change in (grid.rows, grid.columns)]
        groups = [{"params": [v], "lr": RATE * float(v.square().mean().sqrt())} for v in learned.vectors.values()]
        optimizer = torch.optim.Adam([{"params": changes, "lr": RATE}, *groups])
        rates = [group["lr"] for group in optimizer.param_groups]
        leaves = [*changes, *learned.vectors.values()]
        chance = torch.Generator().manual_seed(self.seed)
        samples, kind = self.samples.calibration, self.evaluator.kind
        with _requiring_gradients(leaves):
            for turn in range(PASSES):
                for place, number in enumerate(torch.randperm(len(samples), generator=chance).tolist()):
                    passed = (turn + place / len(samples)) / PASSES
                    for group, rate in zip(optimizer.param_groups, rates, strict=True):
                        group["lr"] = rate * (1 + math.cos(math.pi * passed)) / 2
                    sample = mixed(samples[number], chance)
                    with torch.no_grad():
                        wanted = student.run(sample, {})[0]
                    loss = divergence(kind, wanted, student.run(sample, learned.tensors())[0]).mean()
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    if all(bool(torch.isfinite(leaf.grad).all()) for leaf in leaves if leaf.grad is not None):
                        optimizer.step()
                self.job.progress("learning steps", turn + 1, PASSES)


@contextmanager
def _requiring_gradients(leaves: Sequence[Tensor]) -> Iterator[None]:
    for leaf in leaves:
        leaf.requires_grad_(True)
    try:
        yield
    finally:
        for leaf in leaves:
            leaf.requires_grad_(False)
