"""Second-order rounding of one matrix of weights: steps, prices of levels, error feedback; arrays in, arrays out.

All factors and products are torch's: numpy has threads of its own, and those of both wait for each other actively.

A change D of the weights costs 1/2 tr(G D A D^T), A the covariance of the inputs, G the Fisher information of the
outputs. With A = L L^T and G = M M^T, reverse water-filling makes the step of row i and column j proportional to
1 / (M_ii L_jj), by the same constant in every layer (WaterSIC, arXiv 2603.04956). Columns are rounded one after
another, those of strong inputs first, and the error of each is fed to those that follow (GPTQ, arXiv 2210.17323), with
the price of the level in the decision (CERWU: Conzelmann and Bamler 2025). So are the rows of a column, where it is
known what outputs have in common (as in YAQA, arXiv 2505.22988).
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tersor import _core
from tersor.calibration.layers import parts_of

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int32]
Classes = npt.NDArray[np.uint8]

CHUNK = 2**20
"""Weights that are worked on at once in float64."""
WIDE, WIDE_FROM = threading.Lock(), 2**22
"""Factors of wide layers are made one at a time: each takes several matrices as large as the covariance in float64."""
MAX_CLASSES = 64
MAX_LIMIT = 2048
"""Levels beyond cost what this one does."""
UNSEEN = 0.2
"""How often a level that never occurred is taken to have occurred."""
NARROWEST, WIDEST = -5.0, 7.0
"""Octaves of the spread of levels, in steps, that are told apart."""
GROUP_FLOOR = 1e-4
"""Least damping, of groups whose inputs are always zero too, in mean diagonals of all groups."""
ROW_FLOOR = 1e-2
"""Rows count at least this share of the mean row: Fisher information of few samples is noisy."""
TINY = 1e-300
OF_COUPLED = 0.5
"""Share of the quadratic price that is foreseen for rows that make up for each other's errors (docs/decisions/0028)."""
UNCOUPLED = (np.empty((0, 0, 0), np.float32), np.empty((0, 0), np.float32))
"""What stands for `Prepared.spared` where rows have nothing in common."""


class Rounding(NamedTuple):
    """What the decision about a level takes into account; 0 turns an ingredient off."""

    rate: float = 1.0  # the price of its bits
    quadratic: float = 1.0  # how much of that price is foreseen as a quadratic one
    classes: int = 3  # classes of spread to an octave, each with prices of its own
    passes: int = 3
    column_steps: float = 4.0  # steps to an octave between columns
    row_steps: float = 2.0


class Solution(NamedTuple):
    """Levels (rows, columns), and the steps whose products rebuild the weights."""

    levels: Integers
    row_steps: Floats
    column_steps: Floats
    values: Integers | None = None  # what levels stand for, in steps, if not themselves: those of a trellis

    def weights(self) -> Floats:
        """The rebuilt weights, by the same float32 operations as op `uniform2d`."""
        weights = (self.levels if self.values is None else self.values).astype(np.float32)
        weights *= self.column_steps
        weights *= self.row_steps[:, None]
        return weights


def joined(parts: Sequence[Solution]) -> Solution:
    """The solution of a matrix whose columns were taken apart; steps of rows are those of all parts."""
    if len(parts) == 1:
        return parts[0]
    levels = np.concatenate([part.levels for part in parts], axis=1)
    return Solution(levels, parts[0].row_steps, np.concatenate([part.column_steps for part in parts]))


def by_parts(matrix: Floats, covariance: Floats) -> Iterator[tuple[Floats, Floats]]:
    """Columns of a matrix (rows, width) with the covariances (groups, n, n) of their inputs: all at once if n is the
    width, or else n columns at a time, of which each part has one covariance."""
    n = covariance.shape[1]
    if n == matrix.shape[1]:
        yield matrix, covariance
        return
    for k in range(len(covariance)):
        yield np.ascontiguousarray(matrix[:, k * n : (k + 1) * n]), covariance[k : k + 1]


def damped(covariance: npt.NDArray[np.floating], damping: float) -> Floats:
    """Covariances (groups, n, n) with a share of their mean diagonal added to it."""
    n = covariance.shape[1]
    level = np.trace(covariance, axis1=1, axis2=2, dtype=np.float64) / n
    floor = damping * level + GROUP_FLOOR * level.mean()
    found = covariance.astype(np.float32)
    found[:, range(n), range(n)] += np.maximum(floor, np.finfo(np.float32).tiny)[:, None]
    return found


def strengths(covariance: Floats) -> Doubles:
    """Diagonals (groups, n) of the Cholesky factors of covariances: the spread of inputs, those behind them known."""
    import torch

    groups, n = covariance.shape[:2]
    found = np.empty((groups, n))
    for some in _slices(groups, n * n):
        factor = torch.linalg.cholesky(torch.from_numpy(covariance[some].astype(np.float64)))
        found[some] = factor.diagonal(dim1=1, dim2=2).numpy()
    return found


def white(width: int) -> Floats:
    """Covariances of inputs of which nothing is known."""
    parts = parts_of(width)
    return np.broadcast_to(np.eye(width // parts, dtype=np.float32), (parts, width // parts, width // parts))


def apart(rows: int) -> Floats:
    """The row factor of rows that have nothing in common."""
    return np.ones((rows, 1), np.float32)


def factored(coupling: npt.NDArray[np.floating], fisher: Doubles) -> tuple[Doubles, Floats]:
    """M_ii^2 (rows,), and M_ki / M_ii as (rows, n), of G = M M^T: `coupling` (blocks, n, n), on its diagonal `fisher`
    (rows,)."""
    import torch

    matrices = torch.from_numpy(coupling.astype(np.float64))
    floor = GROUP_FLOOR * fisher.mean()  # more than float32 has rounded
    matrices.diagonal(dim1=1, dim2=2).copy_(torch.from_numpy(fisher + floor).view(matrices.shape[:2]))
    factor = torch.linalg.cholesky(matrices)
    own = factor.diagonal(dim1=1, dim2=2)
    unit = (factor / own[:, None]).float().contiguous()
    return own.square().reshape(-1).numpy(), unit.view(-1, unit.shape[1]).numpy()


def cost(change: Floats, covariance: Floats, fisher: Doubles, row_factor: Floats) -> float:
    """What a change of weights (rows, width) costs; see `solve` and `by_parts`."""
    groups, n = covariance.shape[:2]
    if n < change.shape[1]:
        return sum(cost(part, own, fisher, row_factor) for part, own in by_parts(change, covariance))
    import torch

    if (coupled := row_factor.shape[1]) > 1:
        factor = torch.from_numpy(row_factor.reshape(-1, coupled, coupled))
        change = (factor.mT @ torch.from_numpy(change.reshape(-1, coupled, n))).reshape(change.shape).numpy()
    grouped, by_group, total = change.reshape(groups, -1, n), fisher.reshape(groups, -1), 0.0
    sigma = torch.from_numpy(covariance.astype(np.float64))
    for some in _slices(grouped.shape[1], groups * n):
        part = torch.from_numpy(grouped[:, some].astype(np.float64))
        total += float(((part @ sigma).mul_(part).sum(2) * torch.from_numpy(by_group[:, some])).sum())
    return total / 2


def solve(
    weights: Floats, covariance: Floats, fisher: Doubles, theta: float, how: Rounding, row_factor: Floats
) -> Solution:
    """Round `weights` (rows, n) at the water level `theta`: the cost of a weight, doubled, at high rate.

    `covariance` is damped, (groups, n, n); group g feeds the g-th part of the rows. `fisher` is (rows,), above zero,
    and what `row_factor` leaves of it: both as `factored` gives them, or `apart`.
    """
    coupled = row_factor.shape[1] > 1
    if coupled:
        how = how._replace(quadratic=how.quadratic * OF_COUPLED)
    with WIDE if covariance[0].size >= WIDE_FROM else nullcontext():
        p = prepare(weights, covariance, fisher, theta, how)
        narrow = p.factor.astype(np.float32)
        p = p._replace(factor=narrow)  # the precise one is large
        spared, expected = p.spared() if coupled else UNCOUPLED
    levels = p.levels
    # large tables are worked on in parts, for what is left of the targets is another copy of them
    parts = [slice(None)] if coupled or len(narrow) > 1 else list(_slices(*levels.shape))
    for _ in range(max(1, how.passes)):
        bits = p.prices(levels, how)
        for some in parts:
            _core.feedback_round(
                p.residual[some].copy(), narrow, p.row_steps[some], p.column_steps, p.row_weight[some],
                p.row_class[some], p.column_class, bits, p.fold, row_factor[some], spared, expected.copy(),
                levels[some],
            )  # fmt: skip
    order, row_steps, column_steps = p.order, p.row_steps, p.column_steps
    del p
    return Solution(in_place(levels, order), row_steps, in_place(column_steps, order))


def in_place(by_column: npt.NDArray[Any], order: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """With columns, the last axis, in their own order again."""
    return by_column.take(np.argsort(order), axis=-1)


class Prepared(NamedTuple):
    """A matrix on its grid, columns in the order in which the last is rounded first."""

    order: npt.NDArray[np.int64]
    levels: Integers  # of plain rounding
    factor: Doubles | Floats  # (groups, n, n): L of the covariance with the quadratic price in it
    fold: float
    residual: Floats
    row_steps: Floats
    column_steps: Floats
    row_weight: Floats
    row_class: Classes
    column_class: Classes
    classes: int
    spread: int  # steps between the values of neighbouring levels

    def spared(self) -> tuple[Floats, Floats]:
        """What rows need not make up for of each other's errors, fold (L^T L)^-1 (groups, n, n), and those expected.

        An error e of a row pulls at the others where its inputs are: by e A, in targets e A L'^-1 = e L - fold e L'^-1.
        Of this e L is known, column by column, and e L'^-1 too, if columns to come are taken to be as is best for them.
        """
        import torch

        # (L^T L)^-1 by a routine for (P P^T)^-1: P is L^T with rows and columns in reverse
        reverse = torch.from_numpy(self.factor).mT.flip(1, 2)
        found = torch.cholesky_inverse(reverse).flip(1, 2).mul_(self.fold)
        targets = torch.from_numpy(self.residual).view(len(found), -1, found.shape[1])
        return found.numpy(), (targets @ found).reshape(self.residual.shape).numpy()

    def prices(self, levels: Integers, how: Rounding) -> Floats:
        """What levels cost in a decision, class by class, learned from these."""
        bits = _prices(levels, self.row_class, self.column_class, self.classes)
        return bits * np.float32(how.rate * math.log(2) / 6)


def prepare(
    weights: Floats,
    covariance: Floats,
    fisher: Doubles,
    theta: float,
    how: Rounding,
    spacing: float = 1.0,
    spread: int = 1,
) -> Prepared:
    """Order, factor, steps and classes of the problem that `solve` describes, with steps of rows times `spacing`."""
    order = _order(covariance)
    w = weights.take(order, axis=1)
    fisher = np.maximum(fisher, fisher.mean() * ROW_FLOOR)
    power = np.concatenate([np.square(w[some], dtype=np.float64).mean(1) for some in _slices(*w.shape)])
    fold = how.quadratic * theta / max(float((power * fisher).mean()), TINY)
    factor = _factor(covariance, order, fold)
    row_steps, column_steps = _steps(factor, fisher, theta, how)
    row_steps = row_steps * np.float32(spacing)
    row_weight = (fisher * np.square(row_steps, dtype=np.float64) / (12 * theta)).astype(np.float32)
    classes = _classes(w, spread * row_steps, column_steps, how.classes)
    levels = np.empty(w.shape, np.int32)
    for some in _slices(*w.shape):
        wide = w[some] / column_steps / row_steps[some, None] / spread
        levels[some] = np.rint(wide).clip(-(2**23), 2**23)
    _to_targets(w, factor, fold)
    return Prepared(order, levels, factor, fold, w, row_steps, column_steps, row_weight, *classes, spread)


def solve_on_grid(weights: Floats, covariance: Floats, row_steps: Floats) -> Solution:
    """Round `weights` (rows, n) to a grid for every row, with error feedback alone (GPTQ with ordered columns)."""
    order, (rows, n) = _order(covariance), weights.shape
    factor = _factor(covariance, order)
    residual = np.ascontiguousarray(weights[:, order])
    _to_targets(residual, factor, 0.0)
    levels, columns = np.empty((rows, n), np.int32), np.ones(n, np.float32)
    _core.feedback_round(
        residual, factor.astype(np.float32), row_steps, columns, np.ones(rows, np.float32), np.zeros(rows, np.uint8),
        np.zeros(n, np.uint8), np.zeros((1, 1), np.float32), 0.0, apart(rows), *UNCOUPLED, levels,
    )  # fmt: skip
    return Solution(in_place(levels, order), row_steps, columns)


def _slices(rows: int, width: int) -> Iterator[slice]:
    """Parts of so many rows, each of about `CHUNK` numbers."""
    some = max(1, CHUNK // width)
    return (slice(k, k + some) for k in range(0, rows, some))


def _factor(covariance: Floats, order: npt.NDArray[np.int64], fold: float = 0.0) -> Doubles:
    """Cholesky factors of covariances with their columns in this order and the quadratic price on the diagonal."""
    import torch

    found = torch.from_numpy(covariance[:, order[:, None], order].astype(np.float64))
    found.diagonal(dim1=1, dim2=2).add_(fold)
    found = torch.linalg.cholesky(found)  # what it was made of is not needed any more, and may be large
    return found.contiguous().numpy()


def _order(covariance: Floats) -> npt.NDArray[np.int64]:
    """Columns by rising strength of their inputs: they are rounded last to first."""
    return np.argsort(np.diagonal(covariance, axis1=1, axis2=2).mean(0), kind="stable")


def _to_targets(w: Floats, factor: Doubles, fold: float) -> None:
    """Make W' L' of w, in place, with W' = W A (A + fold I)^-1: what the weights become if the quadratic price is paid
    in advance."""
    import torch

    grouped, lower = w.reshape(len(factor), -1, w.shape[1]), torch.from_numpy(factor)
    for some in _slices(grouped.shape[1], len(factor) * w.shape[1]):
        part = torch.from_numpy(grouped[:, some].astype(np.float64))
        found = part @ lower
        if fold > 0:  # A L'^-T = L' - fold L'^-T
            found -= fold * torch.linalg.solve_triangular(lower, part.mT, upper=False).mT
        grouped[:, some] = found.numpy()


def _steps(factor: Doubles, fisher: Doubles, theta: float, how: Rounding) -> tuple[Floats, Floats]:
    """Steps of rows and of columns, rounded to parts of octaves relative to the water level."""
    logs = np.log2(np.diagonal(factor, axis1=1, axis2=2))
    level = logs.mean(1) - logs.mean()  # of groups: what they have in common is left to the columns
    columns = _rounded(-logs.mean(0), how.column_steps)
    rows = _rounded(-0.5 * np.log2(fisher) - np.repeat(level, len(fisher) // len(factor)), how.row_steps)
    return (np.exp2(rows) * math.sqrt(12 * theta)).astype(np.float32), np.exp2(columns).astype(np.float32)


def _rounded(octaves: Doubles, parts: float) -> Doubles:
    """To multiples of 1/parts; all the same for no parts."""
    return np.round(octaves * parts) / parts if parts > 0 else np.full_like(octaves, octaves.mean())


def _classes(w: Floats, row_steps: Floats, column_steps: Floats, parts: int) -> tuple[Classes, Classes, int]:
    """Classes of rows and columns whose sum is the class of a weight, by the spread of weights in steps."""
    if parts <= 0:
        return np.zeros(len(row_steps), np.uint8), np.zeros(len(column_steps), np.uint8), 1
    rows, columns = np.empty(len(w)), np.zeros(w.shape[1])
    for some in _slices(*w.shape):
        power = np.square(w[some] / column_steps / row_steps[some, None], dtype=np.float64)
        rows[some] = power.mean(1)
        columns += power.sum(0) / len(w)
    parts = min(parts, int(MAX_CLASSES / 2 / (WIDEST - NARROWEST)) or 1)
    spread = np.log2(np.maximum(rows, TINY)).clip(2 * NARROWEST, 2 * WIDEST) / 2 - NARROWEST
    relative = np.log2(np.maximum(columns, TINY) / max(columns.mean(), TINY)).clip(NARROWEST, WIDEST) / 2
    row_class, column_class = np.round(spread * parts), np.round(relative * parts)
    column_class -= column_class.min()
    return row_class.astype(np.uint8), column_class.astype(np.uint8), MAX_CLASSES


def _prices(levels: Integers, row_class: Classes, column_class: Classes, classes: int) -> Floats:
    """Bits (classes, 2 limit + 1) of every level in every class, by how often it occurs there."""
    limit = min(max(int(levels.max()), -int(levels.min())) + 2, MAX_LIMIT)
    counts = np.zeros((classes, 2 * limit + 1), np.uint64)
    _core.feedback_count(levels, row_class, column_class, counts)
    smooth = counts + UNSEEN
    return -np.log2(smooth / smooth.sum(1, keepdims=True)).astype(np.float32)
