"""Where the bytes of an open file are: ranges of them, for many threads and, after a fork, processes at once."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path
from typing import BinaryIO, Protocol

from tersor.errors import FormatError

Readable = str | os.PathLike[str] | bytes | BinaryIO


class Storage(Protocol):
    """The bytes of a file."""

    label: str
    size: int

    def read(self, offset: int, size: int) -> bytes:
        """At most `size` bytes from `offset` on, fewer where the system likes; none at the end."""
        ...

    def close(self) -> None:
        """Release what was opened here."""
        ...


def open_storage(source: Readable) -> Storage:
    """Open a path, bytes, or a seekable binary file; raises `FormatError` where there is no file."""
    if isinstance(source, bytes):
        return _Bytes(source)
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if path.is_dir():
            raise FormatError("not_tersor", "this is a folder", where=str(path), remedy="name the .tsr file in it")
        try:
            file = path.open("rb", buffering=0)
        except FileNotFoundError:
            raise FormatError("missing", "there is no such file", where=str(path), remedy="check the path") from None
        except OSError as error:
            raise _unreadable(error, str(path)) from None
        return _DiskFile(file, str(path)) if hasattr(os, "pread") else _FileObject(file, str(path), owned=True)
    return _FileObject(source, str(getattr(source, "name", "a file object")), owned=False)


def _unreadable(error: OSError, where: str) -> FormatError:
    what = f"the file cannot be read: {error.strerror or error}"
    return FormatError("unreadable", what, where=where, remedy="check its permissions and the device")


class _Bytes:
    """Bytes in memory."""

    label = "bytes in memory"

    def __init__(self, data: bytes) -> None:
        self._data: bytes | None = data
        self.size = len(data)

    def read(self, offset: int, size: int) -> bytes:
        if self._data is None:
            raise ValueError(f"{self.label} are closed")
        return self._data[offset : offset + size]

    def close(self) -> None:
        self._data = None


class _DiskFile:
    """A file that was opened here. Its position is never used: threads share it, and so do processes after a fork."""

    def __init__(self, file: io.FileIO, label: str) -> None:
        self._file = file
        self.label = label
        self.size = os.fstat(file.fileno()).st_size

    def read(self, offset: int, size: int) -> bytes:
        if self._file.closed:
            raise ValueError(f"{self.label} is closed")
        try:
            return os.pread(self._file.fileno(), size, offset)
        except OSError as error:
            raise _unreadable(error, self.label) from None

    def close(self) -> None:
        self._file.close()


class _FileObject:
    """Whatever can seek and read, one thread at a time."""

    def __init__(self, file: BinaryIO, label: str, *, owned: bool) -> None:
        self._file = file
        self._owned = owned
        self._lock = threading.Lock()
        self.label = label
        self.size = file.seek(0, io.SEEK_END)

    def read(self, offset: int, size: int) -> bytes:
        with self._lock:
            if self._file.closed:
                raise ValueError(f"{self.label} is closed")
            try:
                self._file.seek(offset)
                return self._file.read(size)
            except OSError as error:
                raise _unreadable(error, self.label) from None

    def close(self) -> None:
        if self._owned:
            self._file.close()
