"""The fixed parts of a file and the rules every size in it obeys (spec/FORMAT.md, sections 2, 3 and 5)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from tersor import _core
from tersor.errors import FormatError, UnsupportedError

MAGIC = b"\x89TSR\r\n\x1a\n"
VERSION = (1, 3)
_HEADER = struct.Struct("<8sHHIQQQQ")
HEADER_SIZE = _HEADER.size + 8

LEAF = _core.LEAF
"""Words under one leaf of a tensor's digest."""
MAX_CHUNK = 2**20
"""Most symbols in one chunk."""


@dataclass(frozen=True)
class Header:
    """The first 56 bytes of a file."""

    file_size: int
    stored_size: int  # of the manifest, deflated
    manifest_size: int  # inflated
    manifest_hash: int  # of the stored bytes
    minor: int = VERSION[1]

    def pack(self) -> bytes:
        """The bytes of the header, its own hash last."""
        body = _HEADER.pack(
            MAGIC,
            VERSION[0],
            self.minor,
            0,
            self.file_size,
            self.stored_size,
            self.manifest_size,
            self.manifest_hash,
        )
        return body + struct.pack("<Q", _core.hash(body))

    @classmethod
    def unpack(cls, data: bytes, actual_size: int) -> Header:
        """Check and read a header; `actual_size` is that of the whole file."""
        if actual_size == 0:
            raise FormatError("empty", "the file is empty", remedy="it was never written: make it again")
        if data[: len(MAGIC)] != MAGIC[: len(data)]:
            raise FormatError(
                "not_tersor", "this is not a tersor file", remedy="expected a file made by `tersor compress`"
            )
        if len(data) < HEADER_SIZE:
            raise FormatError("truncated", f"the file ends after {len(data)} bytes, inside its header")
        body, (digest,) = data[: _HEADER.size], struct.unpack("<Q", data[_HEADER.size :])
        if _core.hash(body) != digest:
            raise FormatError("header_checksum", "the header does not match its checksum", where="bytes 0 to 55")
        _, major, minor, flags, file_size, stored_size, manifest_size, manifest_hash = _HEADER.unpack(body)
        if major != VERSION[0]:
            raise UnsupportedError(
                "version",
                f"the file has format {major}.{minor}, this reader knows {VERSION[0]}.x",
                where="byte 8",
                remedy="update tersor",
            )
        if flags != 0:
            raise FormatError("reserved", f"reserved header bits are set ({flags:#x})", where="byte 12")
        if actual_size < file_size:
            raise FormatError("truncated", f"the file has {actual_size:,} bytes of {file_size:,}")
        if actual_size > file_size:
            raise FormatError("trailing", f"{actual_size - file_size:,} bytes follow the end of the file")
        if stored_size > file_size - HEADER_SIZE:
            raise FormatError("manifest_bounds", "the manifest reaches beyond the file", where="byte 24")
        return cls(file_size, stored_size, manifest_size, manifest_hash, minor)


def checksum(data: bytes) -> int:
    """32 bits that guard one piece of data in the file."""
    return _core.hash(data) & 0xFFFFFFFF


def digest_of(leaves: np.ndarray[tuple[int], np.dtype[np.uint64]], words: int) -> int:
    """Digest of a decoded tensor from those of its leaves, in order."""
    return _core.hash(leaves.astype("<u8").view(np.uint8), words)


def chunk_counts(count: int, chunk: int) -> list[int]:
    """Symbols in every chunk of a stream of `count`."""
    return [min(chunk, count - start) for start in range(0, count, chunk)]
