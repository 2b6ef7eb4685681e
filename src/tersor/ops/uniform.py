"""Op `uniform`: levels times a step, per tensor or per row, with a dead zone (spec/FORMAT.md, section 7.2).

A level q is rebuilt as sign(q) * (|q| + offset) * step, in float32, rounded once to the element type. An offset
above zero widens the zero bin (the dead zone of L2's joint pruning and quantization, equation 13); one below zero
pulls levels towards the mean of a peaked distribution.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tersor import _core
from tersor.coders import CORE_TYPES, EncodedStream, Symbols, encode
from tersor.errors import FormatError
from tersor.format.dtypes import DTYPES
from tersor.format.manifest import Entry, Step
from tersor.ops.chunks import (
    Bytes,
    ChunkDecoder,
    Inputs,
    Leaves,
    check_parameters,
    check_streams,
    read_all,
    same_chunks,
    stream_errors,
)  # fmt: skip

Floats = npt.NDArray[np.float32]

FLOATS = {"F32": 0, "F16": 1, "BF16": 2, "F64": 3}
"""Element types this op rebuilds, by the native core's numbers."""
MAX_STEPS = 256
MAX_LOW_BITS = 8
MAX_SIDE = 2**24
"""Rows that may have steps of their own, and columns (ops of two dimensions)."""


@dataclass(frozen=True, eq=False)
class Grid:
    """The values levels stand for: a palette of steps, the palette index of every row (or none), and the offset."""

    steps: Floats
    rows: npt.NDArray[np.uint8] | None = None
    offset: float = 0.0

    def parameters(self, low: int) -> dict[str, bytes | int]:
        """As they stand in the manifest."""
        return {
            "steps": self.steps.astype("<f4").tobytes(),
            "offset": struct.pack("<f", self.offset),
            "low": low,
        }


def open_chunks(entry: Entry, step: Step, inputs: Inputs) -> ChunkDecoder:
    """Check the step, read the steps of its rows and return its decoder."""
    where = inputs.where
    packed_steps, packed_offset, low = check_parameters(step, {"steps": bytes, "offset": bytes, "low": int}, where)
    if entry.dtype not in FLOATS:
        raise FormatError("bad_parameters", f"op uniform cannot make {entry.dtype}", where=where)
    steps, offset = read_positive(packed_steps, MAX_STEPS, "steps", where), read_offset(packed_offset, where)
    if not 0 <= low <= MAX_LOW_BITS:
        raise FormatError("bad_parameters", f"{low} low bits, at most {MAX_LOW_BITS}", where=where)
    by_row = steps.size > 1
    if by_row and (entry.count == 0 or not entry.shape or entry.shape[0] > MAX_SIDE):
        raise FormatError("bad_parameters", "steps by row for a tensor without rows, or with too many", where=where)
    expected = [entry.count] * (2 if low else 1) + ([entry.shape[0]] if by_row else [])
    check_streams(step, expected, where)
    if any(stream.type != "u8" for stream in step.streams[1:]):
        raise FormatError("bad_stream_type", "side streams of op uniform are u8", where=where)
    counts = same_chunks(list(step.streams[: 2 if low else 1]), where)
    rows = read_all(inputs, len(step.streams) - 1, step.streams[-1]) if by_row else None
    row_length = entry.count // entry.shape[0] if by_row else 0
    levels = step.streams[0]

    def decode(chunk: int, out: Bytes) -> Leaves:
        prelude, data = inputs.chunk(0, chunk)
        low_prelude, low_data = inputs.chunk(1, chunk) if low else (None, None)
        with stream_errors(f"{where}, chunk {chunk}"):
            return _core.decode_uniform(
                out, FLOATS[entry.dtype], prelude, CORE_TYPES[levels.type], data, counts[chunk], steps, rows,
                row_length, chunk * levels.chunk, offset, low, low_prelude, low_data,
                rows=0 if rows is None else rows.size,
            )  # fmt: skip

    return ChunkDecoder(counts, DTYPES[entry.dtype].width, decode)


def read_positive(packed: bytes, most: int, name: str, where: str) -> Floats:
    """A parameter of 1 to `most` float32 above zero."""
    if len(packed) % 4 or not 1 <= len(packed) // 4 <= most:
        raise FormatError("bad_parameters", f"{name} are 1 to {most} float32", where=where)
    numbers = np.frombuffer(packed, "<f4").astype(np.float32)
    if not (np.isfinite(numbers) & (numbers > 0)).all():
        raise FormatError("bad_parameters", f"{name} are positive", where=where)
    return numbers


def read_offset(packed: bytes, where: str) -> float:
    """The offset, a float32 above -1."""
    if len(packed) != 4:
        raise FormatError("bad_parameters", "the offset is one float32", where=where)
    (offset,) = struct.unpack("<f", packed)
    if not (math.isfinite(offset) and offset > -1):
        raise FormatError("bad_parameters", "the offset is not above -1", where=where)
    return offset


def encode_step(
    levels: Symbols, kind: str, low: int, grid: Grid, lows: Symbols | None = None
) -> tuple[Step, list[EncodedStream]]:
    """Code levels (their high bits, where `low` bits go to `lows`) and what rebuilds them."""
    streams = [encode(levels, kind)]
    if lows is not None:
        streams.append(encode(lows, "u8"))
    if grid.rows is not None:
        streams.append(encode(Symbols.of(grid.rows), "u8"))
    return Step("uniform", grid.parameters(low), tuple(s.stream for s in streams)), streams
