from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tersor.errors import SourceError
from tersor.sources import SafetensorsSource, open_source


def write(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(begin: int, end: int, dtype: Any = "F32", shape: Any = None) -> dict[str, Any]:
    return {
        "dtype": dtype,
        "shape": [(end - begin) // 4] if shape is None else shape,
        "data_offsets": [begin, end],
    }


def test_every_tensor_comes_back_in_file_order(tmp_path: Path) -> None:
    arrays = {
        "b.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
        "a.scalar": np.array(7, np.int64),
        "leer/ü名": np.zeros((0, 5), np.float16),
        "mask": np.array([True, False]),
    }
    path = tmp_path / "m.safetensors"
    save_file(arrays, path, metadata={"format": "np"})
    source = open_source(path)
    units = {unit.name: unit for unit in source.units()}
    assert set(units) == set(arrays)
    assert dict(source.metadata) == {"format": "np"}
    for name, array in arrays.items():
        data = units[name].load()
        assert data.dtype == np.uint8 and data.ndim == 1 and data.flags.c_contiguous
        assert data.tobytes() == array.tobytes() and units[name].shape == array.shape
        assert units[name].nbytes == array.nbytes and units[name].tied_to is None


def test_all_dtypes(tmp_path: Path) -> None:
    from tersor.sources import ITEMSIZE

    header, position = {}, 0
    for dtype, size in ITEMSIZE.items():
        header[dtype] = {"dtype": dtype, "shape": [3], "data_offsets": [position, position + 3 * size]}
        position += 3 * size
    data = os.urandom(position)
    units = open_source(write(tmp_path / "m.safetensors", header, data)).units()
    assert b"".join(unit.load().tobytes() for unit in units) == data
    assert [unit.dtype for unit in units] == list(ITEMSIZE)


BROKEN = {
    "too short": (b"\1\0\0", "too few"),
    "header past the end": (struct.pack("<Q", 500) + b"{}  ", "should end at byte 508"),
    "header over the limit": (struct.pack("<Q", 1 << 60) + b"{}  ", "more than the format's limit"),
    "no JSON": (b"{nonsense", "JSON is not valid"),
    "no object": (b"[1]", "does not start with"),
    "deep JSON": (b'{"a":' + b"[" * 200_000, "JSON is not valid"),
    "not UTF-8": (b'{"\xff": 1}', "JSON is not valid"),
    "NaN": (b'{"a": NaN}', "NaN is no JSON"),
    "key twice": (b'{"a": 1, "a": 2}', "'a' occurs twice"),
    "empty": ({}, "no tensors"),
    "metadata no text": ({"__metadata__": {"a": 1}, "w": entry(0, 8)}, "table of texts"),
    "metadata no table": ({"__metadata__": "a", "w": entry(0, 8)}, "table of texts"),
    "missing field": ({"w": {"dtype": "F32", "shape": [2]}}, "not exactly dtype"),
    "extra field": ({"w": entry(0, 8) | {"strides": [1]}}, "not exactly dtype"),
    "unknown dtype": ({"w": entry(0, 8, dtype="F4")}, "F4 is not supported"),
    "dtype no text": ({"w": entry(0, 8, dtype=["F32"])}, "not supported"),
    "negative shape": ({"w": entry(0, 8, shape=[-2])}, "whole numbers of 0 or more"),
    "fractional shape": ({"w": entry(0, 8, shape=[2.0])}, "whole numbers of 0 or more"),
    "boolean shape": ({"w": entry(0, 4, shape=[True])}, "whole numbers of 0 or more"),
    "shape no list": ({"w": entry(0, 8, shape="2")}, "not a list of numbers"),
    "many dimensions": ({"w": entry(0, 4, shape=[1] * 40)}, "40 dimensions"),
    "size and shape": ({"w": entry(0, 8, shape=[3])}, "do not hold the 12 bytes"),
    "huge shape": ({"w": entry(0, 8, shape=[1 << 62, 1 << 62])}, "do not hold"),
    "backwards": ({"w": entry(8, 0, shape=[0])}, "do not hold"),
    "negative offset": ({"w": entry(-8, 0, shape=[2])}, "do not hold"),
    "offsets no pair": ({"w": entry(0, 8) | {"data_offsets": [0]}}, "pair of whole numbers"),
    "overlap": ({"a": entry(0, 8), "b": entry(4, 12)}, "overlaps the tensor before it"),
    "hole": ({"a": entry(0, 8), "b": entry(12, 16)}, "leaves a hole"),
    "not at the start": ({"a": entry(4, 8)}, "leaves a hole"),
    "past the end": ({"w": entry(0, 400)}, "the tensors end at byte"),
    "bytes left over": ({"w": entry(0, 4)}, "the tensors end at byte"),
    "empty name": ({"": entry(0, 8)}, "empty name"),
    "NUL in a name": ({"a\0b": entry(0, 8)}, "NUL"),
    "lone surrogate": (b'{"\\ud800": {"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', "lone surrogate"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_refused(tmp_path: Path, case: str) -> None:
    content, message = BROKEN[case]
    path = tmp_path / "m.safetensors"
    if case.startswith(("too short", "header")):
        path.write_bytes(content)
    else:
        write(path, content, bytes(8 if content else 0))
    with pytest.raises(SourceError, match=message) as caught:
        open_source(path)
    assert str(path) in caught.value.where and caught.value.remedy


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.safetensors", {"w": entry(0, 8)}, bytes(8))
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(SourceError):
            open_source(path)


def test_a_file_that_changes_is_refused_when_it_is_read(tmp_path: Path) -> None:
    path = write(tmp_path / "m.safetensors", {"w": entry(0, 8)}, bytes(8))
    (unit,) = open_source(path).units()
    os.utime(path, ns=(1, 1))
    with pytest.raises(SourceError, match="changed while"):
        unit.load()
    path.unlink()
    with pytest.raises(SourceError, match="still there"):
        unit.load()


def test_fingerprint_follows_the_file_not_the_folder(tmp_path: Path) -> None:
    first = write(tmp_path / "m.safetensors", {"w": entry(0, 8)}, bytes(8))
    (tmp_path / "other").mkdir()
    second = write(tmp_path / "other" / "m.safetensors", {"w": entry(0, 8)}, bytes(8))
    for path in (first, second):
        os.utime(path, ns=(5, 5))
    before = SafetensorsSource(first).fingerprint()
    assert before == SafetensorsSource(second).fingerprint()
    os.utime(first, ns=(6, 6))
    assert before != SafetensorsSource(first).fingerprint()


def test_paths_that_are_no_weights(tmp_path: Path) -> None:
    (tmp_path / "empty.safetensors").touch()
    (tmp_path / "lfs.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    for name, message in {
        "none.safetensors": "no such file",
        "empty.safetensors": "is empty",
        "lfs.safetensors": "Git LFS pointer",
        "none": "no such file or folder",
    }.items():
        with pytest.raises(SourceError, match=message):
            open_source(tmp_path / name)
    for name, message in {
        "a.onnx": "ONNX is not read yet",
        "a.tsr": "decompress it first",
        "a.xyz": "supported are .safetensors, .pt",
        "a": "no suffix",
    }.items():
        (tmp_path / name).write_text("x")
        with pytest.raises(SourceError, match=message):
            open_source(tmp_path / name)
    with pytest.raises(SourceError, match="only a torch checkpoint has keys"):
        open_source(tmp_path / "a.safetensors", key="ema")
    with pytest.raises(TypeError, match="not int"):
        open_source(3)  # type: ignore[arg-type]
