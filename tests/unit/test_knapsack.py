"""Choices within a budget, against an exact solver and against all there are."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from tersor.allocate.knapsack import choose


def instance(seed: int, items: int, choices: int) -> tuple[list[list[float]], list[list[float]]]:
    """Losses that fall about fourfold a bit, sizes that grow, as those of layers do."""
    rng = np.random.default_rng(seed)
    losses, sizes = list[list[float]](), list[list[float]]()
    for _ in range(items):
        count, level = int(np.exp(rng.uniform(5, 9))), np.exp(rng.normal(0, 2))
        losses.append([float(level * 4.0**-b * rng.uniform(0.7, 1.4)) for b in range(choices)])
        sizes.append([float(int(count * (2 + b) * rng.uniform(0.9, 1.1) / 8)) for b in range(choices)])
    return losses, sizes


def total(table: list[list[float]], chosen: list[int]) -> float:
    return sum(values[k] for values, k in zip(table, chosen, strict=True))


@pytest.mark.parametrize("seed", range(8))
def test_nearly_as_good_as_the_optimum(seed: int) -> None:
    optimize = pytest.importorskip("scipy.optimize")
    losses, sizes = instance(seed, 30, 7)
    budget = np.mean([sum(map(min, sizes)), sum(map(max, sizes))]) * (0.6 + 0.1 * seed)
    c, a = np.concatenate(losses), np.concatenate(sizes)
    one = np.kron(np.eye(30), np.ones(7))
    limits = [optimize.LinearConstraint(one, 1, 1), optimize.LinearConstraint(a[None], -np.inf, budget)]
    exact = optimize.milp(c, integrality=np.ones(210), bounds=optimize.Bounds(0, 1), constraints=limits)
    chosen = choose(losses, sizes, float(budget))
    assert chosen is not None and exact.success and total(sizes, chosen) <= budget
    assert exact.fun * (1 - 1e-6) - 1e-12 <= total(losses, chosen) <= exact.fun * 1.05


def test_all_there_are() -> None:
    losses, sizes = instance(3, 4, 3)
    for budget in np.linspace(sum(map(min, sizes)), sum(map(max, sizes)), 9):
        chosen = choose(losses, sizes, float(budget))
        fitting = [c for c in product(range(3), repeat=4) if total(sizes, list(c)) <= budget]
        least = min(total(losses, list(c)) for c in fitting)
        largest = max(values[0] - min(values) for values in losses)
        assert chosen is not None and tuple(chosen) in fitting
        assert least - 1e-12 <= total(losses, chosen) <= least + largest


def test_edges() -> None:
    assert choose([[1.0, 0.0]], [[5.0, 9.0]], 4.0) is None
    assert choose([[1.0, 0.0]], [[5.0, 9.0]], 5.0) == [0] and choose([[1.0, 0.0]], [[5.0, 9.0]], 9.0) == [1]
    assert choose([[1.0, 2.0]], [[5.0, 9.0]], 100.0) == [0]  # larger and worse
    assert choose([[1.0, 1.0]], [[9.0, 5.0]], 100.0) == [1]
    assert choose([], [], 0.0) == []
