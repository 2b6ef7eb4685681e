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
                    for stream in step.streams:
                        seen[stream.coder, stream.type] += 1
                        seen["count", stream.count] += 1
                        seen["chunks", stream.chunks] += 1
                        seen["chunk", stream.chunk] += 1
            for stream, lanes, table in _tables(data_of(name)):
                precision, lowest, frequencies = table
                seen["coding", lanes, precision] += stream.length > 0
                seen["alphabet", len(frequencies)] += 1
                seen["lowest", lowest] += 1
                seen["whole", max(frequencies) == 1 << precision] += 1
    wanted: list[Any] = [("raw", dtype, planes) for dtype, width in WORDS.items() for planes in range(width + 1)]
    wanted += [("uniform", dtype, None) for dtype in ("F32", "F16", "BF16", "F64")]
    wanted += [("coding", lanes, precision) for lanes in (1, 2, 4, 8, 16, 32) for precision in range(8, 16)]
    wanted += [(coder, kind) for coder in ("rans", "raw", "zstd") for kind in ("u8", "i8", "i16", "i32")]
    wanted += [("rank", n) for n in (*range(9), 32)] + [("low", n) for n in range(9)]
    wanted += [("steps", n) for n in (1, 2, 256)] + [("offset", s) for s in (-1.0, 0.0, 1.0)]
    wanted += [("count", n) for n in (0, 1, 31, 32, 33, 65535, 65536)] + [("chunks", n) for n in (0, 1, 2, 3)]
    wanted += [("chunk", n) for n in (65536, 131072, 2**20)] + [("alphabet", n) for n in (1, 2, 255, 256, 4096)]
    wanted += [("lowest", n) for n in (-(2**30), 2**30)] + [("minor", 7), ("tie", True), ("whole", True)]
    assert [corner for corner in wanted if not seen[corner]] == []


def _tables(data: bytes) -> Any:
    for name, tensor in reference.read_manifest(data):
        if name != tensor.name:
            continue
        for stream in tensor.streams:
            if stream.coder == "rans" and stream.length:
                lanes, tables = reference.read_prelude(data[stream.start : stream.start + stream.sizes[0]])
                for table in tables:
                    yield stream, lanes, table
