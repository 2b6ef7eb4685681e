"""Tersor files put together piece by piece, straight from spec/FORMAT.md: for golden files and for broken ones.

Nothing here asks the writer. Every field can be replaced by a wrong one, and whatever guards it (checksums, the digest,
the header's hash) is computed again afterwards, so that exactly one rule is broken.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tersor import _core
from tersor.format import cbor

LEAF = 65536
MAGIC = b"\x89TSR\r\n\x1a\n"
TYPES = {"u8": "u1", "i8": "i1", "i16": "<i2", "i32": "<i4"}
WORDS = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4, "C64": 4, "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
"""Bytes of a word of every dtype."""
SIGNED = {"F8_E4M3", "F8_E5M2", "F16", "BF16", "F32", "F64", "C64"}
Values = npt.NDArray[Any]


# -- sections 2 and 3: the file
# ------------------------------------------------------------------------------------------


def header(
    size: int, stored: bytes, inflated: int, *, major: int = 1, minor: int = 0, reserved: int = 0,
    stored_size: int | None = None, magic: bytes = MAGIC,
) -> bytes:  # fmt: skip
    """56 bytes, signed."""
    length = len(stored) if stored_size is None else stored_size
    body = magic + struct.pack("<HHIQQQQ", major, minor, reserved, size, length, inflated, _core.hash(stored))
    return body + struct.pack("<Q", _core.hash(body))


def file(plain: bytes, data: bytes = b"", **fields: Any) -> bytes:
    """A file from its inflated manifest and its pieces; `fields` replace those of the header."""
    stored = fields.pop("stored", None) or zlib.compress(plain, 9)
    inflated = fields.pop("inflated", len(plain))
    size = fields.pop("size", 56 + len(stored) + len(data))
    return header(size, stored, inflated, **fields) + stored + data


# -- section 4: the manifest
# ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stream:
    """A stream of the manifest, with its pieces. Fields that follow from others are computed unless given."""

    coder: str
    type: str
    count: int
    pieces: tuple[bytes, ...]
    chunk: int = LEAF
    sizes: tuple[int, ...] | None = None
    checksums: bytes | None = None

    def record(self) -> list[Any]:
        """As it stands in the manifest."""
        sums = b"".join(struct.pack("<I", _core.hash(piece) & 0xFFFFFFFF) for piece in self.pieces)
        sizes = self.sizes if self.sizes is not None else tuple(map(len, self.pieces))
        return [self.coder, self.type, self.count, self.chunk, list(sizes), sums if self.checksums is None else
                self.checksums]  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """A tensor of one step, and the bytes it decodes to."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    decoded: bytes
    op: str
    parameters: Mapping[str, Any]
    streams: tuple[Stream, ...] = field(default=())

    def record(self) -> list[Any]:
        """As it stands in the manifest."""
        step = [self.op, dict(self.parameters), [stream.record() for stream in self.streams]]
        digest = digest_of(self.decoded, WORDS.get(self.dtype, 1))
        return [self.name, self.dtype, list(self.shape), struct.pack("<Q", digest), [step]]

    @property
    def pieces(self) -> bytes:
        """All of them."""
        return b"".join(piece for stream in self.streams for piece in stream.pieces)


def digest_of(data: bytes, word: int) -> int:
    """Section 5."""
    leaves = (data[at : at + LEAF * word] for at in range(0, len(data), LEAF * word))
    return _core.hash(b"".join(struct.pack("<Q", _core.hash(leaf)) for leaf in leaves), len(data) // word)


Item = Tensor | tuple[str, int] | list[Any]


def manifest(items: Iterable[Item], *, meta: Any = None, needs: Any = ()) -> dict[str, Any]:
    """The root of a manifest."""
    records = [item.record() if isinstance(item, Tensor) else list(item) for item in items]
    return {"needs": list(needs), "meta": meta or {}, "tensors": records}


def assemble(
    *items: Item, meta: Any = None, needs: Any = (), edit: Callable[[dict[str, Any]], Any] | None = None, **fields: Any
) -> bytes:
    """A complete file. `edit` may change the manifest, or return another root, before it is encoded."""
    root: Any = manifest(items, meta=meta, needs=needs)
    if edit is not None:
        root = edit(root) or root
    data = b"".join(item.pieces for item in items if isinstance(item, Tensor))
    return file(cbor.encode(root), data, **fields)


# -- section 6: streams
# ----------------------------------------------------------------------------------------------------


class Bits:
    """A string of bits, least significant first."""

    def __init__(self) -> None:
        self.bits: list[int] = []

    def number(self, value: int, width: int) -> None:
        """The low `width` bits of `value`."""
        self.bits += [value >> i & 1 for i in range(width)]

    def golomb(self, value: int, order: int) -> None:
        """Exp-Golomb."""
        w = value + (1 << order)
        width = w.bit_length() - 1
        self.bits += [1] * (width - order) + [0]
        self.number(w, width)

    def rice(self, value: int, parameter: int) -> None:
        """Rice."""
        self.bits += [1] * (value >> parameter) + [0]
        self.number(value, parameter)

    def pack(self) -> bytes:
        """Padded with zeros to whole bytes."""
        return bytes(sum(bit << k for k, bit in enumerate(self.bits[i : i + 8])) for i in range(0, len(self.bits), 8))


def zigzag(value: int) -> int:
    """0, -1, 1, -2, 2 ... as 0, 1, 2, 3, 4 ..."""
    return 2 * value if value >= 0 else -2 * value - 1


def varint(value: int) -> bytes:
    """7 bits a byte, lowest first."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def frequency(code: int) -> int:
    """Of a code of section 6.2."""
    return code if code < 32 else (16 + code % 16) << (code // 16 - 1)


@dataclass(frozen=True)
class Table:
    """Frequencies as codes; that of the mode is ignored."""

    lowest: int = 0
    codes: tuple[int, ...] = (0,)
    precision: int = 8
    mode: int = 0
    predictor: int = 0
    rice: int = 0
    alphabet: int | None = None  # replaces the number of codes in the head

    @classmethod
    def of(cls, values: Values, precision: int = 12, **fields: Any) -> Table:
        """One that covers `values`."""
        lowest = int(values.min())
        counts = np.bincount((values.astype(np.int64) - lowest).reshape(-1))
        return cls.of_counts(lowest, counts, precision, **fields)

    @classmethod
    def of_counts(cls, lowest: int, counts: npt.NDArray[np.integer], precision: int, **fields: Any) -> Table:
        """One for how often `lowest`, `lowest` + 1, ... occur."""
        rounded = _core.round_table(counts.astype(np.uint64), precision)
        assert rounded is not None
        codes = [next(c for c in range(300) if frequency(c) >= f) for f in rounded.tolist()]
        mode = int(np.argmax(counts))
        return cls(lowest, tuple(codes), precision, mode, **fields)

    def write(self, bits: Bits) -> None:
        """Append the table."""
        alphabet = len(self.codes) if self.alphabet is None else self.alphabet
        bits.number(self.precision - 8, 3)
        bits.golomb(zigzag(self.lowest), 4)
        bits.golomb(alphabet - 1, 4)
        bits.golomb(self.mode, 3)
        if alphabet == 1:
            return
        bits.number(self.predictor, 1)
        bits.number(self.rice, 3)
        largest = 16 * (self.precision - 4) + 15
        for side in (self.codes[: self.mode][::-1], self.codes[self.mode + 1 :]):
            c1 = c2 = 16 * (self.precision - 5)
            for code in side:
                prediction = min(max(2 * c1 - c2, 0), largest) if self.predictor else c1
                bits.rice(zigzag(code - prediction), self.rice)
                c1, c2 = code, c1

    @property
    def frequencies(self) -> list[int]:
        """Of all symbols."""
        found = [frequency(code) for code in self.codes]
        found[self.mode] = 0
        found[self.mode] = (1 << self.precision) - sum(found)
        return found


def prelude(tables: Sequence[Table], lanes: int) -> bytes:
    """Section 6.1."""
    bits = Bits()
    for table in tables:
        table.write(bits)
    return bytes([lanes.bit_length() - 1, len(tables)]) + bits.pack()


def rans_chunk(
    values: Sequence[int], table: Table, lanes: int, index: int = 0, patches: Mapping[int, int] | None = None,
) -> bytes:  # fmt: skip
    """Section 6.3, symbol by symbol. `patches` (position -> value) come on top of those for values the table lacks."""
    return bytes([index]) + coded(values, [0] * len(values), [table], lanes, patches)


def coded(
    values: Sequence[int], numbers: Sequence[int], tables: Sequence[Table], lanes: int,
    patches: Mapping[int, int] | None = None,
) -> bytes:  # fmt: skip
    """A chunk without its first byte, given the number of the table of every symbol."""
    frequencies = [table.frequencies for table in tables]
    starts = [np.cumsum([0, *f]).tolist() for f in frequencies]
    symbols: list[int] = []
    patched: dict[int, int] = {}
    for i, (value, t) in enumerate(zip(values, numbers, strict=True)):
        symbol = value - tables[t].lowest
        if not (0 <= symbol < len(frequencies[t]) and frequencies[t][symbol] > 0):
            patched[i], symbol = value, tables[t].mode
        symbols.append(symbol)
    states, words = [1 << 16] * lanes, list[int]()
    for i in reversed(range(len(symbols))):
        t = numbers[i]
        x, f, precision = states[i % lanes], frequencies[t][symbols[i]], tables[t].precision
        if x >= f << 32 - precision:
            words.append(x & 0xFFFF)
            x >>= 16
        states[i % lanes] = (x // f << precision) + x % f + starts[t][symbols[i]]
    body = struct.pack(f"<{lanes}I{len(words)}H", *states, *reversed(words))
    return patch_list(patched | dict(patches or {})) + body


def patch_list(patches: Mapping[int, int]) -> bytes:
    """Steps 1 and 2 of section 6.3."""
    out, position = varint(len(patches)), -1
    for i, value in sorted(patches.items()):
        out += varint(i - position - 1) + varint(zigzag(value))
        position = i
    return out


def plain(values: Values, kind: str) -> bytes:
    """What coder `raw` stores."""
    return values.astype(TYPES[kind]).tobytes()


def split(values: Values, chunk: int) -> list[Values]:
    """The chunks of a stream."""
    flat = values.reshape(-1)
    return [flat[at : at + chunk] for at in range(0, flat.size, chunk)]


def raw_stream(values: Values, kind: str = "u8", chunk: int = LEAF) -> Stream:
    """Coder `raw`."""
    return Stream("raw", kind, values.size, tuple(plain(part, kind) for part in split(values, chunk)), chunk)


def zstd_stream(values: Values, kind: str = "u8", chunk: int = LEAF) -> Stream:
    """Coder `zstd`."""
    from tersor.coders import zstd

    return Stream(
        "zstd", kind, values.size, tuple(zstd.pack(plain(part, kind)) for part in split(values, chunk)), chunk
    )


def rans_stream(
    values: Values, kind: str = "u8", tables: Sequence[Table] | None = None, *, lanes: int = 1, chunk: int = LEAF,
    choice: Sequence[int] | None = None, by_hand: bool = False, precision: int = 12,
) -> Stream:  # fmt: skip
    """Coder `rans`. A choice of 255 stores a chunk verbatim; the native encoder codes the others unless `by_hand`."""
    if values.size == 0:
        return Stream("rans", kind, 0, (), chunk)
    tables = tables or [Table.of(values, precision)]
    head = prelude(tables, lanes)
    pieces = [head]
    for k, part in enumerate(split(values, chunk)):
        index = choice[k] if choice else 0
        if index == 255:
            pieces.append(b"\xff" + plain(part, kind))
        elif by_hand:
            pieces.append(rans_chunk(part.tolist(), tables[index], lanes, index))
        else:
            pieces.append(
                _core.encode_chunk(part.astype(np.int32), _core.Prelude(np.frombuffer(head, np.uint8)), index)
            )
    return Stream("rans", kind, values.size, tuple(pieces), chunk)


# -- section 7: ops
# --------------------------------------------------------------------------------------------------------


def planes_of(data: bytes, dtype: str, planes: int) -> list[npt.NDArray[np.uint8]]:
    """The byte planes of section 7.1, word by word; the bytes they leave out must be zero."""
    width = WORDS[dtype]
    columns: list[list[int]] = [[] for _ in range(planes)]
    for at in range(0, len(data), width):
        word = int.from_bytes(data[at : at + width], "little")
        assert word % (1 << 8 * (width - planes)) == 0
        v = word >> 8 * (width - planes)
        if dtype in SIGNED:
            v = (v << 1 | v >> 8 * planes - 1) & ((1 << 8 * planes) - 1)
        for column, byte in zip(columns, v.to_bytes(planes, "big"), strict=True):
            column.append(byte)
    return [np.array(column, np.uint8) for column in columns]


Coder = Callable[..., Stream]


def raw_tensor(
    name: str, dtype: str, shape: tuple[int, ...], data: bytes, planes: int = 0, coder: Coder = raw_stream
) -> Tensor:
    """Op `raw`."""
    parts = planes_of(data, dtype, planes) if planes else [np.frombuffer(data, np.uint8)]
    return Tensor(name, dtype, shape, data, "raw", {"planes": planes}, tuple(coder(part, "u8") for part in parts))


def reconstruct(levels: npt.NDArray[np.int64], steps: npt.NDArray[np.float32], offset: float, dtype: str) -> bytes:
    """The elements of section 7.2; `steps` is broadcast against the levels. Narrow floats are rounded on integers."""
    magnitude = np.abs(levels).astype(np.float32)
    with np.errstate(over="ignore", under="ignore"):
        c = ((magnitude + np.float32(offset)).astype(np.float32) * steps.astype(np.float32)).astype(np.float32)
        c = np.where(levels == 0, np.float32(0), np.copysign(c, np.where(levels < 0, -1, 1).astype(np.float32)))
        c = c.astype(np.float32)
        return narrowed(c, dtype)


def narrowed(c: npt.NDArray[np.float32], dtype: str) -> bytes:
    """Floats of 32 bits as the bytes of a dtype."""
    if dtype == "BF16":
        bits = c.view(np.uint32).astype(np.uint64)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2").tobytes()
    with np.errstate(over="ignore", under="ignore"):
        return c.astype({"F32": "<f4", "F16": "<f2", "F64": "<f8"}[dtype]).tobytes()


def uniform_tensor(
    name: str, dtype: str, levels: Values, steps: Sequence[float], *, rows: Sequence[int] = (), offset: float = 0.0,
    low: int = 0, kind: str = "i32", coder: Coder = raw_stream, low_coder: Coder = raw_stream,
    row_coder: Coder = raw_stream, chunk: int = LEAF,
) -> Tensor:  # fmt: skip
    """Op `uniform`; the shape is that of the levels."""
    wide = levels.astype(np.int64)
    palette = np.array(steps, np.float32)
    by_row = palette[list(rows)].reshape(-1, *(1,) * (levels.ndim - 1)) if len(steps) > 1 else palette[0]
    streams = [coder(wide >> low, kind, chunk=chunk)]
    if low:
        streams.append(low_coder(wide & (1 << low) - 1, "u8", chunk=chunk))
    if len(steps) > 1:
        streams.append(row_coder(np.array(rows, np.int64), "u8"))
    parameters = {"steps": palette.astype("<f4").tobytes(), "offset": struct.pack("<f", offset), "low": low}
    decoded = reconstruct(wide, np.asarray(by_row), offset, dtype)
    return Tensor(name, dtype, levels.shape, decoded, "uniform", parameters, tuple(streams))


def with_stream(tensor: Tensor, index: int, **fields: Any) -> Tensor:
    """The tensor with fields of one stream replaced."""
    streams = list(tensor.streams)
    streams[index] = replace(streams[index], **fields)
    return replace(tensor, streams=tuple(streams))


def with_piece(tensor: Tensor, index: int, piece: int, data: bytes) -> Tensor:
    """The tensor with one piece replaced; its checksum and size follow."""
    pieces = list(tensor.streams[index].pieces)
    pieces[piece] = data
    return with_stream(tensor, index, pieces=tuple(pieces))
