"""The dependent quantizer against all paths there are, and against what the decoder makes of its levels."""

from __future__ import annotations

from itertools import product

import numpy as np
import numpy.typing as npt
import pytest

from tersor import _core
from tersor.coders import Symbols, integer_type
from tersor.methods._feedback import Rounding, apart, damped, solve
from tersor.methods.trellis import solve_trellis

NEXT = [(0, 2), (7, 5), (1, 3), (6, 4), (2, 0), (5, 7), (3, 1), (4, 6)]
Array = npt.NDArray[np.float64]


def follow(levels: npt.ArrayLike, restarts: set[int]) -> list[int]:
    """Values of the levels of a column, from the table of the specification."""
    state, values = 0, list[int]()
    for row, q in enumerate(np.asarray(levels).tolist()):
        state = 0 if row in restarts else state
        values.append(2 * q - (state & 1) * ((q > 0) - (q < 0)))
        state = NEXT[state][q & 1]
    return values


def rounded(
    target: Array, weight: Array, fold: Array, bits: Array, first: int = 0, length: int = 1, chunk: int = 100
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    rows = len(target)
    levels, values = np.empty(rows, np.int32), np.empty(rows, np.int32)
    f = np.float32
    _core.trellis_round(
        target.astype(f), weight.astype(f), fold.astype(f), (np.arange(rows) % 2).astype(np.uint8), 1, bits.astype(f),
        first, length, chunk, levels, values,
    )  # fmt: skip
    return levels, values


def cost(target: Array, weight: Array, fold: Array, bits: Array, levels: npt.ArrayLike, values: npt.ArrayLike) -> float:
    q, v = np.asarray(levels), np.asarray(values, np.float64)
    limit = bits.shape[1] // 2
    price = bits[np.minimum(np.arange(len(q)) % 2 + 1, len(bits) - 1), np.clip(q, -limit, limit) + limit]
    return float((weight * (target - v) ** 2 - fold * v**2 + price).sum())


@pytest.mark.parametrize("rate", [0.0, 0.3, 3.0])
@pytest.mark.parametrize(("length", "chunk", "restarts"), [(1, 100, set[int]()), (3, 7, {2}), (50, 7, {1, 2, 3, 4})])
def test_the_best_of_all_paths(rate: float, length: int, chunk: int, restarts: set[int]) -> None:
    rng = np.random.default_rng(int(10 * rate) + length)
    for _ in range(6):
        target, weight = rng.normal(0, 2, 5), rng.uniform(0.2, 2, 5)
        fold = 0.02 * weight
        bits = rate * (np.abs(np.arange(-2, 3)) + rng.uniform(0, 0.2, (2, 5)))
        levels, values = rounded(target, weight, fold, bits, 1, length, chunk)
        assert follow(levels, restarts) == values.tolist()
        least = min(
            cost(target, weight, fold, bits, path, follow(path, restarts)) for path in product(range(-4, 5), repeat=5)
        )
        assert cost(target, weight, fold, bits, levels, values) == pytest.approx(least, abs=1e-5)


def test_levels_beyond_all_bounds() -> None:
    target = np.array([3e6, -3e6, 1e30, -np.inf, 0.0])
    one = np.ones(5)
    levels, values = rounded(target, one, 0 * one, np.zeros((1, 1)))
    assert follow(levels, set()) == values.tolist() and np.abs(levels).max() < 2**23
    np.testing.assert_allclose(values[:2], target[:2], atol=2)


def test_arguments_that_contradict_each_other() -> None:
    f, u, i = np.float32, np.uint8, np.int32
    good = [np.ones(3, f), np.ones(3, f), np.ones(3, f), np.zeros(3, u), 0, np.zeros((1, 3), f), 0, 1, 9,
            np.empty(3, i), np.empty(3, i)]  # fmt: skip
    _core.trellis_round(*good)
    wrong = {1: np.ones(2, f), 2: np.ones(4, f), 3: np.zeros(2, u), 5: np.zeros((1, 2), f), 7: 0, 8: 0,
             9: np.empty(2, i), 10: np.empty(4, i)}  # fmt: skip
    for place, value in wrong.items():
        with pytest.raises(_core.StreamError):
            _core.trellis_round(*[value if k == place else v for k, v in enumerate(good)])


# -- whole matrices ----------------------------------------------------------------------------------------------------


def problem(rng: np.random.Generator, groups: int, rows: int, n: int) -> tuple[npt.NDArray[np.float32], Array, Array]:
    distance = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    scale = np.exp(rng.normal(0, 0.7, (groups, n)))
    covariance = 0.9**distance * scale[:, :, None] * scale[:, None, :]
    return rng.normal(0, 1, (rows, n)).astype(np.float32), damped(covariance, 1e-3), np.exp(rng.normal(0, 1, rows))


def loss(weights: npt.ArrayLike, rebuilt: npt.ArrayLike, covariance: Array, fisher: Array) -> float:
    change = (np.asarray(rebuilt, np.float64) - np.asarray(weights)).reshape(len(covariance), -1, covariance.shape[1])
    return float((fisher * np.einsum("gri,gij,grj->gr", change, covariance, change).reshape(-1)).mean())


@pytest.mark.parametrize(("groups", "rows", "n", "chunk"), [(1, 40, 150, 2**18), (20, 40, 9, 100), (2, 6, 70, 64)])
def test_values_are_those_of_the_specification(groups: int, rows: int, n: int, chunk: int) -> None:
    weights, covariance, fisher = problem(np.random.default_rng(n), groups, rows, n)
    found = solve_trellis(weights, covariance, fisher, 0.05, Rounding(), 0.56, chunk)
    assert found.values is not None
    for column in range(n):
        places = np.arange(rows) * n + column
        restarts = set((np.flatnonzero(np.diff(places // chunk)) + 1).tolist())
        assert follow(found.levels[:, column], restarts) == found.values[:, column].tolist()


def test_passes_start_from_the_same_targets() -> None:
    weights, covariance, fisher = problem(
        np.random.default_rng(2), 16, 16, 9
    )  # a row to a group, as in depthwise layers
    once, thrice = (
        solve_trellis(weights, covariance, fisher, 1e-3, Rounding(passes=passes), 0.56).weights() for passes in (1, 3)
    )
    assert loss(weights, thrice, covariance, fisher) < 1.1 * loss(weights, once, covariance, fisher)


def entropy(levels: npt.NDArray[np.int32], spread: Array) -> float:
    """Bits of a level, given tables for eight quantiles of spread."""
    group, bits = np.searchsorted(np.quantile(spread, np.arange(1, 8) / 8), spread), 0.0
    for k in range(8):
        _, counts = np.unique(levels[group == k], return_counts=True)
        bits -= float((counts * np.log2(counts / counts.sum())).sum())
    return bits / levels.size


@pytest.mark.parametrize(("bits", "least"), [(2.0, 0.03), (3.0, 0.08)])
def test_fewer_bits_for_the_same_loss(bits: float, least: float) -> None:
    weights, covariance, fisher = problem(np.random.default_rng(1), 1, 256, 96)

    def curve(spacing: float) -> tuple[list[float], list[float]]:
        points: list[tuple[float, float]] = []
        for theta in np.geomspace(1e-1, 1e-4, 9) * 0.3:
            if spacing:
                s = solve_trellis(weights, covariance, fisher, theta, Rounding(), spacing)
            else:
                s = solve(weights, covariance, fisher, theta, Rounding(), apart(len(weights)))
            spread = np.abs(weights).mean() / s.row_steps[:, None] / s.column_steps
            points.append((entropy(s.levels, spread), np.log(loss(weights, s.weights(), covariance, fisher))))
        points.sort()
        return [p[0] for p in points], [p[1] for p in points]

    scalar, trellis = curve(0), curve(0.56)
    level = np.interp(bits, *scalar)
    assert np.interp(-level, -np.array(trellis[1]), trellis[0]) < bits - least


def test_the_decoder_rebuilds_what_was_assumed() -> None:
    from tersor.encoded import Distortion, seal
    from tersor.format.dtypes import DTYPES
    from tersor.ops.uniform2d import Scales, encode_step

    weights, covariance, fisher = problem(np.random.default_rng(5), 1, 90, 70)
    found = solve_trellis(weights, covariance, fisher, 0.02, Rounding(), 0.56, 2**10)
    kind = integer_type(int(found.levels.min()), int(found.levels.max()))
    symbols = Symbols.of(found.levels, 2**10, row_length=70)
    step, streams = encode_step(symbols, kind, Scales.of(found.row_steps, found.column_steps), trellis=True)
    decoded = list[npt.NDArray[np.uint8]]()

    def measure(start: int, out: npt.NDArray[np.uint8]) -> Distortion:
        decoded.append(out.copy())
        return Distortion()

    seal("w", "F32", (90, 70), step, streams, measure)
    assert step.op == "trellis" and DTYPES["F32"].width == 4
    np.testing.assert_array_equal(np.concatenate(decoded).view(np.float32).reshape(90, 70), found.weights())
