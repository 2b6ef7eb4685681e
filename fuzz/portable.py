"""Write the tensors of all golden files for fuzz/portable.c, which decodes them anywhere: `portable.py BATTERY`."""

from __future__ import annotations

import importlib.util
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
CODERS = {"raw": 0, "zstd": 0, "rans": 1, "rans2d": 2, "adaptive": 3, "rans1": 4, "runs": 5}
TYPES = ("u8", "i8", "i16", "i32")
FLOATS = ("F32", "F16", "BF16", "F64")


def _reference() -> Any:
    sys.path.insert(0, str(ROOT / "spec"))  # it imports its part for the adaptive coder
    spec = importlib.util.spec_from_file_location("reference", ROOT / "spec" / "reference_decoder.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


reference = _reference()


def _numbers(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}Q", *values)


def _bytes(data: bytes) -> bytes:
    return _numbers(len(data)) + data


def _chunk(file: bytes, stream: Any, k: int) -> bytes:
    """One chunk of a stream, with its prelude."""
    coder, first = CODERS[stream.coder], k * stream.chunk
    count, own = min(stream.chunk, stream.length - first), k + (coder > 0)
    at = stream.start + sum(stream.sizes[:own])
    data = file[at : at + stream.sizes[own]]
    if stream.coder == "zstd":
        data = reference.decode_zstd(data, count * struct.calcsize(reference.TYPES[stream.type]))
    prelude = file[stream.start : stream.start + stream.sizes[0]] if coder else b""
    head = _numbers(coder, TYPES.index(stream.type), first, count, stream.length)
    return head + _bytes(prelude) + _bytes(data)


def _scaled(file: bytes, tensor: Any) -> tuple[bytes, list[Any]]:
    """How the levels of a tensor become weights, and the streams of its levels."""
    parameters, streams = tensor.parameters, list(tensor.streams)
    low, palette = parameters.get("low", 0), parameters.get("columns", b"")
    levels = [streams.pop(0) for _ in range(2 if low else 1)]
    rows = bytes(reference.decode_stream(file, streams.pop(0))) if len(parameters["steps"]) > 4 else b""
    by_row = rows or palette
    row_count = tensor.shape[0] if by_row else 0
    row = tensor.words // row_count if by_row else 0
    places = reference.decode_stream(file, streams.pop(0)) if len(palette) > 4 else bytes(row)
    columns = b"".join(palette[4 * k : 4 * k + 4] for k in places)
    head = _numbers(FLOATS.index(tensor.dtype), row_count, row, low, tensor.op == "trellis")
    offset = parameters.get("offset", bytes(4))
    floats = (parameters["steps"], offset, columns, parameters.get("values", b""))
    return head + b"".join(map(_bytes, floats)) + _bytes(rows), levels


def _tensor(file: bytes, tensor: Any) -> bytes:
    raw = tensor.op == "raw"
    if raw:
        streams = list(tensor.streams)
        head = _numbers(len(streams), reference.DTYPES[tensor.dtype][1])
    else:
        head, streams = _scaled(file, tensor)
    chunks = -(-tensor.words // streams[0].chunk)
    parts = (_chunk(file, stream, k) for k in range(chunks) for stream in streams)
    about = _numbers(tensor.digest, tensor.words, tensor.word, not raw, chunks, streams[0].chunk)
    return about + head + b"".join(parts)


def _battery() -> Iterator[bytes]:
    for path in sorted((ROOT / "tests" / "golden" / "files").glob("*.tsr")):
        file = path.read_bytes()
        for name, tensor in reference.read_manifest(file):
            if name == tensor.name and tensor.words > 0 and tensor.parameters.get("planes") != 0:
                yield _tensor(file, tensor)


if __name__ == "__main__":
    tensors = list(_battery())
    Path(sys.argv[1]).write_bytes(_numbers(len(tensors)) + b"".join(tensors))
