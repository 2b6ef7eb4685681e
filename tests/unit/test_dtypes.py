from __future__ import annotations

import numpy as np
import pytest
from helpers import WIDTHS, random_bytes

from tersor.format.dtypes import DTYPES, to_numpy, widen_in_place

TORCH = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32", "I32": "int32",
    "U64": "uint64", "I64": "int64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64", "C64": "complex64",
}  # fmt: skip
FLOATS = {"F8_E4M3", "F8_E5M2", "BF16", "F16", "F32", "F64", "C64"}


def test_the_table_is_that_of_the_format() -> None:
    assert {name: dtype.itemsize for name, dtype in DTYPES.items()} == WIDTHS
    assert {name for name, dtype in DTYPES.items() if dtype.signed_float} == FLOATS
    assert {name for name, dtype in DTYPES.items() if dtype.words != 1} == {"C64"} and DTYPES["C64"].width == 4


@pytest.mark.parametrize("dtype", sorted(set(DTYPES) - {"BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0"}))
def test_native_types_are_views(dtype: str) -> None:
    data = random_bytes(dtype, 6)
    array = to_numpy(data, dtype, (2, 3))
    assert array.shape == (2, 3) and array.tobytes() == data.tobytes() and np.shares_memory(array, data)


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0"])
def test_types_numpy_lacks_widen_exactly(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    width = WIDTHS[dtype]
    data = np.arange(256**width, dtype=f"<u{width}").view(np.uint8)  # every value there is
    array = to_numpy(data, dtype, (256**width,))
    expected = torch.from_numpy(data.copy()).view(getattr(torch, TORCH[dtype])).float().numpy()
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, expected)  # NaN equals NaN here
    assert np.array_equal(np.signbit(array[~np.isnan(array)]), np.signbit(expected[~np.isnan(expected)]))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1, 1, 1)])
def test_small_shapes(dtype: str, shape: tuple[int, ...]) -> None:
    assert to_numpy(random_bytes(dtype, int(np.prod(shape))), dtype, shape).shape == shape


@pytest.mark.parametrize("dtype", ["BF16", "F8_E4M3", "F8_E5M2", "F8_E8M0"])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 65_535, 65_536, 65_537, 200_001])
def test_widening_in_place_reads_before_it_writes(dtype: str, count: int) -> None:
    data = random_bytes(dtype, count)
    room = np.full(4 * count, 170, np.uint8)
    room[room.size - data.size :] = data
    wide = widen_in_place(room, dtype)
    assert wide.view("<u4").tolist() == to_numpy(data, dtype, (count,)).view("<u4").tolist()
    assert count == 0 or np.shares_memory(wide, room)
