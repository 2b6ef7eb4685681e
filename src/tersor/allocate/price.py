"""The price of a bit at which a whole file just fits its budget.

Sizes fall as the price rises. A cheap prediction finds the neighbourhood, real sizes decide: the search ends with a
price at which the *file* was measured, at most `TOLERANCE` below the budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

TOLERANCE = 0.005
AIM = 0.0015
"""Aim this share below the budget: real sizes differ from predictions by less."""
MOST_TRIALS = 16


@dataclass
class Trials:
    """Real sizes measured so far."""

    sizes: dict[float, int] = field(default_factory=dict[float, int])

    def best(self, budget: int) -> float | None:
        """The price of the largest file within the budget."""
        within = [(size, -price) for price, size in self.sizes.items() if size <= budget]
        return -max(within)[1] if within else None


def predict(size: Callable[[float], float], target: float, low: float, high: float, steps: int = 40) -> float:
    """The price in low .. high at which the predicted size is `target`, by bisection in the logarithm."""
    a, b = math.log(low), math.log(high)
    for _ in range(steps):
        middle = (a + b) / 2
        if size(math.exp(middle)) > target:
            a = middle
        else:
            b = middle
        if b - a < 1e-3:
            break
    return math.exp(b)


def search(
    budget: int,
    size: Callable[[float], int],
    start: float,
    slope: float = -0.2,
    known: Trials | None = None,
    tolerance: float = TOLERANCE,
) -> Trials:
    """Measure real sizes until one lies within `tolerance` below `budget`, or nothing more can be gained.

    `start` is a good guess; `slope` is d log(size) / d log(price) there. A bracket of one price above and one below
    the budget is kept as soon as there are both; the next price is interpolated between them, or extrapolated by the
    slope. Sizes that are `known` from an earlier run are not measured again; the path is the same as without them.
    """
    trials, known = Trials(), known or Trials()
    price, aim = start, budget * (1 - max(AIM, tolerance / 4))
    for trial in range(MOST_TRIALS):
        trials.sizes[price] = known.sizes[price] if price in known.sizes else size(price)
        best = trials.best(budget)
        if best is not None and trials.sizes[best] >= budget * (1 - tolerance):
            break
        over = [p for p, s in trials.sizes.items() if s > budget]
        under = [p for p, s in trials.sizes.items() if s <= budget]
        if over and under:
            low, high = max(over), min(under)
            if high / low < 1 + 1e-9:
                break
            price = _between(low, trials.sizes[low], high, trials.sizes[high], aim, halve=trial % 3 == 2)
        else:
            shift = math.log(aim / trials.sizes[price]) / slope
            price *= math.exp(max(-3.0, min(3.0, shift * (1 + 0.3 * (trial > 0)))))
        if price in trials.sizes:
            break
    return trials


def _between(low: float, low_size: int, high: float, high_size: int, aim: float, *, halve: bool) -> float:
    """A price strictly inside low .. high: interpolated in logarithms, or now and then the middle, lest one
    end sticks."""
    share = 0.5
    if not halve and low_size != high_size:
        share = (math.log(low_size) - math.log(aim)) / (math.log(low_size) - math.log(high_size))
        share = min(0.98, max(0.02, share))
    return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
