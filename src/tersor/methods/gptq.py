"""Method `gptq`: one uniform grid a row, as wide as its largest weight, and rounding with error feedback.

The reference that others are compared with (Frantar et al. 2022, arXiv 2210.17323, with columns ordered by the
strength of their inputs), entropy coded. All rows have the same number of levels; it follows from the price, and need
not be a power of two. A level that feedback pushes beyond the largest weight stays: entropy coding has room for it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tersor.format.dtypes import Bytes
from tersor.methods._feedback import Floats, Solution, by_parts, damped, joined, solve_on_grid, white
from tersor.methods.second_order import Bound, FeedbackSample, matrix_of
from tersor.ops.uniform import MAX_STEPS
from tersor.sources import Unit

if TYPE_CHECKING:
    from tersor.calibration.statistics import Statistics


@dataclass(frozen=True)
class Gptq:
    """Round with error feedback to one grid a row, the same number of levels everywhere; needs samples."""

    name: ClassVar[str] = "gptq"

    alternatives: ClassVar[Mapping[str, tuple[float, ...]]] = {}
    coherence: ClassVar[float] = 0.0
    coupling: ClassVar[float] = 0.0

    damping: float = field(default=0.01, metadata={"help": "added to covariances, in mean diagonals"})

    def bind(self, statistics: Mapping[str, Statistics]) -> BoundGptq:
        """The method with what calibration learned, by unit name."""
        return BoundGptq(self, statistics)


@dataclass(frozen=True, eq=False)
class BoundGptq(Bound):
    """`Gptq` with statistics: a method like any other. Units without statistics are rounded to the nearest level."""

    def sample(self, unit: Unit, data: Bytes, budget: int) -> FeedbackSample | None:
        """Some rows of the unit in units of their largest weight."""
        matrix = matrix_of(unit, data, self._transposed(unit))
        chosen = matrix[:: max(1, matrix.size // budget)]
        return FeedbackSample(chosen / _largest(chosen)[:, None], unit.count)

    def solution(self, unit: Unit, data: Bytes, price: float) -> Solution:
        """Levels and steps at a price: of 12 price / ln 2 squared largest weights."""
        matrix = matrix_of(unit, data, self._transposed(unit))
        steps = _largest(matrix) * np.float32(math.sqrt(12 * price / math.log(2)))
        statistics = self.statistics.get(unit.name)
        known = None if statistics is None else statistics.covariance
        covariance = white(matrix.shape[1]) if known is None else damped(known, self.settings.damping)
        grids = _palette(steps)
        return joined([self.on_grid(part, own, grids) for part, own in by_parts(matrix, covariance)])

    def on_grid(self, matrix: Floats, covariance: Floats, steps: Floats) -> Solution:
        """Levels of a matrix on the grids of its rows; `covariance` is damped."""
        return solve_on_grid(matrix, covariance, steps)


def _largest(matrix: Floats) -> Floats:
    """Largest magnitude of every row."""
    return np.maximum(np.abs(matrix).max(1), np.float32(1e-30))


def _palette(steps: Floats) -> Floats:
    """At most 256 different steps: rounded to a 2^(1/12) if there are more."""
    if np.unique(steps).size <= MAX_STEPS:
        return steps
    octaves = np.round(np.log2(steps) * 12)
    return np.exp2(np.maximum(octaves, octaves.max() - MAX_STEPS + 1) / 12).astype(np.float32)
