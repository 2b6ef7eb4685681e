"""Golden files decode to the bits they were made of, for ever: in the real decoder and in the reference one."""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handmade import WORDS
from reference import reference

import tersor

HERE = Path(__file__).resolve().parent
EXPECTED: dict[str, dict[str, Any]] = json.loads((HERE / "expected.json").read_text())
FILES = sorted(EXPECTED)


def sha256(data: Any) -> str:
    return hashlib.sha256(data).hexdigest()


def data_of(name: str) -> bytes:
    return (HERE / "files" / name).read_bytes()


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("name", FILES)
def test_decodes_to_the_bits_it_was_made_of(name: str, workers: int) -> None:
    with tersor.open(data_of(name), workers=workers) as file:
        found = {e.name: [e.dtype, list(e.shape), sha256(file.stored(e.name))] for e in file.entries}
        assert found == EXPECTED[name]
        assert list(file) == list(EXPECTED[name])
        file.verify()
        for key, array in file.load().items():
            assert array.shape == tuple(EXPECTED[name][key][1])
        for key in file:
            assert sha256(b"".join(chunk.tobytes() for chunk in file.chunks(key))) == EXPECTED[name][key][2]


@pytest.mark.parametrize("name", FILES)
def test_reference_decoder_agrees_byte_for_byte(name: str) -> None:
    data = data_of(name)
    decoded = reference.decode(data)
    assert list(decoded) == list(EXPECTED[name])
    with tersor.open(data) as file:
        for key, (dtype, shape, content) in decoded.items():
            assert [dtype, list(shape), sha256(content)] == EXPECTED[name][key]
            assert content == file.stored(key).tobytes()


@pytest.mark.parametrize("name", ["written-uniform-4-f32.tsr", "chunks-short-last.tsr", "empty.tsr", "ties.tsr"])
def test_path_and_file_object_give_what_memory_gives(name: str) -> None:
    path = HERE / "files" / name
    with tersor.open(path) as by_path, tersor.open(io.BytesIO(path.read_bytes())) as by_object:
        for key, (_, _, digest) in EXPECTED[name].items():
            assert sha256(by_path.stored(key)) == sha256(by_object.stored(key)) == digest


def test_every_file_is_listed_and_small() -> None:
    paths = list((HERE / "files").glob("*"))
    assert sorted(path.name for path in paths) == FILES
    assert len(paths) >= 150
    assert sum(path.stat().st_size for path in paths) < 5 * 2**20


def test_every_corner_of_the_format_is_there() -> None:
    """Counted from what the files hold, so that a corner cannot get lost behind a file name."""
    seen: Counter[Any] = Counter()
    for name in FILES:
        with tersor.open(data_of(name)) as file:
            seen["minor", file.header.minor] += 1
            for entry in file.entries:
                seen["rank", len(entry.shape)] += 1
                seen["tie", entry.tie is not None] += 1
                for step in entry.chain:
                    seen[step.op, entry.dtype, step.parameters.get("planes")] += 1
                    if step.op == "uniform":
                        offset = np.frombuffer(step.parameters["offset"], "<f4")[0]
                        seen["offset", float(np.sign(offset))] += 1
                        seen["low", step.parameters["low"]] += 1
                        seen["steps", len(step.parameters["steps"]) // 4] += 1
                    if "columns" in step.parameters:
                        sizes = [len(step.parameters[name]) // 4 for name in ("steps", "columns")]
                        seen["scales", step.op, *(min(n, 2) for n in sizes)] += 1
                        seen["scales of", max(sizes)] += 1
                        seen[step.op, "rank", len(entry.shape)] += 1
                        seen[step.op, "chunks", min(2, step.streams[0].chunks)] += 1
                        seen["values", len(step.parameters.get("values", b"")) // 4] += 1
                    for stream in step.streams:
                        seen[step.op, stream.coder, entry.dtype] += 1
                        seen[stream.coder, stream.type] += 1
                        seen[stream.coder, "chunks", stream.chunks] += 1
                        seen["count", stream.count] += 1
                        seen["chunks", stream.chunks] += 1
                        seen["chunk", stream.chunk] += 1
            for stream, lanes, table in _tables(data_of(name)):
                precision, lowest, frequencies = table
                seen["coding", lanes, precision] += stream.length > 0
                seen["alphabet", len(frequencies)] += 1
                seen["lowest", lowest] += 1
                seen["whole", max(frequencies) == 1 << precision] += 1
            for stream, prelude in _preludes(data_of(name)):
                tables, rows, columns = prelude.tables, prelude.rows, prelude.columns
                precision = tables[0][0]
                span = max(low + len(f) for _, low, f in tables) - min(low for _, low, _ in tables)
                seen["classed", prelude.lanes, precision] += 1
                seen["packed", precision, span <= 1 << 32 - 2 * precision] += 1
                seen["tables", len(tables)] += 1
                seen["sides", min(len(rows), 2), min(len(columns), 2)] += 1
                seen["last row is short", stream.length % len(columns) > 0] += 1
                seen["classes", min(max(rows), 1), min(max(columns), 1)] += 1
    wanted: list[Any] = [("raw", dtype, planes) for dtype, width in WORDS.items() for planes in range(width + 1)]
    coders, floats = ("raw", "zstd", "rans", "rans1", "rans2d", "adaptive", "runs"), ("F32", "F16", "BF16", "F64")
    wanted += [("raw", coder, dtype) for coder in coders for dtype in WORDS]
    wanted += [("uniform", dtype, None) for dtype in floats]
    wanted += [("coding", lanes, precision) for lanes in (1, 2, 4, 8, 16, 32) for precision in range(8, 16)]
    wanted += [(coder, kind) for coder in ("rans", "raw", "zstd") for kind in ("u8", "i8", "i16", "i32")]
    wanted += [("rank", n) for n in (*range(9), 32)] + [("low", n) for n in range(9)]
    wanted += [("steps", n) for n in (1, 2, 256)] + [("offset", s) for s in (-1.0, 0.0, 1.0)]
    wanted += [("count", n) for n in (0, 1, 31, 32, 33, 65535, 65536)] + [("chunks", n) for n in (0, 1, 2, 3)]
    wanted += [("chunk", n) for n in (65536, 131072, 2**20)] + [("alphabet", n) for n in (1, 2, 255, 256, 4096)]
    wanted += [("lowest", n) for n in (-(2**30), 2**30)] + [("minor", 7), ("tie", True), ("whole", True)]
    ops = ("uniform2d", "companded", "trellis")
    wanted += [(op, coder, dtype) for op in ("uniform", *ops) for coder in coders for dtype in floats]
    wanted += [(op, dtype, None) for op in ops for dtype in floats]
    wanted += [("scales", op, k, m) for op in ops for k in (1, 2) for m in (1, 2)] + [("scales of", 256)]
    wanted += [(op, "rank", n) for op in ops for n in (*range(1, 6), 8)] + [
        (op, "chunks", n) for op in ops for n in (1, 2)
    ]
    wanted += [("values", n) for n in (1, 4096)] + [("rans2d", kind) for kind in ("u8", "i8", "i16", "i32")]
    wanted += [("classed", lanes, precision) for lanes in (1, 2, 4, 8, 16, 32) for precision in range(8, 14)]
    wanted += [("packed", n, fits) for n in (8, 11, 12, 13) for fits in (False, True)]
    wanted += [("tables", n) for n in (1, 2, 64)] + [("rans2d", "chunks", n) for n in (1, 2, 3)]
    wanted += [("sides", r, c) for r in (1, 2) for c in (1, 2)] + [("classes", r, c) for r in (0, 1) for c in (0, 1)]
    wanted += [("adaptive", kind) for kind in ("u8", "i8", "i16", "i32")] + [("adaptive", "chunks", 2)]
    wanted += [("last row is short", True), ("minor", 1)]
    assert [corner for corner in wanted if not seen[corner]] == []


def _tables(data: bytes) -> Any:
    for name, tensor in reference.read_manifest(data):
        if name != tensor.name:
            continue
        for stream in tensor.streams:
            if stream.coder == "rans" and stream.length:
                lanes, tables, *_ = reference.read_prelude(data[stream.start : stream.start + stream.sizes[0]])
                for table in tables:
                    yield stream, lanes, table


def _preludes(data: bytes) -> Any:
    """Of the coder with tables by row and column."""
    for name, tensor in reference.read_manifest(data):
        for stream in tensor.streams if name == tensor.name else ():
            if stream.coder == "rans2d" and stream.length:
                piece = data[stream.start : stream.start + stream.sizes[0]]
                yield stream, reference.read_prelude(piece, stream.length)
