"""Coder `zstd`: plain little-endian integers in one zstd frame per chunk, for streams that repeat themselves."""

from __future__ import annotations

import sys
from typing import Any

from tersor.errors import FormatError, UnsupportedError

if sys.version_info >= (3, 14):  # pragma: no cover - depends on the interpreter
    from compression import zstd as _zstd
else:
    try:
        from backports import zstd as _zstd
    except ImportError:  # decoding works with numpy alone until a file has a zstd stream
        _zstd: Any = None

LEVEL = 9
WINDOW_LOG = 22
"""No chunk is larger than 4 MiB, so no frame needs a larger window; one that claims it would cost memory."""


def available() -> bool:
    """Whether this installation can read and write zstd frames."""
    return _zstd is not None


def pack(data: bytes) -> bytes:
    """One frame that holds `data`. Nothing but memory can be lacking."""
    try:
        return _zstd.compress(data, LEVEL)
    except _zstd.ZstdError as error:
        raise MemoryError(str(error)) from None


def unpack(frame: bytes, size: int, where: str) -> bytes:
    """The `size` bytes in `frame`; never allocates more, whatever the frame claims."""
    if not available():
        raise UnsupportedError(
            "zstd_missing", "a stream is coded with zstd", where=where, remedy="pip install backports.zstd"
        )
    try:
        decompressor = _zstd.ZstdDecompressor(options={_zstd.DecompressionParameter.window_log_max: WINDOW_LOG})
    except _zstd.ZstdError as error:
        raise MemoryError(str(error)) from None
    try:
        data = decompressor.decompress(frame, size + 1)
    except _zstd.ZstdError as error:
        if "not enough memory" in str(error):
            raise MemoryError(str(error)) from None
        raise FormatError("zstd", f"a zstd frame does not decode: {error}", where=where) from None
    if len(data) != size or not decompressor.eof or decompressor.unused_data:
        raise FormatError("zstd", f"a zstd frame does not hold the {size} bytes that are due", where=where)
    return data
