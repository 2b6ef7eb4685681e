"""Method `adaround`: for every weight, learn whether to round it up or down.

The reference of Nagel et al. 2020 (arXiv 2004.10568), layer by layer. The loss of a layer is quadratic in the change of
its weights, so that the covariance of its inputs takes the place of activations, and gradients are exact. Grids are
those of `gptq`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from tersor.methods._feedback import Floats, Solution
from tersor.methods.gptq import BoundGptq, Gptq
from tersor.methods.nearest import FARTHEST_LEVEL

if TYPE_CHECKING:
    import torch

    from tersor.calibration.statistics import Statistics

STRETCH, SHIFT = 1.2, -0.1
"""The rectified sigmoid is clip(STRETCH * sigmoid(v) + SHIFT, 0, 1): it reaches both ends."""
SHARPEST, BLUNTEST = 20.0, 2.0
"""The exponent of the penalty falls from one to the other."""
WARM_UP = 0.2
"""Share of the iterations without a penalty."""


@dataclass(frozen=True)
class AdaRound(Gptq):
    """Learn whether to round up or down, on one grid a row, the same number of levels everywhere; needs samples."""

    name: ClassVar[str] = "adaround"

    iterations: int = field(default=500, metadata={"help": "steps of Adam for a layer, at every size that is tried"})
    rate: float = field(default=0.03, metadata={"help": "learning rate"})
    penalty: float = field(
        default=1.0, metadata={"help": "weight of what is neither up nor down, in squared steps of a typical input"}
    )

    def bind(self, statistics: Mapping[str, Statistics]) -> BoundAdaRound:
        """The method with what calibration learned, by unit name."""
        return BoundAdaRound(self, statistics)


@dataclass(frozen=True, eq=False)
class BoundAdaRound(BoundGptq):
    """`AdaRound` with statistics."""

    def on_grid(self, matrix: Floats, covariance: Floats, steps: Floats) -> Solution:
        """Levels of a matrix on the grids of its rows; `covariance` is damped."""
        s: AdaRound = self.settings
        return adaround(matrix, covariance, steps, s.iterations, s.rate, s.penalty)


def adaround(
    weights: Floats, covariance: Floats, row_steps: Floats, iterations: int, rate: float, penalty: float
) -> Solution:
    """Round `weights` (rows, n) up or down, for a small d^T covariance d of the error d of every row.

    `covariance` is (groups, n, n); group g feeds the g-th part of the rows. The penalty is equation 24 of the paper, in
    units in which the covariances have a mean diagonal of 1 and steps are 1.
    """
    import torch

    (groups, n, _), rows = covariance.shape, len(weights)
    level = np.trace(covariance, axis1=1, axis2=2)[:, None, None] / n
    sigma = torch.from_numpy((covariance / level).astype(np.float32))
    scaled = torch.from_numpy(weights / row_steps[:, None]).reshape(groups, rows // groups, n)
    floor = scaled.floor()
    share = (scaled - floor - SHIFT) / STRETCH
    v = torch.log(share / (1 - share)).requires_grad_()
    optimizer = torch.optim.Adam([v], lr=rate)
    for k in range(iterations):
        progress = (k / iterations - WARM_UP) / (1 - WARM_UP)
        with torch.enable_grad():
            up = _rectified(v)
            change = floor + up - scaled
            loss = ((change @ sigma) * change).sum()
            if progress >= 0:
                exponent = SHARPEST + (BLUNTEST - SHARPEST) * progress
                loss = loss + penalty * (1 - (2 * up - 1).abs().pow(exponent)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    levels = (floor + (_rectified(v) >= 0.5)).reshape(rows, n).clamp(-FARTHEST_LEVEL, FARTHEST_LEVEL)
    return Solution(levels.numpy().astype(np.int32), row_steps, np.ones(n, np.float32))


def _rectified(v: torch.Tensor) -> torch.Tensor:
    return (v.sigmoid() * STRETCH + SHIFT).clamp(0, 1)
