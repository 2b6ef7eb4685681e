# fmt: off
"""The reference decoder of the tersor file format 1.0: slow, small, and written from FORMAT.md alone.

It follows the order of the specification, whose sections are cited in comments. It needs nothing but
the standard library, and a zstd module for zstd streams. `python reference_decoder.py FILE` lists the tensors
and ends with "ok", or with an error code and exit status 1. (Not formatted: at most 500 lines.)
"""

from __future__ import annotations

import math
import struct
import sys
import zlib
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from itertools import accumulate, islice
from pathlib import Path
from typing import NamedTuple, TypeVar, cast

LIMIT = 1 << 28  # bytes of all decoded tensors, and symbols of all streams: minutes of pure Python
MANIFEST_LIMIT = 1 << 22  # bytes of the inflated manifest; its Python objects take up to 64 times as much
T = TypeVar("T")

class DecodeError(Exception):  # its code is one of those in section 9
    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"[{code}] {message}")
        self.code = code

def need(condition: bool, code: str, message: str) -> None:
    if not condition:
        raise DecodeError(code, message)

@contextmanager
def becomes(code: str, exception: type[Exception]) -> Iterator[None]:
    try:
        yield
    except exception as error:
        raise DecodeError(code, str(error)) from None

# ---- The hash: XXH3, 64 bits, with a seed (names as in the xxHash specification) ----
M32, M64 = (1 << 32) - 1, (1 << 64) - 1
PRIME32 = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D)
PRIME64 = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)
MX1, MX2 = 0x165667919E3779F9, 0x9FB21C651E98DF25
SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221"
    "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb"
    "170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e")

def number(data: bytes, at: int, size: int) -> int: return int.from_bytes(data[at : at + size], "little")
def secret2(at: int) -> int: return number(SECRET, at, 8) ^ number(SECRET, at + 8, 8)
def fold(a: int, b: int) -> int: return (a * b ^ a * b >> 64) & M64
def avalanche(x: int, shift: int = 37, factor: int = MX1) -> int:
    x = (x ^ x >> shift) * factor & M64
    return x ^ x >> 32
def avalanche_xxh64(x: int) -> int: return avalanche((x ^ x >> 33) * PRIME64[1] & M64, 29, PRIME64[2])
def mix(data: bytes, at: int, secret_at: int, seed: int) -> int:
    s, t = number(SECRET, secret_at, 8) + seed & M64, number(SECRET, secret_at + 8, 8) - seed & M64
    return fold(number(data, at, 8) ^ s, number(data, at + 8, 8) ^ t)

def xxh3(data: bytes, seed: int = 0) -> int:
    n = len(data)
    if n == 0:
        return avalanche_xxh64(seed ^ secret2(56))
    if n <= 3:
        combined = data[n - 1] | n << 8 | data[0] << 16 | data[n >> 1] << 24
        return avalanche_xxh64(((number(SECRET, 0, 4) ^ number(SECRET, 4, 4)) + seed & M64) ^ combined)
    if n <= 8:
        seed ^= int.from_bytes((seed & M32).to_bytes(4, "little"), "big") << 32
        x = (secret2(8) - seed & M64) ^ (number(data, n - 4, 4) | number(data, 0, 4) << 32)
        x = (x ^ ((x << 49 | x >> 15) ^ (x << 24 | x >> 40)) & M64) * MX2 & M64
        x = (x ^ (x >> 35) + n) * MX2 & M64
        return x ^ x >> 28
    if n <= 16:
        low = (secret2(24) + seed & M64) ^ number(data, 0, 8)
        high = (secret2(40) - seed & M64) ^ number(data, n - 8, 8)
        return avalanche(n + int.from_bytes(low.to_bytes(8, "little"), "big") + high + fold(low, high) & M64)
    if n <= 128:
        starts = range(0, (n + 31) // 32 * 16, 16)
        acc = sum(mix(data, i, 2 * i, seed) + mix(data, n - i - 16, 2 * i + 16, seed) for i in starts)
        return avalanche(n * PRIME64[0] + acc & M64)
    if n <= 240:
        acc = avalanche(n * PRIME64[0] + sum(mix(data, i, i, seed) for i in range(0, 128, 16)) & M64)
        acc += sum(mix(data, i, i - 125, seed) for i in range(128, n - 15, 16))
        return avalanche(acc + mix(data, n - 16, 119, seed) & M64)
    return xxh3_large(data, seed)

def xxh3_large(data: bytes, seed: int) -> int:
    n, words = len(data), struct.unpack("<24Q", SECRET)
    secret = struct.pack("<24Q", *((w - seed if i % 2 else w + seed) & M64 for i, w in enumerate(words)))
    keys = [struct.unpack_from("<8Q", secret, 8 * i) for i in range(17)]  # 16 for stripes, 1 to scramble
    acc = [PRIME32[2], *PRIME64[:4], PRIME32[1], PRIME64[4], PRIME32[0]]  # may exceed 64 bits in between
    for stripe in range((n - 1) // 64 + 1):
        last = stripe == (n - 1) // 64
        key = struct.unpack_from("<8Q", secret, 121) if last else keys[stripe % 16]
        for i, word in enumerate(struct.unpack_from("<8Q", data, n - 64 if last else 64 * stripe)):
            acc[i ^ 1] += word
            acc[i] += ((word ^ key[i]) & M32) * ((word ^ key[i]) >> 32)
        if stripe % 16 == 15 and not last:
            acc = [(a ^ (a & M64) >> 47 ^ keys[16][i]) * PRIME32[0] & M64 for i, a in enumerate(acc)]
    acc = [(a & M64) ^ k for a, k in zip(acc, struct.unpack_from("<8Q", secret, 11), strict=True)]
    return avalanche(n * PRIME64[0] + sum(fold(acc[i], acc[i + 1]) for i in (0, 2, 4, 6)) & M64)

# ---- 2. Header ----
def read_header(file: bytes) -> tuple[int, int, int]:  # two sizes of the manifest, and its hash
    need(len(file) > 0, "empty", "the file is empty")
    need(file[:8] == b"\x89TSR\r\n\x1a\n"[: len(file)], "not_tersor", "the magic bytes")
    need(len(file) >= 56, "truncated", "the file ends inside the header")
    major, _, reserved, file_size, stored, inflated, digest, own = struct.unpack_from("<HHIQQQQQ", file, 8)
    need(xxh3(file[:48]) == own, "header_checksum", "the header does not match its hash")
    need(major == 1, "version", f"major version {major}")
    need(reserved == 0, "reserved", "reserved bytes of the header are not 0")
    need(len(file) >= file_size, "truncated", f"{len(file)} of {file_size} bytes")
    need(len(file) <= file_size, "trailing", f"{len(file)} bytes instead of {file_size}")
    need(stored <= file_size - 56, "manifest_bounds", "the manifest does not fit in the file")
    return stored, inflated, digest

# ---- 3. Manifest storage ----
def inflate_manifest(file: bytes, limit: int) -> tuple[bytes, int]:  # and the offset behind it in the file
    stored_size, size, manifest_hash = read_header(file)
    stored = file[56 : 56 + stored_size]
    need(xxh3(stored) == manifest_hash, "manifest_checksum", "the manifest does not match its hash")
    need(size <= limit, "limit", f"a manifest of {size} bytes")
    inflater = zlib.decompressobj()
    with becomes("manifest_deflate", zlib.error):
        manifest = inflater.decompress(stored, size + 1)  # one more byte shows an excess
    exact = inflater.eof and not inflater.unused_data and len(manifest) == size
    need(exact, "manifest_deflate", "the manifest does not inflate to its stated size")
    return manifest, 56 + stored_size

# ---- 4.1 Manifest: encoding, a subset of CBOR ----
def read_item(data: bytes, at: int, depth: int = 0) -> tuple[object, int]:  # and the offset behind it
    need(depth <= 16 and at < len(data), "manifest_encoding", "the manifest ends, or is nested too deep")
    head, at = data[at], at + 1
    major, argument = head >> 5, head & 31
    need(argument < 28 and major != 6, "manifest_encoding", f"unsupported item {head:#x}")
    if argument > 23:
        size = 1 << argument - 24
        argument, at = number(data[at : at + size][::-1], 0, 8), at + size  # checked below
        shortest = argument >= (24 if size == 1 else 1 << 4 * size)
        need(shortest or major == 7, "manifest_encoding", "a head is not in its shortest form")
    end = at + argument if major in (2, 3) else at
    need(end <= len(data), "manifest_encoding", "the manifest ends inside an item")
    if major < 2:
        return (-1 - argument if major == 1 else argument), at
    if major < 4:
        with becomes("manifest_encoding", UnicodeDecodeError):
            return (data[at:end].decode() if major == 3 else data[at:end]), end
    if major == 7:
        if head == 0xFB:
            return struct.unpack_from(">d", data, at - 8)[0], at
        need(head in (0xF4, 0xF5, 0xF6), "manifest_encoding", f"unsupported item {head:#x}")
        return (False, True, None)[head - 0xF4], at
    items, previous = list[object](), b""  # items of an array, or keys and values of a map
    for i in range(argument * (major - 3)):  # ends with an error when the data does, however large it is
        start = at
        item, at = read_item(data, at, depth + 1)
        items.append(item)
        if major == 5 and i % 2 == 0:
            ascends = isinstance(item, str) and data[start:at] > previous
            need(ascends, "manifest_encoding", "the keys of a map must be text, unique and in order")
            previous = data[start:at]
    return (items if major == 4 else dict(zip(items[::2], items[1::2], strict=True))), at

# ---- 4.2 Manifest: contents ----
# dtype -> bytes of a word, and whether its top bit is a sign; an element of C64 has two words
DTYPES = {"BOOL": (1, False), "U8": (1, False), "U16": (2, False), "U32": (4, False), "U64": (8, False)}
DTYPES |= {"I8": (1, False), "I16": (2, False), "I32": (4, False), "I64": (8, False), "F8_E8M0": (1, False)}
DTYPES |= {"F8_E4M3": (1, True), "F8_E5M2": (1, True), "F16": (2, True), "BF16": (2, True)}
DTYPES |= {"F32": (4, True), "F64": (8, True), "C64": (4, True)}
TYPES = {"u8": "B", "i8": "b", "i16": "h", "i32": "i"}  # type of a stream -> its code in `struct` and `array`

class Stream(NamedTuple):
    coder: str
    type: str
    length: int  # called count in the specification
    chunk: int
    sizes: list[int]
    checksums: bytes
    start: int  # offset of the first piece: the sum of all sizes before it

class Tensor(NamedTuple):
    name: str
    dtype: str
    shape: tuple[int, ...]
    words: int
    word: int  # bytes of a word
    digest: int
    op: str
    parameters: dict[str, object]
    streams: list[Stream]

def typed(item: object, kind: type[T], *sizes: int, code: str = "manifest_schema") -> T:
    need(type(item) is kind and (not sizes or len(cast(bytes, item)) in sizes), code, f"bad {kind.__name__}")
    return cast(T, item)
def unsigned(item: object) -> int:
    need(typed(item, int) >= 0, "manifest_schema", "a negative number")
    return cast(int, item)

def read_manifest(file: bytes, limit: int = MANIFEST_LIMIT) -> list[tuple[str, Tensor]]:
    manifest, offset = inflate_manifest(file, limit)
    item, end = read_item(manifest, 0)
    need(end == len(manifest), "manifest_encoding", "something follows the root")
    root = typed(item, dict)
    need(root.keys() == {"needs", "meta", "tensors"}, "manifest_schema", "the keys of the root")
    needs = [typed(feature, str) for feature in typed(root["needs"], list)]
    need(not needs, "unknown_feature", ", ".join(needs))
    typed(root["meta"], dict)
    entries, names = list[tuple[str, Tensor]](), set[str]()
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
            tensor = entries[index][1]  # it has another name than the tie
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
    words = math.prod(shape) * (2 if dtype == "C64" else 1)
    digest = number(typed(fields[3], bytes, 8), 0, 8)
    chain = typed(fields[4], list)
    need(len(chain) == 1, "bad_chain", f"{len(chain)} steps in {name!r}")
    step = typed(chain[0], list, 3)
    op = typed(step[0], str)
    need(op in OPS, "unknown_op", f"{op!r} of {name!r}")
    tensor = Tensor(name, dtype, shape, words, DTYPES[dtype][0], digest, op, typed(step[1], dict), [])
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
def decode_stream(file: bytes, stream: Stream) -> array[int]:
    code, at, lanes, tables = TYPES[stream.type], stream.start, 0, list[Table]()
    values = array(code)
    for i, size in enumerate(stream.sizes):
        piece, at = file[at : at + size], at + size
        need(xxh3(piece) & M32 == number(stream.checksums, 4 * i, 4), "chunk_checksum", f"before offset {at}")
        if stream.coder == "rans" and i == 0:
            lanes, tables = read_prelude(piece)
            continue
        count = min(stream.chunk, stream.length - len(values))
        piece = decode_zstd(piece, count * values.itemsize) if stream.coder == "zstd" else piece
        chunk = decode_rans(piece, count, code, lanes, tables) if lanes else decode_raw(piece, count, code)
        with becomes("stream_range", OverflowError):  # a value does not fit the type
            values.extend(array(code, chunk))
    return values

def decode_raw(piece: bytes, count: int, code: str) -> list[int]:
    size = struct.calcsize(f"<{count}{code}")
    need(len(piece) >= size, "stream_truncated", "a raw chunk is too short")
    need(len(piece) <= size, "stream_trailing", "a raw chunk is too long")
    return list(struct.unpack(f"<{count}{code}", piece))

def decode_zstd(piece: bytes, size: int) -> bytes:
    with becomes("zstd_missing", ImportError):
        zstd = import_module("compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd")
    frame = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: 22})
    with becomes("zstd", zstd.ZstdError):
        data: bytes = frame.decompress(piece, size + 1)  # one more byte shows an excess
    need(frame.eof and not frame.unused_data and len(data) == size, "zstd", "not one frame of the right size")
    return data

# ---- 6.1 Prelude ----
Table = tuple[int, int, list[int]]  # precision, lowest value, frequencies

def read_prelude(piece: bytes) -> tuple[int, list[Table]]:  # the number of lanes, and the tables
    need(len(piece) >= 2 and piece[0] <= 5 and piece[1] > 0, "stream_table", "the head of a prelude")
    bits = (byte >> i & 1 for byte in piece[2:] for i in range(8))
    tables = [read_table(bits) for _ in range(piece[1])]
    padding = list(islice(bits, 8))
    need(len(padding) < 8 and 1 not in padding, "stream_table", "something follows the tables")
    return 1 << piece[0], tables

# ---- 6.2 Tables ----
def take(bits: Iterator[int], count: int) -> int:  # a number, least significant bit first
    taken = list(islice(bits, count))
    need(len(taken) == count, "stream_table", "a table is cut off")
    return sum(bit << i for i, bit in enumerate(taken))
def take_ones(bits: Iterator[int], most: int) -> int:
    for count in range(most + 1):
        if take(bits, 1) == 0:
            return count
    raise DecodeError("stream_table", "a code is too long")
def exp_golomb(bits: Iterator[int], order: int) -> int:
    b = order + take_ones(bits, 31 - order)
    return (1 << b) + take(bits, b) - (1 << order)
def rice(bits: Iterator[int], parameter: int) -> int:
    return take_ones(bits, 1024 >> parameter) << parameter | take(bits, parameter)
def unzigzag(v: int) -> int: return v >> 1 ^ -(v & 1)

def read_table(bits: Iterator[int]) -> Table:
    precision, lowest = 8 + take(bits, 3), unzigzag(exp_golomb(bits, 4))
    alphabet, mode = 1 + exp_golomb(bits, 4), exp_golomb(bits, 3)
    need(abs(lowest) <= 1 << 30 and mode < alphabet <= 4096, "stream_table", "the head of a table")
    predictor, parameter = (take(bits, 1), take(bits, 3)) if alphabet > 1 else (0, 0)
    largest = 16 * (precision - 4) + 15
    frequencies = [0] * alphabet
    for side in (range(mode - 1, -1, -1), range(mode + 1, alphabet)):
        c1 = c2 = 16 * (precision - 5)  # the last code and the one before it
        for symbol in side:
            prediction = min(max(2 * c1 - c2, 0), largest) if predictor else c1
            code = prediction + unzigzag(rice(bits, parameter))
            need(0 <= code <= largest, "stream_table", "the code of a frequency")
            frequencies[symbol] = code if code < 32 else 16 + code % 16 << code // 16 - 1
            c1, c2 = code, c1
    frequencies[mode] = (1 << precision) - sum(frequencies)
    need(frequencies[mode] > 0, "stream_table", "the sum of the frequencies")
    return precision, lowest, frequencies

# ---- 6.3 Chunks ----
def read_varint(piece: bytes, at: int) -> tuple[int, int]:  # and the offset behind it
    value = 0
    for i, byte in enumerate(piece[at : at + 10]):  # 2^64 has ten digits in base 128
        value |= (byte & 127) << 7 * i
        if byte < 128:
            need(value <= M64 and (byte > 0 or i == 0), "stream_patch", "a varint is not proper")
            return value, at + i + 1
    raise DecodeError("stream_patch", "a varint is cut off, or too long")

def decode_rans(piece: bytes, count: int, code: str, lanes: int, tables: list[Table]) -> list[int]:
    need(len(piece) > 0, "stream_truncated", "an empty chunk")
    if piece[0] == 255:
        return decode_raw(piece[1:], count, code)
    need(piece[0] < len(tables), "stream_table", f"table {piece[0]} of {len(tables)}")
    precision, lowest, frequencies = tables[piece[0]]
    patch_count, at = read_varint(piece, 1)
    need(patch_count <= count, "stream_patch", "more patches than symbols")
    patches, position = dict[int, int](), -1
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
    cumulative = list(accumulate(frequencies, initial=0))
    symbols = [k for k, f in enumerate(frequencies) for _ in range(f)]  # one for every slot
    values: list[int] = []
    for i in range(count):
        x = states[i % lanes]
        slot = x & (1 << precision) - 1
        k = symbols[slot]
        x = frequencies[k] * (x >> precision) + slot - cumulative[k]
        if x < 1 << 16:
            need(at < len(piece), "stream_truncated", "no word left")
            x = x << 16 | piece[at] | piece[at + 1] << 8
            at += 2
        states[i % lanes] = x
        values.append(lowest + k)
    need(at == len(piece) and states == [1 << 16] * lanes, "stream_trailing", "words are left, or bad states")
    for position, value in patches.items():
        values[position] = value
    return values

# ---- 7. Ops: each checks what the manifest says, and returns the function that decodes ----
def check_streams(tensor: Tensor, expected: list[tuple[int, tuple[str, ...]]], together: int) -> None:
    counts = [stream.length for stream in tensor.streams]
    need(counts == [count for count, _ in expected], "bad_streams", f"{counts} symbols in {tensor.name!r}")
    for stream, (_, types) in zip(tensor.streams, expected, strict=True):
        need(stream.type in types, "bad_stream_type", f"{stream.type} in {tensor.name!r}")
    need(len({stream.chunk for stream in tensor.streams[:together]}) < 2, "bad_chunk", f"of {tensor.name!r}")

def raw(file: bytes, tensor: Tensor) -> Callable[[], bytes]:  # 7.1
    word, is_float = DTYPES[tensor.dtype]
    need(tensor.parameters.keys() == {"planes"}, "bad_parameters", f"of {tensor.name!r}")
    planes = typed(tensor.parameters["planes"], int, code="bad_parameters")
    possible = 1 <= planes <= word or (planes == 0 and tensor.words * word <= 65536)
    need(possible, "bad_parameters", f"{planes} planes in {tensor.name!r}")
    if planes == 0:
        check_streams(tensor, [(tensor.words * word, ("u8",))], 1)
        return lambda: decode_stream(file, tensor.streams[0]).tobytes()
    check_streams(tensor, [(tensor.words, ("u8",))] * planes, planes)
    def decode_words() -> bytes:
        out = bytearray()
        for column in zip(*(decode_stream(file, stream) for stream in tensor.streams), strict=True):
            v = int.from_bytes(column, "big")
            v = v >> 1 | (v & 1) << 8 * planes - 1 if is_float else v
            out += (v << 8 * (word - planes)).to_bytes(word, "little")
        return bytes(out)
    return decode_words

def pack(code: str, x: float) -> bytes:  # `struct.pack` rounds to nearest even, but refuses to overflow
    try:
        return struct.pack("<" + code, x)
    except OverflowError:
        return struct.pack("<" + code, math.copysign(math.inf, x))
def f32(x: float) -> float:  # right for products and sums of two binary32 numbers: a product is exact in a
    # double; a sum may be rounded to 53 bits first, which is harmless, because 53 >= 2 * 24 + 2
    return cast(float, struct.unpack("<f", pack("f", x))[0])

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
    need(all(0 < step < math.inf for step in steps), bad, "a step is not finite and positive")
    need(-1 < offset < math.inf and 0 <= low <= 8, bad, "offset or low are out of range")
    need(len(steps) == 1 or bool(tensor.words and tensor.shape and tensor.shape[0] <= 1 << 24), bad, "rows")
    expected = [(words, tuple(TYPES)), (words, ("u8",))][: 2 if low > 0 else 1]
    expected += [(rows, ("u8",)) for rows in tensor.shape[:1] if len(steps) > 1]
    check_streams(tensor, expected, 2 if low > 0 else 1)
    def decode_words() -> bytes:
        high = decode_stream(file, tensor.streams[0])
        lows = decode_stream(file, tensor.streams[1]) if low > 0 else bytes(words)
        rows = decode_stream(file, tensor.streams[-1]) if len(steps) > 1 else bytes(1)
        need(max(lows, default=0) < 1 << low, "stream_range", "a low part is too large")
        largest = (1 << 31) - 1 >> low if low > 0 else 1 << 31
        need(max(map(abs, high), default=0) <= largest, "stream_range", "a high part is too large")
        need(max(rows, default=0) < len(steps), "stream_range", "the number of a step is too large")
        levels = ((h << low) + lows[i] for i, h in enumerate(high))
        scales = (steps[rows[i * len(rows) // words]] for i in range(words))
        return b"".join(element(q, s, offset, tensor.dtype) for q, s in zip(levels, scales, strict=True))
    return decode_words

OPS = {"raw": raw, "uniform": uniform}

# ---- The whole file ----
Decoded = tuple[str, tuple[int, ...], bytes]  # dtype, shape and bytes of a tensor

def decode(data: bytes, limit: int = LIMIT, manifest_limit: int = MANIFEST_LIMIT) -> dict[str, Decoded]:
    """Decode a tersor file; the keys are the names. Raises DecodeError and nothing else."""
    entries = read_manifest(data, manifest_limit)
    tensors = {tensor.name: tensor for _, tensor in entries}
    decoders = {name: OPS[tensor.op](data, tensor) for name, tensor in tensors.items()}
    size = sum(tensor.words * tensor.word for tensor in tensors.values())
    symbols = sum(stream.length for tensor in tensors.values() for stream in tensor.streams)
    need(max(size, symbols) <= limit, "limit", f"{size} bytes of tensors, {symbols} symbols")
    results: dict[str, Decoded] = {}
    for name, tensor in tensors.items():
        decoded = decoders[name]()
        need(tensor_digest(decoded, tensor.word) == tensor.digest, "digest", f"of {name!r}")
        results[name] = (tensor.dtype, tensor.shape, decoded)
    return {name: results[tensor.name] for name, tensor in entries}

def main(path: str) -> None:
    with becomes("unreadable", OSError), becomes("missing", FileNotFoundError):
        file = Path(path).read_bytes()
    decode(file)
    for name, tensor in read_manifest(file):
        tie = "" if name == tensor.name else f"(tied to {tensor.name!a})"
        print(f"{tensor.digest:016x}", tensor.dtype, list(tensor.shape), ascii(name), tie)
    print("ok")

if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) == 2 else sys.exit("usage: reference_decoder.py FILE"))
    except DecodeError as error:
        sys.exit(str(error))
