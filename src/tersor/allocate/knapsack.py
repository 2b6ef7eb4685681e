"""One choice for every item, the least total loss within a budget: the multiple-choice knapsack.

A price of size turns it into one choice after another (Lagrangian relaxation: Everett 1963); what the best price leaves
of the budget goes to the exchanges that gain most for their size.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

HALVINGS = 100


def choose(losses: Sequence[Sequence[float]], sizes: Sequence[Sequence[float]], budget: float) -> list[int] | None:
    """The number of the choice for every item; None if even the smallest choices do not fit.

    `losses` and `sizes` hold the choices of every item. With many items the total loss is within a few per cent of the
    optimum.
    """
    tables = [(np.asarray(a, np.float64), np.asarray(b, np.float64)) for a, b in zip(losses, sizes, strict=True)]
    if sum(float(size.min()) for _, size in tables) > budget:
        return None
    low, high = 0.0, max((_dearest(loss, size) for loss, size in tables), default=0.0) * 2 + 1e-300
    best = [int(np.lexsort((loss, size))[0]) for loss, size in tables]
    if _total(tables, cheapest := _relaxed(tables, low)) <= budget:
        return cheapest
    for _ in range(HALVINGS):
        price = (low * high) ** 0.5 if low > 0 else high * 1e-6
        if not low < price < high:
            break
        chosen = _relaxed(tables, price)
        if _total(tables, chosen) <= budget:
            high, best = price, chosen
        else:
            low = price
    return _repaired(tables, best, budget)


def _dearest(loss: Numbers, size: Numbers) -> float:
    """A price at which the smallest choice is taken."""
    smallest = np.lexsort((loss, size))[0]
    larger = size > size[smallest]
    return float(((loss[smallest] - loss[larger]) / (size[larger] - size[smallest])).max(initial=0.0))


def _relaxed(tables: Sequence[tuple[Numbers, Numbers]], price: float) -> list[int]:
    """The best choices at a price; the smaller of two that are as good."""
    return [int(np.lexsort((size, loss + price * size))[0]) for loss, size in tables]


def _total(tables: Sequence[tuple[Numbers, Numbers]], chosen: Sequence[int]) -> float:
    return sum(float(size[k]) for (_, size), k in zip(tables, chosen, strict=True))


def _repaired(tables: Sequence[tuple[Numbers, Numbers]], chosen: list[int], budget: float) -> list[int]:
    """Exchange choices as long as some exchange fits and gains: each time the one that gains most for its size."""
    chosen, room = list(chosen), budget - _total(tables, chosen)
    while True:
        found: tuple[float, int, int] | None = None
        for item, (loss, size) in enumerate(tables):
            gain, more = loss[chosen[item]] - loss, size - size[chosen[item]]
            for k in np.flatnonzero((gain > 0) & (more <= room)):
                worth = float(gain[k] / more[k]) if more[k] > 0 else float("inf")
                if found is None or worth > found[0]:
                    found = worth, item, int(k)
        if found is None:
            return chosen
        _, item, k = found
        room -= float(tables[item][1][k] - tables[item][1][chosen[item]])
        chosen[item] = k
