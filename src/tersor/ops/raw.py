"""Op `raw`: any tensor, bit for bit, as planes of bytes (spec/FORMAT.md, section 7.1).

The bytes of equal significance are coded together: exponents are far from uniform, mantissas are nearly so. The sign
moves behind the mantissa first, so that the top plane of a float32 or bfloat16 is its exponent.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from tersor import _core
from tersor.coders import EncodedStream, Symbols, encode
from tersor.errors import FormatError
from tersor.format.dtypes import DTYPES, Bytes
from tersor.format.layout import LEAF
from tersor.format.manifest import Entry, Step
from tersor.ops.chunks import (
    ChunkDecoder,
    Inputs,
    Leaves,
    check_parameters,
    check_streams,
    same_chunks,
    stream_errors,
)

CHUNK = 2 * LEAF
"""Small chunks: regions of a tensor differ (rows that were never trained, say), and each gets the table that
suits it."""


def open_chunks(entry: Entry, step: Step, inputs: Inputs) -> ChunkDecoder:
    """Check the step and return its decoder. `planes` of 0 means the bytes as they are, in one stream."""
    (planes,) = check_parameters(step, {"planes": int}, inputs.where)
    dtype = DTYPES[entry.dtype]
    if not 0 <= planes <= dtype.width:
        raise FormatError("bad_parameters", f"{planes} planes for elements of {dtype.width} bytes", where=inputs.where)
    if planes == 0 and entry.nbytes > LEAF:
        raise FormatError("bad_parameters", f"unsplit bytes of a tensor over {LEAF} bytes", where=inputs.where)
    if any(stream.type != "u8" for stream in step.streams):
        raise FormatError("bad_stream_type", "op raw reads streams of u8", where=inputs.where)
    per_word, width, rotate = (dtype.width, 1, False) if planes == 0 else (1, dtype.width, dtype.signed_float)
    check_streams(step, [entry.words * per_word] * max(planes, 1), inputs.where)
    counts = same_chunks(list(step.streams), inputs.where)

    def decode(chunk: int, out: Bytes) -> Leaves:
        parts = [inputs.chunk(k, chunk) for k in range(len(step.streams))]
        with stream_errors(f"{inputs.where}, chunk {chunk}"):
            return _core.decode_planes(
                out, [p.prelude for p in parts], [p.data for p in parts], chunk * step.streams[0].chunk,
                counts[chunk], width, rotate,
            )  # fmt: skip

    return ChunkDecoder(counts, width, decode)


def encode_step(data: Bytes, dtype: str, stored: int | None = None) -> tuple[Step, list[EncodedStream]]:
    """Code the bytes of a tensor. `stored` < width keeps that many top bytes of every word; the rest must be zero."""
    kind = DTYPES[dtype]
    whole = encode(Symbols.of(data, LEAF), "u8") if stored is None and data.size <= LEAF else None
    planes = _encode_planes(data, stored or kind.width, kind.width, kind.signed_float)
    # A stream costs about 12 bytes in the manifest beside its own pieces.
    if whole is not None and whole.stream.nbytes <= sum(p.stream.nbytes + 12 for p in planes) - 12:
        return Step("raw", {"planes": 0}, (whole.stream,)), [whole]
    return Step("raw", {"planes": len(planes)}, tuple(p.stream for p in planes)), planes


def _encode_planes(data: Bytes, stored: int, width: int, rotate: bool) -> list[EncodedStream]:
    """Planes are cut from the tensor chunk by chunk whenever they are needed: a second copy of it may not fit
    in memory."""

    def values(plane: int, chunk: int) -> npt.NDArray[np.int32]:
        part = data[chunk * CHUNK * width : (chunk + 1) * CHUNK * width]
        return _core.split_planes(part, stored, width, rotate).reshape(stored, -1)[plane].astype(np.int32)

    words = data.size // width
    return [encode(Symbols(words, CHUNK, partial(values, plane), fast=True), "u8") for plane in range(stored)]
