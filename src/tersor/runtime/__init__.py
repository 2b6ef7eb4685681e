"""Weights back: as arrays, in a module, or as a safetensors file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from tersor.errors import MismatchError
from tersor.format.dtypes import DTYPES
from tersor.format.limits import Limits
from tersor.format.reader import Array, Readable, TensorFile
from tersor.format.writer import atomic_file

if TYPE_CHECKING:
    import torch

TORCH_DTYPES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "U16": "uint16", "I16": "int16", "U32": "uint32", "I32": "int32",
    "U64": "uint64", "I64": "int64", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64", "C64": "complex64",
}  # fmt: skip


def open(source: Readable, *, limits: Limits | None = None, workers: int | None = None) -> TensorFile:
    """Open a tersor file as a mapping that decodes one tensor at a time; see `TensorFile`."""
    return TensorFile(source, limits=limits, workers=workers)


def load(source: Readable, *, limits: Limits | None = None, workers: int | None = None) -> dict[str, Array]:
    """Decode a whole file into numpy arrays by name; every checksum and digest is verified."""
    with TensorFile(source, limits=limits, workers=workers) as file:
        return file.load()


def verify(source: Readable, *, limits: Limits | None = None, workers: int | None = None) -> None:
    """Decode a whole file, keeping nothing; raises `FormatError` at the first checksum or digest that fails."""
    with TensorFile(source, limits=limits, workers=workers) as file:
        file.verify()


def decompress(
    source: Readable, output: str | os.PathLike[str], *, overwrite: bool = False, limits: Limits | None = None
) -> int:
    """Decode a file into a safetensors file, chunk by chunk; returns its size in bytes.

    Tied tensors are written under each of their names. The output appears complete or not at all.
    """
    with TensorFile(source, limits=limits) as file, atomic_file(Path(output), overwrite=overwrite) as out:
        return _write_safetensors(file, out)


def _write_safetensors(file: TensorFile, out: BinaryIO) -> int:
    """Wide elements first, so that every tensor is aligned, as readers of that format expect."""
    entries = sorted(file.entries, key=lambda e: -DTYPES[e.dtype].itemsize)
    file.limits.check_decoded("the output's size", sum(e.nbytes for e in entries), file.nbytes)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    if not header.keys().isdisjoint(file):
        raise MismatchError(
            "a tensor is called __metadata__, which safetensors files reserve", remedy="use tersor.load"
        )
    end = 0
    for entry in entries:
        header[entry.name] = {
            "dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": [end, end + entry.nbytes],
        }  # fmt: skip
        end += entry.nbytes
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    out.write(len(text).to_bytes(8, "little") + text)
    for entry in entries:
        for chunk in file.chunks(entry.name):
            out.write(chunk.data)
    return 8 + len(text) + end


def load_into(module: torch.nn.Module, source: Readable, *, limits: Limits | None = None) -> None:
    """Copy the weights of a file into a module, on whatever device and in whatever dtype its tensors are.

    Raises `MismatchError`, before anything is changed, unless names and shapes are exactly those of
    `module.state_dict()`.
    """
    import torch

    targets: dict[str, torch.Tensor] = module.state_dict(keep_vars=True)
    with TensorFile(source, limits=limits) as file:
        _check_match({n: tuple(t.shape) for n, t in targets.items()}, {e.name: e.shape for e in file.entries})
        with torch.no_grad():
            for entry in file.entries:
                stored = torch.from_numpy(file.stored(entry.name))
                targets[entry.name].copy_(stored.view(getattr(torch, TORCH_DTYPES[entry.dtype])).reshape(entry.shape))


def _check_match(wanted: dict[str, tuple[int, ...]], there: dict[str, tuple[int, ...]]) -> None:
    missing, extra = [n for n in wanted if n not in there], [n for n in there if n not in wanted]
    shapes = [f"{n} is {there[n]}, the module has {wanted[n]}" for n in wanted if n in there and wanted[n] != there[n]]
    problems = [
        f"{title}: {', '.join(found[:3])}{f' and {len(found) - 3} more' if len(found) > 3 else ''}"
        for title, found in (
            ("missing in the file", missing),
            ("not in the module", extra),
            ("different shapes", shapes),
        )
        if found
    ]
    if problems:
        raise MismatchError("the file does not fit the module; " + "; ".join(problems),
                            remedy="was it made from this architecture?")  # fmt: skip
