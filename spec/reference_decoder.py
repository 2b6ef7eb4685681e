"""The reference decoder of the tersor file format 1.0: slow, small, and written from FORMAT.md alone.

It follows the order of the specification; numbers in comments are its sections. Only the standard library is
used (and a zstd module, if a file has zstd streams).

    python reference_decoder.py FILE        lists the tensors; exit status 1 and an error code if it is damaged
"""

from __future__ import annotations

import math
import struct
import sys
import zlib
from array import array
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, NoReturn, TypeVar, cast

LIMIT = 1 << 28  # bytes of all decoded tensors, and symbols of all streams: minutes of pure Python
MANIFEST_LIMIT = 1 << 24  # bytes of the inflated manifest; its Python objects take up to 64 times as much
T = TypeVar("T")


class DecodeError(Exception):
    """A file that cannot be decoded; `code` is one of the codes of section 9."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"[{code}] {message}")
        self.code = code


def fail(code: str, message: str) -> NoReturn:
    raise DecodeError(code, message)


def need(condition: bool, code: str, message: str) -> None:
    if not condition:
        fail(code, message)


# ---- The hash: XXH3, 64 bits, with a seed (names as in the xxHash specification) ----

M32, M64 = (1 << 32) - 1, (1 << 64) - 1
PRIME32 = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D)
PRIME64 = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)
MX1, MX2 = 0x165667919E3779F9, 0x9FB21C651E98DF25
SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221"
    "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb"
    "170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)


def number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


def key(at: int) -> int:  # two words of the secret, combined
    return number(SECRET, at, 8) ^ number(SECRET, at + 8, 8)


def fold(a: int, b: int) -> int:
    product = (a & M64) * (b & M64)
    return (product ^ product >> 64) & M64


def avalanche(x: int, shift: int = 37, factor: int = MX1) -> int:
    x = (x ^ x >> shift) * factor & M64
    return x ^ x >> 32


def avalanche_xxh64(x: int) -> int:
    return avalanche((x ^ x >> 33) * PRIME64[1] & M64, 29, PRIME64[2])


def mix(data: bytes, at: int, secret_at: int, seed: int) -> int:
    s, t = number(SECRET, secret_at, 8) + seed & M64, number(SECRET, secret_at + 8, 8) - seed & M64
    return fold(number(data, at, 8) ^ s, number(data, at + 8, 8) ^ t)


def xxh3(data: bytes, seed: int = 0) -> int:
    n = len(data)
    if n > 240:
        return xxh3_large(data, seed)
    acc = n * PRIME64[0]
    if n > 128:
        acc = avalanche(acc + sum(mix(data, i, i, seed) for i in range(0, 128, 16)) & M64)
        acc += sum(mix(data, i, i - 125, seed) for i in range(128, n - 15, 16))
        return avalanche(acc + mix(data, n - 16, 119, seed) & M64)
    if n > 16:
        for i in range(0, (n + 31) // 32 * 16, 16):
            acc += mix(data, i, 2 * i, seed) + mix(data, n - i - 16, 2 * i + 16, seed)
        return avalanche(acc & M64)
    if n > 8:
        low, high = (
            (key(24) + seed & M64) ^ number(data, 0, 8),
            (key(40) - seed & M64) ^ number(data, n - 8, 8),
        )
        swapped = int.from_bytes(low.to_bytes(8, "little"), "big")
        return avalanche(n + swapped + high + fold(low, high) & M64)
    if n > 3:
        seed ^= int.from_bytes((seed & M32).to_bytes(4, "little"), "big") << 32
        x = (key(8) - seed & M64) ^ (number(data, n - 4, 4) | number(data, 0, 4) << 32)
        x ^= ((x << 49 | x >> 15) ^ (x << 24 | x >> 40)) & M64
        x = x * MX2 & M64
        x = (x ^ (x >> 35) + n) * MX2 & M64
        return x ^ x >> 28
    if n > 0:
        combined = data[n - 1] | n << 8 | data[0] << 16 | data[n >> 1] << 24
        return avalanche_xxh64(((number(SECRET, 0, 4) ^ number(SECRET, 4, 4)) + seed & M64) ^ combined)
    return avalanche_xxh64(seed ^ key(56))


def xxh3_large(data: bytes, seed: int) -> int:
    n = len(data)
    words = struct.unpack("<24Q", SECRET)
    secret = struct.pack("<24Q", *((w - seed if i % 2 else w + seed) & M64 for i, w in enumerate(words)))
    keys = [struct.unpack_from("<8Q", secret, 8 * i) for i in range(17)]  # 16 for stripes, 1 to scramble
    acc = [PRIME32[2], *PRIME64[:4], PRIME32[1], PRIME64[4], PRIME32[0]]

    def accumulate(at: int, key: tuple[int, ...]) -> None:  # sums may exceed 64 bits: reduced when read
        for i, word in enumerate(struct.unpack_from("<8Q", data, at)):
            keyed = word ^ key[i]
            acc[i ^ 1] += word
            acc[i] += (keyed & M32) * (keyed >> 32)

    for stripe in range((n - 1) // 64):
        accumulate(stripe * 64, keys[stripe % 16])
        if stripe % 16 == 15:
            acc[:] = [((a & M64) ^ (a & M64) >> 47 ^ keys[16][i]) * PRIME32[0] & M64 for i, a in enumerate(acc)]
    accumulate(n - 64, struct.unpack_from("<8Q", secret, 121))
    merged = [(a & M64) ^ k for a, k in zip(acc, struct.unpack_from("<8Q", secret, 11), strict=True)]
    return avalanche(n * PRIME64[0] + sum(fold(merged[i], merged[i + 1]) for i in (0, 2, 4, 6)) & M64)


# ---- 2. Header ----

MAGIC = b"\x89TSR\r\n\x1a\n"


def read_header(file: bytes) -> tuple[int, int, int]:
    """Check the header; returns the sizes of the manifest, stored and inflated, and its hash."""
    need(len(file) > 0, "empty", "the file is empty")
    need(file[:8] == MAGIC[: len(file)], "not_tersor", "the file does not start with the magic bytes")
    need(len(file) >= 56, "truncated", "the file ends inside the header")
    fields = struct.unpack_from("<8sHHIQQQQQ", file)
    major, _minor, reserved, file_size, stored_size, inflated_size, manifest_hash, header_hash = fields[1:]
    need(xxh3(file[:48]) == header_hash, "header_checksum", "the header does not match its hash")
    need(major == 1, "version", f"major version {major}")
    need(reserved == 0, "reserved", "reserved bytes of the header are not 0")
    need(len(file) >= file_size, "truncated", f"{len(file)} of {file_size} bytes")
    need(len(file) <= file_size, "trailing", f"{len(file)} bytes instead of {file_size}")
    need(stored_size <= file_size - 56, "manifest_bounds", "the manifest does not fit in the file")
    return stored_size, inflated_size, manifest_hash


# ---- 3. Manifest storage ----


def inflate(stored: bytes, size: int) -> bytes:
    inflater = zlib.decompressobj()
    try:
        manifest = inflater.decompress(stored, size + 1)  # one more byte shows an excess
    except zlib.error as error:
        raise DecodeError("manifest_deflate", str(error)) from None
    exact = inflater.eof and not inflater.unused_data and len(manifest) == size
    need(exact, "manifest_deflate", "the manifest does not inflate to its stated size")
    return manifest


# ---- 4.1 Manifest: encoding, a subset of CBOR ----


def read_item(data: bytes, at: int, depth: int = 0) -> tuple[object, int]:
    """Decode the item at offset `at`; returns it and the offset behind it."""
    need(depth <= 16 and at < len(data), "manifest_encoding", "the manifest ends, or is nested too deep")
    head, at = data[at], at + 1
    major, argument = head >> 5, head & 31
    need(argument < 28 and major != 6, "manifest_encoding", f"unsupported item {head:#x}")
    if argument > 23:
        size = 1 << argument - 24
        argument = int.from_bytes(data[at : at + size], "big")  # if the data ends here: `at` is checked below
        at += size
        least = (24, 1 << 8, 1 << 16, 1 << 32)[size.bit_length() - 1]
        need(argument >= least or major == 7, "manifest_encoding", "a head is not in its shortest form")
    need(
        at + (argument if major in (2, 3) else 0) <= len(data),
        "manifest_encoding",
        "the manifest ends in an item",
    )
    if major == 0:
        return argument, at
    if major == 1:
        return -1 - argument, at
    if major == 2:
        return data[at : at + argument], at + argument
    if major == 3:
        try:
            return data[at : at + argument].decode(), at + argument
        except UnicodeDecodeError:
            fail("manifest_encoding", "a text that is not UTF-8")
    if major == 4:
        items: list[object] = []
        for _ in range(argument):  # ends with an error when the data does, however large the argument
            item, at = read_item(data, at, depth + 1)
            items.append(item)
        return items, at
    if major == 5:
        entries: dict[str, object] = {}
        previous = b""
        for _ in range(argument):
            start = at
            name, at = read_item(data, at, depth + 1)
            ascends = isinstance(name, str) and data[start:at] > previous
            need(ascends, "manifest_encoding", "the keys of a map must be text, unique and in order")
            previous = data[start:at]
            entries[cast(str, name)], at = read_item(data, at, depth + 1)
        return entries, at
    if head == 0xFB:
        return struct.unpack_from(">d", data, at - 8)[0], at
    need(head in (0xF4, 0xF5, 0xF6), "manifest_encoding", f"unsupported item {head:#x}")
    return (False, True, None)[head - 0xF4], at


# ---- 4.2 Manifest: contents ----


class DType(NamedTuple):
    word: int  # bytes of a word
    is_float: bool
    words: int = 1  # words of an element


DTYPES = {name: DType(1, False) for name in ("BOOL", "U8", "I8", "F8_E8M0")}
DTYPES |= {"U16": DType(2, False), "U32": DType(4, False), "U64": DType(8, False)}
DTYPES |= {"I16": DType(2, False), "I32": DType(4, False), "I64": DType(8, False)}
DTYPES |= {
    "F8_E4M3": DType(1, True),
    "F8_E5M2": DType(1, True),
    "F16": DType(2, True),
    "BF16": DType(2, True),
}
DTYPES |= {"F32": DType(4, True), "F64": DType(8, True), "C64": DType(4, True, 2)}
TYPES = {"u8": "B", "i8": "b", "i16": "h", "i32": "i"}  # type of a stream -> its code in `struct` and `array`


class Stream(NamedTuple):
    coder: str
    type: str
    count: int
    chunk: int
    sizes: list[int]
    checksums: bytes
    start: int  # offset of the first piece: the sum of all sizes before it


class Tensor(NamedTuple):
    name: str
    dtype: str
    shape: tuple[int, ...]
    digest: int
    op: str
    parameters: dict[str, object]
    streams: list[Stream]

    @property
    def words(self) -> int:
        return math.prod(self.shape) * DTYPES[self.dtype].words


def typed(item: object, kind: type[T], *sizes: int, code: str = "manifest_schema") -> T:
    """The item, if it has this type, and one of these sizes if there are any."""
    need(
        type(item) is kind and (not sizes or len(cast(bytes, item)) in sizes),
        code,
        f"not a proper {kind.__name__}",
    )
    return cast(T, item)


def unsigned(item: object) -> int:
    need(typed(item, int) >= 0, "manifest_schema", "not an unsigned integer")
    return cast(int, item)


def read_manifest(file: bytes, limit: int = MANIFEST_LIMIT) -> list[tuple[str, Tensor]]:
    """The names and their tensors; the tensor of a tie is that of another name."""
    stored_size, size, manifest_hash = read_header(file)
    stored = file[56 : 56 + stored_size]
    need(xxh3(stored) == manifest_hash, "manifest_checksum", "the manifest does not match its hash")
    need(size <= limit, "limit", f"a manifest of {size} bytes")
    manifest = inflate(stored, size)
    item, end = read_item(manifest, 0)
    need(end == len(manifest), "manifest_encoding", "something follows the root")
    root = typed(item, dict)
    need(root.keys() == {"needs", "meta", "tensors"}, "manifest_schema", "the keys of the root")
    for feature in [typed(feature, str) for feature in typed(root["needs"], list)]:
        fail("unknown_feature", repr(feature))
    typed(root["meta"], dict)
    entries: list[tuple[str, Tensor]] = []
    names: set[str] = set()
    offset = 56 + stored_size
    for item in typed(root["tensors"], list):
        fields = typed(item, list, 2, 5)
        name = typed(fields[0], str)
        need(name != "" and "\0" not in name, "bad_name", repr(name))
        need(name not in names, "duplicate_name", repr(name))
        names.add(name)
        if len(fields) == 2:
            index = unsigned(fields[1])
            earlier = index < len(entries) and entries[index][0] == entries[index][1].name
            need(earlier, "bad_tie", f"{name!r} is tied to number {index}")
            tensor = entries[index][1]
        else:
            tensor = read_tensor(fields, offset)
            offset += sum(sum(stream.sizes) for stream in tensor.streams)
        entries.append((name, tensor))
    need(offset == len(file), "sizes", f"the pieces end at {offset}, the file at {len(file)}")
    return entries


def read_tensor(fields: list[object], offset: int) -> Tensor:
    name, dtype = typed(fields[0], str), typed(fields[1], str)
    need(dtype in DTYPES, "unknown_dtype", f"{dtype!r} of {name!r}")
    shape = tuple(unsigned(size) for size in typed(fields[2], list))
    need(len(shape) <= 32 and all(size < 1 << 63 for size in shape), "bad_shape", f"of {name!r}")
    digest = number(typed(fields[3], bytes, 8), 0, 8)
    chain = typed(fields[4], list)
    need(len(chain) == 1, "bad_chain", f"{len(chain)} steps in {name!r}")
    step = typed(chain[0], list, 3)
    op = typed(step[0], str)
    need(op in OPS, "unknown_op", f"{op!r} of {name!r}")
    tensor = Tensor(name, dtype, shape, digest, op, typed(step[1], dict), [])
    for item in typed(step[2], list):
        tensor.streams.append(read_stream(typed(item, list, 6), offset))
        offset += sum(tensor.streams[-1].sizes)
    return tensor


def read_stream(fields: list[object], offset: int) -> Stream:
    coder, kind = typed(fields[0], str), typed(fields[1], str)
    need(coder in ("rans", "raw", "zstd"), "unknown_coder", repr(coder))
    need(kind in TYPES, "bad_stream_type", repr(kind))
    count, chunk = unsigned(fields[2]), unsigned(fields[3])
    need(count < 1 << 63, "manifest_schema", "the count of a stream")
    need(chunk % 65536 == 0 and 0 < chunk <= 1 << 20, "bad_chunk", f"chunks of {chunk} symbols")
    sizes = [unsigned(size) for size in typed(fields[4], list)]
    pieces = -(-count // chunk) + (coder == "rans" and count > 0)
    need(len(sizes) == pieces, "bad_pieces", f"{len(sizes)} pieces instead of {pieces}")
    return Stream(coder, kind, count, chunk, sizes, typed(fields[5], bytes, 4 * pieces), offset)


# ---- 5. Digest of a decoded tensor ----


def tensor_digest(data: bytes, word: int) -> int:
    leaves = (data[at : at + 65536 * word] for at in range(0, len(data), 65536 * word))
    return xxh3(b"".join(xxh3(leaf).to_bytes(8, "little") for leaf in leaves), len(data) // word)


# ---- 6. Coders ----


def read_pieces(file: bytes, stream: Stream) -> Iterator[bytes]:
    at = stream.start
    for i, size in enumerate(stream.sizes):
        piece = file[at : at + size]
        right = xxh3(piece) & M32 == number(stream.checksums, 4 * i, 4)
        need(right, "chunk_checksum", f"the piece at offset {at} does not match its checksum")
        yield piece
        at += size


def decode_stream(file: bytes, stream: Stream) -> array[int]:
    code = TYPES[stream.type]
    values = array(code)
    pieces = read_pieces(file, stream)
    lanes, tables = read_prelude(next(pieces)) if stream.coder == "rans" and stream.count else (0, [])
    for start, piece in zip(range(0, stream.count, stream.chunk), pieces, strict=True):
        count = min(stream.chunk, stream.count - start)
        if stream.coder == "rans":
            chunk = decode_rans(piece, count, code, lanes, tables)
        else:
            plain = piece if stream.coder == "raw" else decode_zstd(piece, count * values.itemsize)
            chunk = decode_raw(plain, count, code)
        try:
            values.extend(array(code, chunk))
        except OverflowError:
            raise DecodeError("stream_range", f"a value that does not fit {stream.type}") from None
    return values


def decode_raw(piece: bytes, count: int, code: str) -> list[int]:
    size = struct.calcsize(f"<{count}{code}")
    need(len(piece) >= size, "stream_truncated", "a raw chunk is too short")
    need(len(piece) <= size, "stream_trailing", "a raw chunk is too long")
    return list(struct.unpack(f"<{count}{code}", piece))


def decode_zstd(piece: bytes, size: int) -> bytes:
    try:
        if sys.version_info >= (3, 14):
            from compression import zstd
        else:
            from backports import zstd
    except ImportError:
        raise DecodeError("zstd_missing", "no zstd module is installed") from None
    frame = zstd.ZstdDecompressor()
    try:
        data = frame.decompress(piece, size + 1)  # one more byte shows an excess
    except zstd.ZstdError as error:
        raise DecodeError("zstd", str(error)) from None
    need(frame.eof and not frame.unused_data and len(data) == size, "zstd", "not one frame of the right size")
    return data


# ---- 6.1 Prelude ----


def read_prelude(piece: bytes) -> tuple[int, list[Table]]:
    """The number of lanes, and the tables."""
    need(len(piece) >= 2 and piece[0] <= 5 and piece[1] > 0, "stream_table", "the head of a prelude")
    bits = Bits(piece[2:])
    tables = [read_table(bits) for _ in range(piece[1])]
    padding = 8 * len(bits.data) - bits.at
    need(padding < 8 and bits.take(padding) == 0, "stream_table", "something follows the tables")
    return 1 << piece[0], tables


# ---- 6.2 Tables ----


class Bits:
    """A string of bits: the least significant bit of a byte comes first, and so does that of a number."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> int:
        start, self.at = self.at, self.at + count
        need(self.at <= 8 * len(self.data), "stream_table", "a table is cut off")
        return number(self.data, start >> 3, 6) >> (start & 7) & (1 << count) - 1

    def ones(self, most: int) -> int:
        count = 0
        while self.take(1):
            count += 1
            need(count <= most, "stream_table", "a code is too long")
        return count

    def exp_golomb(self, order: int) -> int:
        b = order + self.ones(31 - order)
        return (1 << b) + self.take(b) - (1 << order)

    def rice(self, parameter: int) -> int:
        return self.ones(1024 >> parameter) << parameter | self.take(parameter)


class Table(NamedTuple):
    precision: int
    lowest: int
    frequencies: list[int]


def unzigzag(v: int) -> int:
    return v >> 1 ^ -(v & 1)


def read_table(bits: Bits) -> Table:
    precision = 8 + bits.take(3)
    lowest, alphabet, mode = unzigzag(bits.exp_golomb(4)), 1 + bits.exp_golomb(4), bits.exp_golomb(3)
    need(abs(lowest) <= 1 << 30 and mode < alphabet <= 4096, "stream_table", "the head of a table")
    predictor, parameter = (bits.take(1), bits.take(3)) if alphabet > 1 else (0, 0)
    largest = 16 * (precision - 4) + 15
    frequencies = [0] * alphabet
    for side in (range(mode - 1, -1, -1), range(mode + 1, alphabet)):
        c1 = c2 = 16 * (precision - 5)  # the last code and the one before it
        for symbol in side:
            prediction = min(max(2 * c1 - c2, 0), largest) if predictor else c1
            code = prediction + unzigzag(bits.rice(parameter))
            need(0 <= code <= largest, "stream_table", "the code of a frequency")
            frequencies[symbol] = code if code < 32 else 16 + code % 16 << code // 16 - 1
            c1, c2 = code, c1
    frequencies[mode] = (1 << precision) - sum(frequencies)
    need(frequencies[mode] > 0, "stream_table", "the sum of the frequencies")
    return Table(precision, lowest, frequencies)


# ---- 6.3 Chunks ----


def read_varint(piece: bytes, at: int) -> tuple[int, int]:
    """The number, and the offset behind it."""
    end = at
    while end < min(len(piece), at + 9) and piece[end] >= 128:  # 2^64 has ten digits in base 128
        end += 1
    need(end < len(piece), "stream_patch", "a varint is cut off")
    value = sum((byte & 127) << 7 * i for i, byte in enumerate(piece[at : end + 1]))
    proper = piece[end] < 128 and (piece[end] > 0 or end == at) and value <= M64
    need(proper, "stream_patch", "a varint is too large, or not in its shortest form")
    return value, end + 1


def decode_rans(piece: bytes, count: int, code: str, lanes: int, tables: list[Table]) -> list[int]:
    need(len(piece) > 0, "stream_truncated", "an empty chunk")
    if piece[0] == 255:
        return decode_raw(piece[1:], count, code)
    need(piece[0] < len(tables), "stream_table", f"table {piece[0]} of {len(tables)}")
    precision, lowest, frequencies = tables[piece[0]]

    patch_count, at = read_varint(piece, 1)
    need(patch_count <= count, "stream_patch", "more patches than symbols")
    patches: dict[int, int] = {}
    position = -1
    for _ in range(patch_count):
        skipped, at = read_varint(piece, at)
        zigzag, at = read_varint(piece, at)
        position += skipped + 1
        need(position < count and zigzag <= M32, "stream_patch", "a patch outside of its chunk, or too large")
        patches[position] = unzigzag(zigzag)

    need(len(piece) - at >= 4 * lanes, "stream_truncated", "a chunk ends before its states")
    states = list(struct.unpack_from(f"<{lanes}I", piece, at))
    need(min(states) >= 1 << 16, "stream_range", "a state is too small")
    at += 4 * lanes
    need((len(piece) - at) % 2 == 0, "stream_trailing", "an odd byte")

    cumulative: list[int] = []
    symbols: list[int] = []  # slot -> symbol
    for symbol, f in enumerate(frequencies):
        cumulative.append(len(symbols))
        symbols += [symbol] * f
    values: list[int] = []
    for i in range(count):
        x = states[i % lanes]
        slot = x & (1 << precision) - 1
        k = symbols[slot]
        x = frequencies[k] * (x >> precision) + slot - cumulative[k]
        if x < 1 << 16:
            if at == len(piece):
                fail("stream_truncated", "no word left")
            x = x << 16 | piece[at] | piece[at + 1] << 8
            at += 2
        states[i % lanes] = x
        values.append(lowest + k)
    ended = at == len(piece) and all(x == 1 << 16 for x in states)
    need(ended, "stream_trailing", "words are left, or a state is not 2^16")
    for position, value in patches.items():
        values[position] = value
    return values


# ---- 7. Ops: each checks what the manifest says, and returns the function that decodes ----


def check_streams(tensor: Tensor, *expected: tuple[int, tuple[str, ...]]) -> None:
    """Compare the streams with the expected counts and types."""
    right = [stream.count for stream in tensor.streams] == [count for count, _ in expected]
    need(right, "bad_streams", f"number or counts of the streams of {tensor.name!r}")
    for stream, (_, types) in zip(tensor.streams, expected, strict=True):
        need(stream.type in types, "bad_stream_type", f"{stream.type} in {tensor.name!r}")


def check_chunks(streams: list[Stream]) -> None:
    need(len({stream.chunk for stream in streams}) < 2, "bad_chunk", "streams with different chunks")


def raw(file: bytes, tensor: Tensor) -> Callable[[], bytes]:  # 7.1
    word, is_float, _ = DTYPES[tensor.dtype]
    need(tensor.parameters.keys() == {"planes"}, "bad_parameters", f"of {tensor.name!r}")
    planes = typed(tensor.parameters["planes"], int, code="bad_parameters")
    small = tensor.words * word <= 65536
    need(
        1 <= planes <= word or (planes == 0 and small),
        "bad_parameters",
        f"{planes} planes in {tensor.name!r}",
    )
    if planes == 0:
        check_streams(tensor, (tensor.words * word, ("u8",)))
        return lambda: decode_stream(file, tensor.streams[0]).tobytes()
    check_streams(tensor, *[(tensor.words, ("u8",))] * planes)
    check_chunks(tensor.streams)

    def decode_words() -> bytes:
        out = bytearray()
        for column in zip(*(decode_stream(file, stream) for stream in tensor.streams), strict=True):
            v = int.from_bytes(column, "big")
            if is_float:
                v = v >> 1 | (v & 1) << 8 * planes - 1
            out += (v << 8 * (word - planes)).to_bytes(word, "little")
        return bytes(out)

    return decode_words


def f32(x: float) -> float:
    """Round a number to binary32. This makes a sum or product of two binary32 numbers in doubles correct:
    the product is exact in a double; the sum may be rounded to 53 bits before it is rounded to 24, but that
    gives what rounding once gives, because 53 >= 2 * 24 + 2."""
    return struct.unpack("<f", pack("f", x))[0]


def pack(code: str, x: float) -> bytes:
    """`struct.pack` rounds to nearest even, but refuses what rounds to infinity."""
    try:
        return struct.pack("<" + code, x)
    except OverflowError:
        return struct.pack("<" + code, math.copysign(math.inf, x))


@lru_cache(maxsize=1 << 16)
def element(q: int, step: float, offset: float, dtype: str) -> bytes:
    c = math.copysign(f32(f32(f32(abs(q)) + offset) * step), q) if q else 0.0
    if dtype == "BF16":  # the upper half of a binary32, plus 1 if the lower half rounds it up
        bits = number(pack("f", c), 0, 4)
        return (bits + 0x7FFF + (bits >> 16 & 1) >> 16).to_bytes(2, "little")
    return pack({"F64": "d", "F32": "f", "F16": "e"}[dtype], c)


def uniform(file: bytes, tensor: Tensor) -> Callable[[], bytes]:  # 7.2
    words, bad = tensor.words, "bad_parameters"
    need(tensor.dtype in ("F32", "F16", "BF16", "F64"), bad, f"op uniform for {tensor.dtype}")
    need(tensor.parameters.keys() == {"steps", "offset", "low"}, bad, f"of {tensor.name!r}")
    packed = typed(tensor.parameters["steps"], bytes, *range(4, 1025, 4), code=bad)
    steps = struct.unpack(f"<{len(packed) // 4}f", packed)
    offset = struct.unpack("<f", typed(tensor.parameters["offset"], bytes, 4, code=bad))[0]
    low = typed(tensor.parameters["low"], int, code=bad)
    need(all(0 < s < math.inf for s in steps) and -1 < offset < math.inf and 0 <= low <= 8, bad, "out of range")
    need(len(steps) == 1 or len(tensor.shape) > 0, bad, f"{tensor.name!r} has no rows")
    expected = [(words, tuple(TYPES))]
    expected += [(words, ("u8",))] if low > 0 else []
    expected += [(tensor.shape[0], ("u8",))] if len(steps) > 1 else []
    check_streams(tensor, *expected)
    check_chunks(tensor.streams[: 2 if low > 0 else 1])

    def decode_words() -> bytes:
        high = decode_stream(file, tensor.streams[0])
        lows = decode_stream(file, tensor.streams[1]) if low > 0 else bytes(words)
        rows = decode_stream(file, tensor.streams[-1]) if len(steps) > 1 else bytes(1)
        need(max(lows, default=0) < 1 << low, "stream_range", "a low part is too large")
        largest = (1 << 31) - 1 >> low if low > 0 else 1 << 31
        need(max(map(abs, high), default=0) <= largest, "stream_range", "a high part is too large")
        need(max(rows, default=0) < len(steps), "stream_range", "the number of a step is too large")
        out = bytearray()
        for i, h in enumerate(high):
            row = i * len(rows) // words
            out += element((h << low) + lows[i], steps[rows[row]], offset, tensor.dtype)
        return bytes(out)

    return decode_words


OPS = {"raw": raw, "uniform": uniform}


# ---- The whole file ----


def decode(
    data: bytes, limit: int = LIMIT, manifest_limit: int = MANIFEST_LIMIT
) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Decode a tersor file: name -> (dtype, shape, bytes of the tensor). Raises DecodeError and nothing else."""
    entries = read_manifest(data, manifest_limit)
    decoders = {tensor.name: OPS[tensor.op](data, tensor) for _, tensor in entries}
    tensors = [tensor for name, tensor in entries if name == tensor.name]
    size = sum(tensor.words * DTYPES[tensor.dtype].word for tensor in tensors)
    symbols = sum(stream.count for tensor in tensors for stream in tensor.streams)
    need(max(size, symbols) <= limit, "limit", f"{size} bytes of tensors, {symbols} symbols")
    results: dict[str, tuple[str, tuple[int, ...], bytes]] = {}
    for tensor in tensors:
        decoded = decoders[tensor.name]()
        right = tensor_digest(decoded, DTYPES[tensor.dtype].word) == tensor.digest
        need(right, "digest", f"{tensor.name!r} decodes to something else")
        results[tensor.name] = (tensor.dtype, tensor.shape, decoded)
    return {name: results[tensor.name] for name, tensor in entries}


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("usage: reference_decoder.py FILE", file=sys.stderr)
        return 2
    try:
        file = Path(arguments[0]).read_bytes()
        decode(file)
    except DecodeError as error:
        print(error, file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"[{'missing' if isinstance(error, FileNotFoundError) else 'unreadable'}] {error}",
            file=sys.stderr,
        )
        return 1
    for name, tensor in read_manifest(file):
        tie = "" if name == tensor.name else f"(tied to {tensor.name!r})"
        print(f"{tensor.digest:016x}", tensor.dtype, list(tensor.shape), repr(name), tie)
    print("ok")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
