"""Models, files and oracles that many tests share. Written without the code under test where that is possible."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tersor import _core
from tersor.encoded import Encoded
from tersor.format.layout import HEADER_SIZE, Header
from tersor.format.manifest import Manifest
from tersor.sources import Unit, open_source

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "tersor"
Arrays = dict[str, npt.NDArray[Any]]

WIDTHS = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
"""Bytes of an element of every dtype, by the safetensors format."""


def random_bytes(dtype: str, count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Elements of arbitrary bits; those of BOOL are 0 and 1."""
    top = 2 if dtype == "BOOL" else 256
    return np.random.default_rng(seed).integers(0, top, count * WIDTHS[dtype], dtype=np.uint8)


def unit_of(name: str, dtype: str, shape: tuple[int, ...], data: npt.NDArray[np.uint8]) -> Unit:
    """A unit in memory."""
    return Unit(name, dtype, shape, lambda: data.copy())


def array_unit(name: str, array: npt.NDArray[Any]) -> Unit:
    """The unit of one numpy array."""
    (unit,) = open_source({name: array}).units()
    return unit


def container(*tensors: Encoded, meta: Mapping[str, Any] | None = None) -> bytes:
    """The bytes of a file with these tensors, put together without the writer."""
    manifest = Manifest(tuple(t.entry for t in tensors), dict(meta or {}))
    stored, size = manifest.pack()
    total = HEADER_SIZE + len(stored) + manifest.data_size
    header = Header(total, len(stored), size, _core.hash(stored)).pack()
    return b"".join([header, stored, *(piece for t in tensors for piece in t.pieces)])


def save_raw_safetensors(path: Path, tensors: Mapping[str, tuple[str, Sequence[int], bytes]]) -> Path:
    """A safetensors file from (dtype, shape, bytes), for dtypes numpy lacks and bits it would change."""
    header: dict[str, Any] = {}
    end = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [end, end + len(data)]}
        end += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(bytes(data) for _, _, data in tensors.values()))
    return path


def save_safetensors(path: Path, arrays: Arrays) -> Path:
    """A safetensors file of numpy arrays."""
    from safetensors.numpy import save_file

    save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    return path


def read_safetensors(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Dtype, shape and bytes of every tensor of a safetensors file."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)
    body = data[8 + size :]
    return {
        name: (record["dtype"], tuple(record["shape"]), body[slice(*record["data_offsets"])])
        for name, record in header.items()
    }


def weights(rng: np.random.Generator, shape: tuple[int, ...], scale: float) -> npt.NDArray[np.float32]:
    """Weights like trained ones: Gaussian with a heavier tail, of one scale."""
    values = rng.standard_normal(shape) * np.exp(0.3 * rng.standard_normal(shape))
    return (scale * values).astype(np.float32)


def realistic_model(seed: int = 0) -> Arrays:
    """A small network: matrices of several scales, convolutions, an embedding, norms, buffers, a tied output head."""
    rng = np.random.default_rng(seed)
    model: Arrays = {"embed.weight": weights(rng, (1000, 64), 0.08)}
    for k, scale in enumerate((0.02, 0.05, 0.2)):
        model[f"layers.{k}.attention.query.weight"] = weights(rng, (64, 64), scale)
        model[f"layers.{k}.mlp.up.weight"] = weights(rng, (256, 64), scale / 2)
        model[f"layers.{k}.mlp.up.bias"] = weights(rng, (256,), 0.01)
        model[f"layers.{k}.mlp.down.weight"] = weights(rng, (64, 256), scale)
        model[f"layers.{k}.norm.weight"] = (1 + 0.1 * rng.standard_normal(64)).astype(np.float32)
    model["conv.weight"] = weights(rng, (48, 32, 3, 3), 0.03)
    model["conv.running_var"] = np.abs(weights(rng, (48,), 1.0))
    model["conv.num_batches_tracked"] = np.array(1234, np.int64)
    model["positions"] = np.arange(512, dtype=np.int64)
    model["mask"] = np.tril(np.ones((16, 16), np.bool_))
    model["head.weight"] = model["embed.weight"]
    return model


def model_bytes(model: Arrays) -> int:
    """Bytes of the arrays of a model, shared ones once."""
    return sum(array.nbytes for array in {id(array): array for array in model.values()}.values())


def identical(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    """Same dtype, shape and bits."""
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def noise_to_signal(original: npt.NDArray[Any], decoded: npt.NDArray[Any]) -> float:
    """Squared error over squared weights."""
    x, y = original.astype(np.float64), decoded.astype(np.float64)
    return float(np.square(x - y).sum() / np.square(x).sum())


def run_python(code: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter that turns warnings into errors."""
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


def run_tersor(*arguments: str | os.PathLike[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line in a fresh interpreter."""
    return run_python("from tersor.cli import main; main()", *map(os.fspath, arguments), **options)


def hidden(folder: Path) -> Iterator[str]:
    """Names in a folder that begin with a dot."""
    return (path.name for path in folder.iterdir() if path.name.startswith("."))
