"""Files that break the rules of format 1.1: coder `rans2d`, ops `uniform2d`, `companded` and `trellis`; see make.py."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import handmade as hm
import handmade2d as h2
import numpy as np

LEVELS = np.array([0, 1, -1, 2, 0, 0, 3, -2, 1, 0, 0, -1]).reshape(3, 4)
TABLES = [hm.Table.of(LEVELS, 10, rice=2), hm.Table.of(np.arange(-2, 4), 10, rice=2), hm.Table.of(LEVELS, 10)]
CLASSED = h2.Classed(TABLES, [0, 1, 0], [1, 0, 0, 1], 2)
SCALED = h2.scaled_tensor(
    "w", "F32", LEVELS, [0.5, 0.25], [1.0, 3.0, 2.0], rows=[0, 1, 0], places=[2, 0, 1, 0], kind="i8",
    coder=lambda values, kind, chunk: CLASSED.stream(values, kind, chunk),
)  # fmt: skip
PLAIN = h2.scaled_tensor("w", "F16", LEVELS, [0.5], [1.0], kind="i8")
COMPANDED = h2.scaled_tensor("w", "F16", LEVELS, [0.5], [1.0], op="companded", values=[1.0, 2.5, 5.0], kind="i8")
TRELLIS = h2.scaled_tensor("w", "F16", LEVELS, [0.5], [1.0], op="trellis", kind="i32")
Made = Iterator[tuple[str, str, bytes]]


def prelude_files() -> Made:
    """Section 6.4, first piece: every violation is `stream_table`."""
    good = CLASSED.prelude()
    for name, data in (
        ("empty", b""), ("of-1-byte", good[:1]), ("of-2-bytes", good[:2]), ("64-lanes", b"\6" + good[1:]),
        ("cut", good[:-1]), ("tables-0", good[:1] + b"\0" + good[2:]), ("tables-255", good[:1] + b"\xff" + good[2:]),
        ("columns-cut", good[:2] + b"\x80"), ("row-bytes-missing", good[:3]), ("tables-missing", good[:4]),
        ("classes-missing", good[: len(good) - good[3] - 6]),
        ("followed-by-word", good + b"\0\0"), ("followed", good + b"\0"),
    ):  # fmt: skip
        yield name, "stream_table", hm.assemble(hm.with_piece(SCALED, 0, 0, data))
    zero, one = hm.Table(0, (0,), 10), hm.Table(1, (0,), 10)
    wide = [hm.Table(-2, (1, 1, 1, 1, 1, 1), 10, mode=2, rice=4)]
    for name, changed in {
        "tables-65": replace(CLASSED, tables=wide * 65),
        "tables-one-more-claimed": replace(CLASSED, table_count=4),
        "tables-one-less-claimed": replace(CLASSED, table_count=2),
        "columns-0": replace(CLASSED, column_count=hm.varint(0)),
        "columns-more-than-symbols": replace(CLASSED, column_count=hm.varint(13)),
        "columns-2-24": replace(CLASSED, column_count=hm.varint(2**24)),
        "columns-over-2-24": replace(CLASSED, column_count=hm.varint(2**24 + 1)),
        "columns-2-64": replace(CLASSED, column_count=hm.varint(2**64 - 1)),
        "columns-beyond-64-bits": replace(CLASSED, column_count=b"\xff" * 9 + b"\2"),
        "columns-not-shortest": replace(CLASSED, column_count=b"\x84\0"),
        "columns-one-less": replace(CLASSED, column_count=hm.varint(3)),
        "columns-one-more": replace(CLASSED, column_count=hm.varint(5)),
        "row-bytes-beyond-the-end": replace(CLASSED, row_bytes=hm.varint(200)),
        "row-bytes-2-64": replace(CLASSED, row_bytes=hm.varint(2**64 - 1)),
        "row-bytes-not-shortest": replace(CLASSED, row_bytes=hm.varint(good[3] | 128)[:1] + b"\0"),
        "row-bytes-one-less": replace(CLASSED, row_bytes=hm.varint(good[3] - 1)),
        "row-bytes-one-more": replace(CLASSED, row_bytes=hm.varint(good[3] + 1)),
        "row-bytes-none": replace(CLASSED, row_bytes=hm.varint(0)),
        "row-bytes-all": replace(CLASSED, row_bytes=hm.varint(good[3] + 5)),
        "precisions-differ": replace(CLASSED, tables=[*TABLES[:2], replace(zero, precision=11)]),
        "precisions-differ-in-the-first": replace(CLASSED, tables=[replace(zero, precision=9), *TABLES[1:]]),
        "precision-14": replace(CLASSED, tables=[hm.Table.of(LEVELS, 14, rice=2)] * 3),
        "precision-15": replace(CLASSED, tables=[hm.Table.of(LEVELS, 15, rice=2)] * 3),
        "precision-14-of-one-table": replace(CLASSED, tables=[hm.Table.of(LEVELS, 14)], rows=[0] * 3, columns=[0] * 4),
        "table-broken": replace(CLASSED, tables=[*TABLES[:2], hm.Table(0, (0, 79, 79), 8)]),
        "padding": replace(CLASSED, padding=1),
        "class-sum-too-large": replace(CLASSED, tables=[*TABLES[:2]], rows=[0, 1, 0], columns=[1, 0, 0, 1]),
        "class-sum-too-large-elsewhere": replace(CLASSED, tables=[*TABLES], rows=[0, 2, 0], columns=[0, 0, 0, 1]),
        "class-of-a-row-too-large": replace(CLASSED, rows=[0, 3, 0], columns=[0] * 4),
        "class-of-a-column-too-large": replace(CLASSED, rows=[0] * 3, columns=[0, 3, 0, 0]),
        "class-256": replace(CLASSED, rows=[0, 256, 0], row_table=zero),
        "class-255": replace(CLASSED, columns=[0, 255, 0, 0], column_table=zero),
        "class-negative": replace(CLASSED, rows=[0, 1, 2], columns=[0, -1, 0, 0], column_table=zero),
        "class-minus-2-31": replace(CLASSED, rows=[0, -(2**31), 0], row_table=one),
    }.items():
        yield name, "stream_table", hm.assemble(hm.with_piece(SCALED, 0, 0, changed.prelude()))
    for name, side in {
        "classes-empty": b"", "classes-patches-cut": b"\1",
        "classes-patch-outside": b"\1\4\0" + struct.pack("<I", 1 << 16),
        "classes-too-many-patches": b"\5" + b"\0\0" * 5 + struct.pack("<I", 1 << 16), "classes-state-cut": b"\0\0\0\1",
        "classes-state-too-small": b"\0" + struct.pack("<I", 65535),
        "classes-state-not-final": b"\0" + struct.pack("<I", 65537),
        "classes-odd-byte": b"\0" + struct.pack("<I", 1 << 16) + b"\0",
        "classes-word-left": b"\0" + struct.pack("<IH", 1 << 16, 0),
    }.items():  # fmt: skip
        bits = hm.Bits()
        for table in (*TABLES, zero, zero):
            table.write(bits)
        fine = b"\0" + struct.pack("<I", 1 << 16)
        for where, rows, columns in (("row", side, fine), ("column", fine, side)):
            data = bytes([1, 3, 4, len(rows)]) + bits.pack() + rows + columns
            yield f"{where}-{name}", "stream_table", hm.assemble(hm.with_piece(SCALED, 0, 0, data))
    broken, fine = hm.Table(0, (0, 79, 79), 8), b"\0" + struct.pack("<I", 1 << 16)
    for name, sides in (("row", (broken, zero)), ("column", (zero, broken))):
        bits = hm.Bits()
        for table in (*TABLES, *sides):
            table.write(bits)
        data = bytes([1, 3, 4, len(fine)]) + bits.pack() + fine + fine
        yield f"{name}-classes-table-broken", "stream_table", hm.assemble(hm.with_piece(SCALED, 0, 0, data))
    many = 2**24 + 1
    one_column = bytes([0, 1]) + hm.varint(1) + hm.varint(5) + good[4:]
    pieces = (one_column, *(b"\0\0" + struct.pack("<I", 1 << 16),) * 17)
    zeros = hm.Stream("rans2d", "u8", many, pieces, 2**20)
    parameters = {"steps": struct.pack("<f", 1), "offset": bytes(4), "low": 0}
    yield (
        "rows-over-2-24",
        "stream_table",
        hm.assemble(hm.Tensor("w", "F16", (many,), b"", "uniform", parameters, (zeros,))),
    )


def chunk_files() -> Made:
    """Section 6.4, chunks."""
    good = SCALED.streams[0].pieces[1]
    plain = b"\xff" + hm.plain(LEVELS, "i8")
    for name, code, data in (
        ("byte-0-of-1", "stream_table", b"\1" + good[1:]), ("byte-0-of-2", "stream_table", b"\2" + good[1:]),
        ("byte-0-of-254", "stream_table", b"\xfe" + good[1:]), ("empty", "stream_truncated", b""),
        ("only-byte-0", "stream_patch", good[:1]), ("states-missing", "stream_truncated", good[:2]),
        ("state-cut", "stream_truncated", good[:9]),
        ("state-too-small", "stream_range", good[:4] + bytes(2) + good[6:]),
        ("odd-byte", "stream_trailing", good + b"\0"), ("word-left", "stream_trailing", good + b"\0\0"),
        ("state-not-final", "stream_trailing", good[:2] + bytes([good[2] ^ 1]) + good[3:]),
        ("verbatim-short", "stream_truncated", plain[:-1]), ("verbatim-long", "stream_trailing", plain + b"\0"),
        ("too-many-patches", "stream_patch", b"\0\x0d" + b"\0\0" * 13 + good[2:]),
        ("patch-outside", "stream_patch", b"\0\1\x0c\0" + good[2:]),
        ("patch-too-large-for-the-type", "stream_range", b"\0\1\2" + hm.varint(hm.zigzag(128)) + good[2:]),
    ):  # fmt: skip
        yield f"chunk-{name}", code, hm.assemble(hm.with_piece(SCALED, 0, 1, data))
    pair = np.array([127, 128])
    narrow = h2.Classed([hm.Table.of(pair)], [0], [0, 0], 1).stream(pair, "i16")
    outside = replace(PLAIN, shape=(1, 2), streams=(replace(narrow, type="i8"),))
    yield "chunk-value-outside-the-type", "stream_range", hm.assemble(outside)
    wordy = h2.Classed([hm.Table.of(np.arange(2))], [0], [0] * 60, 1)
    tensor = h2.scaled_tensor("w", "F32", np.ones((1, 60), np.int64), [1.0], [1.0], kind="i8",
                              coder=lambda values, kind, chunk: wordy.stream(values, kind, chunk))  # fmt: skip
    whole = tensor.streams[0].pieces[1]
    yield "chunk-last-word-missing", "stream_truncated", hm.assemble(hm.with_piece(tensor, 0, 1, whole[:-2]))
    yield "chunk-all-words-missing", "stream_truncated", hm.assemble(hm.with_piece(tensor, 0, 1, whole[:6]))
    yield "pieces-without-prelude", "bad_pieces", hm.assemble(hm.with_stream(SCALED, 0, pieces=(good,)))
    long = hm.with_stream(SCALED, 0, sizes=(2**21 + 1, len(good)))
    yield "pieces-prelude-claims-over-2-21", "bad_pieces", hm.assemble(long)
    swapped = hm.with_stream(SCALED, 0, coder="rans")
    yield "prelude-read-as-rans", "stream_table", hm.assemble(swapped)


def op_files() -> Made:
    """Sections 7.3 to 7.5."""
    one, nan, infinity = (struct.pack("<f", x) for x in (1.0, float("nan"), float("inf")))
    palette: dict[str, Any] = {
        "none": b"", "of-5-bytes": bytes(5), "257": one * 257, "nan": nan, "infinite": infinity, "zero": bytes(4),
        "minus-zero": struct.pack("<f", -0.0), "negative": struct.pack("<f", -1.0), "number": 1.0, "text": "abcd",
    }  # fmt: skip
    offsets: dict[str, Any] = {
        "minus-1": struct.pack("<f", -1.0), "nan": nan, "infinite": infinity, "of-8-bytes": bytes(8),
        "number": 0, "none": b"",
    }  # fmt: skip
    values = {name: one * 4097 if name == "257" else value for name, value in palette.items()}
    for tensor, own in ((PLAIN, ("offset", offsets)), (TRELLIS, ("offset", offsets)), (COMPANDED, ("values", values))):
        for key, wrong in (("steps", palette), ("columns", palette), own):
            for name, value in (
                wrong.items() if tensor is PLAIN or key == "values" else [("negative", palette["negative"])]
            ):
                name = "4097" if key == "values" and name == "257" else name
                changed = replace(tensor, parameters={**tensor.parameters, key: value})
                yield f"{tensor.op}-{key}-{name}", "bad_parameters", hm.assemble(changed)
            less = {k: v for k, v in tensor.parameters.items() if k != key}
            yield f"{tensor.op}-{key}-missing", "bad_parameters", hm.assemble(replace(tensor, parameters=less))
        for key, value in (("low", 0), ("more", b"")):
            changed = replace(tensor, parameters={**tensor.parameters, key: value})
            yield f"{tensor.op}-with-{key}", "bad_parameters", hm.assemble(changed)
    both = {**COMPANDED.parameters, "offset": bytes(4)}
    yield "companded-with-offset", "bad_parameters", hm.assemble(replace(COMPANDED, parameters=both))
    yield "uniform2d-with-values", "bad_parameters", hm.assemble(replace(COMPANDED, op="uniform2d"))
    yield "companded-without-values", "bad_parameters", hm.assemble(replace(PLAIN, op="companded"))
    as_uniform = replace(PLAIN, op="uniform", parameters={**PLAIN.parameters, "low": 0})
    yield "uniform-with-columns", "bad_parameters", hm.assemble(as_uniform)
    for dtype in ("I32", "F8_E4M3", "C64", "BOOL", "U16"):
        yield f"uniform2d-of-{dtype.lower()}", "bad_parameters", hm.assemble(replace(PLAIN, dtype=dtype))
    for tensor in (PLAIN, COMPANDED, TRELLIS):
        stream = tensor.streams[0]
        scalar = replace(stream, count=1, pieces=(stream.pieces[0][: len(stream.pieces[0]) // 12],))
        yield f"{tensor.op}-of-a-scalar", "bad_parameters", hm.assemble(replace(tensor, shape=(), streams=(scalar,)))
        empty = replace(stream, count=0, pieces=())
        for name, shape in (("no-rows", (0, 3)), ("empty-rows", (3, 0)), ("nothing", (0,))):
            none = replace(tensor, shape=shape, decoded=b"", streams=(empty,))
            yield f"{tensor.op}-of-{name}", "bad_parameters", hm.assemble(none)
    many = 2**24 + 1
    pieces = (hm.prelude([hm.Table()], 1), *(hm.rans_chunk([], hm.Table(), 1),) * 17)
    zeros = hm.Stream("rans", "u8", many, pieces, 2**20)
    for name, shape in (
        ("rows", (many, 1)),
        ("columns", (1, many)),
        ("columns-of-two-dimensions", (1, 97, many // 97)),
    ):
        wide = replace(PLAIN, shape=shape, decoded=b"", streams=(replace(zeros, count=int(np.prod(shape))),))
        yield f"uniform2d-{name}-over-2-24", "bad_parameters", hm.assemble(wide)
    yield "op-uniform3d", "unknown_op", hm.assemble(replace(PLAIN, op="uniform3d"))
    yield "coder-rans3d", "unknown_coder", hm.assemble(hm.with_stream(SCALED, 0, coder="rans3d"))

    levels, rows, columns = SCALED.streams
    for name, streams in {
        "none": (), "levels-alone": (levels,), "rows-missing": (levels, columns), "columns-missing": (levels, rows),
        "exchanged": (levels, columns, rows), "one-more": (*SCALED.streams, rows),
        "rows-one-less": (levels, hm.raw_stream(np.zeros(2, np.int64)), columns),
        "columns-one-more": (levels, rows, hm.raw_stream(np.zeros(5, np.int64))),
    }.items():  # fmt: skip
        yield f"uniform2d-streams-{name}", "bad_streams", hm.assemble(replace(SCALED, streams=streams))
    yield "uniform2d-rows-of-one-step", "bad_streams", hm.assemble(replace(PLAIN, streams=(*PLAIN.streams, rows)))
    yield "uniform2d-too-few-levels", "bad_streams", hm.assemble(replace(PLAIN, shape=(3, 5)))
    for index, name in ((1, "rows"), (2, "columns")):
        wrong_type = hm.with_stream(SCALED, index, type="i8")
        yield f"uniform2d-stream-type-of-{name}", "bad_stream_type", hm.assemble(wrong_type)
    for op, tensor in (("uniform2d", SCALED), ("trellis", replace(SCALED, op="trellis"))):
        for name, index, numbers in (("row", 1, [0, 2, 0]), ("last-row", 1, [0, 0, 255]), ("column", 2, [0, 0, 3, 0]),
                                     ("last-column", 2, [0, 1, 2, 255])):  # fmt: skip
            changed = hm.with_piece(tensor, index, 0, bytes(numbers))
            yield f"{op}-step-of-a-{name}", "stream_range", hm.assemble(changed)

    def with_level(tensor: hm.Tensor, level: int, place: int, kind: str) -> bytes:
        changed = LEVELS.reshape(-1).copy()
        changed[place] = level
        return hm.assemble(replace(tensor, streams=(hm.raw_stream(changed, kind),)))

    for name, level, place in (
        ("above", 4, 0),
        ("below", -4, 11),
        ("far-above", 2**31 - 1, 5),
        ("far-below", -(2**31), 5),
    ):
        yield f"companded-level-{name}", "stream_range", with_level(COMPANDED, level, place, "i32")
    for name, level, place in (
        ("2-30", 2**30, 0), ("minus-2-30", -(2**30), 3), ("2-31", 2**31 - 1, 2), ("minus-2-31", -(2**31), 2),
        ("2-30-in-an-odd-state", 2**30, 9),
    ):  # fmt: skip
        yield f"trellis-level-{name}", "stream_range", with_level(TRELLIS, level, place, "i32")
    yield "uniform2d-read-as-trellis", "digest", hm.assemble(replace(PLAIN, op="trellis"))
    yield "trellis-read-as-uniform2d", "digest", hm.assemble(replace(TRELLIS, op="uniform2d"))


def all_files() -> Made:
    """Name, code, bytes."""
    for prefix, group in (("rans2d-prelude-", prelude_files), ("rans2d-", chunk_files), ("", op_files)):
        for name, code, data in group():
            yield prefix + name, code, data
