"""What the golden files for format 1.2 hold: coder `rans1`; see make.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import handmade as hm
import handmade1 as h1
import handmade2d as h2
import numpy as np

Items = Iterator[tuple[str, Callable[[], list[hm.Item]]]]


def tensor(
    name: str, contexts: h1.Contexts, levels: hm.Values, *, kind: str = "i16", dtype: str = "F32",
    chunk: int = hm.LEAF, verbatim: Sequence[int] = (),
) -> hm.Tensor:  # fmt: skip
    """Levels with one step for all."""

    def coder(values: hm.Values, kind: str, chunk: int) -> hm.Stream:
        return contexts.stream(values, kind, chunk, verbatim)

    shape = levels.shape if levels.ndim > 1 else (1, levels.size)
    return h2.scaled_tensor(name, dtype, levels.reshape(shape), [0.5], [1.0], kind=kind, coder=coder, chunk=chunk)


def items() -> Items:
    """Lanes, precisions, tables, blocks, chunks, patches, types."""
    for lanes in (1, 2, 4, 8, 16, 32):
        for precision in range(8, 14):
            yield f"rans1-lanes{lanes}-precision{precision}", partial(_lanes, lanes, precision)
    for count in (1, 2, 64):
        yield f"rans1-tables{count}", partial(_tables, count)
    for precision, span in ((12, 250), (12, 260), (13, 60), (13, 70)):
        yield f"rans1-precision{precision}-span{span}", partial(_span, precision, span)
    yield "rans1-certain", _certain
    yield "rans1-never-negative", _positive
    yield "rans1-far-from-zero", _far
    yield "rans1-patches", _patches
    for kind in hm.TYPES:
        yield f"rans1-{kind}", partial(_kind, kind)
    yield "rans1-chunks", _chunks
    yield "rans1-uniform", _uniform


def _lanes(lanes: int, precision: int) -> list[hm.Item]:
    """Fewer symbols than lanes, as many, a few more; around the block."""
    contexts = h1.Contexts(h1.by_size(4, precision), lanes)
    counts = {1, lanes - 1, lanes, lanes + 1, 3 * lanes + lanes // 2, 2047, 2048, 2049, 4096 + lanes + 3}
    if precision not in (8, 12, 13):
        counts = {2048 + 5 * lanes}
    return [tensor(f"{n}", contexts, h1.similar(n, 1.2, n)) for n in sorted(counts) if n > 0]


def _tables(count: int) -> list[hm.Item]:
    contexts = h1.Contexts(h1.by_size(count, 11, reach=70), 8)
    return [tensor("w", contexts, h1.similar(3000, 12.0, count))]


def _span(precision: int, span: int) -> list[hm.Item]:
    """Values that fit 32 bits beside two fields of the precision, or just do not."""
    near, far = h1.by_size(2, precision)
    tables = [near, replace(far, lowest=near.lowest + span - len(far.codes))]
    levels = np.where(np.arange(700) % 3 == 0, 1, tables[1].lowest + 4)
    return [tensor("w", h1.Contexts(tables, 16), levels)]


def _certain() -> list[hm.Item]:
    """Tables of one symbol: no word is ever needed; the sign turns with every step."""
    turning = h1.Contexts([hm.Table(-3, (0,), 13), hm.Table(3, (0,), 13)], 32)
    levels = np.array(np.tile([-3, -3], 1500)).reshape(-1)
    return [tensor("w", turning, levels)]


def _positive() -> list[hm.Item]:
    contexts = h1.Contexts([hm.Table(0, (40, 40, 0, 40), 12, mode=2), hm.Table(0, (9,) * 20, 12)], 4)
    values = np.abs(h1.similar(2500, 2.0, 3)) % 4
    data = values.astype(np.uint8).tobytes()
    return [hm.Tensor("w", "U8", (2500,), data, "raw", {"planes": 1}, (contexts.stream(values, "u8"),))]


def _far() -> list[hm.Item]:
    tables = [hm.Table(-(2**30), (3, 200, 9), 12, 1, rice=4), hm.Table(2**30, (9, 3), 12)]
    levels = np.array([-(2**30) + 1, 2**30, -(2**30), -(2**30) - 1, 5, 2**30] * 60)
    return [tensor("w", h1.Contexts(tables, 2), levels, kind="i32", dtype="F64")]


def _patches() -> list[hm.Item]:
    contexts = h1.Contexts(h1.by_size(5, 12), 32)
    levels = h1.similar(5000, 1.5, 4)
    levels[[0, 1, 63, 64, 2047, 2048, 4095, 4999]] = 9000, -(2**31), 50, -50, 2**31 - 1, 77, -77, -9000
    return [tensor("w", contexts, levels, kind="i32")]


def _kind(kind: str) -> list[hm.Item]:
    low, high = {"u8": (0, 255), "i8": (-128, 127), "i16": (-32768, 32767), "i32": (-(2**31), 2**31 - 1)}[kind]
    contexts = h1.Contexts([replace(t, lowest=max(low, -3)) for t in h1.by_size(3, 12)], 2)
    levels = h1.similar(120, 1.5, 5).clip(max(low, -3), 9)
    levels[[3, 50, 51, 119]] = low, high, low, high
    dtype = "F64" if kind == "i32" else "BF16"
    return [tensor("w", contexts, levels.reshape(4, 30), kind=kind, dtype=dtype)]


def _chunks() -> list[hm.Item]:
    """Lanes, and the level before, start again with every chunk. Sparse, so that the file is small."""
    contexts = h1.Contexts(
        [hm.Table(-1, (1, 1, 1), 12, mode=1, rice=4), hm.Table(-2, (1, 2, 1, 3, 1), 12, mode=2, rice=4)], 4
    )
    levels = np.zeros(3 * 65536 + 77, np.int64)
    levels[::9973] = -1
    levels[[0, 65535, 65536, 131071, levels.size - 1]] = -1, -1, 2, -2, 1
    return [tensor("w", contexts, levels.reshape(-1, 5), dtype="F16", verbatim=(1,), kind="i8")]


def _uniform() -> list[hm.Item]:
    contexts = h1.Contexts(h1.by_size(3, 12), 8)
    levels = h1.similar(2400, 2.0, 6).reshape(12, 200)
    plain = hm.uniform_tensor("plain", "BF16", levels, [0.01], offset=-0.05, kind="i8", coder=contexts.stream)
    low = hm.uniform_tensor("low", "F32", levels * 4 + 3, [0.01, 1.0], rows=[0, 1] * 6, low=2, kind="i8",
                            coder=contexts.stream)  # fmt: skip
    trellis = h2.scaled_tensor("trellis", "F32", levels, [0.5], [1.0], op="trellis", kind="i8", coder=contexts.stream)
    return [plain, low, trellis]
