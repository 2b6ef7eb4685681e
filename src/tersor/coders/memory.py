"""How much memory decoding a stream takes, beside the file and the result: known before any of it is taken."""

from __future__ import annotations

from tersor.format.manifest import INTEGER_TYPES, Stream

SLOTS = 2**18
"""Bytes of the decoding table of a chunk."""
SEVERAL = ("rans1", "rans2d")
"""Coders all of whose tables are there at once."""
TABLE = 2**16
"""Bytes of one of them at the largest precision."""
MOST_TABLES = 64
MOST_SIDE = 2**24
"""Rows, and columns, that `rans2d` may have: a byte each."""
ADAPTIVE = 2**21
"""Bytes of the models of a chunk, with as many columns as they may have."""


def chunk_memory(stream: Stream) -> int:
    """Bytes that one chunk takes at most: its piece, what zstd unpacks it to, a table or models."""
    unpacked = stream.chunk * INTEGER_TYPES[stream.type] if stream.coder == "zstd" else 0
    return max(stream.sizes, default=0) + unpacked + (ADAPTIVE if stream.coder == "adaptive" else SLOTS)


def prelude_memory(stream: Stream, prelude: bytes) -> int:
    """Bytes that a parsed prelude takes: tables, where all are kept, and the classes of all rows and columns."""
    if stream.coder not in SEVERAL:
        return len(prelude)
    columns = max(_varint(prelude[2:]), 1)
    sides = sum(min(side, MOST_SIDE) for side in (columns, -(-stream.count // columns)))
    tables = min(int.from_bytes(prelude[1:2]), MOST_TABLES) * TABLE
    return len(prelude) + tables + (sides if stream.coder == "rans2d" else 0)


def most_memory(stream: Stream) -> int:
    """Bytes that decoding a stream chunk by chunk takes, prelude included, whatever it is."""
    tables = MOST_TABLES * TABLE if stream.coder in SEVERAL else 0
    return chunk_memory(stream) + tables + (stream.count + 1 if stream.coder == "rans2d" else 0)


def _varint(data: bytes) -> int:
    """The number that begins here; whether its form is right is checked later."""
    number = 0
    for place, byte in enumerate(data[:10]):
        number |= (byte & 127) << 7 * place
        if byte < 128:
            break
    return number
