"""Files that break the rules of format 1.3: coder `runs` (spec/FORMAT.md, section 6.7); see make.py."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import handmade as hm
import handmade_runs as hr
import numpy as np

LEVELS = np.array([0, 0, 0, 0, 0, 3, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 2])
TOKENS, PARTS = [0, 3, -1, 0, 0, 1, 0, 2], [1, 0, 2, 1]
TABLE = hm.Table.of(np.arange(-3, 4), 10, rice=2)
RUNS = hr.Runs(TABLE, 2, 2)
Made = Iterator[tuple[str, str, bytes]]


def _tensor(runs: hr.Runs, levels: hm.Values, kind: str) -> hm.Tensor:
    return hm.uniform_tensor("w", "F32", levels, [0.5], kind=kind, coder=runs.stream)


GOOD = _tensor(RUNS, LEVELS, "i8")


def prelude_files() -> Made:
    """First piece: every violation is `stream_table`."""
    good, two = RUNS.prelude(), hm.prelude([TABLE, TABLE], 2)
    for name, data in (
        ("empty", b""), ("of-1-byte", good[:1]), ("of-2-bytes", good[:2]), ("64-lanes", b"\6" + good[1:]),
        ("bits-0", good[:1] + b"\0" + good[2:]), ("bits-16", good[:1] + b"\x10" + good[2:]),
        ("bits-255", good[:1] + b"\xff" + good[2:]), ("cut", good[:-1]), ("followed", good + b"\0"),
        ("two-tables", two), ("table-broken", replace(RUNS, table=hm.Table(0, (0, 79, 79), 8)).prelude()),
        ("padding", good[:-1] + bytes([good[-1] | 128])),
    ):  # fmt: skip
        yield name, "stream_table", hm.assemble(hm.with_piece(GOOD, 0, 0, data), minor=3)


def chunk_files() -> Made:
    """The only chunk."""
    assert RUNS.tokens(LEVELS.tolist()) == (TOKENS, PARTS)
    parts, body = RUNS.parts(PARTS), RUNS.body(TOKENS)
    four = b"\4" + parts
    for name, code, data in (
        ("empty", "stream_truncated", b""), ("levels-cut", "stream_truncated", b"\x84"),
        ("levels-long", "stream_truncated", b"\x84\0" + parts + body),
        ("levels-25", "stream_range", b"\x19" + bytes(7) + body),
        ("levels-2-63", "stream_range", hm.varint(2**63) + parts + body),
        ("parts-cut", "stream_truncated", b"\4"), ("nothing-behind-parts", "stream_truncated", four),
        ("four-bytes-behind-parts", "stream_truncated", four + body[:4]),
        ("states-cut", "stream_truncated", four + body[:8]),
        ("state-too-small", "stream_range", four + body[:3] + bytes(2) + body[5:]),
        ("odd-byte", "stream_trailing", four + body + b"\0"), ("word-left", "stream_trailing", four + body + b"\0\0"),
        ("padding-of-parts", "stream_trailing", b"\3" + RUNS.parts([*PARTS[:3], 1]) + RUNS.body(TOKENS[:-1])),
        ("runs-too-long", "stream_range", b"\x15" + RUNS.parts([1, 1, 2] + [0] * 18) + body),
        ("one-level-more", "stream_trailing", four + RUNS.body([0, 3, -1, 0, 0, 1, 1, 2])),
        ("one-level-less", "stream_trailing", four + RUNS.body([0, 3, -1, 0, 0, 1, 0, 0])),
        ("no-levels", "stream_trailing", four + RUNS.body([0] * 8)),
        ("one-token-more", "stream_trailing", four + RUNS.body([*TOKENS, 0])),
        ("level-patched-to-zero", "stream_trailing", four + RUNS.body(TOKENS, {1: 0})),
        ("zero-patched-to-a-level", "stream_trailing", four + RUNS.body(TOKENS, {0: 1})),
        ("too-many-patches", "stream_patch", four + b"\x09" + b"\0\0" * 9 + body[1:]),
        ("patch-outside", "stream_patch", four + b"\1\x08\0" + body[1:]),
        ("patch-too-large-for-the-type", "stream_range", four + RUNS.body(TOKENS, {1: 128})),
    ):  # fmt: skip
        yield f"chunk-{name}", code, hm.assemble(hm.with_piece(GOOD, 0, 1, data), minor=3)
    far = hr.Runs(hm.Table(-1, (40, 40, 40), 8, mode=1, rice=3), 1)
    tensor = _tensor(far, np.array([0, 0, 1, 0, -1]), "u8")
    yield "chunk-negative-u8", "stream_range", hm.assemble(tensor, minor=3)
    yield (
        "pieces-without-prelude",
        "bad_pieces",
        hm.assemble(hm.with_stream(GOOD, 0, pieces=GOOD.streams[0].pieces[1:]), minor=3),
    )


def all_files() -> Made:
    """Name, code, bytes."""
    for group in (prelude_files, chunk_files):
        for name, code, data in group():
            yield f"runs-{name}", code, data
