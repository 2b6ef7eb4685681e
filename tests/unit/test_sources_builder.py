"""Writes torch checkpoints without torch, whole or broken in chosen ways, for the other tests of sources."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tersor.sources.archives import LEGACY_MAGIC


def g(module: str, name: str) -> bytes:
    """The opcodes that name a global."""
    return f"c{module}\n{name}\n".encode()


def put(value: Any) -> bytes:
    """The opcodes that push a value; bytes are opcodes already."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, dict):
        return b"}(" + b"".join(put(key) + put(item) for key, item in value.items()) + b"u"
    if isinstance(value, tuple):
        return b"(" + b"".join(map(put, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(put, value)) + b"e"
    if isinstance(value, T):
        return value.opcodes()
    return pickle.dumps(value, protocol=2)[2:-1]


class T:
    """A tensor in a pickle under construction."""

    def __init__(
        self,
        key: str,
        shape: tuple[Any, ...],
        stride: tuple[Any, ...] | None = None,
        *,
        offset: int = 0,
        storage: str = "FloatStorage",
        numel: int | None = None,
        view: Any = "zip",
        metadata: dict[str, bool] | None = None,
    ) -> None:
        steps, step = [], 1
        for length in reversed(shape):
            steps.append(step)
            step *= length
        stride = tuple(reversed(steps)) if stride is None else stride
        numel = step if numel is None else numel
        self.identifier = (
            "storage",
            g("torch", storage),
            key,
            "cpu",
            numel,
            *(() if view == "zip" else (view,)),
        )
        self.arguments = (offset, shape, stride, False, g("collections", "OrderedDict") + b")R")
        self.metadata = () if metadata is None else (metadata,)

    def opcodes(self) -> bytes:
        storage = put(self.identifier) + b"Q"
        return g("torch._utils", "_rebuild_tensor_v2") + put((storage, *self.arguments, *self.metadata)) + b"R"


def as_pickle(value: Any) -> bytes:
    return b"\x80\x02" + put(value) + b"."


def write_zip(
    path: Path,
    root: Any,
    storages: dict[str, Any],
    *,
    members: dict[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
) -> Path:
    """Write the format of torch 1.6 and later; `root` as opcodes or values."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr(
            "archive/data.pkl", root if isinstance(root, bytes) and root.endswith(b".") else as_pickle(root)
        )
        for name, data in (members or {}).items():
            archive.writestr(f"archive/{name}", data)
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data if isinstance(data, bytes) else np.asarray(data).tobytes())
    return path


def write_legacy(
    path: Path, root: Any, storages: dict[str, Any], *, little_endian: bool = True, count_error: int = 0
) -> Path:
    """Write the format before torch 1.6."""
    system = {"protocol_version": 1001, "little_endian": little_endian, "type_sizes": {"short": 2}}
    out = io.BytesIO()
    for value in (LEGACY_MAGIC, 1001, system):
        out.write(pickle.dumps(value, protocol=2))
    out.write(as_pickle(root))
    out.write(pickle.dumps(list(storages), protocol=2))
    for data in storages.values():
        out.write(struct.pack("<q", np.asarray(data).size + count_error) + np.asarray(data).tobytes())
    path.write_bytes(out.getvalue())
    return path


@pytest.mark.parametrize("legacy", [False, True])
def test_torch_reads_what_the_builder_writes(tmp_path: Path, legacy: bool) -> None:
    torch = pytest.importorskip("torch")
    data = np.arange(6, dtype="<f4")
    root = {"w": T("0", (2, 3), view=None if legacy else "zip")}
    extra = {} if legacy else {"members": {"version": b"3\n", "byteorder": b"little"}}
    path = (write_legacy if legacy else write_zip)(tmp_path / "a.pt", root, {"0": data}, **extra)
    assert torch.load(path, weights_only=True)["w"].flatten().tolist() == data.tolist()
