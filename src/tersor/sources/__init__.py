"""Where models come from: files, folders, modules and mappings, as `Unit`s one after another.

Listing units reads headers only; the bytes of a tensor are read when `Unit.load()` is called and belong to
the caller, so a model larger than memory passes through tensor by tensor. torch is needed for modules alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tersor.errors import SourceError
from tersor.sources.checkpoint import CheckpointSource
from tersor.sources.folder import INDEX_SUFFIX, FolderSource
from tersor.sources.model import Model, open_model
from tersor.sources.module import MappingSource, ModuleSource, is_module
from tersor.sources.roles import Role, role, with_heads
from tersor.sources.safetensors import SafetensorsSource
from tersor.sources.unit import ITEMSIZE, Unit

if TYPE_CHECKING:
    import torch

__all__ = [
    "ITEMSIZE",
    "CheckpointSource",
    "FolderSource",
    "MappingSource",
    "Model",
    "ModuleSource",
    "Role",
    "SafetensorsSource",
    "Source",
    "Unit",
    "open_model",
    "open_source",
    "role",
    "with_heads",
]

CHECKPOINT_SUFFIXES = (".pt", ".pth", ".bin", ".ckpt", ".jit", ".ptl")

_REMEDIES = {
    ".onnx": "export the weights as .safetensors; ONNX is not read yet",
    ".gguf": "use the unquantized weights it was made from",
    ".h5": "load it with Keras and save the arrays as .safetensors",
    ".keras": "load it with Keras and save the arrays as .safetensors",
    ".npz": "pass dict(numpy.load(path)) in Python, or save the arrays as .safetensors",
    ".tsr": "this is a tersor file already; decompress it first",
}


class Source(Protocol):
    """Where units come from, one after another."""

    label: str
    """What error messages call it."""

    metadata: Mapping[str, str]
    """Texts that the source carries beside its tensors."""

    skipped: tuple[str, ...]
    """What the source holds and does not give: entries that are no weights."""

    def units(self) -> Sequence[Unit]:
        """Return the tensors in the order of the source; cheap, since only headers have been read."""
        ...

    def fingerprint(self) -> str:
        """Return a hexadecimal text that changes when the content does, for resuming.

        For files it covers names, sizes, times of the last change and headers, for memory every byte.
        """
        ...


RUNNING = ("timm:", "python:")
"""How the names of sources begin that are models rather than files."""


def open_source(
    source: str | os.PathLike[str] | torch.nn.Module | Model | Mapping[str, Any],
    *,
    key: str | None = None,
    weights: str | os.PathLike[str] | None = None,
) -> Source:
    """Open a `.safetensors` file, a torch checkpoint, a model folder or its index, a module, a mapping, or a model.

    `timm:NAME` and `python:MODULE:FACTORY` are models; `weights` names the file of their state dict. `key` chooses
    among several models in one checkpoint. Raises `SourceError` when the source is missing, damaged, of an
    unsupported kind, or holds no tensors; `TypeError` for anything that is no source at all.
    """
    if isinstance(source, Model) or weights is not None or (isinstance(source, str) and source.startswith(RUNNING)):
        return open_model(source, weights, key=key)  # type: ignore[arg-type]
    if is_module(source):
        return ModuleSource(source)  # type: ignore[arg-type]
    if isinstance(source, Mapping):
        return MappingSource(source)
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(f"a source is a path, a module or a mapping of arrays, not {type(source).__name__}")
    path = Path(source)
    suffix = path.suffix.lower()
    if suffix in CHECKPOINT_SUFFIXES and not path.is_dir():
        return CheckpointSource(path, key=key)
    if key is not None:
        raise SourceError("only a torch checkpoint has keys", where=str(path), remedy="leave out key=...")
    if path.is_dir() or path.name.endswith(INDEX_SUFFIX):
        return FolderSource(path)
    if suffix == ".safetensors":
        return SafetensorsSource(path)
    if not path.exists():
        raise SourceError("no such file or folder", where=str(path), remedy="check the path")
    raise SourceError(
        f"files that end in {suffix!r} are not supported" if suffix else "the file has no suffix that tells its kind",
        where=str(path),
        remedy=_REMEDIES.get(suffix, f"supported are .safetensors, {', '.join(CHECKPOINT_SUFFIXES)} and model folders"),
    )
