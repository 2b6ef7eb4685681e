"""Valid files taken apart, changed, and signed again, so that fuzzing gets past the checksums."""

from __future__ import annotations

import copy
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from tersor import _core
from tersor.errors import FormatError
from tersor.format import cbor
from tersor.format.layout import LEAF
from tersor.format.reader import TensorFile

GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden"
HEADER = struct.Struct("<8sHHIQQQQ")
LARGEST_FILE, LARGEST_DECODED = 2**14, 2**18


class Choices:
    """Decisions taken from the bytes of an input, front to back; zeros once they are used up."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def below(self, n: int) -> int:
        """A number below n."""
        size = 1 if n <= 256 else 2 if n <= 65536 else 8
        part = self._data[self._position : self._position + size]
        self._position += size
        return int.from_bytes(part, "little") % n

    def pick(self, items: Any) -> Any:
        """One of a sequence."""
        return items[self.below(len(items))]

    def take(self, n: int) -> bytes:
        """Up to n bytes as they are."""
        self._position += n
        return self._data[self._position - n : self._position]


@dataclass(frozen=True)
class Base:
    """A valid file: its manifest as plain values, and its pieces in order."""

    root: dict[str, Any]
    pieces: tuple[bytes, ...]

    def fresh(self) -> tuple[dict[str, Any], list[bytes]]:
        """Copies to change."""
        return copy.deepcopy(self.root), list(self.pieces)


def streams_of(root: dict[str, Any]) -> list[list[Any]]:
    """All streams of a valid manifest, in order."""
    return [s for tensor in root["tensors"] if len(tensor) == 5 for step in tensor[4] for s in step[2]]


def take_apart(data: bytes) -> Base:
    """The parts of a valid file."""
    stored = HEADER.unpack_from(data)[5]
    start = HEADER.size + 8 + stored
    root: Any = cbor.decode(zlib.decompress(data[HEADER.size + 8 : start]))
    sizes = (size for stream in streams_of(root) for size in stream[4])
    pieces = (data[a:b] for a, b in pairwise(accumulate(sizes, initial=start)))
    return Base(root, tuple(pieces))


def sign(stored: bytes, manifest_size: int, body: bytes) -> bytes:
    """A file with this manifest, whose header is right about everything."""
    total = HEADER.size + 8 + len(stored) + len(body)
    head = HEADER.pack(b"\x89TSR\r\n\x1a\n", 1, 0, 0, total, len(stored), manifest_size, _core.hash(stored))
    return head + struct.pack("<Q", _core.hash(head)) + stored + body


@cache
def golden_files() -> tuple[bytes, ...]:
    """The small files that every reader must decode."""
    return tuple(p.read_bytes() for p in sorted(GOLDEN.rglob("*.tsr")) if p.stat().st_size <= LARGEST_FILE)


@cache
def bases() -> tuple[Base, ...]:
    """Those of the golden files that decode quickly, taken apart."""
    return tuple(take_apart(data) for data in golden_files() if _decoded_size(data) <= LARGEST_DECODED)


def _decoded_size(data: bytes) -> int:
    try:
        with TensorFile(data) as file:
            return sum(entry.nbytes for entry in file.entries)
    except FormatError:
        return LARGEST_DECODED + 1


@cache
def contents() -> dict[tuple[bytes, int], bytes]:
    """The bytes behind every digest and size of a golden file: nothing else may be decoded under that digest."""
    known: dict[tuple[bytes, int], bytes] = {}
    for data in golden_files():
        for digest, stored in _tensors(data):
            known[digest, len(stored)] = stored
    return known


def _tensors(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    try:
        with TensorFile(data) as file:
            for entry in file.entries:
                yield entry.digest.to_bytes(8, "little"), file.stored(entry.name).tobytes()
    except FormatError:
        return


def digest_of(stored: bytes, word: int) -> bytes:
    """The digest that section 5 of the specification gives a decoded tensor with words of so many bytes."""
    leaf = LEAF * word
    leaves = (_core.hash(stored[k : k + leaf]) for k in range(0, len(stored), leaf))
    joined = b"".join(h.to_bytes(8, "little") for h in leaves)
    return _core.hash(joined, len(stored) // word).to_bytes(8, "little")
