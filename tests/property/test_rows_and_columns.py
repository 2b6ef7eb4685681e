"""Tables and steps by row and column, for arbitrary classes, levels and steps."""

from __future__ import annotations

import math
from typing import Any

import handmade as hm
import handmade2d as h2
import numpy as np
import numpy.typing as npt
from hypothesis import given, settings
from hypothesis import strategies as st

import tersor
from tersor import _core
from tersor.coders import CORE_TYPES, Symbols, rans, rans2d
from tersor.encoded import seal
from tersor.format.layout import LEAF
from tersor.format.manifest import PRELUDES
from tersor.ops import uniform2d

seeds = st.integers(0, 2**32)
sides = st.integers(1, 60)
bytes_of = np.frombuffer
RANS2D = PRELUDES.index("rans2d")


@st.composite
def classed_streams(draw: st.DrawFn) -> tuple[h2.Classed, npt.NDArray[np.int64]]:
    """Classes and tables of any kind, and symbols of which their tables lack a few."""
    rng = np.random.default_rng(draw(seeds))
    tables, precision = draw(st.integers(1, 6)), draw(st.integers(8, 13))
    lowest = draw(st.sampled_from([None, 0, -(2**30), 2**30 - 3]))
    made = h2.by_class(tables, precision, spread=draw(st.sampled_from([0.2, 1.0, 9.0])), lowest=lowest)
    rows, columns, most = draw(sides), draw(sides), draw(st.integers(0, tables - 1))
    classed = h2.Classed(
        made, rng.integers(0, most + 1, rows).tolist(), rng.integers(0, tables - most, columns).tolist(),
        draw(st.sampled_from([1, 2, 4, 8, 16, 32])),
    )  # fmt: skip
    short = draw(st.integers(0, columns - 1)) if rows > 1 else 0
    values = h2.sampled(classed, rows * columns - short, draw(seeds))
    strange = draw(st.lists(st.integers(-(2**31), 2**31 - 1), max_size=3))
    values[rng.integers(0, values.size, len(strange))] = strange
    return classed, values


@given(classed_streams(), st.data())
@settings(max_examples=120)
def test_coder_by_hand_and_native(made: tuple[h2.Classed, npt.NDArray[np.int64]], data: st.DataObject) -> None:
    """With every kind of vectors, from any symbol of the stream on."""
    classed, values = made
    first = data.draw(st.integers(0, values.size - 1))
    part = values[first:]
    prelude = _core.Prelude(bytes_of(classed.prelude(), np.uint8), RANS2D, values.size)
    chunk = classed.chunk(part.tolist(), first)
    native = _core.encode_chunk(part.astype(np.int32), prelude, 0, first)
    for coded in {chunk, native}:
        for simd in (0, 1, 2):
            decoded = _core.decode_integers(
                prelude, CORE_TYPES["i32"], bytes_of(coded, np.uint8), part.size, first, simd
            )
            assert np.array_equal(decoded, part)


@given(sides, st.integers(2, 300), seeds, st.sampled_from([0.3, 2.0, 40.0]))
@settings(max_examples=60)
def test_planned_streams(rows: int, columns: int, seed: int, spread: float) -> None:
    """What the writer chooses, for rows and columns of different scales, or of none."""
    rng = np.random.default_rng(seed)
    scale = spread * np.exp2(rng.normal(0, 1.5, (rows, 1)) + rng.normal(0, 1, columns)) * rng.integers(0, 2, (rows, 1))
    levels = np.clip(np.rint(rng.standard_normal((rows, columns)) * scale), -900, 900).astype(np.int32).reshape(-1)
    histogram = rans.Histogram.of(levels)
    symbols = Symbols.of(levels, LEAF, columns)
    plan = rans2d.plan(symbols.values, symbols.count, symbols.chunk, columns, histogram)
    if plan is None:
        return
    chunk = bytes_of(plan.piece(0, levels), np.uint8)
    prelude = _core.Prelude(bytes_of(plan.prelude, np.uint8), RANS2D, levels.size)
    assert np.array_equal(_core.decode_integers(prelude, CORE_TYPES["i16"], chunk, levels.size), levels)


@given(classed_streams(), st.data())
@settings(max_examples=120)
def test_damaged_preludes_never_crash(made: tuple[h2.Classed, npt.NDArray[np.int64]], data: st.DataObject) -> None:
    classed, values = made
    prelude, count = bytearray(classed.prelude()), values.size
    chunk = bytes_of(classed.chunk(values.tolist()), np.uint8)
    for _ in range(data.draw(st.integers(1, 3))):
        prelude[data.draw(st.integers(0, min(len(prelude), 40) - 1))] = data.draw(st.integers(0, 255))
    try:
        head = _core.Prelude(bytes_of(bytes(prelude), np.uint8), RANS2D, count)
        decoded = _core.decode_integers(head, 3, chunk, count)
    except _core.StreamError as error:
        assert str(error) != "argument"
        return
    assert decoded.size == count


shapes = st.lists(st.integers(1, 9), min_size=1, max_size=8).map(tuple).filter(lambda shape: math.prod(shape) <= 600)
positive = st.floats(2.0**-149, 3.4028234663852886e38, width=32)


@st.composite
def scaled_tensors(draw: st.DrawFn) -> hm.Tensor:
    """Any op, any float, levels and steps as wild as they may be."""
    op, dtype = (
        draw(st.sampled_from(["uniform2d", "companded", "trellis"])),
        draw(st.sampled_from(list(uniform2d.FLOATS))),
    )
    shape = draw(shapes)
    rng = np.random.default_rng(draw(seeds))
    values = draw(st.lists(positive, min_size=1, max_size=20)) if op == "companded" else []
    limit = {"companded": len(values), "trellis": 2**30 - 1, "uniform2d": 2**31 - 1}[op]
    reach = min(limit, draw(st.sampled_from([1, 3, 100, 2**25, 2**31 - 1])))
    levels = rng.integers(-reach, reach + 1, shape)
    steps, columns = (draw(st.lists(positive, min_size=1, max_size=5)) for _ in range(2))
    return h2.scaled_tensor(
        "w", dtype, levels, steps, columns, op=op, values=values, offset=draw(st.floats(-0.875, 100, width=32)),
        rows=rng.integers(0, len(steps), shape[0]).tolist(),
        places=rng.integers(0, len(columns), levels.size // shape[0]).tolist(),
    )  # fmt: skip


@given(scaled_tensors())
@settings(max_examples=200)
def test_ops_by_hand(tensor: hm.Tensor) -> None:
    with tersor.open(hm.assemble(tensor, minor=1), workers=1) as file:
        assert file.stored("w").tobytes() == tensor.decoded


@given(st.sampled_from(["uniform2d", "companded", "trellis"]), sides, sides, seeds)
@settings(max_examples=60)
def test_written_ops(op: str, rows: int, columns: int, seed: int) -> None:
    """Palettes found by the writer give what the steps they were made of give."""
    rng = np.random.default_rng(seed)
    levels = np.clip(np.rint(rng.laplace(0, 4, (rows, columns))), -50, 50).astype(np.int64)
    by_row, by_column = (rng.choice(np.float32([0.5, 0.3, 1e-3]), n) for n in (rows, columns))
    options: dict[str, Any] = (
        {"values": np.float32(rng.uniform(0.1, 9, 50))} if op == "companded" else {"offset": -0.25}
    )
    scales = uniform2d.Scales.of(by_row, by_column)
    step, streams = uniform2d.encode_step(
        Symbols.of(levels, LEAF, columns), "i8", scales, trellis=op == "trellis", **options
    )
    expected = h2.scaled_tensor(
        "w",
        "F16",
        levels,
        by_row.tolist(),
        by_column.tolist(),
        op=op,
        rows=range(rows),
        places=range(columns),
        **options,
    )
    sealed = seal("w", "F16", levels.shape, step, streams)
    assert sealed.entry.digest == hm.digest_of(expected.decoded, 2)
