# fmt: off
"""The reference decoder of the tersor file format 1.3: slow, small, and written from FORMAT.md alone.

Comments cite its sections. `python reference_decoder.py FILE` lists the tensors and ends with "ok" or an error code.
(At most 500 lines, so not formatted. Needs a zstd module for zstd streams.)
"""

from __future__ import annotations

import math
import struct
import sys
import zlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from itertools import accumulate, islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from adaptive_reference import DecodeError, decode_adaptive, need, read_layout
from hash_reference import number, xxh3

LIMIT = 1 << 28  # bytes of all decoded tensors, and symbols of all streams: minutes of pure Python
MANIFEST_LIMIT = 1 << 22  # bytes of the inflated manifest; its Python objects take up to 64 times as much
T = TypeVar("T")

@contextmanager
def becomes(code: str, exception: type[Exception]) -> Iterator[None]:
    try:
        yield
    except exception as error:
        raise DecodeError(code, str(error)) from None

M32, M64 = (1 << 32) - 1, (1 << 64) - 1

# ---- 2. Header, and 3. Manifest storage ----
def inflate_manifest(file: bytes, limit: int) -> tuple[bytes, int]:  # and the offset behind it in the file
    need(len(file) > 0, "empty", "the file is empty")
    need(file[:8] == b"\x89TSR\r\n\x1a\n"[: len(file)], "not_tersor", "the magic bytes")
    need(len(file) >= 56, "truncated", "the file ends inside the header")
    major, _, reserved, file_size, stored_size, size, digest, own = struct.unpack_from("<HHIQQQQQ", file, 8)
    need(xxh3(file[:48]) == own, "header_checksum", "the header does not match its hash")
    need(major == 1, "version", f"major version {major}")
    need(reserved == 0, "reserved", "reserved bytes of the header are not 0")
    need(len(file) >= file_size, "truncated", f"{len(file)} of {file_size} bytes")
    need(len(file) <= file_size, "trailing", f"{len(file)} bytes instead of {file_size}")
    need(stored_size <= file_size - 56, "manifest_bounds", "the manifest does not fit in the file")
    stored = file[56 : 56 + stored_size]
    need(xxh3(stored) == digest, "manifest_checksum", "the manifest does not match its hash")
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
WORDS = {1: "BOOL U8 I8 F8_E8M0 F8_E4M3 F8_E5M2", 2: "U16 I16 F16 BF16", 4: "U32 I32 F32 C64", 8: "U64 I64 F64"}
SIGNED = {"F8_E4M3", "F8_E5M2", "F16", "BF16", "F32", "C64", "F64"}
DTYPES = {name: (word, name in SIGNED) for word, names in WORDS.items() for name in names.split()}
TYPES = {"u8": "B", "i8": "b", "i16": "h", "i32": "i"}  # type of a stream -> its code in `struct` and `array`

class Stream(NamedTuple):  # length: called count in the specification; start: offset of the first piece
    coder: str; type: str; length: int; chunk: int; sizes: list[int]; checksums: bytes; start: int

class Tensor(NamedTuple):  # word: bytes of a word
    name: str; dtype: str; shape: tuple[int, ...]; words: int; word: int; digest: int
    op: str; parameters: dict[str, object]; streams: list[Stream]
def typed(item: object, kind: type[T], *sizes: int, code: str = "manifest_schema") -> T:
    need(type(item) is kind and (not sizes or len(cast(bytes, item)) in sizes), code, f"bad {kind.__name__}")
    return cast(T, item)
def unsigned(item: object) -> int:
    need(typed(item, int) >= 0, "manifest_schema", "a negative number")
    return cast(int, item)
def record(item: object, *kinds: type) -> list[Any]:  # an array of items of these types
    return [typed(field, kind) for field, kind in zip(typed(item, list, len(kinds)), kinds, strict=True)]
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
def read_tensor(item: list[object], offset: int) -> Tensor:
    name, dtype, sizes, digest, chain = record(item, str, str, list, bytes, list)
    need(dtype in DTYPES, "unknown_dtype", f"{dtype!r} of {name!r}")
    need(len(digest) == 8, "manifest_schema", f"the digest of {name!r}")
    shape = tuple(unsigned(size) for size in sizes)
    need(len(shape) <= 32 and all(size < 1 << 63 for size in shape), "bad_shape", f"of {name!r}")
    words = math.prod(shape) * (2 if dtype == "C64" else 1)
    need(len(chain) == 1, "bad_chain", f"{len(chain)} steps in {name!r}")
    op, parameters, items = record(chain[0], str, dict, list)
    need(op in OPS, "unknown_op", f"{op!r} of {name!r}")
    streams = list[Stream]()
    for stream in items:
        streams.append(read_stream(stream, offset))
        offset += sum(streams[-1].sizes)
    return Tensor(name, dtype, shape, words, DTYPES[dtype][0], number(digest, 0, 8), op, parameters, streams)
def read_stream(item: object, offset: int) -> Stream:
    coder, kind, count, chunk, sizes, checksums = record(item, str, str, int, int, list, bytes)
    need(coder in ("raw", "zstd", *PRELUDES), "unknown_coder", repr(coder))
    need(kind in TYPES, "bad_stream_type", repr(kind))
    need(min(map(unsigned, [count, chunk, *sizes])) >= 0 and count < 1 << 63, "manifest_schema", "a number of a stream")
    need(chunk % 65536 == 0 and 0 < chunk <= 1 << 20, "bad_chunk", f"chunks of {chunk} symbols")
    preludes, chunks = int(coder in PRELUDES and count > 0), -(-count // chunk)
    need(len(sizes) == preludes + chunks, "bad_pieces", f"{len(sizes)} pieces, not {preludes} + {chunks}")
    need(len(checksums) == 4 * len(sizes), "manifest_schema", "4 bytes of checksum for every piece")
    largest = (struct.calcsize(TYPES[kind]) + 4) * min(count, chunk) + 1024
    fits = all(size <= (1 << 21 if i < preludes else largest) for i, size in enumerate(sizes))
    need(fits, "bad_pieces", "a piece is larger than it can need to be")
    return Stream(coder, kind, count, chunk, sizes, checksums, offset)

# ---- 5. Digest of a decoded tensor ----
def tensor_digest(data: bytes, word: int) -> int:
    leaves = (data[at : at + 65536 * word] for at in range(0, len(data), 65536 * word))
    return xxh3(b"".join(xxh3(leaf).to_bytes(8, "little") for leaf in leaves), len(data) // word)

# ---- 6. Coders ----
def decode_stream(file: bytes, stream: Stream) -> array[int]:
    code, at = TYPES[stream.type], stream.start
    values, prelude = array(code), None
    for i, size in enumerate(stream.sizes):
        piece, at = file[at : at + size], at + size
        need(xxh3(piece) & M32 == number(stream.checksums, 4 * i, 4), "chunk_checksum", f"before offset {at}")
        if i == 0 and stream.coder in PRELUDES:
            prelude = PRELUDES[stream.coder](piece, stream.length)
            continue
        count = min(stream.chunk, stream.length - len(values))
        piece = decode_zstd(piece, count * values.itemsize) if stream.coder == "zstd" else piece
        if isinstance(prelude, Prelude):
            chunk = decode_rans(piece, count, code, prelude, len(values))
        else:
            chunk = decode_adaptive(prelude, len(values), piece, count) if prelude else decode_raw(piece, count, code)
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

# ---- 6.1, 6.4, 6.6 and 6.7 Prelude ----
Table = tuple[int, int, list[int]]  # precision, lowest value, frequencies

class Prelude(NamedTuple):  # with coder rans2d, also the classes of all rows and columns; previous: with coder rans1
    lanes: int; tables: list[Table]; rows: Sequence[int] = (); columns: Sequence[int] = (); previous: bool = False
    run_bits: int = 0  # with coder runs
def read_prelude(piece: bytes, count: int = 0) -> Prelude:  # of coder rans2d (6.4) where there is a count of symbols
    with becomes("stream_table", DecodeError):
        need(len(piece) >= 2 and piece[0] <= 5, "stream_table", "the number of lanes")
        need(1 <= piece[1] <= (64 if count else 255), "stream_table", "the number of tables")
        lanes, table_count, at = 1 << piece[0], piece[1], 2
        column_count, at = read_varint(piece, at) if count else (1, at)
        size, at = read_varint(piece, at) if count else (0, at)
        need(1 <= column_count <= min(max(count, 1), 1 << 24), "stream_table", f"{column_count} columns")
        row_count = -(-count // column_count)
        bits = (byte >> i & 1 for byte in piece[at:] for i in range(8))
        tables = [read_table(bits) for _ in range(table_count + (2 if count else 0))]
        rest = list(bits)
        classes = piece[len(piece) - len(rest) // 8 :]
        need(1 not in rest[: len(rest) % 8] and size <= len(classes), "stream_table", "padding, or too few classes")
        if not count:
            need(not classes, "stream_table", "something follows the tables")
            return Prelude(lanes, tables)
        need(row_count <= 1 << 24 and {t[0] for t in tables[:-2]} == {min(tables[0][0], 13)}, "stream_table", "tables")
        rows = decode_symbols(classes[:size], [0] * row_count, 1, tables[-2:-1])
        columns = decode_symbols(classes[size:], [0] * column_count, 1, tables[-1:])
        need(min(rows + columns) >= 0 and max(rows) + max(columns) < table_count, "stream_table", "classes")
    return Prelude(lanes, tables[:-2], rows, columns)
def rans_prelude(piece: bytes, _: int) -> Prelude: return read_prelude(piece)
def rans1_prelude(piece: bytes, _: int) -> Prelude:
    prelude = read_prelude(piece)
    precisions = {table[0] for table in prelude.tables}
    need(len(prelude.tables) <= 64 and precisions == {min(*precisions, 13)}, "stream_table", "tables of rans1")
    return prelude._replace(previous=True)
def runs_prelude(piece: bytes, _: int) -> Prelude:
    need(len(piece) > 1 and 1 <= piece[1] <= 15, "stream_table", "the bits of low parts")
    return read_prelude(piece[:1] + b"\1" + piece[2:])._replace(run_bits=piece[1])
def adaptive_prelude(piece: bytes, _: int) -> list[int]: return read_layout(piece)
PRELUDES = {"rans": rans_prelude, "rans1": rans1_prelude, "rans2d": read_prelude, "runs": runs_prelude,
            "adaptive": adaptive_prelude}

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

# ---- 6.3, 6.4, 6.6 and 6.7 Chunks ----
def read_varint(piece: bytes, at: int) -> tuple[int, int]:  # and the offset behind it
    value = 0
    for i, byte in enumerate(piece[at : at + 10]):  # 2^64 has ten digits in base 128
        value |= (byte & 127) << 7 * i
        if byte < 128:
            need(value <= M64 and (byte > 0 or i == 0), "stream_patch", "a varint is not proper")
            return value, at + i + 1
    raise DecodeError("stream_patch", "a varint is cut off, or too long")
def decode_runs(piece: bytes, count: int, prelude: Prelude) -> list[int]:
    with becomes("stream_truncated", DecodeError):
        levels, at = read_varint(piece, 0)
    k, end = prelude.run_bits, at + (levels * prelude.run_bits + 7) // 8
    need(levels <= count, "stream_range", "more levels than symbols")
    need(end + 5 <= len(piece), "stream_truncated", "low parts are cut off")
    string = number(piece, at, end - at)
    lows = [string >> i * k & (1 << k) - 1 for i in range(levels)]
    need(string >> levels * k == 0, "stream_trailing", "padding of the low parts")
    need(levels + sum(lows) <= count, "stream_range", "runs are longer than the chunk")
    tokens = [0] * (levels + (count - levels - sum(lows) >> k))
    tokens = decode_symbols(piece[end:], tokens, prelude.lanes, prelude.tables)
    need(len(tokens) - tokens.count(0) == levels, "stream_trailing", "not as many levels as stated")
    values, rest = list[int](), iter(lows)
    for token in tokens:
        values += [0] * next(rest) + [token] if token else [0] * (1 << k)
    return values + [0] * (count - len(values))
def decode_rans(piece: bytes, count: int, code: str, prelude: Prelude, first: int) -> list[int]:
    if prelude.run_bits:
        return decode_runs(piece, count, prelude)
    need(len(piece) > 0, "stream_truncated", "an empty chunk")
    if piece[0] == 255:
        return decode_raw(piece[1:], count, code)
    one = prelude.columns or prelude.previous
    need(piece[0] < (1 if one else len(prelude.tables)), "stream_table", f"table {piece[0]}")
    numbers, row = [piece[0]] * count, len(prelude.columns)
    if prelude.previous:
        values = decode_symbols(piece[1:], [PREVIOUS] * count, prelude.lanes, prelude.tables)
        return [value for at in range(0, count, 2048) for value in from_lanes(values[at : at + 2048], prelude.lanes)]
    if row:
        numbers = [prelude.rows[i // row] + prelude.columns[i % row] for i in range(first, first + count)]
    return decode_symbols(piece[1:], numbers, prelude.lanes, prelude.tables)
def from_lanes(block: list[int], lanes: int) -> list[int]:  # in the order of the chunk
    whole = len(block) // lanes * lanes
    return [value for lane in range(lanes) for value in block[lane:whole:lanes]] + block[whole:]
PREVIOUS = -1  # the number of the table is that of the level before
def decode_symbols(piece: bytes, numbers: list[int], lanes: int, tables: list[Table]) -> list[int]:  # numbers of tables
    count, (patch_count, at) = len(numbers), read_varint(piece, 0)
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
    numbers_used = range(len(tables)) if PREVIOUS in numbers else set(numbers)
    cumulative = {t: list(accumulate(tables[t][2], initial=0)) for t in numbers_used}
    symbols = {t: [k for k, f in enumerate(tables[t][2]) for _ in range(f)] for t in cumulative}  # of every slot
    values: list[int] = []
    for i, t in enumerate(numbers):
        before = values[i - lanes] if t == PREVIOUS and i >= lanes else 0
        t = min(abs(before), len(tables) - 1) if t == PREVIOUS else t
        x, (precision, lowest, frequencies) = states[i % lanes], tables[t]
        slot = x & (1 << precision) - 1
        k = symbols[t][slot]
        x = frequencies[k] * (x >> precision) + slot - cumulative[t][k]
        if x < 1 << 16:
            need(at < len(piece), "stream_truncated", "no word left")
            x = x << 16 | piece[at] | piece[at + 1] << 8
            at += 2
        states[i % lanes] = x
        values.append(-lowest - k if before < 0 else lowest + k)
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
    need(1 <= planes <= word or (planes == 0 and tensor.words * word <= 65536), "bad_parameters", f"{planes} planes")
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
def f32(x: float) -> float:  # a product of binary32 is exact in x; a sum of 53 bits is harmless: 53 >= 2 * 24 + 2
    return cast(float, struct.unpack("<f", pack("f", x))[0])

@lru_cache(maxsize=1 << 16)
def element(q: int, b: float, column_step: float, step: float, dtype: str) -> bytes:  # b: the size of q, rebuilt
    c = math.copysign(f32(f32(b * column_step) * step), q) if q else 0.0
    if dtype == "BF16":  # the upper half of a binary32, plus 1 if the lower half rounds it up
        bits = number(pack("f", c), 0, 4)
        return (bits + 0x7FFF + (bits >> 16 & 1) >> 16).to_bytes(2, "little")
    return pack({"F64": "d", "F32": "f", "F16": "e"}[dtype], c)
def floats(tensor: Tensor, name: str, most: int = 256, above: float = 0) -> tuple[float, ...]:  # a parameter
    packed = typed(tensor.parameters[name], bytes, *range(4, 4 * most + 1, 4), code="bad_parameters")
    numbers = struct.unpack(f"<{len(packed) // 4}f", packed)
    need(all(above < x < math.inf for x in numbers), "bad_parameters", f"{name} of {tensor.name!r}")
    return numbers
def uniform(file: bytes, tensor: Tensor) -> Callable[[], bytes]:  # 7.2, and by rows and columns 7.3 to 7.5
    words, op, parameters, bad = tensor.words, tensor.op, tensor.parameters, "bad_parameters"
    names = {"steps", "low" if op == "uniform" else "columns", "values" if op == "companded" else "offset"}
    need(tensor.dtype in ("F32", "F16", "BF16", "F64") and parameters.keys() == names, bad, f"of {tensor.name!r}")
    steps, column_steps = floats(tensor, "steps"), (1.0,) if op == "uniform" else floats(tensor, "columns")
    low = typed(parameters["low"], int, code=bad) if op == "uniform" else 0
    need(0 <= low <= 8, bad, f"{low} low bits")
    values = floats(tensor, "values", 4096) if op == "companded" else ()
    offset = floats(tensor, "offset", 1, -1)[0] if op != "companded" else 0.0
    has_rows = words > 0 and tensor.shape != () and tensor.shape[0] <= 1 << 24
    rows, columns = (tensor.shape[0], words // tensor.shape[0]) if has_rows else (1, words)
    need(has_rows or (op == "uniform" and len(steps) == 1), bad, f"rows of {tensor.name!r}")
    need(columns <= 1 << 24 or op == "uniform", bad, f"columns of {tensor.name!r}")
    expected = [(words, tuple(TYPES)), (words, ("u8",))][: 2 if low > 0 else 1]
    expected += [(n, ("u8",)) for n, k in ((rows, len(steps)), (columns, len(column_steps))) if k > 1]
    check_streams(tensor, expected, 2 if low > 0 else 1)
    largest = {"companded": len(values), "trellis": (1 << 30) - 1}.get(op, (1 << 31) - (low > 0) >> low)
    def decode_words() -> bytes:
        streams = (decode_stream(file, stream) for stream in tensor.streams)
        high, lows = next(streams), next(streams) if low > 0 else bytes(words)
        of_row = next(streams) if len(steps) > 1 else bytes(rows)
        of_column = next(streams) if len(column_steps) > 1 else bytes(columns)
        indices_fit = max(of_row, default=0) < len(steps) and max(of_column, default=0) < len(column_steps)
        need(indices_fit and max(lows, default=0) < 1 << low, "stream_range", "the number of a step, or a low part")
        need(max(map(abs, high), default=0) <= largest, "stream_range", f"a level of {tensor.name!r}")
        levels: Iterator[int] = ((h << low) + lows[i] for i, h in enumerate(high))
        levels = follow_trellis(levels, columns, tensor.streams[0].chunk) if op == "trellis" else levels
        size = lru_cache(1 << 16)(lambda q: values[abs(q) - 1] if values else f32(f32(abs(q)) + offset))
        scales = ((column_steps[of_column[i % columns]], steps[of_row[i // columns]]) for i in range(words))
        return b"".join(element(q, size(q), c, s, tensor.dtype) for q, (c, s) in zip(levels, scales, strict=True))
    return decode_words
def follow_trellis(levels: Iterator[int], columns: int, chunk: int) -> Iterator[int]:
    states = dict[int, int]()
    for i, q in enumerate(levels):
        states = states if i % chunk else {}
        t = states.get(i % columns, 0)
        states[i % columns] = ((2, 5, 3, 4, 0, 7, 1, 6) if q % 2 else (0, 7, 1, 6, 2, 5, 3, 4))[t]
        yield 2 * q - t % 2 * ((q > 0) - (q < 0))

OPS = {"raw": raw, "uniform": uniform, "uniform2d": uniform, "companded": uniform, "trellis": uniform}

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

if __name__ == "__main__":
    try:
        with becomes("unreadable", OSError), becomes("missing", FileNotFoundError):
            content = Path(sys.argv[1]).read_bytes()
        for name, (dtype, shape, _) in decode(content).items():
            print(dtype, list(shape), ascii(name))
        print("ok")
    except DecodeError as error:
        sys.exit(str(error))
