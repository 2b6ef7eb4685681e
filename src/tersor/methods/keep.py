"""Tensors that are not quantized: kept bit for bit, or rounded so finely that it does no harm."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from tersor.encoded import Distortion, Encoded, seal
from tersor.format.dtypes import DTYPES, Bytes, view_floats
from tersor.ops import raw
from tersor.ops.uniform import FLOATS
from tersor.sources import Unit

ROUNDED_BITS = {"F32": 16, "F64": 24}
"""Top bits kept of every element of a small tensor: 7 and 12 of mantissa. Narrower types are kept whole.

A relative error of at most 2^-8 in a scale or a bias is 30 dB below that of 4-bit weights."""
ROUNDED_AT = 2
"""Bits that other weights have where these are enough; with every bit more there is one more here (decision 0023)."""
SMALL_FILE = 2**17
"""In files of fewer bytes, another plane of small tensors costs as much in tables as in numbers."""


def lossless(unit: Unit, data: Bytes) -> Encoded:
    """Keep every bit."""
    step, streams = raw.encode_step(data, unit.dtype)
    encoded = seal(unit.name, unit.dtype, unit.shape, step, streams)
    return replace(encoded, finite=unit.dtype not in FLOATS or all_finite(data, unit.dtype))


def rounded(unit: Unit, data: Bytes, finer: int = 0) -> Encoded:
    """Round F32 and F64 elements to fewer bits of mantissa, `finer` more than the least; others, and non-finite ones,
    are kept bit for bit."""
    width = DTYPES[unit.dtype].width
    bits = min(ROUNDED_BITS.get(unit.dtype, 64) + finer, 8 * width)
    if bits == 8 * width or not all_finite(data, unit.dtype):
        return lossless(unit, data)
    short = _round_words(data, width, bits)
    step, streams = raw.encode_step(short, unit.dtype, -(-bits // 8))
    exact = lossless(unit, data)
    encoded = seal(unit.name, unit.dtype, unit.shape, step, streams)
    if exact.nbytes <= encoded.nbytes:  # ones, zeros, weights that were rounded before
        return exact
    distortion = Distortion.between(view_floats(data, unit.dtype), view_floats(short, unit.dtype))
    return replace(encoded, distortion=distortion)


def finer(nbytes: int, weights: int, small: int) -> int:
    """Bits of mantissa beyond the least that small tensors, `small` of all weights, get in a file of so many bytes."""
    bits = (8 * nbytes - (ROUNDED_BITS["F32"] - ROUNDED_AT) * small) / max(1, weights)  # of each other weight
    return 0 if nbytes < SMALL_FILE else max(0, round(bits) - ROUNDED_AT)


def elements(values: npt.NDArray[np.generic], dtype: str) -> Bytes:
    """The bytes of numbers in a dtype, rounded to nearest even where it is narrower than theirs."""
    flat = np.ascontiguousarray(values).reshape(-1)
    name = DTYPES[dtype].numpy
    if name is not None:
        return flat.astype(name, copy=False).view(np.uint8)
    short = _round_words(flat.astype("<f4").view(np.uint8), 4, 16).view("<u2")  # BF16
    return np.ascontiguousarray(short[1::2]).view(np.uint8)


def _round_words(data: Bytes, width: int, bits: int) -> Bytes:
    """Round to nearest even on the top bits of the words; a carry into infinity is undone."""
    unsigned = f"<u{width}"
    words = data.view(unsigned).astype(np.uint64)
    drop = np.uint64(8 * width - bits)
    one = np.uint64(1)
    half = (one << (drop - one)) - one
    up = (words + half + ((words >> drop) & one)) >> drop << drop
    down = words >> drop << drop
    finite = np.isfinite(up.astype(unsigned).view(f"<f{width}"))
    return np.where(finite, up, down).astype(unsigned).view(np.uint8)


def all_finite(data: Bytes, dtype: str) -> bool:
    """Whether no element is NaN or infinite, judged a stretch at a time."""
    stretch = 2**22
    return all(_finite(data[k : k + stretch], dtype) for k in range(0, data.size, stretch))


def _finite(data: Bytes, dtype: str) -> bool:
    if dtype == "BF16":
        words: npt.NDArray[np.uint16] = data.view("<u2")
        return bool(((words & 0x7F80) != 0x7F80).all())
    return bool(np.isfinite(view_floats(data, dtype)).all())
