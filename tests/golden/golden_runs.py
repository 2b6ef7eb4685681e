"""What the golden files for format 1.3 hold: coder `runs`; see make.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import handmade as hm
import handmade_runs as hr
import numpy as np

Items = Iterator[tuple[str, Callable[[], list[hm.Item]]]]


def tensor(name: str, runs: hr.Runs, levels: hm.Values, *, kind: str = "i16", dtype: str = "F32") -> hm.Tensor:
    """Levels with one step for all."""
    return hm.uniform_tensor(name, dtype, levels, [0.5], kind=kind, coder=runs.stream)


def items() -> Items:
    """Lanes, precisions, bits of low parts, ends of chunks, patches, types, planes."""
    for lanes in (1, 2, 4, 8, 16, 32):
        for precision in (8, 12, 15):
            yield f"runs-lanes{lanes}-precision{precision}", partial(_lanes, lanes, precision)
    for bits in range(1, 16):
        yield f"runs-bits{bits}", partial(_bits, bits)
    yield "runs-ends", _ends
    yield "runs-certain", _certain
    yield "runs-dense", _dense
    yield "runs-patches", _patches
    for kind in hm.TYPES:
        yield f"runs-{kind}", partial(_kind, kind)
    yield "runs-chunks", _chunks
    yield "runs-planes", _planes


def _lanes(lanes: int, precision: int) -> list[hm.Item]:
    """Fewer tokens than lanes, more than a block of them."""
    runs = hr.Runs(hr.table(2, 0.15, precision, reach=9), 2, lanes)
    return [tensor(f"{n}", runs, hr.sparse(n, 0.15, n)) for n in (1, 5, 100, 4097, 9000)]


def _bits(bits: int) -> list[hm.Item]:
    share = 0.15 / 2**bits
    runs = hr.Runs(hr.table(bits, share), bits, 2)
    return [tensor("w", runs, hr.sparse(70_000, max(share, 1e-4), bits).reshape(7, -1), kind="i8")]


def _ends() -> list[hm.Item]:
    """Levels at the ends of chunks; exactly as many zeros as a token stands for, one more, one less."""
    runs = hr.Runs(hr.table(3, 0.02), 3)
    found: list[hm.Item] = []
    for zeros in (0, 1, 7, 8, 9, 15, 16, 17, 2047, 2048, 2049):
        for before, behind in ((1, 0), (0, 1), (1, 1), (0, 0)):
            levels = np.array([1] * before + [0] * zeros + [-1] * behind)
            if levels.size:
                found.append(tensor(f"{before} {zeros} {behind}", runs, levels))
    return found


def _certain() -> list[hm.Item]:
    """Tables of one symbol: nothing but zeros, no zeros at all."""
    zeros, ones = hr.Runs(hm.Table(0, (0,), 8), 15, 4), hr.Runs(hm.Table(1, (0,), 8), 1)
    return [
        tensor("zeros", zeros, np.zeros(200_000, np.int64)),
        tensor("few zeros", zeros, np.zeros(5, np.int64)),
        tensor("ones", ones, np.ones(3000, np.int64)),
    ]


def _dense() -> list[hm.Item]:
    """More tokens than zeros, of a wide alphabet."""
    levels = hr.sparse(5000, 0.9, 1, spread=60.0)
    return [tensor("w", hr.Runs(hm.Table.of(levels, 13), 1, 8), levels)]


def _patches() -> list[hm.Item]:
    """Levels, and zeros, that the table lacks."""
    levels = hr.sparse(5000, 0.05, 2)
    levels[[0, 63, 64, 2047, 2048, 4999]] = 9000, -(2**31), 50, 2**31 - 1, -77, -9000
    without = hm.Table(-1, (40, 0, 40), 10, mode=0, rice=2)
    return [
        tensor("levels", hr.Runs(hr.table(4, 0.05), 4, 32), levels, kind="i32", dtype="F64"),
        tensor("zeros", hr.Runs(without, 2), hr.sparse(300, 0.2, 3)),
    ]


def _kind(kind: str) -> list[hm.Item]:
    low, high = {"u8": (0, 255), "i8": (-128, 127), "i16": (-32768, 32767), "i32": (-(2**31), 2**31 - 1)}[kind]
    levels = hr.sparse(120, 0.2, 4).clip(max(low, -3), 3)
    levels[[3, 50, 51, 119]] = low, high, low, high
    runs = hr.Runs(replace(hr.table(2, 0.2), lowest=max(low, -6)), 2, 2)
    return [tensor("w", runs, levels.reshape(4, 30), kind=kind, dtype="F64" if kind == "i32" else "BF16")]


def _chunks() -> list[hm.Item]:
    """A run never reaches into the next chunk."""
    levels = np.zeros(3 * 65536 + 77, np.int64)
    levels[::9973] = -1
    levels[[0, 65535, 65536, 131071, levels.size - 1]] = -1, -1, 2, -2, 1
    return [tensor("w", hr.Runs(hr.table(10, 1e-4), 10), levels.reshape(-1, 5), dtype="F16", kind="i8")]


def _planes() -> list[hm.Item]:
    """Planes of bytes, more than a block."""
    planes = np.abs(hr.sparse(2 * 5000, 0.1, 5)).astype(np.uint8).clip(0, 6)
    runs = hr.Runs(hr.table(3, 0.1), 3, 16)
    return [hm.raw_tensor("w", "U16", (5000,), planes.tobytes(), 2, runs.stream)]
