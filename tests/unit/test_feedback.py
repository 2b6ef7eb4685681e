"""Rounding with error feedback against its definition, and what each ingredient is for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from tersor import _core
from tersor.methods._feedback import GROUP_FLOOR, Floats, Rounding, apart, cost, damped, factored, solve

Array = npt.NDArray[np.float64]


def correlated(rng: np.random.Generator, n: int, strength: float) -> Array:
    distance = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    scale = np.exp(rng.normal(0, 0.7, n))
    return strength**distance * np.outer(scale, scale)


def reference(
    residual: Array, factor: Array, row_step: Array, column_step: Array, row_weight: Array,
    classes: npt.NDArray[np.int64], bits: Array, quadratic: float, row_factor: Array, spared: Array,
) -> npt.NDArray[np.int64]:  # fmt: skip
    """One weight after another, as feedback.h says, in float64."""
    left, levels, errors = residual.copy(), np.zeros(residual.shape, np.int64), np.zeros(residual.shape)
    limit = bits.shape[1] // 2
    group_rows, coupled = len(residual) // len(factor), row_factor.shape[1]
    for i in range(len(left) - 1, -1, -1):
        own = factor[i // group_rows]
        below = slice(i + 1, (i // coupled + 1) * coupled)  # rows of the same block, done already
        shift = row_factor[below, i % coupled] @ errors[below]
        for j in range(len(column_step) - 1, -1, -1):
            size = row_step[i] * column_step[j]
            t = (left[i, j] + shift[j]) / (own[j, j] * size)
            nearest = int(np.sign(t) * np.floor(abs(t) + 0.5))
            side = 1 if t >= 0 else -1
            costs = {}
            for q in {0, *(q for q in (nearest - 1, nearest, nearest + 1) if q * side > 0)}:
                error = (own[j, j] * column_step[j] * (t - q)) ** 2
                price = bits[classes[i, j], np.clip(q, -limit, limit) + limit]
                costs[q] = row_weight[i] * (error - quadratic * (column_step[j] * q) ** 2) + price
            levels[i, j] = min(costs, key=lambda q: costs[q])
            left[i] -= levels[i, j] * size * own[j]
        if coupled > 1:
            own = spared[i // group_rows]
            errors[i] = residual[i] @ own + left[i] - left[i] @ np.tril(own)
    return levels


@pytest.mark.parametrize(
    ("groups", "each", "columns", "coupled"),
    [(1, 70, 90, 1), (1, 1, 5, 1), (3, 5, 7, 1), (40, 1, 9, 1), (2, 65, 130, 1), (1, 70, 40, 70), (2, 150, 30, 75),
     (3, 4, 7, 2)],
)  # fmt: skip
@pytest.mark.parametrize("quadratic", [0.0, 0.02])
def test_levels_are_those_of_the_definition(
    groups: int, each: int, columns: int, coupled: int, quadratic: float
) -> None:
    rng = np.random.default_rng(columns + each)
    rows = groups * each
    covariance = np.stack([correlated(rng, columns, 0.8) for _ in range(groups)])
    factor = np.linalg.cholesky(covariance + 0.05 * np.eye(columns)).astype(np.float64)
    weights = rng.normal(0, 1, (rows, columns))
    residual = (weights.reshape(groups, each, columns) @ factor).reshape(rows, columns)
    row_step, column_step = np.exp2(rng.integers(-2, 1, rows)), np.exp2(rng.integers(-1, 2, columns))
    row_weight = rng.uniform(0.5, 2, rows)
    row_class, column_class = rng.integers(0, 4, rows), rng.integers(0, 4, columns)
    bits = 0.3 * rng.uniform(0, 1, (6, 9)) + 0.1 * np.abs(np.arange(-4, 5))
    classes = np.minimum(np.add.outer(row_class, column_class), 5)
    row_factor, spared, errors = np.ones((rows, 1)), np.zeros((0, 0, 0)), np.zeros((0, 0))
    if coupled > 1:
        blocks = np.stack([correlated(rng, coupled, 0.6) for _ in range(rows // coupled)])
        row_factor = factored(blocks, np.diagonal(blocks, axis1=1, axis2=2).reshape(-1))[1].astype(np.float64)
        spared = 0.05 * np.linalg.inv(factor.transpose(0, 2, 1) @ factor).astype(np.float64)
        errors = (residual.reshape(groups, each, columns) @ spared).reshape(rows, columns)
    expected = reference(
        residual, factor, row_step, column_step, row_weight, classes, bits, quadratic, row_factor, spared
    )
    levels = np.empty((rows, columns), np.int32)
    left = residual.astype(np.float32)
    _core.feedback_round(
        left, factor.astype(np.float32), row_step.astype(np.float32), column_step.astype(np.float32),
        row_weight.astype(np.float32), row_class.astype(np.uint8), column_class.astype(np.uint8),
        bits.astype(np.float32), quadratic, row_factor.astype(np.float32), spared.astype(np.float32),
        errors.astype(np.float32), levels,
    )  # fmt: skip
    if coupled == 1:
        assert (levels == expected).all(1).mean() > 0.97  # float32 may decide a tie otherwise, and what follows with it
    else:
        assert (levels == expected).mean() > 0.97
    rebuilt = levels * row_step[:, None] * column_step
    error = ((weights - rebuilt).reshape(groups, each, columns) @ factor).reshape(rows, columns)
    np.testing.assert_allclose(left, error, atol=2e-4 * np.abs(residual).max())


def test_counts_by_class() -> None:
    levels = np.array([[0, 1, -9], [2, 0, 0]], np.int32)
    counts = np.zeros((3, 5), np.uint64)
    _core.feedback_count(levels, np.array([0, 1], np.uint8), np.array([0, 1, 5], np.uint8), counts)
    expected = np.zeros((3, 5), np.uint64)
    for row, level in ((0, 0), (1, 1), (2, -2), (1, 2), (2, 0), (2, 0)):
        expected[row, level + 2] += 1
    np.testing.assert_array_equal(counts, expected)


def test_arguments_that_contradict_each_other() -> None:
    f, i, u = np.float32, np.int32, np.uint8
    good = [np.ones((4, 3), f), np.eye(3, dtype=f)[None], np.ones(4, f), np.ones(3, f), np.ones(4, f), np.zeros(4, u),
            np.zeros(3, u), np.ones((1, 3), f), 0.0, np.ones((4, 1), f), np.empty((0, 0, 0), f),
            np.empty((0, 0), f), np.empty((4, 3), i)]  # fmt: skip
    _core.feedback_round(*good)
    wrong = {1: np.ones((3, 3, 3), f), 2: np.ones(3, f), 3: np.ones(4, f), 6: np.zeros(4, u), 7: np.ones((1, 4), f),
             9: np.ones((4, 3), f), 12: np.empty((3, 3), i)}  # fmt: skip
    good[9:12] = np.ones((4, 2), f), np.eye(3, dtype=f)[None], np.ones((4, 3), f)
    _core.feedback_round(*good)
    wrong |= {10: np.empty((0, 0, 0), f), 11: np.empty((0, 0), f)}
    for place, value in wrong.items():
        with pytest.raises(_core.StreamError):
            _core.feedback_round(*[value if k == place else v for k, v in enumerate(good)])


# -- the ingredients ---------------------------------------------------------------------------------------------------

RNG = np.random.default_rng(7)
COVARIANCE = correlated(RNG, 96, 0.9)
WEIGHTS = RNG.normal(0, 1, (128, 96)).astype(np.float32)
FISHER = np.exp(RNG.normal(0, 1, 128))
ROWS = apart(128)


def outcome(how: Rounding, theta: float) -> tuple[float, float]:
    """Loss, and bits of a weight given tables for eight quantiles of spread."""
    solution = solve(WEIGHTS, damped(COVARIANCE[None], 1e-4), FISHER, theta, how, ROWS)
    change = (solution.weights() - WEIGHTS).astype(np.float64)
    loss = float((FISHER[:, None] * (change @ COVARIANCE) * change).mean())
    spread = np.abs(WEIGHTS).mean() / solution.row_steps[:, None] / solution.column_steps
    group = np.searchsorted(np.quantile(spread, np.arange(1, 8) / 8), spread)
    bits = 0.0
    for k in range(8):
        _, counts = np.unique(solution.levels[group == k], return_counts=True)
        bits -= float((counts * np.log2(counts / counts.sum())).sum())
    return loss, bits / WEIGHTS.size


def bits_at(how: Rounding, loss: float) -> float:
    """Bits at which a loss is reached."""
    found = sorted(outcome(how, theta) for theta in np.geomspace(0.01, 1, 13))
    return float(np.interp(np.log(loss), [np.log(x) for x, _ in found], [b for _, b in found]))


def test_high_rate_loss_is_the_water_level() -> None:
    loss, _ = outcome(Rounding(rate=0, quadratic=0), 1e-3)
    assert loss == pytest.approx(1e-3, rel=0.15)


@pytest.mark.parametrize("without", [{"rate": 0.0, "quadratic": 0.0}, {"quadratic": 0.0}, {"column_steps": 0.0}])
def test_every_ingredient_saves_bits(without: dict[str, float]) -> None:
    assert bits_at(Rounding(), 0.15) < bits_at(Rounding()._replace(**without), 0.15) - 0.01  # type: ignore[arg-type]


def test_feedback_makes_up_for_errors() -> None:
    solution = solve(WEIGHTS, damped(COVARIANCE[None], 1e-4), FISHER, 0.05, Rounding(rate=0, quadratic=0), ROWS)
    steps = solution.row_steps[:, None] * solution.column_steps
    plain = np.rint(WEIGHTS / steps) * steps
    loss = [
        float((FISHER[:, None] * (d @ COVARIANCE) * d).sum()) for d in (plain - WEIGHTS, solution.weights() - WEIGHTS)
    ]
    assert loss[1] < 0.6 * loss[0]


def test_the_same_every_time_and_dead_inputs_cost_nothing() -> None:
    covariance = COVARIANCE.copy()
    covariance[5], covariance[:, 5] = 0, 0
    found = [solve(WEIGHTS, damped(covariance[None], 1e-4), FISHER, 0.1, Rounding(), ROWS) for _ in range(2)]
    np.testing.assert_array_equal(found[0].levels, found[1].levels)
    assert np.abs(found[0].levels[:, 5]).mean() < 0.1


# -- rows that have something in common --------------------------------------------------------------------------------

COUPLING = correlated(np.random.default_rng(8), 64, 0.8)
COUPLED = np.stack([COUPLING, COUPLING[::-1, ::-1]])
DIAGONAL = np.diagonal(COUPLED, axis1=1, axis2=2).reshape(-1)


def joint_loss(change: Floats) -> float:
    """What a change costs by the definition, 1/2 tr(G D A D^T), G with its floor."""
    blocks = change.astype(np.float64).reshape(2, 64, -1)
    coupling = COUPLED + GROUP_FLOOR * DIAGONAL.mean() * np.eye(64)
    return float(np.einsum("bik,bij,bjl,kl", blocks, coupling, blocks, COVARIANCE)) / 2


def joint(theta: float, how: Rounding) -> tuple[Floats, float]:
    """The change of the weights, and an entropy of the levels, a row at a time."""
    fisher, row_factor = factored(COUPLED, DIAGONAL)
    s = solve(WEIGHTS, damped(COVARIANCE[None], 1e-4), fisher, theta, how, row_factor)
    bits = 0.0
    for row in s.levels:
        counts = np.unique(row, return_counts=True)[1]
        bits -= float((counts * np.log2(counts / counts.sum())).sum())
    return s.weights() - WEIGHTS, bits / WEIGHTS.size


def test_cost_is_the_definition() -> None:
    change = np.random.default_rng(1).normal(0, 1, WEIGHTS.shape).astype(np.float32)
    found = cost(change, COVARIANCE[None].astype(np.float32), *factored(COUPLED, DIAGONAL))
    assert found == pytest.approx(joint_loss(change), rel=1e-4)


def test_high_rate_loss_of_coupled_rows_is_the_water_level() -> None:
    change, _ = joint(1e-3, Rounding(rate=0, quadratic=0))
    assert joint_loss(change) / WEIGHTS.size == pytest.approx(1e-3 / 2, rel=0.15)


@pytest.mark.parametrize(("theta", "share"), [(1e-3, 0.6), (0.03, 0.6), (0.1, 0.65)])
def test_rows_make_up_for_each_others_errors(theta: float, share: float) -> None:
    """Of the loss of rows taken apart, at as many bits, a share is left."""
    change, bits = joint(theta, Rounding())
    alone = [
        solve(WEIGHTS, damped(COVARIANCE[None], 1e-4), DIAGONAL, theta * k, Rounding(), ROWS)
        for k in np.geomspace(0.25, 16, 13)
    ]
    sizes = list[float]()
    for s in alone:
        counts = [np.unique(row, return_counts=True)[1] for row in s.levels]
        sizes.append(-sum(float((c * np.log2(c / c.sum())).sum()) for c in counts) / WEIGHTS.size)
    losses = [joint_loss(s.weights() - WEIGHTS) for s in alone]
    same = np.exp(np.interp(bits, sizes[::-1], np.log(losses[::-1])))
    assert joint_loss(change) < share * same


def test_parts_of_a_large_table_are_rounded_like_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = solve(WEIGHTS, damped(COVARIANCE[None], 1e-4), FISHER, 0.1, Rounding(), ROWS)
    monkeypatch.setattr("tersor.methods._feedback.CHUNK", 10 * WEIGHTS.shape[1])
    parts = solve(WEIGHTS, damped(COVARIANCE[None], 1e-4), FISHER, 0.1, Rounding(), ROWS)
    assert (parts.levels == whole.levels).mean() > 0.999


def test_rows_that_are_all_the_same_have_a_factor() -> None:
    fisher, row_factor = factored(np.ones((2, 512, 512), np.float32), np.ones(1024))
    assert (fisher > 0).all() and np.isfinite(row_factor).all()
