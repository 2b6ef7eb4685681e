"""Tables fitted natively, beside the same search written in Python."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tersor import _core
from tersor.coders import rans
from tersor.coders.rans import Histogram, Table

Counts = npt.NDArray[np.uint64]


def payload_bits(table: Table, counted: Histogram) -> float:
    """Bits of a symbol by its frequency, of others by the price of a patch."""
    known = {table.lowest + k: table.precision - math.log2(f) for k, f in enumerate(table.frequencies.tolist()) if f}
    values = (counted.lowest + k for k in range(counted.counts.size))
    listed = sum(n * known.get(v, _core.PATCH_BITS) for v, n in zip(values, counted.counts.tolist(), strict=True))
    return listed + (counted.total - int(counted.counts.sum())) * _core.PATCH_BITS


def windows(counted: Histogram) -> list[tuple[int, int]]:
    """Stretches of counts that are tried."""
    found: dict[tuple[int, int], None] = {}
    for least in (1, 2, 3, 5, 9):
        kept = np.flatnonzero(counted.counts >= least)
        if kept.size == 0:
            break
        first, end = int(kept[0]), int(kept[-1]) + 1
        if end - first > rans.MAX_ALPHABET:
            sums = np.convolve(counted.counts.astype(np.float64), np.ones(rans.MAX_ALPHABET), "valid")
            first = int(np.argmax(np.rint(sums)))
            end = first + rans.MAX_ALPHABET
        if abs(counted.lowest + first) <= rans.FARTHEST:
            found[first, end] = None
    return list(found)


def price(counted: Histogram, precision: int, window: tuple[int, int], depth: int) -> tuple[float, Table] | None:
    """A table for a window and its price; None where the precision has no room."""
    counts = counted.counts[window[0] : window[1]]
    rare = counted.total / math.log(2) / 2**precision / (_core.PATCH_BITS - precision)
    counts = np.where(counts >= min(rare, int(counts.max())), counts, 0)
    used = np.flatnonzero(counts)
    frequencies = _core.round_table(np.ascontiguousarray(counts[used[0] : used[-1] + 1]), precision)
    if frequencies is None:
        return None
    table = Table(precision, counted.lowest + window[0] + int(used[0]), frequencies)
    wide = frequencies.size > 1 << (32 - 2 * precision)
    slow = (1.5e-3 if wide else 7e-4 * depth) if counted.total >= rans.MANY else 0
    return (payload_bits(table, counted) / 8 + table.side_bytes) * (1 + slow), table


def least_price(counted: Histogram, first: int, last: int) -> float:
    """That of the search, precision by precision, in windows of fewer and fewer symbols."""
    tried, best = windows(counted), math.inf
    for precision in range(first, last + 1):
        least, chosen = math.inf, None
        for window in tried:
            found = price(counted, precision, window, precision - first)
            if found is not None and found[0] >= least:
                break
            least, chosen = (found[0], (window, found[1])) if found is not None else (least, chosen)
        if chosen and best == math.inf and chosen[1].frequencies.size <= 256 and counted.total >= rans.MANY:
            tried = [chosen[0]]
        best = min(best, least)
    return best


def price_of(table: Table, counted: Histogram, first: int) -> float:
    wide = table.frequencies.size > 1 << (32 - 2 * table.precision)
    slow = (1.5e-3 if wide else 7e-4 * (table.precision - first)) if counted.total >= rans.MANY else 0
    return (payload_bits(table, counted) / 8 + table.side_bytes) * (1 + slow)


def check(counted: Histogram, first: int, last: int) -> Table:
    table = rans.fit(counted, (first, last))
    assert first <= table.precision <= last
    assert int(table.frequencies.astype(np.int64).sum()) == 1 << table.precision
    assert table.payload_bits(counted) == pytest.approx(payload_bits(table, counted), rel=1e-9)
    if windows(counted):
        assert price_of(table, counted, first) == pytest.approx(least_price(counted, first, last), rel=1e-9)
    return table


counts = st.lists(st.one_of(st.just(0), st.integers(0, 12), st.integers(0, 200_000)), min_size=1, max_size=60)
lowest = st.one_of(st.integers(-100, 100), st.sampled_from([2**30 - 3, -(2**30) - 2, 2**31 - 100, -(2**31)]))


@settings(max_examples=150, deadline=None)
@given(lowest, counts, st.integers(0, 9), st.sampled_from([(12, 15), (12, 12), (13, 13), (12, 13)]))
def test_the_search_in_c_is_that_in_python(
    lowest: int, counts: list[int], outside: int, precisions: tuple[int, int]
) -> None:
    found = np.array(counts, np.uint64)
    check(Histogram(lowest, found, int(found.sum()) + outside), *precisions)


@pytest.mark.parametrize("scale", [0.05, 1.0, 40.0, 700.0])
@pytest.mark.parametrize("times", [1, 200])
def test_levels(scale: float, times: int) -> None:
    levels = np.rint(np.random.default_rng(1).laplace(0, scale, 30_000)).astype(np.int32)
    found = Histogram.of(levels)
    check(found._replace(counts=found.counts * np.uint64(times), total=found.total * times), 12, 15)


def test_more_values_than_a_table_has_symbols() -> None:
    levels = np.random.default_rng(2).integers(-9000, 9000, 50_000).astype(np.int32)
    assert check(Histogram.of(levels), 12, 15).frequencies.size == rans.MAX_ALPHABET


@pytest.mark.parametrize("size", [0, 1, 70])
def test_nothing_counted(size: int) -> None:
    table = rans.fit(Histogram(5, np.zeros(size, np.uint64), 3))
    assert (table.precision, table.lowest, table.frequencies.tolist()) == (12, 0, [4096])


@pytest.mark.parametrize(("first", "last"), [(7, 12), (12, 16), (0, 99)])
def test_precisions_that_do_not_exist(first: int, last: int) -> None:
    with pytest.raises(_core.StreamError, match="argument"):
        _core.fit_table(0, np.ones(3, np.uint64), 3, first, last)


@pytest.mark.parametrize(("precision", "frequencies"), [(7, [128]), (16, [1]), (12, []), (12, [0] * 4097)])
def test_tables_that_cannot_be(precision: int, frequencies: list[int]) -> None:
    with pytest.raises(_core.StreamError, match="argument"):
        _core.payload_bits(precision, 0, np.array(frequencies, np.uint16), 0, np.ones(3, np.uint64), 3)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 5), st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_entropies(rows: int, span: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = (rng.pareto(0.5, (rows, span)) * rng.integers(0, 3, (rows, span))).clip(0, 1e12).astype(np.uint64)
    bits, present = _core.entropies(found)
    assert present.tolist() == np.count_nonzero(found, axis=1).tolist()
    for mine, row in zip(bits, found.astype(np.float64), strict=True):
        share = row[row > 0] / max(row.sum(), 1)
        assert mine == pytest.approx(-(row.sum() * share * np.log2(share)).sum(), rel=1e-9, abs=1e-6)
