"""What the golden files of every op by every coder hold, each with all dtypes it is for; see make.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import golden_adaptive
import handmade as hm
import handmade1 as h1
import handmade2d as h2
import handmade_runs as hr
import numpy as np

Items = Iterator[tuple[str, Callable[[], list[hm.Item]]]]
FLOATS = ("F32", "F16", "BF16", "F64")
SHAPES = ((1,), (6, 7), (2, 1, 3, 1, 2, 1, 1, 3))


def by_level(values: hm.Values, kind: str = "u8", chunk: int = hm.LEAF) -> hm.Stream:
    """Coder `rans1`: two sizes of the level before."""
    if values.size == 0:
        return hm.Stream("rans1", kind, 0, (), chunk)
    both = np.concatenate([values.reshape(-1), -values.reshape(-1)])
    return h1.Contexts([hm.Table.of(both, 10, predictor=k) for k in range(2)], lanes=4).stream(values, kind, chunk)


def by_class(values: hm.Values, kind: str = "u8", chunk: int = hm.LEAF) -> hm.Stream:
    """Coder `rans2d`: five columns, two classes of rows."""
    if values.size == 0:
        return hm.Stream("rans2d", kind, 0, (), chunk)
    columns = min(5, values.size)
    tables = [hm.Table.of(values, 10, predictor=k) for k in range(2)]
    rows = [k % 2 for k in range(-(-values.size // columns))]
    return h2.Classed(tables, rows, [0] * columns, lanes=4).stream(values, kind, chunk)


def by_runs(values: hm.Values, kind: str = "u8", chunk: int = hm.LEAF) -> hm.Stream:
    """Coder `runs`: a table that has zero, too."""
    reach = np.concatenate([values.reshape(-1), [0]])
    return hr.Runs(hm.Table.of(reach, 12), bits=2, lanes=4).stream(values, kind, chunk)


def mixed(values: hm.Values, kind: str = "u8", chunk: int = hm.LEAF) -> hm.Stream:
    """Coder `adaptive`."""
    return golden_adaptive.stream(values, kind, chunk, columns=7, period=3)


CODERS: dict[str, hm.Coder] = {
    "raw": hm.raw_stream, "zstd": hm.zstd_stream, "rans": partial(hm.rans_stream, lanes=2), "rans1": by_level,
    "rans2d": by_class, "adaptive": mixed, "runs": by_runs,
}  # fmt: skip
"""All streams of a tensor by one of them, those of its low parts, rows and columns too."""


def items(*coders: str) -> Items:
    """Every op by these coders."""
    for coder in coders:
        made = CODERS[coder]
        yield f"corner-raw-{coder}", partial(_raw, made)
        yield f"corner-uniform-{coder}", partial(_uniform, made)
        for op in ("uniform2d", "companded", "trellis"):
            yield f"corner-{op}-{coder}", partial(_scaled, op, made)


def _levels(shape: tuple[int, ...], seed: int) -> hm.Values:
    return np.rint(np.random.default_rng(seed).standard_normal(shape) * 5).astype(np.int64)


def _raw(coder: hm.Coder) -> list[hm.Item]:
    found: list[hm.Item] = []
    for seed, (dtype, width) in enumerate(hm.WORDS.items()):
        for planes, shape in ((width, (2, 13)), (0, (9,)), (width, ())):
            count = int(np.prod(shape)) * width * (2 if dtype == "C64" else 1)
            data = np.random.default_rng(seed).integers(0, 2 if dtype == "BOOL" else 3, count, np.uint8).tobytes()
            found.append(hm.raw_tensor(f"{dtype} {shape} {planes}", dtype, shape, data, planes, coder))
    return found


def _uniform(coder: hm.Coder) -> list[hm.Item]:
    found: list[hm.Item] = []
    for seed, dtype in enumerate(FLOATS):
        for shape in ((), (3, 0), *SHAPES):
            for low, steps in ((0, [0.25]), (2, [0.5, 0.125, 3.0] if np.prod(shape) > 0 < len(shape) else [0.5])):
                rows = [k % 3 for k in range(shape[0])] if len(steps) > 1 else ()
                found.append(
                    hm.uniform_tensor(
                        f"{dtype} {shape} {low}", dtype, _levels(shape, seed), steps, rows=rows, offset=-0.0625,
                        low=low, kind="i8", coder=coder, low_coder=coder, row_coder=coder,
                    )
                )  # fmt: skip
    return found


def _scaled(op: str, coder: hm.Coder) -> list[hm.Item]:
    found: list[hm.Item] = []
    settings: dict[str, Any] = {"values": np.arange(1.0, 40.0) ** 1.25} if op == "companded" else {"offset": -0.0625}
    for seed, dtype in enumerate(FLOATS):
        for shape in SHAPES:
            for kind, steps, columns in (("i16", [0.25], [1.0]), ("i8", [0.5, 0.125], [1.0, 3.0, 0.75])):
                places = [k % len(columns) for k in range(int(np.prod(shape[1:])))]
                found.append(
                    h2.scaled_tensor(
                        f"{dtype} {shape} {kind}", dtype, _levels(shape, seed), steps, columns, op=op, kind=kind,
                        rows=[k % len(steps) for k in range(shape[0])], places=places, coder=coder, row_coder=coder,
                        column_coder=coder, **settings,
                    )
                )  # fmt: skip
    return found
