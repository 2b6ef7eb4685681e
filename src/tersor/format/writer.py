"""Writing a file: all or nothing, atomically (spec/FORMAT.md, section 3; promise 8 of the design)."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tersor import _core
from tersor.errors import OutputError
from tersor.format.layout import HEADER_SIZE, Header
from tersor.format.manifest import Manifest


def file_size(manifest: Manifest) -> int:
    """Exact size of the file that `manifest` describes."""
    return HEADER_SIZE + len(manifest.pack()[0]) + manifest.data_size


def write(path: Path, manifest: Manifest, pieces: Iterable[bytes], *, overwrite: bool = False) -> int:
    """Write a file and return its size; `pieces` are those of all streams, in order.

    Raises `OutputError` if the file exists (unless `overwrite`) or cannot be written; then nothing has changed.
    """
    stored, size = manifest.pack()
    header = Header(HEADER_SIZE + len(stored) + manifest.data_size, len(stored), size, _core.hash(stored))
    with atomic_file(path, overwrite=overwrite) as file:
        file.write(header.pack())
        file.write(stored)
        for piece in pieces:
            file.write(piece)
        if file.tell() != header.file_size:
            raise ValueError(f"the pieces take {file.tell()} bytes, the manifest says {header.file_size}")
    return header.file_size


@contextmanager
def atomic_file(path: Path, *, overwrite: bool = False) -> Generator[BinaryIO]:
    """A binary file that appears under `path` complete and flushed to disk, or not at all."""
    if not overwrite:
        refuse_existing(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if not overwrite:
            refuse_existing(path)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise explain(error, path) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def refuse_existing(path: Path) -> None:
    """Raise `OutputError` if something stands at `path`."""
    if os.path.lexists(path):
        raise OutputError("the output exists already", where=str(path), remedy="choose another name, or pass --force")


def explain(error: OSError, path: Path) -> OutputError:
    """What the system's refusal to write at `path` means, and what to do."""
    reasons = {
        errno.ENOSPC: ("there is no space left on the device", "free some, or write elsewhere"),
        errno.EROFS: ("the folder is read-only", "write elsewhere"),
        errno.EACCES: ("no permission to write there", "check the folder's permissions, or write elsewhere"),
        errno.ENOENT: ("the folder does not exist", f"create {path.parent}"),
        errno.ENOTDIR: ("the path leads through a file", "check it"),
        errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
    }
    what, remedy = reasons.get(error.errno or 0, (error.strerror or str(error), "check the path and the device"))
    return OutputError(f"cannot write the output: {what}", where=str(path), remedy=remedy)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
