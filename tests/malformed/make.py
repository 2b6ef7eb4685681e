"""Makes the malformed files: `python tests/malformed/make.py`. Each breaks one rule, all else about it is right.

Checksums, digests and the header's hash are computed after the damage, so that it is the rule that refuses the file and
not a checksum. Files that were released stay as they are: delete one by hand to make it anew.
"""

from __future__ import annotations

import json
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import handmade as hm  # noqa: E402
import malformed1  # noqa: E402
import malformed2d  # noqa: E402
import malformed_adaptive  # noqa: E402
import malformed_runs  # noqa: E402

FILES = HERE / "files"
EXPECTED = HERE / "expected.json"

BYTES = hm.raw_tensor("w", "U8", (4,), b"abcd")
LEVELS = np.array([0, 1, -1, 2, 0, 0, 3, -2, 1, 0, 0, -1])
TABLE = hm.Table.of(LEVELS, 10)
RANS = hm.uniform_tensor(
    "r", "F32", LEVELS, [0.5], kind="i8", coder=partial(hm.rans_stream, tables=[TABLE], lanes=2)
)  # fmt: skip
ROWS = hm.uniform_tensor("u", "F16", LEVELS.reshape(3, 4), [0.5, 0.25], rows=[0, 1, 0], low=2, kind="i16")
ZSTD = hm.raw_tensor("z", "I16", (50,), bytes(range(100)), 2, hm.zstd_stream)
GOOD = hm.assemble(BYTES, RANS)
ROOT = hm.cbor.encode(hm.manifest([BYTES]))

Made = Iterator[tuple[str, str, bytes | tuple[bytes, str]]]  # name, code, file (and the reference decoder's code)


def header_files() -> Made:
    """Sections 2 and 3."""
    yield "empty", "empty", b""
    yield "other-magic", "not_tersor", b"PK\3\4" + GOOD[4:]
    yield "other-short", "not_tersor", b"\x00"
    yield "text-mode-damage", "not_tersor", GOOD.replace(b"\r\n", b"\n", 1)
    yield "magic-only", "truncated", GOOD[:8]
    yield "first-byte-only", "truncated", GOOD[:1]
    yield "half-a-header", "truncated", GOOD[:55]
    yield "header-only", "truncated", GOOD[:56]
    yield "last-byte-missing", "truncated", GOOD[:-1]
    yield "one-byte-more", "trailing", GOOD + b"\0"
    yield "twice", "trailing", GOOD + GOOD
    yield "size-claims-2-63", "truncated", hm.assemble(BYTES, size=2**63)
    yield "size-claims-none", "trailing", hm.assemble(BYTES, size=0)
    yield "reserved-bit", "reserved", hm.assemble(BYTES, reserved=1)
    yield "reserved-top-bit", "reserved", hm.assemble(BYTES, reserved=1 << 31)
    yield "version-0", "version", hm.assemble(BYTES, major=0)
    yield "version-2", "version", hm.assemble(BYTES, major=2)
    yield "header-hash", "header_checksum", GOOD[:48] + bytes(8) + GOOD[56:]
    yield "header-flipped", "header_checksum", GOOD[:10] + b"\1" + GOOD[11:]
    yield "manifest-beyond-file", "manifest_bounds", hm.assemble(BYTES, stored_size=10**6)
    yield "manifest-size-overflows", "manifest_bounds", hm.assemble(BYTES, stored_size=2**64 - 56)
    yield "manifest-flipped", "manifest_checksum", GOOD[:60] + bytes([GOOD[60] ^ 1]) + GOOD[61:]
    stored = zlib.compress(ROOT)
    wrong = partial(hm.file, ROOT, b"abcd")
    yield "deflate-garbage", "manifest_deflate", wrong(stored=b"not zlib at all")
    yield "deflate-empty", "manifest_deflate", hm.header(60, b"", len(ROOT)) + b"abcd"
    yield "deflate-cut", "manifest_deflate", wrong(stored=stored[:-1])
    yield "deflate-checksum", "manifest_deflate", wrong(stored=stored[:-1] + bytes([stored[-1] ^ 1]))
    yield "deflate-followed", "manifest_deflate", wrong(stored=stored + b"\0")
    yield "deflate-twice", "manifest_deflate", wrong(stored=stored + stored)
    yield "deflate-larger-than-stated", "manifest_deflate", wrong(inflated=len(ROOT) - 1)
    yield "deflate-smaller-than-stated", "manifest_deflate", wrong(inflated=len(ROOT) + 1)
    raw = zlib.compressobj(9, zlib.DEFLATED, -15)
    yield "deflate-without-zlib-header", "manifest_deflate", wrong(stored=raw.compress(ROOT) + raw.flush())
    gzip = zlib.compressobj(9, zlib.DEFLATED, 31)
    yield "deflate-gzip", "manifest_deflate", wrong(stored=gzip.compress(ROOT) + gzip.flush())
    preset = zlib.compressobj(9, zlib.DEFLATED, 15, zdict=b"needs meta tensors")
    yield "deflate-dictionary", "manifest_deflate", wrong(stored=preset.compress(ROOT) + preset.flush())


def encoding_files() -> Made:
    """Section 4.1."""

    def root(meta: bytes = b"\xa0", needs: bytes = b"\x80", tensors: bytes = b"\x80", count: int = 3) -> bytes:
        return bytes([0xA0 + count]) + b"\x64meta" + meta + b"\x65needs" + needs + b"\x67tensors" + tensors

    def noted(value: bytes) -> bytes:
        return hm.file(root(b"\xa1\x61x" + value))

    broken = {
        "no-item": b"",
        "only-a-head": b"\xa3",
        "followed": root() + b"\x00",
        "cut": root()[:-1],
        "keys-out-of-order": b"\xa3\x65needs\x80\x64meta\xa0\x67tensors\x80",
        "key-twice": b"\xa3\x64meta\xa0\x64meta\xa0\x67tensors\x80",
        "key-not-text": b"\xa3\x01\xa0\x64meta\xa0\x65needs\x80",
        "length-of-root": root(count=3).replace(b"\xa3", b"\xb8\x03", 1),
        "map-claims-2-62": b"\xbb\x40" + bytes(7) + root()[1:],
        "array-claims-2-62": root(tensors=b"\x9b\x40" + bytes(7)),
        "array-claims-2-64": root(tensors=b"\x9b" + b"\xff" * 8),
        "bytes-claim-2-62": root(b"\xa1\x61x\x5b\x40" + bytes(7)),
        "text-claims-2-64": root(b"\xa1\x61x\x7b" + b"\xff" * 8),
    }
    for name, plain in broken.items():
        yield f"cbor-{name}", "manifest_encoding", hm.file(plain, stored=zlib.compress(plain))
    values = {
        "indefinite-array": b"\x9f\xff", "indefinite-map": b"\xbf\xff", "indefinite-text": b"\x7f\x61a\xff",
        "indefinite-bytes": b"\x5f\x41a\xff", "break": b"\xff", "tag": b"\xc0\x00", "large-tag": b"\xd9\xd9\xf7\x00",
        "undefined": b"\xf7", "simple": b"\xe0", "simple-byte": b"\xf8\x20", "false-in-two-bytes": b"\xf8\x14",
        "half": b"\xf9\x3c\x00", "single": b"\xfa\x3f\x80\x00\x00", "reserved-28": b"\x1c", "reserved-30": b"\x5e",
        "long-23": b"\x18\x17", "long-255": b"\x19\x00\xff", "long-65535": b"\x1a\x00\x00\xff\xff",
        "long-32-bits": b"\x1b\x00\x00\x00\x00\xff\xff\xff\xff", "long-negative": b"\x38\x17",
        "long-text-length": b"\x78\x01a", "long-array-length": b"\x98\x00", "utf8-continuation": b"\x61\x80",
        "utf8-overlong": b"\x62\xc0\x80", "utf8-surrogate": b"\x63\xed\xa0\x80", "utf8-cut": b"\x62\xe2\x82",
        "utf8-beyond-unicode": b"\x64\xf4\x90\x80\x80", "deep": b"\x81" * 15 + b"\x00", "deep-1000": b"\x81" * 1000,
        "float-cut": b"\xfb\x00",
    }  # fmt: skip
    for name, value in values.items():
        yield f"cbor-{name}", "manifest_encoding", noted(value)


def changed(change: Callable[[dict[str, Any]], Any], *items: hm.Item) -> bytes:
    """A file of `items` (the tensor BYTES if none are given) with a changed manifest."""
    return hm.assemble(*(items or (BYTES,)), edit=change)


def put(value: Any, *path: Any, items: tuple[hm.Item, ...] = ()) -> bytes:
    """One field of the manifest replaced; `path` leads to it."""

    def change(root: dict[str, Any]) -> Any:
        at: Any = root
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value
        return root

    return changed(change, *items)


T = ("tensors", 0)
STEP = (*T, 4, 0)
STREAM = (*STEP, 2, 0)


def schema_files() -> Made:
    """Section 4.2: wrong types, lengths and values."""
    yield "root-is-array", "manifest_schema", changed(lambda root: list(root.values()))
    yield "root-is-null", "manifest_schema", hm.file(b"\xf6")
    yield "root-lacks-key", "manifest_schema", changed(lambda root: {k: v for k, v in root.items() if k != "meta"})
    yield "root-has-more", "manifest_schema", put(1, "more")
    for name, value, path in (
        ("needs-is-text", "x", ("needs",)), ("needs-a-number", [1], ("needs",)), ("meta-is-array", [], ("meta",)),
        ("tensors-is-map", {}, ("tensors",)), ("tensor-is-text", "w", T), ("tensor-of-3", ["w", "U8", [4]], T),
        ("tensor-of-6", [*BYTES.record(), 0], T), ("tensor-empty", [], T), ("name-is-bytes", b"w", (*T, 0)),
        ("dtype-is-number", 1, (*T, 1)), ("shape-is-number", 4, (*T, 2)), ("shape-of-text", ["4"], (*T, 2)),
        ("shape-negative", [-4], (*T, 2)), ("shape-float", [4.0], (*T, 2)), ("shape-true", [4, True], (*T, 2)),
        ("digest-of-7", bytes(7), (*T, 3)), ("digest-of-9", bytes(9), (*T, 3)), ("digest-is-number", 1, (*T, 3)),
        ("chain-is-map", {}, (*T, 4)), ("step-is-text", "raw", STEP), ("step-of-2", ["raw", {}], STEP),
        ("op-is-number", 0, (*STEP, 0)), ("parameters-are-array", [], (*STEP, 1)), ("streams-are-map", {}, (*STEP, 2)),
        ("stream-is-null", None, STREAM), ("stream-of-5", BYTES.streams[0].record()[:5], STREAM),
        ("coder-is-number", 1, (*STREAM, 0)), ("type-is-null", None, (*STREAM, 1)),
        ("count-negative", -1, (*STREAM, 2)), ("count-float", 4.0, (*STREAM, 2)), ("count-2-63", 2**63, (*STREAM, 2)),
        ("chunk-is-text", "", (*STREAM, 3)),
        ("chunk-negative", -65536, (*STREAM, 3)), ("sizes-is-number", 4, (*STREAM, 4)),
        ("size-negative", [-4], (*STREAM, 4)), ("size-is-text", ["4"], (*STREAM, 4)),
        ("checksums-are-array", [0], (*STREAM, 5)), ("checksums-of-3", bytes(3), (*STREAM, 5)),
        ("checksums-of-8", bytes(8), (*STREAM, 5)), ("checksums-of-0", b"", (*STREAM, 5)),
    ):  # fmt: skip
        yield f"schema-{name}", "manifest_schema", put(value, *path)
    for name, index in (("negative", -1), ("text", "w"), ("null", None), ("true", True)):
        yield f"schema-tie-{name}", "manifest_schema", hm.assemble(BYTES, ["tie", index])

    yield "needs-one", "unknown_feature", hm.assemble(BYTES, needs=["time-travel"])
    yield "needs-before-tensors", "unknown_feature", hm.assemble(needs=["x"], edit=lambda root: root | {"tensors": 7})
    for dtype in ("F4", "f32", "", "F128"):
        yield f"dtype-{dtype or 'empty'}{'-small' if dtype == 'f32' else ''}", "unknown_dtype", put(dtype, *T, 1)
    yield "op-unknown", "unknown_op", put("learned", *STEP, 0)
    yield "op-empty", "unknown_op", put("", *STEP, 0)
    yield "coder-unknown", "unknown_coder", put("brotli", *STREAM, 0)
    yield "coder-capital", "unknown_coder", put("Raw", *STREAM, 0)
    yield "name-twice", "duplicate_name", hm.assemble(BYTES, BYTES)
    yield "name-of-tie-twice", "duplicate_name", hm.assemble(BYTES, ("w", 0))
    yield "name-empty", "bad_name", put("", *T, 0)
    yield "name-with-nul", "bad_name", put("w\0x", *T, 0)
    yield "name-of-tie-empty", "bad_name", hm.assemble(BYTES, ("", 0))
    yield "shape-of-33", "bad_shape", put([1] * 33, *T, 2)
    yield "shape-2-63", "bad_shape", put([2**63], *T, 2)
    yield "shape-2-64-and-0", "bad_shape", put([2**64 - 1, 0], *T, 2)
    yield "tie-to-itself", "bad_tie", hm.assemble(BYTES, ("x", 1))
    yield "tie-forward", "bad_tie", hm.assemble(("x", 1), BYTES)
    yield "tie-to-tie", "bad_tie", hm.assemble(BYTES, ("x", 0), ("y", 1))
    yield "tie-far", "bad_tie", hm.assemble(BYTES, ("x", 2**64 - 1))
    yield "tie-alone", "bad_tie", hm.assemble(("x", 0))
    yield (
        "chain-empty",
        "bad_chain",
        hm.assemble(edit=lambda root: root | {"tensors": [["w", "U8", [0], bytes(8), []]]}),
    )
    yield "chain-of-2", "bad_chain", changed(lambda root: root["tensors"][0][4].append(["raw", {"planes": 0}, []]))
    for chunk in (0, 1, 65535, 65537, 2**20 + 65536, 2**64 - 65536):
        yield f"chunk-{chunk}", "bad_chunk", put(chunk, *STREAM, 3)
    mixed = hm.with_stream(ROWS, 1, chunk=131072)
    yield "chunks-of-low-parts-differ", "bad_chunk", hm.assemble(mixed)
    yield "chunks-of-planes-differ", "bad_chunk", hm.assemble(hm.with_stream(ZSTD, 1, chunk=131072))
    none = hm.raw_tensor("w", "U8", (0,), b"", 1)
    extra = partial(hm.with_stream, pieces=(b"abcd", b""))
    yield "pieces-too-many", "bad_pieces", hm.assemble(extra(BYTES, 0))
    yield "pieces-none", "bad_pieces", hm.assemble(hm.with_stream(BYTES, 0, pieces=()))
    yield "pieces-of-nothing", "bad_pieces", hm.assemble(hm.with_stream(none, 0, pieces=(b"",)))
    yield (
        "pieces-prelude-missing",
        "bad_pieces",
        hm.assemble(hm.with_stream(RANS, 0, pieces=RANS.streams[0].pieces[1:])),
    )
    yield (
        "pieces-prelude-of-nothing",
        "bad_pieces",
        hm.assemble(hm.with_stream(none, 0, coder="rans", pieces=(b"\0\1",))),
    )
    yield "pieces-count-claims-2-62", "bad_pieces", put(2**62, *STREAM, 2)
    most = 12 * 5 + 1024  # 12 symbols of i8
    chunk = RANS.streams[0].pieces[1]
    too_large = hm.with_piece(RANS, 0, 1, chunk + bytes(most + 1 - len(chunk)))
    yield "pieces-chunk-one-byte-too-large", "bad_pieces", hm.assemble(too_large)
    yield "pieces-chunk-of-a-gigabyte", "bad_pieces", put([2**30], *STREAM, 4)
    long_prelude = put([2**21 + 1, len(chunk)], *STREAM, 4, items=(RANS,))
    yield "pieces-prelude-over-2-21", "bad_pieces", long_prelude
    yield "stream-type-unknown", "bad_stream_type", put("u16", *STREAM, 1)
    yield "stream-type-of-raw", "bad_stream_type", put("i8", *STREAM, 1)
    yield "stream-type-of-low-parts", "bad_stream_type", hm.assemble(hm.with_stream(ROWS, 1, type="i8"))
    yield "stream-type-of-rows", "bad_stream_type", hm.assemble(hm.with_stream(ROWS, 2, type="i8"))
    yield "sizes-one-less", "sizes", put([3], *STREAM, 4)
    yield "sizes-one-more", "sizes", put([5], *STREAM, 4)
    yield "sizes-2-62", "bad_pieces", put([2**62], *STREAM, 4)
    yield "sizes-2-64", "bad_pieces", put([2**64 - 1], *STREAM, 4)
    yield "sizes-data-of-nobody", "sizes", hm.file(hm.cbor.encode(hm.manifest([BYTES])), b"abcdefgh")


def op_files() -> Made:
    """Section 7: parameters and streams that do not suit the tensor; section 5: digests."""
    raw = partial(put, items=(BYTES,))
    for name, value in (
        ("planes-2", {"planes": 2}), ("planes-negative", {"planes": -1}), ("planes-missing", {}),
        ("planes-true", {"planes": True}), ("planes-float", {"planes": 1.0}), ("planes-text", {"planes": "1"}),
        ("planes-2-64", {"planes": 2**64 - 1}), ("more", {"planes": 1, "more": 0}),
    ):  # fmt: skip
        yield f"raw-{name}", "bad_parameters", raw(value, *STEP, 1)
    large = hm.raw_tensor("w", "U8", (65537,), bytes(65537), 0, hm.zstd_stream)
    yield "raw-planes-0-of-65537-bytes", "bad_parameters", hm.assemble(large)
    good = dict(RANS.parameters)
    for name, parameters in {
        "steps-none": {"steps": b""}, "steps-of-5-bytes": {"steps": bytes(5)},
        "steps-257": {"steps": struct.pack("<f", 1.0) * 257}, "steps-nan": {"steps": struct.pack("<f", float("nan"))},
        "steps-infinite": {"steps": struct.pack("<f", float("inf"))}, "steps-zero": {"steps": bytes(4)},
        "steps-minus-zero": {"steps": struct.pack("<f", -0.0)}, "steps-negative": {"steps": struct.pack("<f", -1.0)},
        "steps-number": {"steps": 1.0}, "offset-minus-1": {"offset": struct.pack("<f", -1.0)},
        "offset-nan": {"offset": struct.pack("<f", float("nan"))}, "offset-of-8-bytes": {"offset": bytes(8)},
        "offset-infinite": {"offset": struct.pack("<f", float("inf"))}, "offset-number": {"offset": 0},
        "low-9": {"low": 9}, "low-negative": {"low": -1}, "low-true": {"low": True}, "low-text": {"low": ""},
        "more": {"more": 1},
    }.items():  # fmt: skip
        yield f"uniform-{name}", "bad_parameters", put(good | parameters, *STEP, 1, items=(RANS,))
    less = {k: v for k, v in good.items() if k != "offset"}
    yield "uniform-offset-missing", "bad_parameters", put(less, *STEP, 1, items=(RANS,))
    for dtype in ("I32", "F8_E4M3", "C64", "BOOL"):
        yield f"uniform-of-{dtype.lower()}", "bad_parameters", put(dtype, *T, 1, items=(RANS,))
    scalar = hm.uniform_tensor("w", "F32", np.array(3), [1.0])
    two = struct.pack("<2f", 1.0, 2.0)
    rows = hm.raw_stream(np.zeros(1, np.int64))
    no_rows = replace(scalar, parameters=scalar.parameters | {"steps": two}, streams=(*scalar.streams, rows))
    yield "uniform-rows-of-a-scalar", "bad_parameters", hm.assemble(no_rows)
    empty = hm.uniform_tensor("w", "F32", np.zeros((3, 0), np.int64), [1.0, 2.0], rows=[0, 1, 0])
    yield "uniform-rows-without-words", "bad_parameters", hm.assemble(empty)
    many = 2**24 + 1
    pieces = (hm.prelude([hm.Table()], 1), *(hm.rans_chunk([], hm.Table(), 1),) * 17)
    zeros = hm.Stream("rans", "u8", many, pieces, 2**20)
    tall = hm.Tensor("w", "F16", (many,), b"", "uniform", {"steps": two, "offset": bytes(4), "low": 0}, (zeros, zeros))
    yield "uniform-rows-over-2-24", "bad_parameters", hm.assemble(tall)

    yield "raw-no-streams", "bad_streams", hm.assemble(replace(BYTES, streams=()))
    yield "raw-two-streams", "bad_streams", hm.assemble(replace(BYTES, streams=BYTES.streams * 2))
    yield "raw-too-few-symbols", "bad_streams", put([5], *T, 2)
    yield "raw-too-many-symbols", "bad_streams", put([3], *T, 2)
    yield "raw-words-of-c64", "bad_streams", hm.assemble(replace(ZSTD, dtype="C64"))
    yield "uniform-low-parts-missing", "bad_streams", hm.assemble(replace(ROWS, streams=ROWS.streams[::2]))
    yield "uniform-rows-missing", "bad_streams", hm.assemble(replace(ROWS, streams=ROWS.streams[:2]))
    yield (
        "uniform-rows-too-few",
        "bad_streams",
        hm.assemble(replace(ROWS, streams=(*ROWS.streams[:2], hm.raw_stream(np.zeros(2, np.int64))))),
    )
    yield "uniform-stream-too-many", "bad_streams", hm.assemble(replace(RANS, streams=RANS.streams * 2))

    yield "digest-zero", "digest", put(bytes(8), *T, 3)
    yield "digest-of-other-data", "digest", hm.assemble(replace(BYTES, decoded=b"abce"))
    yield "digest-of-nothing", "digest", hm.assemble(replace(hm.raw_tensor("w", "U8", (0,), b""), decoded=b"x"))
    yield (
        "digest-of-minus-zero",
        "digest",
        hm.assemble(replace(RANS, decoded=RANS.decoded.replace(bytes(4), b"\0\0\0\x80", 1))),
    )
    flipped = GOOD[:-1] + bytes([GOOD[-1] ^ 128])
    yield "piece-flipped", "chunk_checksum", flipped
    yield "checksum-flipped", "chunk_checksum", put(bytes(4), *STREAM, 5)
    swapped = hm.raw_tensor("w", "U16", (3,), b"abcdef", 2)
    data = bytearray(hm.assemble(swapped))
    data[-6:] = data[-3:] + data[-6:-3]
    yield "pieces-swapped", "chunk_checksum", bytes(data)


def stream_files() -> Made:
    """Section 6."""
    head, chunk = RANS.streams[0].pieces

    def prelude(data: bytes) -> bytes:
        return hm.assemble(hm.with_piece(RANS, 0, 0, data))

    def body(data: bytes, tensor: hm.Tensor = RANS, piece: int = 1) -> bytes:
        return hm.assemble(hm.with_piece(tensor, 0, piece, data))

    def table(**fields: Any) -> bytes:
        return prelude(hm.prelude([replace(TABLE, **fields)], 2))

    def bits(*numbers: tuple[int, int], ones: int = 0) -> bytes:
        written = hm.Bits()
        for value, width in numbers:
            written.number(value, width)
        written.bits += [1] * ones
        return prelude(b"\1\1" + written.pack() + bytes(8 if not ones else 0))

    yield "prelude-empty", "stream_table", prelude(b"")
    yield "prelude-of-1-byte", "stream_table", prelude(head[:1])
    yield "prelude-64-lanes", "stream_table", prelude(b"\6" + head[1:])
    yield "prelude-255-lanes", "stream_table", prelude(b"\xff" + head[1:])
    yield "prelude-no-tables", "stream_table", prelude(head[:1] + b"\0" + head[2:])
    yield "prelude-table-missing", "stream_table", prelude(head[:1] + b"\2" + head[2:])
    yield "prelude-cut", "stream_table", prelude(head[:-1])
    yield "prelude-followed", "stream_table", prelude(head + b"\0")
    padded = hm.Bits()
    TABLE.write(padded)
    yield (
        "prelude-padding",
        "stream_table",
        prelude(head[:-1] + bytes([head[-1] | 1 << (len(padded.bits) - 1) % 8 + 1])),
    )
    yield "table-alphabet-4097", "stream_table", table(alphabet=4097)
    yield "table-mode-outside", "stream_table", table(mode=len(TABLE.codes), codes=(*TABLE.codes, 0), alphabet=6)
    yield "table-lowest-above", "stream_table", table(lowest=2**30 + 1)
    yield "table-lowest-below", "stream_table", table(lowest=-(2**30) - 1)
    yield "table-sum-is-whole", "stream_table", table(precision=8, codes=(0, 64, 64, 0, 0, 0), mode=0)
    yield "table-sum-too-large", "stream_table", table(precision=8, codes=(0, 79, 79, 0, 0, 0), mode=0)
    yield "table-code-negative", "stream_table", table(codes=(0, -1, 0, 0, 0, 0), mode=0)
    yield "table-code-too-large", "stream_table", table(codes=(0, 16 * 6 + 16, 0, 0, 0, 0), mode=0)
    yield (
        "table-rice-too-long",
        "stream_table",
        bits((2, 3), (0, 1), (0, 4), (0, 1), (1, 4), (0, 1), (0, 3), (0, 1), (0, 3), ones=1100),
    )
    yield "table-golomb-too-long", "stream_table", bits((0, 3), ones=300)
    yield "table-golomb-of-alphabet-too-long", "stream_table", bits((0, 3), (0, 1), (0, 4), ones=300)
    yield "table-golomb-of-mode-too-long", "stream_table", bits((0, 3), (0, 1), (0, 4), (0, 1), (3, 4), ones=300)
    yield "table-index-outside", "stream_table", body(b"\1" + chunk[1:])
    yield "table-index-254", "stream_table", body(b"\xfe" + chunk[1:])
    unused = hm.prelude([TABLE, replace(TABLE, lowest=2**30 + 1)], 2)
    yield "table-unused-is-broken", "stream_table", prelude(unused)
    yield "prelude-unused-table-followed", "stream_table", prelude(hm.prelude([TABLE, hm.Table()], 2) + b"\0")
    plain_chunk = b"\xff" + hm.plain(LEVELS, "i8")
    verbatim = hm.with_piece(RANS, 0, 1, plain_chunk)
    yield "prelude-of-verbatim-chunks", "stream_table", hm.assemble(hm.with_piece(verbatim, 0, 0, b"\0\1"))
    yield (
        "prelude-of-verbatim-chunks-followed",
        "stream_table",
        hm.assemble(hm.with_piece(verbatim, 0, 0, head + b"\0")),
    )

    yield "raw-chunk-short", "stream_truncated", body(b"abc", BYTES, 0)
    yield "raw-chunk-empty", "stream_truncated", body(b"", BYTES, 0)
    yield "raw-chunk-of-i16-odd", "stream_truncated", body(bytes(23), ROWS, 0)
    yield "verbatim-short", "stream_truncated", body(plain_chunk[:-1])
    yield "rans-chunk-empty", "stream_truncated", body(b"")
    yield "rans-states-missing", "stream_truncated", body(chunk[:2])
    yield "rans-state-cut", "stream_truncated", body(chunk[:9])
    wordy = hm.uniform_tensor("r", "F32", np.tile(LEVELS, 20), [0.5], kind="i8",
                              coder=partial(hm.rans_stream, tables=[TABLE], lanes=2))  # fmt: skip
    long = wordy.streams[0].pieces[1]
    yield "rans-last-word-missing", "stream_truncated", body(long[:-2], wordy)
    yield "rans-all-words-missing", "stream_truncated", body(long[:10], wordy)

    yield "raw-chunk-long", "stream_trailing", body(b"abcde", BYTES, 0)
    yield "raw-chunk-of-i16-followed", "stream_trailing", body(ROWS.streams[0].pieces[0] + b"\0", ROWS, 0)
    yield "verbatim-long", "stream_trailing", body(plain_chunk + b"\0")
    yield "rans-word-more", "stream_trailing", body(chunk + b"\0\0")
    yield "rans-odd-byte", "stream_trailing", body(chunk + b"\0")
    yield "rans-unused-lane", "stream_trailing", hm.assemble(
        hm.Tensor("r", "F32", (1,), bytes(4), "uniform", RANS.parameters, (
            hm.Stream("rans", "i8", 1, (hm.prelude([hm.Table()], 2), b"\0\0" + struct.pack("<2I", 65536, 65537))),
        ))
    )  # fmt: skip
    constant = hm.Table(0, (0,), 8)
    single = hm.uniform_tensor("r", "F32", np.zeros(4, np.int64), [0.5], kind="i8",
                               coder=partial(hm.rans_stream, tables=[constant]))  # fmt: skip
    yield "rans-final-state", "stream_trailing", body(b"\0\0" + struct.pack("<I", 65537), single)
    yield "rans-final-state-largest", "stream_trailing", body(b"\0\0" + struct.pack("<I", 2**32 - 1), single)

    states = chunk[2:]
    varint = hm.varint
    for name, patches in {
        "more-than-symbols": varint(13) + b"\0\0" * 13, "count-2-63": varint(2**63), "count-cut": b"\x80",
        "outside": varint(1) + varint(12) + b"\0", "second-outside": varint(2) + varint(11) + b"\0" + b"\0\0",
        "far-outside": varint(1) + varint(2**64 - 1) + b"\0", "value-2-32": varint(1) + b"\0" + varint(2**32),
        "varint-not-shortest": b"\x81\x00" + b"\0\0", "zero-not-shortest": b"\x80\x00",
        "varint-of-11": b"\x80" * 10 + b"\1", "varint-2-64": b"\x80" * 9 + b"\2",
        "value-not-shortest": varint(1) + b"\0" + b"\x82\x00", "skip-2-64": varint(1) + b"\xff" * 9 + b"\2" + b"\0",
    }.items():  # fmt: skip
        yield f"patch-{name}", "stream_patch", body(b"\0" + patches + (b"" if name == "count-cut" else states))
    yield "patch-list-cut", "stream_patch", body(b"\0\2\0")
    yield "patch-value-cut", "stream_patch", body(b"\0\1\0\x80")
    yield "patch-list-missing", "stream_patch", body(b"\0")

    yield "state-too-small", "stream_range", body(b"\0\0" + struct.pack("<I", 65535), single)
    yield "state-zero", "stream_range", body(b"\0\0" + bytes(4), single)
    yield "state-of-last-lane-too-small", "stream_range", body(chunk[:6] + struct.pack("<I", 65535) + chunk[10:])
    for kind, value in (("u8", 256), ("u8", -1), ("i8", 128), ("i8", -129), ("i16", 32768), ("i16", -32769)):
        at = hm.Table(value, (0,), 8)
        stream = hm.rans_stream(np.full(3, value), kind, [at])
        tensor = hm.Tensor("r", "F32", (3,), bytes(12), "uniform", RANS.parameters, (stream,))
        yield f"value-{value}-in-{kind}", "stream_range", hm.assemble(tensor)
    patched = hm.rans_chunk([0] * 4, constant, 1, 0, {3: 128})
    yield "patch-128-in-i8", "stream_range", body(patched, single)
    ends = hm.uniform_tensor("u", "F32", np.arange(4), [1.0], low=2)

    def parts(stream: int, values: list[int], kind: str) -> bytes:
        return hm.assemble(hm.with_piece(ends, stream, 0, hm.plain(np.array(values), kind)))

    yield "low-part-4-of-2-bits", "stream_range", parts(1, [0, 1, 4, 3], "u8")
    yield "low-part-255", "stream_range", parts(1, [0, 1, 2, 255], "u8")
    yield "high-part-too-large", "stream_range", parts(0, [0, 0, 0, 2**29], "i32")
    yield "high-part-too-small", "stream_range", parts(0, [0, 0, 0, -(2**29)], "i32")
    yield "high-part-least", "stream_range", parts(0, [-(2**31), 0, 0, 0], "i32")
    for row, value in ((0, 2), (2, 255)):
        numbers = [0, 1, 0]
        numbers[row] = value
        wrong = hm.with_piece(ROWS, 2, 0, bytes(numbers))
        yield f"row-{row}-of-step-{value}", "stream_range", hm.assemble(wrong)

    frame = ZSTD.streams[0].pieces[0]

    def zstd(data: bytes) -> bytes:
        return hm.assemble(hm.with_piece(ZSTD, 0, 0, data))

    from backports.zstd import CompressionParameter, ZstdDict, compress

    bomb = compress(bytes(16 * 2**20), 19)
    window = compress(bytes(range(50)), options={CompressionParameter.content_size_flag: 0})
    for name, data in {
        "garbage": b"not a zstd frame", "empty": b"", "cut": frame[:-1], "followed": frame + b"\0", "twice": frame * 2,
        "skippable-frame": b"\x50\x2a\x4d\x18\x04\0\0\0abcd", "skippable-first": b"\x50\x2a\x4d\x18\0\0\0\0" + frame,
        "too-little": compress(bytes(49)), "too-much": compress(bytes(51)), "bomb": bomb, "magic": b"\x29" + frame[1:],
        "of-nothing": compress(b""), "content-size": b"\x28\xb5\x2f\xfd\xe0" + b"\xff" * 8 + frame[6:],
        "reserved-bit": frame[:4] + bytes([frame[4] | 8]) + frame[5:],
        "checksum": compress(bytes(50), options={CompressionParameter.checksum_flag: 1})[:-1] + b"\0",
        "dictionary": compress(bytes(50), zstd_dict=ZstdDict(b"tersor" * 30 + bytes(range(200)), is_raw=True))[:0]
        + b"\x28\xb5\x2f\xfd\x21\x07" + frame[5:],
        "window-2-23": window[:5] + bytes([(23 - 10) << 3]) + window[6:],
        "window-2-41": window[:5] + bytes([31 << 3]) + window[6:],
    }.items():  # fmt: skip
        yield f"zstd-{name}", "zstd", zstd(data)


def limit_files() -> Made:
    """Files that ask for much and hold little."""
    yield "limit-manifest-claims-2-60", "limit", hm.assemble(BYTES, inflated=2**60)
    yield "limit-manifest-claims-2-64", "limit", hm.assemble(BYTES, inflated=2**64 - 1)
    numbers = hm.cbor.encode({"needs": [], "meta": {"n": [0] * (20 << 20)}, "tensors": []})
    yield "limit-manifest-of-20-million-numbers", "limit", hm.file(numbers)
    many = hm.assemble(BYTES, meta={"n": [0] * 40_000})
    yield "limit-manifest-of-40-thousand-numbers", "limit", (many, "")
    nested = hm.assemble(BYTES, meta={"n": [[]] * 40_000})
    yield "limit-manifest-of-40-thousand-arrays", "limit", (nested, "")
    zeros = hm.cbor.encode({"needs": [], "meta": {"n": bytes(50 << 20)}, "tensors": []})
    yield "limit-manifest-of-50-megabytes", "limit", hm.file(zeros)
    chunk, table = hm.rans_chunk([], hm.Table(), 1), hm.prelude([hm.Table()], 1)
    much = hm.Stream("rans", "u8", 2**29, (table, *(chunk,) * 512), 2**20)
    bomb = hm.Tensor("zeros", "U8", (2**29,), b"", "raw", {"planes": 1}, (much,))
    yield "limit-512-megabytes-in-a-few-kilobytes", "limit", hm.assemble(bomb)
    part = hm.Stream("rans", "u8", 2**25, (table, *(chunk,) * 32), 2**20)
    parts = [replace(bomb, name=f"w{k}", shape=(2**25,), streams=(part,)) for k in range(17)]
    yield "limit-17-times-32-megabytes", "limit", hm.assemble(*parts)
    # Below, the claim and the stream contradict each other as well, or the reference decoder has no such limit.
    for name, shape, dtype in (
        ("2-62", [2**62], "U8"), ("2-63-times-8", [2**63 - 1], "F64"), ("wraps-to-zero", [2**32, 2**32], "U8"),
        ("wraps-to-four", [2**62, 2**62, 4], "U8"), ("32-times-2-62", [2**62] * 32, "C64"), ("petabyte", [2**50], "U8"),
    ):  # fmt: skip
        claim = changed(lambda root, s=shape, d=dtype: root["tensors"][0].__setitem__(slice(1, 3), [d, s]))
        yield f"limit-shape-{name}", "limit", (claim, "bad_parameters")
    for name, shape in (("empty-but-wide", (2**62, 0)), ("empty-but-wide-behind", (0, 2**40, 2**40))):
        wide = hm.raw_tensor("w", "U8", shape, b"")
        yield f"limit-shape-{name}", "limit", (hm.assemble(wide), "")


def all_files() -> Made:
    """Every malformed file: name, code, bytes."""
    for group in (
        header_files,
        encoding_files,
        schema_files,
        op_files,
        stream_files,
        limit_files,
        malformed2d.all_files,
        malformed_adaptive.all_files,
        malformed1.all_files,
        malformed_runs.all_files,
    ):
        yield from group()


def main() -> None:
    """Add the files that are not there yet."""
    FILES.mkdir(exist_ok=True)
    expected: dict[str, Any] = {}
    for name, code, made in all_files():
        data, other = made if isinstance(made, tuple) else (made, code)
        if f"{name}.tsr" in expected:
            raise ValueError(f"two files are called {name}")
        path = FILES / f"{name}.tsr"
        if not path.exists():
            path.write_bytes(data)
        expected[path.name] = [code] if other == code else [code, other or "ok"]
    lines = [f"{json.dumps(name)}: {json.dumps(codes)}" for name, codes in sorted(expected.items())]
    EXPECTED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(len(expected), "files,", len({codes[0] for codes in expected.values()}), "codes")


if __name__ == "__main__":
    main()
