"""Element types by their safetensors names, and how numpy sees them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]

_STRETCH = 2**16
"""Elements widened at a time."""


@dataclass(frozen=True)
class DType:
    """How elements of one type are stored: little-endian words of `width` bytes, `words` of them per element."""

    width: int
    signed_float: bool  # the top bit of a word is a sign, exponent and mantissa follow
    numpy: str | None  # None where numpy has no such type
    words: int = 1

    @property
    def itemsize(self) -> int:
        """Bytes per element."""
        return self.width * self.words


DTYPES: dict[str, DType] = {
    "BOOL": DType(1, False, "?"),
    "U8": DType(1, False, "u1"),
    "I8": DType(1, False, "i1"),
    "U16": DType(2, False, "<u2"),
    "I16": DType(2, False, "<i2"),
    "U32": DType(4, False, "<u4"),
    "I32": DType(4, False, "<i4"),
    "U64": DType(8, False, "<u8"),
    "I64": DType(8, False, "<i8"),
    "F8_E4M3": DType(1, True, None),
    "F8_E5M2": DType(1, True, None),
    "F8_E8M0": DType(1, False, None),
    "BF16": DType(2, True, None),
    "F16": DType(2, True, "<f2"),
    "F32": DType(4, True, "<f4"),
    "F64": DType(8, True, "<f8"),
    "C64": DType(4, True, "<c8", words=2),
}


def view_floats(data: Bytes, dtype: str) -> npt.NDArray[np.floating]:
    """Bytes of F16, F32 or F64 elements as an array of them."""
    return data.view({"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype])


def to_numpy(data: Bytes, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[np.generic]:
    """View stored bytes as an array; types numpy lacks (BF16, the 8-bit floats) widen exactly to float32."""
    name = DTYPES[dtype].numpy
    return (data.view(name) if name is not None else _widen(data, dtype)).reshape(shape)


def widen_in_place(room: Bytes, dtype: str) -> npt.NDArray[np.float32]:
    """Elements that numpy lacks, whose stored bytes stand at the end of `room`, as float32 that fill it.

    No element is written to where a later one has not been read: it needs no memory beside the result.
    """
    wide = room.view("<f4")
    stored = room[room.size - wide.size * DTYPES[dtype].itemsize :]
    for start in range(0, wide.size, _STRETCH):
        end = min(start + _STRETCH, wide.size)
        width = DTYPES[dtype].itemsize
        wide[start:end] = _widen(stored[start * width : end * width].copy(), dtype)
    return wide


def _widen(data: Bytes, dtype: str) -> npt.NDArray[np.float32]:
    return widen_bf16(data.view("<u2")) if dtype == "BF16" else _FLOAT8[dtype][data]


def widen_bf16(words: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """The float32 values of bfloat16 words."""
    return (words.astype("<u4") << 16).view("<f4")


def _float8_table(exponent_bits: int, *, infinities: bool) -> npt.NDArray[np.float32]:
    """Values of all 256 bytes of an 8-bit float (OCP 8-bit floating point specification 1.0)."""
    mantissa_bits = 7 - exponent_bits
    bias = 2 ** (exponent_bits - 1) - 1
    codes: npt.NDArray[np.int64] = np.arange(256)
    sign = np.where(codes >> 7, -1.0, 1.0)
    exponent = (codes >> mantissa_bits) & (2**exponent_bits - 1)
    mantissa = (codes & (2**mantissa_bits - 1)) / 2.0**mantissa_bits
    values: npt.NDArray[np.float64] = sign * (1 + mantissa) * np.exp2(exponent - bias)
    tiny = exponent == 0
    values[tiny] = (sign * mantissa * 2.0 ** (1 - bias))[tiny]
    top = exponent == 2**exponent_bits - 1
    if infinities:
        values[top] = np.where(mantissa[top] == 0, sign[top] * np.inf, np.nan)
    else:
        values[(codes & 127) == 127] = np.nan
    return values.astype(np.float32)


def _exponent_table() -> npt.NDArray[np.float32]:
    """Values of the 256 bytes of E8M0: powers of two, the last one NaN."""
    return np.append(np.ldexp(1.0, np.arange(255) - 127), np.nan).astype(np.float32)


_FLOAT8 = {
    "F8_E4M3": _float8_table(4, infinities=False),
    "F8_E5M2": _float8_table(5, infinities=True),
    "F8_E8M0": _exponent_table(),
}
