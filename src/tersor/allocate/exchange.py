"""Precision moved between tensors, by what each of them really does to the output.

Statistics predict what the rounding of a tensor costs; run with that tensor alone rounded, the model says what it does
cost. Where it is r times what was predicted, the same bits are best spent with steps r^(1/2) times finer. How much of
that is right for all tensors together, whose errors do not just add up (EvoPress), has to be found out by trial.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tersor.methods.second_order import Bound
from tersor.sources import Unit

SHARES = (0.5, 1.0)
"""How much of the correction is tried, one after another."""
FARTHEST = 1.0
"""Steps change by so many octaves at most."""


def sensitivities(
    bound: Bound, units: Sequence[Unit], price: float, measure: Callable[[Mapping[str, np.ndarray]], float]
) -> dict[str, float]:
    """Of each unit, the divergence with it alone rounded at a price over what is predicted; left out where either is
    nothing."""
    found: dict[str, float] = {}
    for unit in units:
        data = unit.load()
        solution = bound.solution(unit, data, price)
        predicted, measured = bound.loss(unit, data, solution), measure({unit.name: bound.restored(unit, solution)})
        if 0 < measured < math.inf and predicted > 0:
            found[unit.name] = measured / predicted
    return found


def exchanged(ratios: Mapping[str, float], units: Sequence[Unit], share: float) -> dict[str, float]:
    """Factors of the units' steps that apply a share of the correction and leave the total of bits about the same."""
    known = [unit for unit in units if unit.name in ratios]
    octaves = np.array([-share / 2 * math.log2(ratios[unit.name]) for unit in known])
    counts = np.array([float(unit.count) for unit in known])
    octaves = (octaves - np.average(octaves, weights=counts)).clip(-FARTHEST, FARTHEST)
    octaves -= np.average(octaves, weights=counts)
    return {unit.name: float(2**k) for unit, k in zip(known, octaves, strict=True)}
