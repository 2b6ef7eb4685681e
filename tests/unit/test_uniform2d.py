"""Ops `uniform2d`, `companded` and `trellis` against the specification's formulas in numpy."""

import numpy as np
import numpy.typing as npt
import pytest

from tersor.coders import Symbols
from tersor.encoded import Encoded, seal
from tersor.errors import FormatError
from tersor.format.dtypes import DTYPES
from tersor.format.manifest import Step
from tersor.ops.uniform2d import Scales, encode_step

NEXT = [[0, 2], [7, 5], [1, 3], [6, 4], [2, 0], [5, 7], [3, 1], [4, 6]]


def decode(levels: npt.NDArray[np.int64], scales: Scales, dtype: str = "F32", chunk: int = 65536, **kind) -> bytes:
    step, streams = encode_step(Symbols.of(levels, chunk), "i16", scales, **kind)
    out: dict[int, bytes] = {}
    encoded = seal("w", dtype, levels.shape, step, streams, lambda start, data: collect(out, start, data))
    assert isinstance(encoded, Encoded)
    return b"".join(out[k] for k in sorted(out))


def collect(out: dict[int, bytes], start: int, data: npt.NDArray[np.uint8]):
    from tersor.encoded import Distortion

    out[start] = data.tobytes()
    return Distortion()


def steps(rng: np.random.Generator, n: int, different: int) -> npt.NDArray[np.float32]:
    return rng.choice(np.exp2(rng.uniform(-6, 2, different)).astype(np.float32), n)


@pytest.mark.parametrize("shape", [(7, 300), (300, 1), (5, 4, 3, 3), (900, 100), (40,)])
@pytest.mark.parametrize("different", [(1, 1), (1, 4), (9, 1), (30, 200)])
def test_steps_of_rows_and_columns(shape: tuple[int, ...], different: tuple[int, int]) -> None:
    rng = np.random.default_rng(3)
    rows, columns = shape[0], int(np.prod(shape[1:]))
    levels = np.round(rng.laplace(0, 3, (rows, columns))).astype(np.int64)
    row, column = steps(rng, rows, different[0]), steps(rng, columns, different[1])
    offset = np.float32(-0.05)
    size = (np.abs(levels).astype(np.float32) + offset) * column[None] * row[:, None]
    expected = np.where(levels == 0, np.float32(0), np.copysign(size, levels.astype(np.float32)))
    decoded = decode(levels.reshape(shape), Scales.of(row, column), offset=float(offset))
    assert decoded == expected.astype("<f4").tobytes()


@pytest.mark.parametrize("dtype", ["F32", "F16", "F64"])
def test_values_from_a_list(dtype: str) -> None:
    rng = np.random.default_rng(4)
    values = np.cumsum(rng.uniform(0.1, 1, 20)).astype(np.float32)
    levels = rng.integers(-20, 21, (50, 60))
    row, column = steps(rng, 50, 5), steps(rng, 60, 3)
    table = np.concatenate([[0], values]).astype(np.float32)
    expected = np.sign(levels).astype(np.float32) * (table[np.abs(levels)] * column[None] * row[:, None])
    expected = np.where(levels == 0, np.float32(0), expected)
    decoded = decode(levels, Scales.of(row, column), dtype, values=values)
    assert decoded == expected.astype(f"<f{DTYPES[dtype].width}").tobytes()


def test_level_beyond_the_list() -> None:
    one = np.ones(1, np.float32)
    with pytest.raises(FormatError) as caught:
        decode(np.array([[1, -3]]), Scales(one, one), values=np.array([1, 2], np.float32))
    assert caught.value.code == "stream_range"


@pytest.mark.parametrize(("rows", "columns"), [(10, 7), (700, 300), (70000, 3)])
def test_trellis_starts_anew_in_every_chunk(rows: int, columns: int) -> None:
    rng = np.random.default_rng(5)
    levels = np.round(rng.laplace(0, 2, (rows, columns))).astype(np.int64)
    row, column = steps(rng, rows, 4), steps(rng, columns, 4)
    doubled = np.zeros(rows * columns, np.int64)
    flat = levels.reshape(-1)
    for start in range(0, flat.size, 65536):
        states = [0] * columns
        for i in range(start, min(flat.size, start + 65536)):
            q, state = int(flat[i]), states[i % columns]
            doubled[i] = 2 * q - (state & 1) * ((q > 0) - (q < 0))
            states[i % columns] = NEXT[state][q & 1]
    size = np.abs(doubled).astype(np.float32).reshape(rows, columns) * column[None] * row[:, None]
    expected = np.where(levels == 0, np.float32(0), np.copysign(size, levels.astype(np.float32)))
    assert decode(levels, Scales.of(row, column), trellis=True) == expected.astype("<f4").tobytes()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", b""),
        ("columns", b"\0\0\0\0"),
        ("columns", b"\0\0\x80\x7f"),
        ("offset", b"\0\0\x80\xbf"),
        ("steps", b"abc"),
    ],
)
def test_bad_parameters(name: str, value: bytes) -> None:
    one = np.ones(1, np.float32)
    step, streams = encode_step(Symbols.of(np.ones((2, 2), np.int64)), "i8", Scales(one, one))
    with pytest.raises(FormatError) as caught:
        seal("w", "F32", (2, 2), Step(step.op, {**step.parameters, name: value}, step.streams), streams)
    assert caught.value.code == "bad_parameters"


def test_column_index_outside_the_palette() -> None:
    scales = Scales(np.ones(1, np.float32), np.array([1, 2], np.float32), None, np.array([0, 2], np.uint8))
    step, streams = encode_step(Symbols.of(np.ones((2, 2), np.int64)), "i8", scales)
    with pytest.raises(FormatError) as caught:
        seal("w", "F32", (2, 2), step, streams)
    assert caught.value.code == "stream_range"
