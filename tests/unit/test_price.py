from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from tersor.allocate.price import MOST_TRIALS, TOLERANCE, Trials, predict, search

Size = Callable[[float], int]


def smooth(exponent: float, fixed: int = 0) -> Size:
    return lambda price: fixed + int(1e6 * price**exponent)


def stepped(exponent: float, width: float) -> Size:
    """Falls in steps, as real sizes do when levels jump; `width` is a step's share of the size."""

    def size(price: float) -> int:
        exact = 1e6 * price**exponent
        return int(math.exp(round(math.log(exact) / width) * width))

    return size


def kinked(price: float) -> int:
    return int(1e6 * min(price**-0.1, 0.5 * price**-0.6))


SIZES: dict[str, Size] = {
    "gentle": smooth(-0.1),
    "usual": smooth(-0.3, 20_000),
    "steep": smooth(-2.0),
    "mostly fixed": smooth(-0.3, 300_000),
    "fine steps": stepped(-0.3, 0.001),
    "kink": kinked,
}


def measured(size: Size, budget: int, start: float, slope: float) -> tuple[Trials, list[float]]:
    asked: list[float] = []

    def counted(price: float) -> int:
        asked.append(price)
        return size(price)

    return search(budget, counted, start, slope), asked


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("budget", [400_000, 700_000, 1_500_000])
@pytest.mark.parametrize("error", [0.02, 0.5, 0.99, 1.01, 2, 50])
def test_ends_at_or_just_below_the_budget(name: str, budget: int, error: float) -> None:
    """The guess is off by a factor of up to 50."""
    start = error * predict(SIZES[name], budget, 1e-12, 1e12)
    trials, asked = measured(SIZES[name], budget, start, -0.3)
    best = trials.best(budget)
    assert best is not None
    assert budget * (1 - TOLERANCE) <= trials.sizes[best] <= budget
    assert trials.sizes[best] == SIZES[name](best)
    assert len(asked) == len(set(asked)) <= MOST_TRIALS


def test_a_good_guess_needs_one_trial() -> None:
    size = smooth(-0.3)
    trials, asked = measured(size, 500_000, 0.499 ** (-1 / 0.3), -0.3)
    assert len(asked) == 1 and trials.best(500_000) == asked[0]


@pytest.mark.parametrize("jump", [0.5, 1.0, 3.0, 20.0])
def test_a_jump_across_the_budget(jump: float) -> None:
    """No price gives a size within tolerance: the largest below the jump is taken."""

    def size(price: float) -> int:
        return 900_000 if price < jump else 300_000

    trials, asked = measured(size, 500_000, 1.0, -0.3)
    best = trials.best(500_000)
    assert best is not None and trials.sizes[best] == 300_000 and len(asked) <= MOST_TRIALS


def test_never_over_the_budget_even_if_out_of_reach() -> None:
    trials, asked = measured(lambda price: 600_000, 500_000, 1.0, -0.3)
    assert trials.best(500_000) is None and len(asked) <= MOST_TRIALS


def test_everything_fits() -> None:
    trials, _ = measured(lambda price: 100, 500_000, 1.0, -0.3)
    assert trials.best(500_000) is not None


def test_best_is_the_largest_that_fits_and_the_cheapest_of_equals() -> None:
    trials = Trials({1.0: 900, 2.0: 500, 3.0: 500, 4.0: 400})
    assert trials.best(899) == 2.0 and trials.best(900) == 1.0 and trials.best(450) == 4.0 and trials.best(10) is None


@pytest.mark.parametrize("name", [*SIZES, "jump"])
@pytest.mark.parametrize("budget", [400_000, 700_000])
@pytest.mark.parametrize("start", [1e-3, 0.5, 40.0])
def test_a_resumed_search_ends_where_the_undisturbed_one_does(name: str, budget: int, start: float) -> None:
    size = SIZES.get(name, lambda price: 900_000 if price < 2.5 else 300_000)
    whole, asked = measured(size, budget, start, -0.3)
    for done in range(1, len(asked) + 1):
        again: list[float] = []

        def counted(price: float, again: list[float] = again) -> int:
            again.append(price)
            return size(price)

        resumed = search(budget, counted, start, -0.3, Trials({p: size(p) for p in asked[:done]}))
        assert resumed.best(budget) == whole.best(budget), f"resumed after {done} of {len(asked)} trials"
        assert again == asked[done:]


def test_prediction_by_bisection() -> None:
    price = predict(lambda p: 1e6 * p**-0.3, 250_000, 1e-24, 1e12)
    assert 1e6 * price**-0.3 == pytest.approx(250_000, rel=1e-3)
    assert predict(lambda p: 10.0, 250_000, 1e-24, 1e12) == pytest.approx(1e-24, rel=1e-2)
    assert predict(lambda p: 1e9, 250_000, 1e-24, 1e12) == pytest.approx(1e12, rel=1e-2)
