"""Files that break the rules of coder `adaptive` (spec/ADAPTIVE.md); see make.py."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import handmade as hm
import handmade2d as h2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "golden"))

from golden_adaptive import stream

LEVELS = np.rint(np.random.default_rng(0).standard_normal((12, 10)) * 2).astype(np.int64)
Made = Iterator[tuple[str, str, bytes]]


def _tensor(kind: str = "i8", levels: hm.Values = LEVELS) -> hm.Tensor:
    return h2.scaled_tensor(
        "w", "F32", levels, [0.5], [1.0], kind=kind, coder=lambda values, kind, chunk: stream(values, kind, chunk, 10)
    )


def all_files() -> Made:
    """Name, code, bytes."""
    good = _tensor()
    for name, data in (
        ("empty", b""), ("columns-only", b"\x0a"), ("centre-missing", b"\x0a\0"), ("followed", b"\x0a\0\0\0"),
        ("columns-0", b"\0\0\0"), ("columns-65537", b"\x81\x80\4\0\0"), ("columns-not-shortest", b"\x8a\0\0\0"),
        ("columns-2-64", b"\xff" * 9 + b"\1\0\0"), ("columns-beyond-64-bits", b"\xff" * 9 + b"\2\0\0"),
        ("period-1", b"\x0a\1\0"), ("period-2", b"\x0a\2\0"), ("period-of-a-row", b"\x0a\x0a\0"),
        ("period-4097", b"\x80\x80\4\x81\x20\0"), ("period-2-40", b"\x0a\x80\x80\x80\x80\x80\x20\0"),
        ("centre-33-bits", b"\x0a\0\x80\x80\x80\x80\x10"), ("centre-cut", b"\x0a\0\x80"),
        ("centre-not-shortest", b"\x0a\0\x81\0"),
    ):  # fmt: skip
        yield f"adaptive-prelude-{name}", "stream_table", hm.assemble(hm.with_piece(good, 0, 0, data))
    chunk = good.streams[0].pieces[1]
    for size in (0, 1, 3, 4, len(chunk) // 2, len(chunk) - 1):
        cut = hm.assemble(hm.with_piece(good, 0, 1, chunk[:size]))
        yield f"adaptive-chunk-of-{size}-bytes", "stream_truncated", cut
    for name, data in (("zero", b"\0"), ("byte", chunk[-1:]), ("word", b"\xff" * 4)):
        yield f"adaptive-chunk-and-{name}", "stream_trailing", hm.assemble(hm.with_piece(good, 0, 1, chunk + data))
    last = chunk[:-1] + bytes([chunk[-1] ^ 1])
    yield "adaptive-chunk-of-another-end", "stream_trailing", hm.assemble(hm.with_piece(good, 0, 1, last))
    wide = LEVELS.copy()
    wide[5, 5] = 200
    yield "adaptive-value-outside-i8", "stream_range", hm.assemble(_tensor("i8", wide))
    yield "adaptive-value-outside-i16", "stream_range", hm.assemble(_tensor("i16", wide * 1000))
    yield "limit-adaptive-257-chunks", "limit", hm.assemble(h2.slow_to_decode(257), minor=1)
