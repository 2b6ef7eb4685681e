"""Writing a file: all or nothing, atomically (spec/FORMAT.md, section 3; promise 8 of the design)."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import secrets
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from tersor import _core
from tersor.errors import OutputError
from tersor.format.layout import HEADER_SIZE, Header
from tersor.format.manifest import Manifest

try:
    import fcntl
except ImportError:  # Windows, which does not delete or rename files that are open
    fcntl: Any = None


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
    """A binary file that appears under `path` complete and flushed to disk, or not at all.

    What killed processes left of their attempts at the same output is removed first.
    """
    check_output(path, overwrite=overwrite)
    temporary: Path | None = None
    try:
        _remove_stale(path)
        temporary, file = _new_temporary(path)
        with file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if fcntl is not None:  # renamed while it is locked: nobody may take it for an abandoned one
                _appear(temporary, path, overwrite)
        if fcntl is None:
            _appear(temporary, path, overwrite)
        _sync_folder(path.parent)
    except OSError as error:
        raise explain(error, path) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def _new_temporary(path: Path) -> tuple[Path, BinaryIO]:
    """A hidden file beside `path`, locked."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
        try:
            file = temporary.open("xb")
            with contextlib.suppress(OSError):
                lock(file.fileno(), wait=True)
            if temporary.exists():
                return temporary, file
            file.close()  # another process took it for an abandoned one before it was locked
        except MemoryError:  # the file may be there, although it was not opened
            temporary.unlink(missing_ok=True)
            raise


def _remove_stale(path: Path) -> None:
    """Delete the temporary files of earlier attempts at `path` that nobody holds locked: their processes are gone."""
    for stale in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 8}.part"):
        with contextlib.suppress(OSError), stale.open("r+b") as file:
            lock(file.fileno())
            stale.unlink()


def lock(descriptor: int, *, wait: bool = False) -> None:
    """Lock an open file or folder until it is closed or its process ends.

    Raises `BlockingIOError` if somebody else holds it, another `OSError` where there are no locks.
    """
    if fcntl is None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
    fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def _appear(temporary: Path, path: Path, overwrite: bool) -> None:
    check_output(path, overwrite=overwrite)
    temporary.replace(path)


def check_output(path: Path, *, overwrite: bool) -> None:
    """Raise `OutputError` if a folder stands at `path`, or, unless `overwrite`, anything."""
    if not os.path.lexists(path):
        return
    if path.is_dir():
        raise OutputError("the output is a folder", where=str(path), remedy="name the file to write")
    if not overwrite:
        raise OutputError("the output exists already", where=str(path), remedy="choose another name, or pass --force")


def explain(error: OSError, path: Path) -> OutputError:
    """What the system's refusal to write at `path` means, and what to do."""
    reasons = {
        errno.ENOSPC: ("there is no space left on the device", "free some, or write elsewhere"),
        errno.ENOMEM: ("there is not enough memory", "free some, or use fewer workers"),
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
