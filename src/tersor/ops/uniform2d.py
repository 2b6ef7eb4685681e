"""Ops `uniform2d`, `companded` and `trellis`: levels times a step of their row and one of their column
(spec/FORMAT.md, sections 7.3 to 7.5).

`uniform2d` rebuilds a level q as sign(q) * (|q| + offset) * column step * row step. Steps by column come from
reverse water-filling: where inputs vary little, weights may be coarse (WaterSIC, arXiv 2603.04956).
`companded` takes the value of |q| from a list: the logarithmic and exponential transformations of L2, or any symmetric
codebook. `trellis` is the dependent quantizer of the coding standards for video and neural networks: two grids of
twice the step, interleaved, chosen by the parities of the levels above in the same column.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tersor import _core
from tersor.coders import CORE_TYPES, EncodedStream, Symbols, encode
from tersor.errors import FormatError
from tersor.format.dtypes import DTYPES
from tersor.format.layout import chunk_counts
from tersor.format.manifest import Entry, Step
from tersor.ops.chunks import (
    Bytes,
    ChunkDecoder,
    Inputs,
    Leaves,
    check_parameters,
    check_streams,
    read_all,
    stream_errors,
)
from tersor.ops.uniform import FLOATS, MAX_SIDE, MAX_STEPS, Floats, read_offset, read_positive

Indices = npt.NDArray[np.uint8]

MAX_VALUES = 4096


@dataclass(frozen=True, eq=False)
class Scales:
    """Palettes of steps of rows and columns; an index into them for every row and column where there are several."""

    rows: Floats
    columns: Floats
    row_index: Indices | None = None
    column_index: Indices | None = None

    @classmethod
    def of(cls, rows: Floats, columns: Floats) -> Scales:
        """From a step for every row and every column; at most 256 different ones each."""
        row_palette, row_index = np.unique(rows, return_inverse=True)
        column_palette, column_index = np.unique(columns, return_inverse=True)
        if max(row_palette.size, column_palette.size) > MAX_STEPS:
            raise ValueError(f"more than {MAX_STEPS} different steps")
        return cls(
            row_palette.astype(np.float32),
            column_palette.astype(np.float32),
            row_index.astype(np.uint8) if row_palette.size > 1 else None,
            column_index.astype(np.uint8) if column_palette.size > 1 else None,
        )


def open_chunks(entry: Entry, step: Step, inputs: Inputs) -> ChunkDecoder:
    """Check the step, read the steps of its rows and columns and return its decoder."""
    where, companded = inputs.where, step.op == "companded"
    shape_of_magnitudes = "values" if companded else "offset"
    types = {"steps": bytes, "columns": bytes, shape_of_magnitudes: bytes}
    packed_steps, packed_columns, packed = check_parameters(step, types, where)
    if entry.dtype not in FLOATS:
        raise FormatError("bad_parameters", f"op {step.op} cannot make {entry.dtype}", where=where)
    steps = read_positive(packed_steps, MAX_STEPS, "steps", where)
    palette = read_positive(packed_columns, MAX_STEPS, "columns", where)
    values = read_positive(packed, MAX_VALUES, "values", where) if companded else None
    offset = 0.0 if companded else read_offset(packed, where)
    if entry.count == 0 or not entry.shape or max(entry.shape[0], entry.count // entry.shape[0]) > MAX_SIDE:
        raise FormatError("bad_parameters", f"op {step.op} on a tensor without rows, or with too many", where=where)
    rows, row_length = entry.shape[0], entry.count // entry.shape[0]
    several = [(rows, steps.size > 1), (row_length, palette.size > 1)]
    check_streams(step, [entry.count] + [n for n, there in several if there], where)
    if any(stream.type != "u8" for stream in step.streams[1:]):
        raise FormatError("bad_stream_type", f"side streams of op {step.op} are u8", where=where)
    row_index = read_all(inputs, 1, step.streams[1]) if steps.size > 1 else None
    columns = None
    if palette.size > 1 or palette[0] != 1:
        inputs.keep(4 * row_length)
    if palette.size > 1:
        last = len(step.streams) - 1
        index = read_all(inputs, last, step.streams[last])
        if int(index.max()) >= palette.size:
            raise FormatError("stream_range", "a column has a step outside the palette", where=where)
        columns = palette[index]
    elif palette[0] != 1:
        columns = np.full(row_length, palette[0], np.float32)
    levels = step.streams[0]
    counts = chunk_counts(levels.count, levels.chunk)

    def decode(chunk: int, out: Bytes) -> Leaves:
        prelude, data = inputs.chunk(0, chunk)
        with stream_errors(f"{where}, chunk {chunk}"):
            return _core.decode_uniform(
                out, FLOATS[entry.dtype], prelude, CORE_TYPES[levels.type], data, counts[chunk], steps, row_index,
                row_length, chunk * levels.chunk, offset, column_steps=columns, values=values,
                trellis=step.op == "trellis", rows=rows,
            )  # fmt: skip

    return ChunkDecoder(counts, DTYPES[entry.dtype].width, decode)


def encode_step(
    levels: Symbols,
    kind: str,
    scales: Scales,
    *,
    offset: float = 0.0,
    values: Floats | None = None,
    trellis: bool = False,
) -> tuple[Step, list[EncodedStream]]:
    """Code levels and what rebuilds them: by `values` (companded), a trellis, or as multiples of the steps."""
    streams = [encode(levels, kind)]
    streams += [
        encode(Symbols.of(index), "u8") for index in (scales.row_index, scales.column_index) if index is not None
    ]
    parameters: dict[str, bytes] = {
        "steps": scales.rows.astype("<f4").tobytes(),
        "columns": scales.columns.astype("<f4").tobytes(),
    }
    if values is not None:
        parameters["values"] = values.astype("<f4").tobytes()
    else:
        parameters["offset"] = struct.pack("<f", offset)
    op = "companded" if values is not None else "trellis" if trellis else "uniform2d"
    return Step(op, parameters, tuple(s.stream for s in streams)), streams
