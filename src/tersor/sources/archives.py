"""The two containers of torch checkpoints, without torch: a zip archive, and the older row of pickles."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO, Protocol

import numpy as np

from tersor.errors import SourceError
from tersor.sources.files import StoredFile, digest
from tersor.sources.pickle_reader import MAX_BYTES, Function, PickleError, read_pickle
from tersor.sources.torch_objects import ElementType, StorageRecord, StorageType, find_global
from tersor.sources.unit import Bytes

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_LEGACY_PROTOCOL = 1001
_CHUNK = 1 << 20
_UNREADABLE = (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError, OSError, RuntimeError)
"""What zipfile raises for damaged archives, and for compression that it does not know."""
_DAMAGED = "the file is truncated or damaged: get it again"


class Archive(Protocol):
    """A checkpoint's objects, and the bytes of its storages."""

    root: Any
    header_digest: str

    def read(self, storage: StorageRecord, offset: int, nbytes: int) -> Bytes:
        """Return `nbytes` from byte `offset` of a storage in a fresh buffer."""
        ...

    def check(self, storage: StorageRecord) -> None:
        """Raise `SourceError` unless the archive holds the storage in full length."""
        ...


def open_archive(file: StoredFile) -> Archive:
    """Tell the container from its first bytes and read its objects; raises `SourceError` for other files."""
    start = file.read(0, min(file.size, 512)).tobytes()
    if start.startswith(b"PK\x03\x04"):
        return ZipArchive(file)
    if start.startswith(LEGACY_START):
        return LegacyArchive(file)
    if start[257:262] == b"ustar":
        what, remedy = "a tar archive of torch before 0.1.10", "load it with an old torch and save it again"
    elif start.startswith(b"PK"):
        what, remedy = "an empty or spanned zip archive", _DAMAGED
    elif start.startswith(b"\x80"):
        what = "a bare pickle, or one of big-endian or unknown make, not a torch checkpoint"
        remedy = "load it with what wrote it and save the tensors as .safetensors"
    else:
        what = "neither of the two formats of torch.save"
        remedy = "check that the file is whole and that it is a torch checkpoint"
    raise SourceError(f"the file is {what}", where=str(file.path), remedy=remedy)


def _storage_record(identifier: Any, fields: int) -> tuple[StorageRecord, tuple[Any, ...]]:
    """Check ("storage", type, key, location, count, ...); return the record and the fields after count."""
    if type(identifier) is not tuple or len(identifier) != fields or identifier[0] != "storage":
        raise PickleError("a persistent identifier that is no storage")
    _, kind, key, _, count, *rest = identifier
    if not isinstance(kind, StorageType) or type(key) is not str or type(count) is not int or count < 0:
        raise PickleError("a persistent identifier without a storage type, key or length")
    return StorageRecord(key, kind.element, 0, count), tuple(rest)


def _read_pickle(
    stream: BinaryIO,
    end: int,
    where: str,
    persistent_load: Callable[[Any], Any],
    *,
    torchscript: bool = False,
) -> Any:
    def lookup(module: str, name: str) -> Function:
        return find_global(module, name, torchscript=torchscript, where=where)

    try:
        return read_pickle(stream, end, lookup, persistent_load)
    except PickleError as error:
        raise SourceError(f"the pickle cannot be read: {error}", where=where, remedy=_DAMAGED) from error


class ZipArchive:
    """A checkpoint of torch 1.6 or later, or a TorchScript archive (`torchscript` is True)."""

    def __init__(self, file: StoredFile) -> None:
        self._file = file
        self._where = str(file.path)
        try:
            with file.path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
                self._open(archive)
        except _UNREADABLE as error:
            raise self._damaged(str(error)) from error

    def _open(self, archive: zipfile.ZipFile) -> None:
        members = {info.filename: info for info in archive.infolist()}
        if len(members) != len(archive.infolist()):
            raise self._damaged("two members have the same name")
        pickles = [name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise SourceError(
                "the zip archive has no data.pkl: it was not written by torch.save",
                where=self._where,
                remedy="give a torch checkpoint, or save the tensors as .safetensors",
            )
        self._prefix = pickles[0].removesuffix("data.pkl")
        self._members = {name: info for name, info in members.items() if name.startswith(f"{self._prefix}data/")}
        order = members.get(f"{self._prefix}byteorder")
        if order is not None and self._small(archive, order, 16) != b"little":
            raise SourceError(
                "the checkpoint was written on a big-endian machine",
                where=self._where,
                remedy="load it with torch and save it again on a little-endian one",
            )
        self.torchscript = any(name.startswith(f"{self._prefix}code/") for name in members)
        data = self._small(archive, members[pickles[0]], MAX_BYTES)
        self.header_digest = digest(data)
        self.root = _read_pickle(
            io.BytesIO(data),
            len(data),
            f"{self._where}, data.pkl",
            self._storage,
            torchscript=self.torchscript,
        )

    def _small(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, limit: int) -> bytes:
        """Return a whole member, decompressing no more than `limit` bytes whatever it claims to be."""
        with archive.open(info) as member:
            data = member.read(limit + 1)
        if len(data) > limit:
            raise self._damaged(f"{info.filename} is longer than {limit} bytes")
        return data

    @staticmethod
    def _storage(identifier: Any) -> StorageRecord:
        return _storage_record(identifier, 5)[0]

    def check(self, storage: StorageRecord) -> None:
        """Raise `SourceError` unless the member exists and is long enough."""
        self._member(storage)

    def _member(self, storage: StorageRecord) -> zipfile.ZipInfo:
        info = self._members.get(f"{self._prefix}data/{storage.key}")
        if info is None:
            raise self._damaged(f"the storage {storage.key!r} is missing")
        needed = (storage.start + storage.count) * storage.element.itemsize
        if info.file_size < needed:
            raise self._damaged(f"the storage {storage.key!r} has {info.file_size} bytes instead of {needed}")
        if info.compress_type == zipfile.ZIP_STORED and info.header_offset + info.file_size > self._file.size:
            raise self._damaged(f"the storage {storage.key!r} goes past the end of the file")
        return info

    def read(self, storage: StorageRecord, offset: int, nbytes: int) -> Bytes:
        """Return a range of a storage; the checksum is verified when that is the whole storage."""
        info = self._member(storage)
        if info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1:
            buffer = self._file.read(self._start(info) + offset, nbytes)
            # torch never looks at these checksums, and has a switch to write others in their place.
            if nbytes == info.file_size and zlib.crc32(buffer.data) != info.CRC:
                raise SourceError(
                    "the checksum is wrong",
                    where=f"{self._where}, {info.filename}",
                    remedy="get the file again; if it was saved with "
                    "torch.serialization.set_crc32_options(False), save it again without that",
                )
            return buffer
        return self._decompress(info, offset, nbytes)

    def _start(self, info: zipfile.ZipInfo) -> int:
        """Return where a stored member's bytes start; only its local header knows the padding before them."""
        header = self._file.read(info.header_offset, 30).tobytes()
        if header[:4] != b"PK\x03\x04":
            raise self._damaged(f"the header of {info.filename} is not where the directory says")
        names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        return info.header_offset + 30 + names

    def _decompress(self, info: zipfile.ZipInfo, offset: int, nbytes: int) -> Bytes:
        self._file.read(0, 0)  # refuses a file that has changed
        buffer = np.empty(nbytes, np.uint8)
        view = buffer.data
        done = 0
        try:
            with zipfile.ZipFile(self._file.path) as archive, archive.open(info) as member:
                while offset and (skipped := len(member.read(min(offset, _CHUNK)))):
                    offset -= skipped
                while done < nbytes and (chunk := member.read(min(nbytes - done, _CHUNK))):
                    view[done : done + len(chunk)] = chunk
                    done += len(chunk)
                if done == nbytes == info.file_size:
                    member.read(1)  # at its end, zipfile compares the checksum
        except _UNREADABLE as error:
            raise self._damaged(f"{info.filename}: {error}") from error
        if done < nbytes:
            raise self._damaged(f"{info.filename} ends early")
        return buffer

    def _damaged(self, what: str) -> SourceError:
        return SourceError(f"the zip archive cannot be read: {what}", where=self._where, remedy=_DAMAGED)


class LegacyArchive:
    """A checkpoint of torch before 1.6: five pickles in a row, then each storage's length and bytes."""

    torchscript = False

    def __init__(self, file: StoredFile) -> None:
        self._file = file
        self._where = str(file.path)
        self._elements: dict[str, ElementType] = {}
        self._extents: dict[str, tuple[int, int]] = {}  # key -> offset of the bytes, number of elements
        with file.path.open("rb") as stream:
            load = partial(_read_pickle, stream, file.size, self._where)
            magic, protocol, system = (load(self._no_storage) for _ in range(3))
            if magic != LEGACY_MAGIC or protocol != _LEGACY_PROTOCOL or type(system) is not dict:
                raise self._damaged("the first three values are not those of a torch checkpoint")
            if system.get("little_endian") is not True:
                raise SourceError(
                    "the checkpoint was written on a big-endian machine",
                    where=self._where,
                    remedy="load it with torch and save it again on a little-endian one",
                )
            self.root = load(self._storage)
            keys = load(self._no_storage)
            position = stream.tell()
        self.header_digest = digest(file.read(0, position).data)
        self._locate(keys, position)

    @staticmethod
    def _no_storage(identifier: Any) -> Any:
        del identifier
        raise PickleError("a persistent identifier where none belongs")

    def _storage(self, identifier: Any) -> StorageRecord:
        record, (view,) = _storage_record(identifier, 6)
        element = self._elements.setdefault(record.key, record.element)
        if element != record.element:
            raise PickleError("one storage with two element types")
        if view is None:
            return record
        if type(view) is not tuple or len(view) != 3 or any(type(n) is not int or n < 0 for n in view[1:]):
            raise PickleError("a view of a storage without offset or length")
        return StorageRecord(record.key, element, view[1], view[2])

    def _locate(self, keys: Any, position: int) -> None:
        """Walk over the storages, which follow in the order of `keys`, and note where each one is."""
        if type(keys) is not list or any(type(key) is not str or key not in self._elements for key in keys):
            raise self._damaged("the list of storages names one that no tensor uses")
        for key in keys:
            if self._file.size - position < 8:
                raise self._damaged(f"the file ends before the storage {key!r}")
            count = int.from_bytes(self._file.read(position, 8).tobytes(), "little", signed=True)
            position += 8
            nbytes = count * self._elements[key].itemsize
            if count < 0 or nbytes > self._file.size - position:
                raise self._damaged(f"the storage {key!r} would have {count} elements, past the end of the file")
            self._extents[key] = (position, count)
            position += nbytes

    def check(self, storage: StorageRecord) -> None:
        """Raise `SourceError` unless the storage is in the file and long enough."""
        _, count = self._extents.get(storage.key, (0, -1))
        if storage.start + storage.count > count:
            have = "missing" if count < 0 else f"only {count} elements long"
            raise self._damaged(f"the storage {storage.key!r} is {have}")

    def read(self, storage: StorageRecord, offset: int, nbytes: int) -> Bytes:
        """Return a range of a storage."""
        self.check(storage)
        return self._file.read(self._extents[storage.key][0] + offset, nbytes)

    def _damaged(self, what: str) -> SourceError:
        return SourceError(f"the checkpoint cannot be read: {what}", where=self._where, remedy=_DAMAGED)
