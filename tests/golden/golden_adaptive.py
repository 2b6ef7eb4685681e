"""What the golden files for coder `adaptive` hold; see make.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import handmade as hm
import handmade2d as h2
import numpy as np

from tersor import _core

Items = Iterator[tuple[str, Callable[[], list[hm.Item]]]]
EXTREMES = [-(2**31), 2**31 - 1, 0, -1, 1, 4095, -4095, 4096, 2**30, -(2**30), 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13]


def stream(values: hm.Values, kind: str, chunk: int, columns: int, period: int = 0, centre: int = 0) -> hm.Stream:
    """A stream of coder `adaptive`, by the native encoder."""
    if values.size == 0:
        return hm.Stream("adaptive", kind, 0, (), chunk)
    head = b"".join(map(hm.varint, (columns, period, 2 * centre if centre >= 0 else -2 * centre - 1)))
    prelude = np.frombuffer(head, np.uint8)
    flat = values.reshape(-1).astype(np.int32)
    parts = (_core.encode_adaptive(flat[at : at + chunk], prelude, at) for at in range(0, flat.size, chunk))
    return hm.Stream("adaptive", kind, flat.size, (head, *parts), chunk)


def tensor(shape: tuple[int, ...], spread: float, seed: int, *, kind: str = "i32", dtype: str = "F32",
           op: str = "uniform2d", values: hm.Values | None = None, **layout: int) -> list[hm.Item]:  # fmt: skip
    """Levels as trained weights give them, with one step for all."""
    if values is None:
        values = np.rint(np.random.default_rng(seed).standard_normal(shape) * spread).astype(np.int64)
    layout = {"columns": int(np.prod(shape[1:])), **layout}

    def coder(levels: hm.Values, kind: str, chunk: int) -> hm.Stream:
        return stream(levels, kind, chunk, **layout)

    listed = np.arange(1.0, 40.0) ** 1.25 if op == "companded" else ()
    return [
        h2.scaled_tensor("w", dtype, values.reshape(shape), [0.5], [1.0], op=op, values=listed, kind=kind, coder=coder)
    ]


def items() -> Items:
    """Types, dtypes, ops, layouts, spreads, counts, extremes, several chunks."""
    for kind in ("i8", "i16", "i32"):
        yield f"adaptive-{kind}", partial(tensor, (30, 20), 3.0, 1, kind=kind)
    for dtype in ("F16", "BF16", "F64"):
        yield f"adaptive-{dtype.lower()}", partial(tensor, (20, 30), 2.0, 2, dtype=dtype)
    for op in ("companded", "trellis"):
        yield f"adaptive-{op}", partial(tensor, (24, 25), 2.0, 3, op=op)
    for columns, period, centre in ((1, 0, 0), (7, 3, 0), (90, 9, 0), (65536, 4096, 0), (16, 0, 9), (16, 5, -300)):
        yield (
            f"adaptive-columns{columns}-period{period}-centre{centre}",
            partial(tensor, (18, 40), 1.5, 4, columns=columns, period=period, centre=centre),
        )
    for spread in (0.05, 0.5, 60.0, 1e5, 5e8):
        yield f"adaptive-spread-{spread:g}", partial(tensor, (25, 24), spread, 5)
    for count in (1, 2, 33):
        yield f"adaptive-count{count}", partial(tensor, (1, count), 2.0, 6)
    extremes = np.array(EXTREMES * 3)
    yield "adaptive-extremes", partial(tensor, (3, len(EXTREMES)), 0.0, 7, values=extremes)
    yield "adaptive-u8-planes", _planes
    sparse = np.zeros(hm.LEAF + 300, np.int64)
    sparse[::997] = 1
    yield "adaptive-two-chunks", partial(tensor, (sparse.size // 4, 4), 0.0, 8, values=sparse)


def _planes() -> list[hm.Item]:
    """Byte planes, by op `raw`."""
    data = np.random.default_rng(9).standard_normal(400).astype("<f4").tobytes()
    return [hm.raw_tensor("w", "F32", (20, 20), data, 4, lambda values, kind: stream(values, kind, hm.LEAF, 20))]
