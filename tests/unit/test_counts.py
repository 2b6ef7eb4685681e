"""What the encoder counts, against numpy: pairs of levels near zero, rows and columns, the level before."""

import numpy as np
import numpy.typing as npt
import pytest

from tersor import _core


def laplace(count: int, scale: float) -> npt.NDArray[np.int32]:
    return np.rint(np.random.default_rng(4).laplace(0, scale, count)).astype(np.int32)


@pytest.mark.parametrize("scale", [0.05, 1.0, 6.0, 30.0, 300.0])
@pytest.mark.parametrize("count", [1, 5000, 2**15, 100_003])
def test_histogram(count: int, scale: float) -> None:
    levels = laplace(count, scale)
    lowest, counts = _core.histogram(levels)
    assert lowest == levels.min()
    assert np.array_equal(counts, np.bincount(levels - lowest))


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("by_row", [True, False])
@pytest.mark.parametrize(("rows", "columns"), [(40, 300), (300, 40), (7, 1000), (1000, 7)])
def test_rows_and_columns(rows: int, columns: int, by_row: bool, classes: int) -> None:
    """In two chunks, the second of which begins within a row; levels beyond the span are left out."""
    levels = laplace(rows * columns, 3.0)
    span, lowest, members = 21, -10, rows if by_row else columns
    other = (np.arange(columns if by_row else rows) % classes).astype(np.uint8)
    counts = np.zeros((members, classes * span), np.float32)
    for first, part in ((0, levels[:555]), (555, levels[555:])):
        _core.side_histogram(part, first, other, by_row, lowest, span, counts)
    matrix = levels.reshape(rows, columns)
    lines = matrix if by_row else matrix.T
    pairs = [(own, level) for own in range(classes) for level in range(lowest, lowest + span)]
    expected = [[np.count_nonzero(line[other == own] == level) for own, level in pairs] for line in lines]
    assert np.array_equal(counts, expected)

    kinds = (np.arange(members) % 3).astype(np.uint8)
    sums = np.zeros((3, counts.shape[1]), np.uint64)
    _core.add_by_class(counts, kinds, sums.reshape(-1))
    assert np.array_equal(sums, [counts[kinds == k].sum(0) for k in range(3)])


def test_counts_of_the_wrong_shape() -> None:
    levels, other = laplace(60, 3.0), np.array([0, 1, 0, 1, 0, 1], np.uint8)
    for shape in ((9, 42), (10, 21), (10, 43)):
        with pytest.raises(_core.StreamError, match="argument"):
            _core.side_histogram(levels, 0, other, True, -10, 21, np.zeros(shape, np.float32))


@pytest.mark.parametrize("lanes", [1, 4, 32])
@pytest.mark.parametrize("count", [100, 2048, 7001])
def test_the_level_before(count: int, lanes: int) -> None:
    """Lanes run along neighbours within blocks of 2048; the first of a run follows the last that its lane had."""
    levels, reach, contexts = laplace(count, 2.0), 40, 6
    counts = np.zeros((contexts, 2 * reach + 1), np.uint64)
    _core.context_histogram(levels, lanes, reach, counts.reshape(-1))
    expected, before = np.zeros_like(counts), [0] * lanes
    for start in range(0, count, 2048):
        block = levels[start : start + 2048].tolist()
        run = len(block) // lanes
        for i, level in enumerate(block):
            lane = i // run if run and i < run * lanes else (i - run * lanes) % lanes
            turned = -level if before[lane] < 0 else level
            expected[min(abs(before[lane]), contexts - 1), reach + turned] += np.uint64(1)
            before[lane] = level
    assert np.array_equal(counts, expected)
