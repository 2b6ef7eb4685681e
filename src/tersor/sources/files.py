"""Reading ranges of a file that must not change meanwhile, without memory maps."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tersor.errors import SourceError
from tersor.sources.unit import Bytes

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class StoredFile:
    """A file as it was when it was opened. No descriptor is held: every read opens, checks and closes."""

    path: Path
    size: int
    mtime_ns: int

    @classmethod
    def at(cls, path: Path) -> StoredFile:
        """Look at `path`; raises `SourceError` when it is missing, no file, empty or a Git LFS pointer."""
        try:
            status = path.stat()
            if not path.is_file():
                raise SourceError("not a file", where=str(path), remedy="name a file of weights or a model folder")
            with path.open("rb") as file:
                start = file.read(len(_LFS_POINTER))
        except FileNotFoundError:
            raise SourceError("no such file", where=str(path), remedy="check the path") from None
        except OSError as error:
            raise SourceError(
                f"cannot be read: {error.strerror or error}", where=str(path), remedy="check its permissions"
            ) from error
        if status.st_size == 0:
            raise SourceError("the file is empty", where=str(path), remedy="get or save it again")
        if start == _LFS_POINTER:
            raise SourceError(
                "this is a Git LFS pointer, not the weights",
                where=str(path),
                remedy="run `git lfs pull` in its folder",
            )
        return cls(path, status.st_size, status.st_mtime_ns)

    def read(self, offset: int, nbytes: int) -> Bytes:
        """Return `nbytes` bytes from `offset` in a fresh buffer; raises `SourceError` if the file changed."""
        if offset < 0 or nbytes < 0 or offset + nbytes > self.size:
            raise SourceError(
                f"bytes {offset} to {offset + nbytes} are past the end, at {self.size}",
                where=str(self.path),
                remedy="the file is truncated: get it again",
            )
        buffer = np.empty(nbytes, np.uint8)
        view = buffer.data
        done = 0
        try:
            with self.path.open("rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                if (status.st_size, status.st_mtime_ns) != (self.size, self.mtime_ns):
                    raise self._changed()
                file.seek(offset)
                while done < nbytes:  # one read returns at most 2 GiB on Linux
                    got = file.readinto(view[done:])
                    if not got:
                        raise self._changed()
                    done += got
        except OSError as error:
            raise SourceError(
                f"cannot be read: {error.strerror or error}",
                where=str(self.path),
                remedy="check that it is still there",
            ) from error
        return buffer

    def identity(self) -> str:
        """Name, size and time of the last change: they tell a file from an edited one, in any folder."""
        return f"{self.path.name}\0{self.size}\0{self.mtime_ns}"

    def _changed(self) -> SourceError:
        return SourceError(
            "the file changed while it was being read",
            where=str(self.path),
            remedy="start again once nothing writes to it",
        )


def digest(*parts: str | bytes | memoryview) -> str:
    """Return a hexadecimal BLAKE2b-256 over `parts`, each preceded by its length so that borders count."""
    state = hashlib.blake2b(digest_size=32)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else memoryview(part).cast("B")
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()
