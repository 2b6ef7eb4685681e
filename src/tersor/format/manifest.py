"""The manifest: what is in a file, as typed records, checked field by field (spec/FORMAT.md, section 4)."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tersor.errors import FormatError, UnsupportedError
from tersor.format import cbor
from tersor.format.dtypes import DTYPES
from tersor.format.layout import LEAF, MAX_CHUNK
from tersor.format.limits import Limits

FEATURES = frozenset[str]()
"""Features a file may require beyond the ops and coders it names. None exist yet."""
OPS = ("raw", "uniform", "uniform2d", "companded", "trellis")
CODERS = ("adaptive", "rans", "rans1", "rans2d", "raw", "runs", "zstd")
PRELUDES = ("rans", "rans1", "rans2d", "adaptive", "runs")
"""Coders whose streams begin with a piece for all chunks, by the native core's numbers."""
INTEGER_TYPES = {"u8": 1, "i8": 1, "i16": 2, "i32": 4}
MAX_RANK = 32
"""More dimensions than any model has; numpy 1.x stops here."""
MAX_PRELUDE = 2**21
"""Bytes of the tables of a stream: 255 of 4096 symbols take less, even if every frequency surprises."""


LONGEST_PLACE = 200


def place_of(name: str) -> str:
    """Where an error in the tensor of this name is. Names may have megabytes, and places are made for every piece."""
    return f"tensor {name[:LONGEST_PLACE]!r}{'...' if len(name) > LONGEST_PLACE else ''}"


@dataclass(frozen=True)
class Stream:
    """A sequence of integers: how it is coded and the size and checksum of every piece of it in the file."""

    coder: str
    type: str
    count: int
    chunk: int
    sizes: tuple[int, ...]
    checksums: tuple[int, ...]

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.count // self.chunk)

    @property
    def preludes(self) -> int:
        """Pieces before the first chunk: tables, or what else all chunks share."""
        return int(self.coder in PRELUDES and self.count > 0)

    @property
    def most_bytes(self) -> int:
        """Bytes that a chunk can need, whatever the coder: a word and a patch for every symbol, states, frame heads."""
        return (INTEGER_TYPES[self.type] + 4) * min(self.chunk, self.count) + 1024

    @property
    def nbytes(self) -> int:
        """Bytes of all pieces."""
        return sum(self.sizes)


@dataclass(frozen=True)
class Step:
    """One op of a chain: its parameters and the streams it reads."""

    op: str
    parameters: Mapping[str, Any]
    streams: tuple[Stream, ...]


@dataclass(frozen=True)
class Entry:
    """One tensor of a file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    digest: int
    chain: tuple[Step, ...]
    tie: int | None = None  # index of the earlier entry that holds the same weights

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def words(self) -> int:
        """Number of words: elements, or twice as many for complex ones."""
        return self.count * DTYPES[self.dtype].words

    @property
    def nbytes(self) -> int:
        """Bytes of the decoded tensor."""
        return self.count * DTYPES[self.dtype].itemsize

    @property
    def stored(self) -> int:
        """Bytes of its streams in the file."""
        return sum(stream.nbytes for step in self.chain for stream in step.streams)


@dataclass(frozen=True)
class Manifest:
    """Everything a file says about itself."""

    entries: tuple[Entry, ...]
    meta: Mapping[str, Any] = field(default_factory=dict[str, Any])
    needs: tuple[str, ...] = ()

    @property
    def data_size(self) -> int:
        """Bytes of all streams."""
        return sum(entry.stored for entry in self.entries)

    def pack(self) -> tuple[bytes, int]:
        """The stored bytes and the size they inflate to."""
        plain = cbor.encode(
            {
                "needs": list(self.needs),
                "meta": dict(self.meta),
                "tensors": [_pack_entry(e) for e in self.entries],
            }
        )
        return zlib.compress(plain, 9), len(plain)

    @classmethod
    def unpack(cls, stored: bytes, size: int, limits: Limits) -> Manifest:
        """Inflate, decode and check a manifest."""
        limits.check_manifest(size, len(stored))
        try:
            root = cbor.decode(_inflate(stored, size), limits.most_items(len(stored)))
        except cbor.TooManyItemsError as error:
            what, allowed = "the number of items in the manifest", limits.most_items(len(stored))
            raise limits.exceeded(what, error.items, allowed, "manifest_items", "manifest") from None
        except cbor.CborError as error:
            raise FormatError(
                "manifest_encoding", f"the manifest is not canonical: {error}", where="manifest"
            ) from None
        return _Checker(limits).manifest(root)


def _pack_entry(entry: Entry) -> list[Any]:
    if entry.tie is not None:
        return [entry.name, entry.tie]
    chain = [[step.op, dict(step.parameters), [_pack_stream(s) for s in step.streams]] for step in entry.chain]
    return [entry.name, entry.dtype, list(entry.shape), entry.digest.to_bytes(8, "little"), chain]


def _pack_stream(stream: Stream) -> list[Any]:
    checksums = b"".join(c.to_bytes(4, "little") for c in stream.checksums)
    return [stream.coder, stream.type, stream.count, stream.chunk, list(stream.sizes), checksums]


def _inflate(stored: bytes, size: int) -> bytes:
    inflater = zlib.decompressobj()
    try:
        plain = inflater.decompress(stored, size + 1)
    except zlib.error as error:
        raise FormatError("manifest_deflate", f"the manifest does not inflate: {error}", where="manifest") from None
    if not inflater.eof or inflater.unused_data or len(plain) != size:
        raise FormatError("manifest_deflate", "the manifest does not inflate to its stated size", where="manifest")
    return plain


class _Checker:
    """Turns decoded CBOR into records; every field is checked here, so that nobody has to check it again."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits

    def fail(self, code: str, what: str, where: str) -> FormatError:
        return FormatError(code, what, where=where)

    def items(self, value: Any, length: int | None, where: str) -> list[Any]:
        if not isinstance(value, list) or (length is not None and len(value) != length):  # pyright: ignore[reportUnknownArgumentType]
            raise self.fail("manifest_schema", f"expected a list of {length if length is not None else 'items'}", where)
        return value  # pyright: ignore[reportUnknownVariableType]

    def number(self, value: Any, where: str, code: str = "manifest_schema") -> int:
        if type(value) is not int or value < 0:
            raise self.fail("manifest_schema", "expected a whole number", where)
        if value >= 2**63:
            raise self.fail(code, "a number of 2^63 or more", where)
        return value

    def map(self, value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self.fail("manifest_schema", "expected a map", where)
        return value  # pyright: ignore[reportUnknownVariableType]

    def text(self, value: Any, where: str) -> str:
        if not isinstance(value, str):
            raise self.fail("manifest_schema", "expected text", where)
        return value

    def manifest(self, root: Any) -> Manifest:
        if not isinstance(root, dict) or set(root) != {"needs", "meta", "tensors"}:  # pyright: ignore[reportUnknownArgumentType]
            raise self.fail("manifest_schema", "expected the keys meta, needs and tensors", "manifest")
        fields: dict[str, Any] = root  # pyright: ignore[reportUnknownVariableType]
        needs = tuple(self.text(n, "needs") for n in self.items(fields["needs"], None, "needs"))
        for name in needs:
            if name not in FEATURES:
                raise UnsupportedError(
                    "unknown_feature",
                    f"the file needs the feature {name!r}",
                    where="manifest",
                    remedy="update tersor",
                )
        meta = self.map(fields["meta"], "meta")
        tensors = self.items(fields["tensors"], None, "tensors")
        self.limits.check("the number of tensors", len(tensors), self.limits.tensors, "tensors")
        entries: list[Entry] = []
        names: set[str] = set()
        for index, raw in enumerate(tensors):
            entry = self.entry(raw, entries, f"tensor {index}")
            if entry.name in names:
                raise self.fail(
                    "duplicate_name", f"it has the name of an earlier one, {place_of(entry.name)}", f"tensor {index}"
                )
            names.add(entry.name)
            entries.append(entry)
        return Manifest(tuple(entries), meta, needs)

    def entry(self, raw: Any, earlier: list[Entry], where: str) -> Entry:
        parts = self.items(raw, None, where)
        if len(parts) not in (2, 5):
            raise self.fail("manifest_schema", "expected a tensor of 5 fields or a tie of 2", where)
        name = self.text(parts[0], where)
        if not name or "\0" in name:
            raise self.fail("bad_name", "a name is empty or holds a NUL", where)
        where = place_of(name)
        if len(parts) == 2:
            return self.tie(name, self.number(parts[1], where, "bad_tie"), earlier, where)
        dtype = self.text(parts[1], where)
        if dtype not in DTYPES:
            raise UnsupportedError(
                "unknown_dtype", f"unknown element type {dtype!r}", where=where, remedy="update tersor"
            )
        shape = tuple(self.number(n, where, "bad_shape") for n in self.items(parts[2], None, where))
        if len(shape) > MAX_RANK:
            raise self.fail("bad_shape", f"{len(shape)} dimensions, at most {MAX_RANK}", where)
        # Dimensions beside a zero count too: whoever makes an array of such a shape multiplies them.
        size = math.prod(n or 1 for n in shape) * DTYPES[dtype].itemsize
        self.limits.check("the tensor's size", size, self.limits.tensor_bytes, "tensor_bytes", where)
        if not isinstance(parts[3], bytes) or len(parts[3]) != 8:
            raise self.fail("manifest_schema", "a digest has 8 bytes", where)
        chain = tuple(self.step(s, where) for s in self.items(parts[4], None, where))
        if len(chain) != 1:
            raise self.fail("bad_chain", f"a chain of {len(chain)} ops; every op stands alone", where)
        return Entry(name, dtype, shape, int.from_bytes(parts[3], "little"), chain)

    def tie(self, name: str, target: int, earlier: list[Entry], where: str) -> Entry:
        if target >= len(earlier) or earlier[target].tie is not None:
            raise self.fail("bad_tie", f"tied to tensor {target}, which is not an earlier one with weights", where)
        same = earlier[target]
        return Entry(name, same.dtype, same.shape, same.digest, (), target)

    def step(self, raw: Any, where: str) -> Step:
        op, parameters, streams = self.items(raw, 3, where)
        op = self.text(op, where)
        if op not in OPS:
            raise UnsupportedError("unknown_op", f"unknown op {op!r}", where=where, remedy="update tersor")
        items = self.items(streams, None, where)
        return Step(
            op, self.map(parameters, where), tuple(self.stream(s, f"{where}, stream {k}") for k, s in enumerate(items))
        )

    def stream(self, raw: Any, where: str) -> Stream:
        coder, kind, count, chunk, sizes, checksums = self.items(raw, 6, where)
        if self.text(coder, where) not in CODERS:
            raise UnsupportedError("unknown_coder", f"unknown coder {coder!r}", where=where, remedy="update tersor")
        if self.text(kind, where) not in INTEGER_TYPES:
            raise self.fail("bad_stream_type", f"unknown integer type {kind!r}", where)
        count, chunk = self.number(count, where), self.number(chunk, where, "bad_chunk")
        if chunk % LEAF or not 0 < chunk <= MAX_CHUNK:
            raise self.fail(
                "bad_chunk",
                f"chunks of {chunk} symbols; allowed are multiples of {LEAF} up to {MAX_CHUNK}",
                where,
            )
        pieces = tuple(self.number(n, where, "bad_pieces") for n in self.items(sizes, None, where))
        if not isinstance(checksums, bytes) or len(checksums) != 4 * len(pieces):
            raise self.fail("manifest_schema", "expected 4 bytes of checksum for every piece", where)
        words = tuple(int.from_bytes(checksums[k : k + 4], "little") for k in range(0, len(checksums), 4))
        stream = Stream(coder, kind, count, chunk, pieces, words)
        if len(pieces) != stream.preludes + stream.chunks:
            raise self.fail(
                "bad_pieces", f"{len(pieces)} pieces where {stream.preludes + stream.chunks} are due", where
            )
        tables, chunks = max(pieces[: stream.preludes], default=0), max(pieces[stream.preludes :], default=0)
        if tables > MAX_PRELUDE or chunks > stream.most_bytes:
            raise self.fail(
                "bad_pieces",
                f"a piece of {max(pieces)} bytes; tables take {MAX_PRELUDE} at most, a chunk here {stream.most_bytes}",
                where,
            )
        return stream
