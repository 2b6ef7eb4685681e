"""Method `trellis`: `second_order` with a dependent quantizer, off by default: it has to be asked for by name.

The levels of a column choose between two interleaved grids of twice the step, by a state of eight that their parities
move on (spec/FORMAT.md, section 7.5); the best path down the column is found by the algorithm of Viterbi, with the
price of every level in the cost of the path. All rows of a column are decided at once and errors are fed across columns
only, so that this composes exactly with error feedback.

Dependent quantization is part of the standards for coding of video (H.266) and of neural networks (ISO/IEC 15938-17),
and patents exist around it. Nothing else in this package uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tersor import _core
from tersor.methods._feedback import Doubles, Floats, Integers, Prepared, Rounding, Solution, in_place, prepare
from tersor.methods.second_order import CHUNK, Bound, Problem, SecondOrder

if TYPE_CHECKING:
    from tersor.calibration.statistics import Statistics

PANEL = 64
"""Columns after which the error of all of them is fed to the columns before."""


@dataclass(frozen=True)
class Trellis(SecondOrder):
    """Like second_order, with a dependent quantizer; patents exist around it, see the documentation."""

    name: ClassVar[str] = "trellis"

    quadratic: float = field(default=0.5, metadata={"help": "share of that price that is foreseen as a quadratic one"})
    coupling: float = field(default=0.0, metadata={"help": "as of second_order, for rows without the trellis"})
    spacing: float = field(default=0.56, metadata={"help": "step of the interleaved grids, in steps of second_order"})

    def bind(self, statistics: Mapping[str, Statistics]) -> BoundTrellis:
        """The method with what calibration learned, by unit name."""
        return BoundTrellis(self, statistics)


@dataclass(frozen=True, eq=False)
class BoundTrellis(Bound):
    """`Trellis` with statistics. Units whose columns are not those of the file, transposed or taken apart, and those
    whose rows feed their errors to each other, are rounded without it."""

    def round(self, matrix: Floats, problem: Problem, theta: float) -> Solution:
        """Levels and steps of a matrix at a water level."""
        if problem.transposed or problem.covariance.shape[1] < matrix.shape[1] or problem.row_factor.shape[1] > 1:
            return super().round(matrix, problem, theta)
        how = self.settings.rounding
        return solve_trellis(matrix, problem.covariance, problem.fisher, theta, how, self.settings.spacing)


def solve_trellis(
    weights: Floats,
    covariance: Floats,
    fisher: Doubles,
    theta: float,
    how: Rounding,
    spacing: float,
    chunk: int = CHUNK,
) -> Solution:
    """Like `solve`, by paths through the trellis, whose states start again with every `chunk` weights."""
    p = prepare(weights, covariance, fisher, theta, how, spacing, spread=2)
    levels = values = p.levels
    for _ in range(max(1, how.passes)):
        levels, values = _round(p, chunk, p.prices(levels, how))
    steps = in_place(p.column_steps, p.order)
    return Solution(in_place(levels, p.order), p.row_steps, steps, in_place(values, p.order))


def _round(p: Prepared, chunk: int, bits: Floats) -> tuple[Integers, Integers]:
    """Levels (rows, n) and their values, column after column from the last, given the prices of levels."""
    (groups, n, _), rows = p.factor.shape, len(p.residual)
    left = p.residual.reshape(groups, -1, n).transpose(0, 2, 1).copy(order="C")  # (groups, n, rows of a group)
    factor = p.factor.astype(np.float32)
    row_steps = p.row_steps.reshape(groups, -1)
    levels, values = np.empty((n, rows), np.int32), np.empty((n, rows), np.int32)
    for end in range(n, 0, -PANEL):
        first = max(0, end - PANEL)
        taken = np.empty((groups, end - first, rows // groups), np.float32)
        for j in range(end - 1, first - 1, -1):
            diagonal = factor[:, j, j, None]
            scale = np.square(diagonal * p.column_steps[j]) * p.row_weight.reshape(groups, -1)
            target = left[:, j] / (diagonal * row_steps * p.column_steps[j])
            _core.trellis_round(
                target.reshape(-1), scale.reshape(-1), p.row_weight * np.float32(p.fold * p.column_steps[j] ** 2),
                p.row_class, int(p.column_class[j]), bits, int(p.order[j]), n, chunk, levels[j], values[j],
            )  # fmt: skip
            taken[:, j - first] = values[j].reshape(groups, -1) * row_steps * p.column_steps[j]
            left[:, first:j] -= factor[:, j, first:j, None] * taken[:, j - first, None]
        left[:, :first] -= factor[:, first:end, :first].transpose(0, 2, 1) @ taken
    return levels.T, values.T
