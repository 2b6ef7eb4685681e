"""The tensors of a torch checkpoint (`.pt`, `.pth`, `.bin`), without torch and without running its pickle."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np

from tersor.errors import SourceError
from tersor.sources.archives import Archive, open_archive
from tersor.sources.files import StoredFile, digest
from tersor.sources.state_dict import select
from tersor.sources.torch_objects import TensorRecord
from tersor.sources.unit import Bytes, Ties, Unit, check_shape, unsupported_dtype

MAX_EXPANDED_BYTES = 1 << 28
"""A tensor may repeat stored elements (`expand`), but not grow from few bytes to more than this."""

_EXPORT = "save model.state_dict() alone, best as .safetensors"


class CheckpointSource:
    """The tensors of a torch checkpoint.

    A plain state dict is taken as it is. Where the weights are one entry of a training checkpoint (one of
    `state_dict.STATE_KEYS`), that entry is taken; where several could be meant, `key` must say which. Nested
    tables, lists and the objects of TorchScript archives are flattened, their names joined with dots. What is
    not taken is listed in `skipped`; numbers and texts beside the weights are in `metadata`. (A TorchScript
    archive does not say which of a module's tensors are parameters, so plain tensor attributes come too.)

    Nothing in the file is run: a pickle that names any function or class but the few that build tensors and
    containers is refused with `SourceError`, and so are storages that are missing or too short, negative
    strides, sparse and quantized tensors, and big-endian files.
    """

    def __init__(self, path: str | Path, *, key: str | None = None) -> None:
        self._file = StoredFile.at(Path(path))
        self.label = str(self._file.path)
        self._key = key
        self._archive = open_archive(self._file)
        selection = select(self._archive.root, key, self.label)
        self.metadata: Mapping[str, str] = MappingProxyType(selection.metadata)
        self.skipped: tuple[str, ...] = tuple(selection.skipped)
        ties = Ties()
        self._units = tuple(
            _unit(self._archive, name, record, ties, f"{self.label}, tensor {name!r}")
            for name, record in selection.tensors
        )

    def units(self) -> Sequence[Unit]:
        """The tensors in the order of the state dict; nothing of their data has been read yet."""
        return self._units

    def fingerprint(self) -> str:
        """A hexadecimal digest of the file's name, size, time of last change, pickle and the chosen key."""
        return digest("checkpoint", self._file.identity(), self._archive.header_digest, self._key or "")


def _unit(archive: Archive, name: str, record: TensorRecord, ties: Ties, where: str) -> Unit:
    """Check a tensor against its storage and describe it."""
    dtype, itemsize = record.element.dtype, record.element.itemsize
    if dtype is None:
        raise unsupported_dtype(f"torch.{record.element.torch_name}", where)
    shape = check_shape(record.shape, where)
    strides = check_shape(record.strides, where)  # torch has no negative strides either
    if len(strides) != len(shape) or type(record.offset) is not int or record.offset < 0:
        raise SourceError("the strides or the offset are not those of a tensor", where=where, remedy=_EXPORT)
    # The stride along a dimension of length 1 means nothing; without it, equal views look equal.
    strides = tuple(stride if length > 1 else 0 for stride, length in zip(strides, shape, strict=True))
    count = math.prod(shape)
    span = 1 + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True)) if count else 0
    storage = record.storage
    stored = storage.count * storage.element.itemsize
    if (record.offset + span) * itemsize > stored and count:
        raise SourceError(
            f"the tensor reaches to byte {(record.offset + span) * itemsize} of a storage of {stored}",
            where=where,
            remedy="the file is damaged: get it again",
        )
    if count > span and count * itemsize > MAX_EXPANDED_BYTES:
        raise SourceError(
            f"the tensor repeats {span * itemsize} stored bytes up to {count * itemsize}",
            where=where,
            remedy="leave it out of the checkpoint, or save it after .contiguous()",
        )
    if count:
        archive.check(storage)
    begin = storage.start * storage.element.itemsize + record.offset * itemsize
    load = partial(_load, archive, record, begin, span * itemsize, shape, strides)
    tied = ties.owner(name, count, storage.key, begin, dtype, shape, strides)
    return Unit(name, dtype, shape, load, tied)


def _load(
    archive: Archive,
    record: TensorRecord,
    begin: int,
    nbytes: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
) -> Bytes:
    """Read what the tensor spans in its storage, and gather its elements if they are not in C order."""
    if nbytes == 0:
        return np.empty(0, np.uint8)
    buffer = archive.read(record.storage, begin, nbytes)
    itemsize = record.element.itemsize
    contiguous: list[int] = []
    step = 1
    for length in reversed(shape):
        contiguous.append(step if length > 1 else 0)
        step *= length
    if strides == tuple(reversed(contiguous)):
        return buffer
    steps = tuple(stride * itemsize for stride in strides)
    elements = np.ndarray(shape, f"<u{itemsize}", buffer=buffer.data, strides=steps)
    return np.ascontiguousarray(elements).reshape(-1).view(np.uint8)
