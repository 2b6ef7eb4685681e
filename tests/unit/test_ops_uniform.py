"""Reconstruction against an independent computation, operation by operation as spec/FORMAT.md, section 7.2, has it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from helpers import container

from tersor.coders import Symbols, encode, integer_type
from tersor.encoded import seal
from tersor.errors import FormatError
from tersor.format.layout import LEAF
from tersor.format.manifest import Entry, Step
from tersor.format.reader import TensorFile
from tersor.ops import uniform
from tersor.ops.uniform import Grid

Levels = npt.NDArray[np.int64]
TYPES = ["F32", "F16", "BF16", "F64"]


def expected(levels: Levels, steps: npt.NDArray[np.float32], offset: float, dtype: str) -> bytes:
    """Numpy's float32 arithmetic rounds to nearest even after every operation, as the specification asks."""
    with np.errstate(over="ignore"):
        size = (np.abs(levels).astype(np.float32) + np.float32(offset)) * steps
        values = np.where(levels == 0, np.float32(0), np.where(levels < 0, -size, size)).astype(np.float32)
        if dtype == "F16":
            return values.astype("<f2").tobytes()
        if dtype == "F64":
            return values.astype("<f8").tobytes()
    if dtype == "BF16":
        words = values.view(np.uint32).astype(np.uint64)
        return ((words + 0x7FFF + ((words >> 16) & 1)) >> 16).astype("<u2").tobytes()
    return values.astype("<f4").tobytes()


def decoded(
    levels: Levels, grid: Grid, dtype: str, shape: tuple[int, ...], low: int = 0, chunk: int = LEAF, workers: int = 1
) -> bytes:
    flat = levels.reshape(-1)
    high = flat >> low
    kind = integer_type(int(high.min()), int(high.max())) if high.size else "i8"
    lows = Symbols.of(flat & ((1 << low) - 1), chunk) if low else None
    step, streams = uniform.encode_step(Symbols.of(high, chunk), kind, low, grid, lows)
    with TensorFile(container(seal("t", dtype, shape, step, streams)), workers=workers) as file:
        return file.stored("t").tobytes()


def some_levels(count: int, scale: float = 3.0, seed: int = 0) -> Levels:
    return np.rint(np.random.default_rng(seed).laplace(0, scale, count)).astype(np.int64)


def one_step(value: float, offset: float = 0.0) -> Grid:
    return Grid(np.array([value], np.float32), None, offset)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("offset", [0.0, 0.1, -0.07, -0.999, 3.5])
@pytest.mark.parametrize("step", [0.0123, 1 / 3, 1e-38, 7e4])
def test_one_step(dtype: str, offset: float, step: float) -> None:
    levels = some_levels(5000)
    grid = one_step(step, offset)
    assert decoded(levels, grid, dtype, (50, 100)) == expected(levels, grid.steps, offset, dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("low", [0, 1, 3, 8])
def test_wide_levels(dtype: str, low: int) -> None:
    limit = (2**31 - 1) >> low << low
    extremes = [limit, -limit, 2**24, 2**24 + 1, -(2**24) - 1, 2**30 + 1, 0, 1, -1]
    levels = np.append(some_levels(4000, 20_000), extremes)
    grid = one_step(3.7e-5, 0.25)
    assert decoded(levels, grid, dtype, levels.shape, low) == expected(levels, grid.steps, 0.25, dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("shape", [(7, 300), (300, 7), (1, 50), (50, 1), (5, 4, 3, 2), (130, 1031), (9,)])
def test_steps_by_row(dtype: str, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(1)
    steps = rng.uniform(1e-3, 1, 5).astype(np.float32)
    rows = rng.integers(0, 5, shape[0]).astype(np.uint8)
    levels = some_levels(int(np.prod(shape))).reshape(shape)
    per_element = np.broadcast_to(steps[rows].reshape(-1, *[1] * (len(shape) - 1)), shape)
    grid = Grid(steps, rows, -0.05)
    assert decoded(levels, grid, dtype, shape, low=2) == expected(levels, per_element, -0.05, dtype)


def test_256_steps() -> None:
    rows = np.arange(256, dtype=np.uint8)
    steps = np.linspace(0.1, 2, 256).astype(np.float32)
    levels = some_levels(256 * 3).reshape(256, 3)
    assert decoded(levels, Grid(steps, rows), "F32", (256, 3)) == expected(levels, steps[rows][:, None], 0, "F32")


@pytest.mark.parametrize("workers", [1, 3])
def test_many_chunks(workers: int) -> None:
    shape = (3, LEAF + 1)
    levels = some_levels(3 * (LEAF + 1)).reshape(shape)
    steps = np.array([0.1, 0.3], np.float32)
    rows = np.array([1, 0, 1], np.uint8)
    result = decoded(levels, Grid(steps, rows), "BF16", shape, chunk=LEAF, workers=workers)
    assert result == expected(levels, steps[rows][:, None], 0, "BF16")


@pytest.mark.parametrize("dtype", TYPES)
def test_overflow_becomes_infinity(dtype: str) -> None:
    levels = np.array([1, -1, 2, -5, 0, 100], np.int64)
    grid = one_step(3e38)
    result = decoded(levels, grid, dtype, (6,))
    assert result == expected(levels, grid.steps, 0, dtype)
    if dtype == "F16":
        assert np.frombuffer(result, "<f2").tolist() == [np.inf, -np.inf, np.inf, -np.inf, 0, np.inf]


def test_ties_of_narrow_types_round_to_even() -> None:
    # 2049 and 2051 lie halfway between float16 numbers; 257 and 259 between bfloat16 numbers.
    levels = np.array([2049, 2051, -2049, 257, 259, -257, 65519, 65520], np.int64)
    for dtype in ("F16", "BF16"):
        assert decoded(levels, one_step(1.0), dtype, (8,)) == expected(levels, np.float32([1.0]), 0, dtype)
    assert np.frombuffer(decoded(levels, one_step(1.0), "F16", (8,)), "<f2")[:2].tolist() == [2048, 2052]


@pytest.mark.parametrize("dtype", TYPES)
def test_subnormal_results(dtype: str) -> None:
    levels = some_levels(1000)
    grid = one_step(6e-8 if dtype == "F16" else 1e-45)
    assert decoded(levels, grid, dtype, (1000,)) == expected(levels, grid.steps, 0, dtype)


@pytest.mark.parametrize("dtype", TYPES)
def test_zero_is_positive(dtype: str) -> None:
    assert not any(decoded(np.zeros(500, np.int64), one_step(0.5, 0.5), dtype, (500,)))


@pytest.mark.parametrize("shape", [(), (1,), (0,), (0, 3), (4, 0)])
def test_small_shapes(shape: tuple[int, ...]) -> None:
    levels = np.full(shape, -3, np.int64)
    assert decoded(levels, one_step(0.5), "F32", shape) == np.full(shape, -1.5, "<f4").tobytes()


# -- what does not fit ------------------------------------------------------------------------------------------------


def step_of(grid: Grid, shape: tuple[int, ...], low: int = 0) -> Step:
    levels = some_levels(int(np.prod(shape)), 50)
    lows = Symbols.of(levels & ((1 << low) - 1)) if low else None
    return uniform.encode_step(Symbols.of(levels >> low), "i16", low, grid, lows)[0]


def opened(entry: Entry) -> None:
    uniform.open_chunks(entry, entry.chain[0], type("Inputs", (), {"where": "tensor 't'"})())


def with_parameter(**changed: Any) -> Callable[[Step], dict[str, Any]]:
    return lambda step: {"parameters": {**step.parameters, **changed}}


def f32(*values: float) -> bytes:
    return np.array(values, "<f4").tobytes()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda s: {"parameters": {"steps": f32(1), "offset": f32(0)}}, "bad_parameters"),
        (with_parameter(more=1), "bad_parameters"),
        (with_parameter(steps=b""), "bad_parameters"),
        (with_parameter(steps=b"abc"), "bad_parameters"),
        (with_parameter(steps=f32(*[1] * 257)), "bad_parameters"),
        (with_parameter(steps=f32(0)), "bad_parameters"),
        (with_parameter(steps=f32(-1)), "bad_parameters"),
        (with_parameter(steps=f32(np.nan)), "bad_parameters"),
        (with_parameter(steps=f32(np.inf)), "bad_parameters"),
        (with_parameter(offset=f32(-1)), "bad_parameters"),
        (with_parameter(offset=f32(np.nan)), "bad_parameters"),
        (with_parameter(offset=f32(np.inf)), "bad_parameters"),
        (with_parameter(offset=f32(0, 0)), "bad_parameters"),
        (with_parameter(low=9), "bad_parameters"),
        (with_parameter(low=-1), "bad_parameters"),
        (with_parameter(low=True), "bad_parameters"),
        (with_parameter(low=3), "bad_streams"),
        (with_parameter(steps=f32(1, 2)), "bad_streams"),
        (lambda s: {"streams": ()}, "bad_streams"),
        (lambda s: {"streams": s.streams * 2}, "bad_streams"),
        (lambda s: {"streams": (replace(s.streams[0], count=5),)}, "bad_streams"),
    ],
)
def test_a_step_that_does_not_fit(change: Callable[[Step], dict[str, Any]], code: str) -> None:
    step = step_of(one_step(0.5), (4, 5))
    opened(Entry("t", "F32", (4, 5), 0, (step,)))
    with pytest.raises(FormatError) as caught:
        opened(Entry("t", "F32", (4, 5), 0, (replace(step, **change(step)),)))
    assert caught.value.code == code and "tensor 't'" in str(caught.value)


def test_dtypes_it_cannot_make() -> None:
    for dtype in ("I32", "F8_E4M3", "C64", "BOOL"):
        with pytest.raises(FormatError) as caught:
            opened(Entry("t", dtype, (4, 5), 0, (step_of(one_step(0.5), (4, 5)),)))
        assert caught.value.code == "bad_parameters"


def test_rows_of_a_scalar() -> None:
    step = step_of(Grid(np.float32([1, 2]), np.zeros(1, np.uint8)), ())
    with pytest.raises(FormatError) as caught:
        opened(Entry("t", "F32", (), 0, (step,)))
    assert caught.value.code == "bad_parameters"


def test_side_streams_are_bytes_in_equal_chunks() -> None:
    step = step_of(one_step(0.5), (4, 5), low=2)
    opened(Entry("t", "F32", (4, 5), 0, (step,)))
    for change, code in (({"type": "i8"}, "bad_stream_type"), ({"chunk": 2 * LEAF}, "bad_chunk")):
        broken = replace(step, streams=(step.streams[0], replace(step.streams[1], **change)))
        with pytest.raises(FormatError) as caught:
            opened(Entry("t", "F32", (4, 5), 0, (broken,)))
        assert caught.value.code == code


def refused(step: Step, streams: list[Any], shape: tuple[int, ...]) -> str:
    with pytest.raises(FormatError) as caught:
        seal("t", "F32", shape, step, streams)
    return caught.value.code


def test_row_beyond_the_palette() -> None:
    grid = Grid(np.float32([1, 2]), np.array([0, 2, 1], np.uint8))
    assert refused(*uniform.encode_step(Symbols.of(np.zeros(6, np.int32)), "i8", 0, grid), (3, 2)) == "stream_range"


def test_low_part_beyond_its_bits() -> None:
    symbols = Symbols.of(np.array([3, 4], np.int32))
    step, streams = uniform.encode_step(Symbols.of(np.zeros(2, np.int32)), "i8", 2, one_step(1), symbols)
    assert refused(step, streams, (2,)) == "stream_range"


@pytest.mark.parametrize(("high", "fits"), [(2**29 - 1, True), (-(2**29) + 1, True), (2**29, False), (-(2**29), False)])
def test_level_beyond_31_bits(high: int, fits: bool) -> None:
    lows = Symbols.of(np.zeros(1, np.int32))
    step, streams = uniform.encode_step(Symbols.of(np.array([high], np.int32)), "i32", 2, one_step(1e-9), lows)
    if fits:
        seal("t", "F32", (1,), step, streams)
    else:
        assert refused(step, streams, (1,)) == "stream_range"


def test_levels_of_any_type() -> None:
    for kind in ("u8", "i8", "i16", "i32"):
        stream = encode(Symbols.of(np.array([0, 1, 100], np.int32)), kind)
        step = Step("uniform", one_step(0.5).parameters(0), (stream.stream,))
        assert seal("t", "F32", (3,), step, [stream]).entry.count == 3
