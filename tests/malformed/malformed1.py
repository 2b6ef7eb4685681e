"""Files that break the rules of format 1.2: coder `rans1` (spec/FORMAT.md, section 6.6); see make.py."""

from __future__ import annotations

from collections.abc import Iterator

import handmade as hm
import handmade1 as h1
import handmade2d as h2
import numpy as np

LEVELS = np.array([0, 1, -1, 2, 0, 0, 3, -2, 1, 0, 0, -1]).reshape(3, 4)
REACH = np.arange(-3, 4)
TABLES = [hm.Table.of(REACH, 10, rice=2), hm.Table.of(REACH, 10), hm.Table.of(np.arange(-3, 3), 10, rice=1)]
CONTEXTS = h1.Contexts(TABLES, 2)
Made = Iterator[tuple[str, str, bytes]]


def _tensor(contexts: h1.Contexts, levels: hm.Values, kind: str) -> hm.Tensor:
    return h2.scaled_tensor(
        "w",
        "F32",
        levels,
        [0.5],
        [1.0],
        kind=kind,
        coder=lambda values, kind, chunk: contexts.stream(values, kind, chunk),
    )


GOOD = _tensor(CONTEXTS, LEVELS, "i8")


def prelude_files() -> Made:
    """First piece: every violation is `stream_table`."""
    good = CONTEXTS.prelude()
    odd = [hm.Table(-2, (1, 1, 1, 1, 1, 1), 10, mode=2, rice=4)]
    for name, data in (
        ("empty", b""), ("of-1-byte", good[:1]), ("of-2-bytes", good[:2]), ("64-lanes", b"\6" + good[1:]),
        ("cut", good[:-1]), ("followed", good + b"\0"), ("tables-0", good[:1] + b"\0" + good[2:]),
        ("tables-255", good[:1] + b"\xff" + good[2:]), ("tables-one-more-claimed", good[:1] + b"\4" + good[2:]),
        ("tables-65", hm.prelude(odd * 65, 2)), ("precision-14", hm.prelude([hm.Table.of(REACH, 14, rice=2)] * 3, 2)),
        ("precision-15-of-one-table", hm.prelude([hm.Table.of(REACH, 15)], 2)),
        ("precisions-differ", hm.prelude([*TABLES[:2], hm.Table.of(REACH, 11)], 2)),
        ("precisions-differ-in-the-first", hm.prelude([hm.Table.of(REACH, 9), *TABLES[1:]], 2)),
        ("table-broken", hm.prelude([*TABLES[:2], hm.Table(0, (0, 79, 79), 8)], 2)),
        ("padding", good[:-1] + bytes([good[-1] | 128])),
    ):  # fmt: skip
        yield name, "stream_table", hm.assemble(hm.with_piece(GOOD, 0, 0, data), minor=2)


def chunk_files() -> Made:
    """The only chunk."""
    good, plain = GOOD.streams[0].pieces[1], b"\xff" + hm.plain(LEVELS, "i8")
    for name, code, data in (
        ("byte-0-of-1", "stream_table", b"\1" + good[1:]), ("byte-0-of-254", "stream_table", b"\xfe" + good[1:]),
        ("empty", "stream_truncated", b""), ("only-byte-0", "stream_patch", good[:1]),
        ("states-missing", "stream_truncated", good[:2]), ("state-cut", "stream_truncated", good[:9]),
        ("state-too-small", "stream_range", good[:4] + bytes(2) + good[6:]),
        ("odd-byte", "stream_trailing", good + b"\0"), ("word-left", "stream_trailing", good + b"\0\0"),
        ("last-word-missing", "stream_truncated", good[:-2]),
        ("verbatim-short", "stream_truncated", plain[:-1]), ("verbatim-long", "stream_trailing", plain + b"\0"),
        ("too-many-patches", "stream_patch", b"\0\x0d" + b"\0\0" * 13 + good[2:]),
        ("patch-outside", "stream_patch", b"\0\1\x0c\0" + good[2:]),
        ("patch-too-large-for-the-type", "stream_range", b"\0\1\2" + hm.varint(hm.zigzag(128)) + good[2:]),
    ):  # fmt: skip
        yield f"chunk-{name}", code, hm.assemble(hm.with_piece(GOOD, 0, 1, data), minor=2)
    near, far = hm.Table.of(np.arange(-4, 5), 10), hm.Table(40000, (0,), 10)
    wide = hm.Table.of(np.array([-128, -1, 1, 128]), 10)
    for name, kind, tables, levels in (
        ("turned-beyond-i8", "i8", [wide], [-1, 128]), ("beyond-i16", "i16", [near, far], [3, 40000]),
        ("negative-u8", "u8", [near], [3, -1]),
    ):  # fmt: skip
        tensor = _tensor(h1.Contexts(tables), np.array([levels]), kind)
        yield f"chunk-{name}", "stream_range", hm.assemble(tensor, minor=2)
    yield "pieces-without-prelude", "bad_pieces", hm.assemble(hm.with_stream(GOOD, 0, pieces=(good,)), minor=2)


def all_files() -> Made:
    """Name, code, bytes."""
    for group in (prelude_files, chunk_files):
        for name, code, data in group():
            yield f"rans1-{name}", code, data
