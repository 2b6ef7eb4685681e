"""Makes the golden files: `python tests/golden/make.py`. They are for decoders, for ever.

A file that was released is never made again: this script only adds files (delete one by hand to make it anew). What a
file must decode to comes from the data it was made of, never from a decoder. Files are put together by hand with
tests/handmade.py, from the specification; those called `written-...` by the package's own writer.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import golden1  # noqa: E402
import golden2d  # noqa: E402
import golden_adaptive  # noqa: E402
import golden_corners  # noqa: E402
import golden_runs  # noqa: E402
import handmade as hm  # noqa: E402
import handmade2d as h2  # noqa: E402

FILES = HERE / "files"
EXPECTED = HERE / "expected.json"
Contents = tuple[bytes, dict[str, Any]]  # a file, and name -> [dtype, shape, sha256]

LANES = (1, 2, 4, 8, 16, 32)


def expected(tensors: list[hm.Item]) -> dict[str, Any]:
    """Name -> dtype, shape and sha256 of the bytes a tensor must decode to."""
    found: dict[str, Any] = {}
    for item in tensors:
        tensor = item if isinstance(item, hm.Tensor) else tensors[item[1]]
        assert isinstance(tensor, hm.Tensor)
        name = item.name if isinstance(item, hm.Tensor) else item[0]
        found[name] = [tensor.dtype, list(tensor.shape), hashlib.sha256(tensor.decoded).hexdigest()]
    return found


def pack(*items: hm.Item, **fields: Any) -> Contents:
    """A file of these tensors."""
    return hm.assemble(*items, **fields), expected(list(items))


def rng(seed: int) -> np.random.Generator:
    """Of its own for every file, so that adding one changes no other."""
    return np.random.default_rng(seed)


def bell(count: int, spread: float, seed: int) -> hm.Values:
    """Integers as trained weights give them."""
    return np.rint(rng(seed).standard_normal(count) * spread).astype(np.int64)


def words(dtype: str, count: int, planes: int, seed: int) -> bytes:
    """Words of plausible weights or integers with every special value, zero below the stored planes."""
    width = hm.WORDS[dtype]
    top = bell(count, 12, seed) + (1 << 8 * width - 1 >> (1 if dtype in hm.SIGNED else 0)) // (1 << 8 * width - 8)
    noise = [int.from_bytes(rng(seed + 1).bytes(width), "little") for _ in range(count)]
    low = (1 << max(8 * width - 8, 0)) - 1
    bits = [(int(t) % 256) << 8 * (width - 1) | n & low & (low >> 4 | 255) for t, n in zip(top, noise, strict=True)]
    full = (1 << 8 * width) - 1
    special = [0, full, 1 << 8 * width - 1, full >> 1, 1]  # zero, NaN or -1, minus zero, NaN or the largest, the least
    bits[: min(5, count)] = special[: min(5, count)]
    if dtype == "BOOL":
        bits = [b & 1 for b in bits]
    kept = full ^ ((1 << 8 * (width - planes)) - 1) if planes else full
    return b"".join((b & kept).to_bytes(width, "little") for b in bits)


Made = Iterator[tuple[str, Callable[[], Contents]]]


def raw_files() -> Made:
    """Op raw: every dtype with every number of planes, coded by `rans`, `raw` and in turn `zstd`."""
    for d, dtype in enumerate(hm.WORDS):
        each = 2 if dtype == "C64" else 1
        for planes in range(hm.WORDS[dtype] + 1):

            def make(d: int = d, dtype: str = dtype, planes: int = planes, each: int = each) -> Contents:
                data = partial(words, dtype, planes=planes, seed=100 * d + planes)
                coders = [hm.raw_stream, hm.rans_stream, hm.zstd_stream]
                return pack(
                    hm.raw_tensor("none", dtype, (0,), b"", planes, hm.rans_stream),
                    hm.raw_tensor("one", dtype, (), data(each), planes),
                    hm.raw_tensor("some", dtype, (7, 9), data(63 * each), planes, coders[(d + planes) % 3]),
                    hm.raw_tensor("coded", dtype, (2, 20, 1), data(40 * each), planes, hm.rans_stream),
                )

            yield f"raw-{dtype.lower()}-planes{planes}", make


def coder_files() -> Made:
    """Coder rans: lanes, precisions, tables, patches, chunks; the other coders for every type."""
    for lanes in LANES:
        for precision in range(8, 16):

            def make(lanes: int = lanes, precision: int = precision) -> Contents:
                table = hm.Table.of(bell(2000, 3, 7), precision)
                counts = {0, 1, lanes - 1, lanes, lanes + 1, 3 * lanes - 1, 100, 260}
                items = [
                    hm.uniform_tensor(
                        f"n{n}", "F32", np.clip(bell(n, 3, n), -8, 8), [0.5], kind="i8",
                        coder=partial(hm.rans_stream, tables=[table], lanes=lanes),
                    )
                    for n in sorted(counts if precision in (8, 12, 15) else {lanes + 1, 150})
                ]  # fmt: skip
                return pack(*items)

            yield f"rans-lanes{lanes}-precision{precision}", make
    for predictor in (0, 1):
        for rice in range(8):
            yield f"table-predictor{predictor}-rice{rice}", partial(_table, 1, 40, predictor=predictor, rice=rice)
    for alphabet in (1, 2, 3, 255, 256, 4096):
        yield f"table-alphabet{alphabet}", partial(_table, 2, alphabet, precision=14)
    for mode in (0, 1, 20, 38, 39):
        yield f"table-mode{mode}", partial(_table, 3, 40, mode=mode, precision=10)
    for name, lowest, alphabet in (
        ("least", -(2**30), 3), ("highest", 2**30, 10), ("zero", 0, 1), ("far", -(10**9), 2), ("minus-one", -1, 2),
        ("least-single", -(2**30), 1), ("highest-large", 2**30, 300),
    ):  # fmt: skip
        yield f"table-lowest-{name}", partial(_table, 4, alphabet, lowest=lowest)
    for precision in (8, 15):
        yield f"table-whole-probability-precision{precision}", partial(_whole, precision)
    yield "table-largest-code", partial(_codes, 8, (16 * 4 + 15, 1, 0), 1)
    yield "table-zero-frequencies", partial(_codes, 9, (0, 0, 5, 0, 20, 0, 0, 3, 0), 4)
    yield "table-mode-is-rarest", partial(_codes, 8, (79, 0, 0), 2)
    yield "table-count255", partial(_many_tables, 255)
    yield "table-count2-padded", partial(_many_tables, 2)
    for name, patches in (
        ("first", {0: 77}), ("last", {99: -77}), ("neighbours", {10: 50, 11: -50, 12: 51}), ("none", {}),
        ("int32-extremes", {0: -(2**31), 50: 2**31 - 1, 99: -(2**31)}), ("all", {i: i * 1000003 for i in range(100)}),
        ("inside-the-table", {3: 0, 4: 1, 98: -1}), ("long-varints", {0: 64, 40: -8193, 60: 1048576, 99: 134217728}),
    ):  # fmt: skip
        yield f"patches-{name}", partial(_patches, patches)
    yield "patches-types", _patch_types
    yield "patches-by-the-encoder", _patches_by_encoder
    for kind in hm.TYPES:
        for coder in ("raw", "zstd", "rans"):
            yield f"coder-{coder}-{kind}", partial(_coder_type, coder, kind)
    yield "rans-verbatim-types", _verbatim
    yield "chunks-short-last", partial(_chunks, 65536, 65536 + 5)
    yield "chunks-two-tables-and-verbatim", _choice
    yield "chunks-of-131072", partial(_chunks, 131072, 131072 + 65537)
    yield "chunks-several-leaves", partial(_chunks, 2**20, 2 * 65536 + 1)
    yield "chunks-exact-leaf", partial(_chunks, 65536, 65536)
    yield "chunks-one-less-than-leaf", partial(_chunks, 65536, 65535)
    yield "chunks-planes", _chunked_planes


def _table(
    seed: int, alphabet: int, *, precision: int = 12, predictor: int = 0, rice: int = 2, lowest: int = -20,
    mode: int | None = None,
) -> Contents:  # fmt: skip
    at = alphabet // 2 if mode is None else mode
    counts = np.exp(-np.abs(np.arange(alphabet) - at) / max(alphabet / 10, 1)) * 1e6 + 1
    table = hm.Table.of_counts(lowest, counts.astype(np.int64), precision, predictor=predictor, rice=rice)
    assert table.mode == at
    picked = rng(seed).choice(alphabet, 120, p=counts / counts.sum())
    levels = picked + lowest
    levels[-2:] = lowest, lowest + alphabet - 1
    coder = partial(hm.rans_stream, tables=[table], lanes=2)
    return pack(hm.uniform_tensor("levels", "F64", levels, [1.0], coder=coder))


def _whole(precision: int) -> Contents:
    """One symbol has the whole probability: no word is ever needed, and the states stay where they were."""
    table = hm.Table(5, (0,), precision)
    items = [
        hm.uniform_tensor(f"n{n}-{lanes}", "F16", np.full(n, 5), [0.25],
                          coder=partial(hm.rans_stream, tables=[table], lanes=lanes))
        for n, lanes in ((1, 1), (31, 32), (100, 4))
    ]  # fmt: skip
    wide = hm.Table(4, (0, 0, 0), precision, mode=1)
    coder = partial(hm.rans_stream, tables=[wide], lanes=2)
    return pack(*items, hm.uniform_tensor("of-three", "F32", np.full(50, 5), [3.0], coder=coder))


def _codes(precision: int, codes: tuple[int, ...], mode: int) -> Contents:
    table = hm.Table(-1, codes, precision, mode, predictor=1)
    likely = np.array(table.frequencies) / (1 << precision)
    levels = rng(5).choice(len(codes), 90, p=likely) - 1
    return pack(
        *(
            hm.uniform_tensor(name, "F32", levels, [0.125],
                              coder=partial(hm.rans_stream, tables=[table], lanes=4, by_hand=by_hand))
            for name, by_hand in (("native", False), ("by hand", True))
        )
    )  # fmt: skip


def _many_tables(count: int) -> Contents:
    tables = [hm.Table(k, (0,), 8 + k % 8) for k in range(count)]
    part = np.full(10, count - 1)
    stream = hm.rans_stream(part, "u8", tables, choice=[count - 1])
    first = hm.rans_stream(np.zeros(3, np.int64), "u8", tables, choice=[0])
    return pack(
        hm.Tensor("last", "U8", (10,), part.astype(np.uint8).tobytes(), "raw", {"planes": 1}, (stream,)),
        hm.Tensor("first", "I8", (3,), bytes(3), "raw", {"planes": 0}, (first,)),
    )


def _patches(patches: dict[int, int]) -> Contents:
    levels, table = np.clip(bell(100, 1.5, 8), -5, 5), hm.Table.of(np.arange(-5, 6), 10)
    patched = levels.copy()
    for at, value in patches.items():
        patched[at] = value
    for_lanes = []
    for lanes in (1, 32):
        piece = hm.rans_chunk(levels.tolist(), table, lanes, 0, patches)
        stream = hm.Stream("rans", "i32", 100, (hm.prelude([table], lanes), piece))
        tensor = hm.uniform_tensor(f"lanes{lanes}", "F32", patched, [0.01])
        for_lanes.append(hm.Tensor(tensor.name, "F32", (100,), tensor.decoded, "uniform", tensor.parameters, (stream,)))
    return pack(*for_lanes)


def _patch_types() -> Contents:
    """The symbol under a patch need not fit the type of the stream, nor the patch the table."""
    items = []
    for kind, low, high in (("u8", 0, 255), ("i8", -128, 127), ("i16", -32768, 32767), ("i32", -(2**31), 2**31 - 1)):
        table = hm.Table(100000, (0,), 8)
        piece = hm.rans_chunk([100000] * 6, table, 1, 0, {0: low, 1: high, 2: 0, 3: 1, 4: low + 1, 5: high - 1})
        levels = np.array([low, high, 0, 1, low + 1, high - 1])
        tensor = hm.uniform_tensor(kind, "F64", levels, [1.0])
        stream = hm.Stream("rans", kind, 6, (hm.prelude([table], 1), piece))
        items.append(hm.Tensor(kind, "F64", (6,), tensor.decoded, "uniform", tensor.parameters, (stream,)))
    return pack(*items)


def _patches_by_encoder() -> Contents:
    levels = bell(3000, 2, 9)
    levels[[0, 17, 2047, 2048, 2999]] = 9000, -(2**31), 2**31 - 1, 4000, -9000
    table = hm.Table.of(np.clip(bell(3000, 2, 9), -6, 6), 12)
    items = [
        hm.uniform_tensor(f"lanes{lanes}", "F32", levels, [0.5],
                          coder=partial(hm.rans_stream, tables=[table], lanes=lanes))
        for lanes in (4, 32)
    ]  # fmt: skip
    return pack(*items)


def _coder_type(coder: str, kind: str) -> Contents:
    low, high = {"u8": (0, 255), "i8": (-128, 127), "i16": (-32768, 32767), "i32": (-(2**31), 2**31 - 1)}[kind]
    levels = np.clip(bell(90, 40, 3), low, high)
    make = {"raw": hm.raw_stream, "zstd": hm.zstd_stream, "rans": hm.rans_stream}[coder]
    ends = np.array([low, high, low, high, 0])
    if coder == "rans":
        make = partial(hm.rans_stream, tables=[hm.Table.of(levels, 11)], lanes=2)
    return pack(
        hm.uniform_tensor("bell", "F32", levels, [0.1], kind=kind, coder=make),
        hm.uniform_tensor("ends", "F32", ends, [1e-3], kind=kind, coder=make),
        hm.uniform_tensor("none", "F32", ends[:0], [1e-3], kind=kind, coder=make),
    )


def _verbatim() -> Contents:
    items = []
    for kind, low, high in (("u8", 0, 255), ("i8", -128, 127), ("i16", -32768, 32767), ("i32", -(2**31), 2**31 - 1)):
        levels = np.array([low, high, 1, 0, high // 3])
        coder = partial(hm.rans_stream, tables=[hm.Table()], choice=[255], lanes=8)
        items.append(hm.uniform_tensor(kind, "F64", levels, [1.0], kind=kind, coder=coder))
    return pack(*items)


def _sparse(count: int) -> hm.Values:
    """Almost all zero, so that large streams make small files."""
    levels = np.zeros(count, np.int64)
    levels[::9973] = 1
    levels[[0, count // 2, count - 1]] = -2, 3, 2
    return levels


def _chunks(chunk: int, count: int) -> Contents:
    levels = _sparse(count)
    table = hm.Table(-2, (1, 1, 0, 1, 1, 1), 15, mode=2)
    coder = partial(hm.rans_stream, tables=[table], lanes=2)
    items = [hm.uniform_tensor("rans", "BF16", levels, [0.5], coder=coder, kind="i8", chunk=chunk)]
    if count < 70000:
        items.append(hm.uniform_tensor("zstd", "F16", levels, [0.5], coder=hm.zstd_stream, kind="i32", chunk=chunk))
        rows = np.arange(count) % 3
        row_coder = hm.zstd_stream
        items.append(hm.uniform_tensor("rows", "BF16", levels.reshape(-1, 1), [0.5, 1.0, 2.0], rows=rows.tolist(),
                                       row_coder=row_coder, coder=coder, kind="i8", chunk=chunk))  # fmt: skip
    return pack(*items)


def _choice() -> Contents:
    tables = [hm.Table(0, (0,), 8), hm.Table(7, (0, 1), 12)]
    last = bell(40, 20, 4) % 256
    values = np.concatenate([np.zeros(65536, np.int64), np.full(65536, 7), last])
    values[65536 + 9] = 8
    stream = hm.rans_stream(values, "u8", tables, choice=[0, 1, 255], lanes=2)
    data = values.astype(np.uint8).tobytes()
    return pack(hm.Tensor("chosen", "U8", (len(data),), data, "raw", {"planes": 1}, (stream,)))


def _chunked_planes() -> Contents:
    count = 65536 + 2500
    data = (_sparse(count) % 65536).astype("<u2").tobytes()
    return pack(hm.raw_tensor("two planes", "U16", (count,), data, 2, hm.zstd_stream))


def uniform_files() -> Made:
    """Op uniform: dtypes, offsets, low bits, steps; the corners of every float."""
    for dtype in ("F32", "F16", "BF16", "F64"):
        for name, offset in (("none", 0.0), ("positive", 0.37), ("negative", -0.11), ("almost-minus-one", -0.99999994),
                             ("large", 12345.678)):  # fmt: skip

            def make(dtype: str = dtype, offset: float = offset) -> Contents:
                levels = bell(60, 6, 11).reshape(4, 15)
                return pack(hm.uniform_tensor("w", dtype, levels, [0.0123], offset=offset, kind="i8",
                                              coder=hm.rans_stream))  # fmt: skip

            yield f"uniform-{dtype.lower()}-offset-{name}", make
        for steps in (2, 3, 256):
            yield f"uniform-{dtype.lower()}-steps{steps}", partial(_steps, dtype, steps)
    for low in range(1, 9):
        yield f"uniform-low{low}", partial(_low, low)
    yield "uniform-f16-overflow", partial(_floats, "F16", [65504.0, 65519.99, 65520.0, 65536.0, 3.0e38])
    yield (
        "uniform-f16-subnormals",
        partial(_floats, "F16", [2.0**-14, 2.0**-15, 2.0**-24, 2.0**-25, 2.0**-25 * 1.0001, 2.0**-26, 1e-40, 6.1e-5]),
    )
    yield "uniform-f16-ties", partial(_floats, "F16", [1 + 2.0**-11, 1 + 3 * 2.0**-11, 2 - 2.0**-11, 2.0**-24 * 1.5])
    yield (
        "uniform-bf16-ties",
        partial(
            _floats,
            "BF16",
            [1 + 2.0**-8, 1 + 3 * 2.0**-8, 1 + 2.0**-8 + 2.0**-23, 2 - 2.0**-8, 3.3961775e38, 3.4e38, 1e-40],
        ),
    )
    yield "uniform-f32-extremes", partial(_floats, "F32", [3.4028235e38, 1.1754944e-38, 1e-45, 1e-44, 1.0])
    yield "uniform-f64-extremes", partial(_floats, "F64", [3.4028235e38, 1.1754944e-38, 1e-45, 1 / 3])
    yield "uniform-large-levels", _large_levels
    yield "uniform-empty", _empty_uniform
    yield "uniform-rows-inside-blocks", _row_lengths


def _steps(dtype: str, count: int) -> Contents:
    steps = (0.001 * 1.01 ** np.arange(count)).astype(np.float32).tolist()
    rows = (np.arange(count + 2) * 7 % count).tolist()
    levels = bell(len(rows) * 3, 4, 12).reshape(len(rows), 3)
    coded = hm.uniform_tensor("w", dtype, levels, steps, rows=rows, kind="i16", coder=hm.rans_stream, offset=0.05)
    scalar_rows = hm.uniform_tensor("v", dtype, levels[:, 0], steps, rows=rows, row_coder=hm.zstd_stream)
    return pack(coded, scalar_rows)


def _low(low: int) -> Contents:
    most = (2**31 - 1 >> low) * (1 << low) + (1 << low) - 1
    ends = np.array([0, 1, -1, (1 << low) - 1, 1 << low, -(1 << low), most, -(2**31 - 1 >> low) * (1 << low)])
    levels = bell(200, 300, low)
    low_coder = hm.raw_stream if low % 2 else hm.rans_stream
    return pack(
        hm.uniform_tensor("ends", "F64", ends, [1.0], low=low),
        hm.uniform_tensor("bell", "F32", levels, [0.01], low=low, kind="i16", coder=hm.rans_stream,
                          low_coder=low_coder, offset=-0.02),
        hm.uniform_tensor("rows", "F16", levels.reshape(20, 10), [0.01, 0.02], rows=[0, 1] * 10, low=low, kind="i16"),
        hm.uniform_tensor("none", "BF16", levels[:0], [0.01], low=low),
    )  # fmt: skip


def _floats(dtype: str, values: list[float]) -> Contents:
    """Each value is a step of its own, times small levels."""
    levels = np.tile(np.array([0, 1, -1, 2, -3, 7]), (len(values), 1))
    tensors = [hm.uniform_tensor("steps", dtype, levels, values, rows=list(range(len(values))))]
    tensors += [hm.uniform_tensor(f"alone{k}", dtype, levels[0], [value]) for k, value in enumerate(values)]
    return pack(*tensors)


def _large_levels() -> Contents:
    """float(|q|) rounds from 2^24 on, to nearest even."""
    levels = np.array([2**24, 2**24 + 1, -(2**24) - 3, 2**25 + 2, 2**31 - 1, -(2**31), 2**30 + 64, -(2**30) - 192])
    return pack(
        *(hm.uniform_tensor(f"{dtype}", dtype, levels, [1.1920929e-7], offset=0.5) for dtype in ("F32", "F16", "BF16"))
    )


def _empty_uniform() -> Contents:
    return pack(
        hm.uniform_tensor("no rows", "F32", np.zeros((0, 3), np.int64), [1.0], coder=hm.rans_stream),
        hm.uniform_tensor("empty rows", "F16", np.zeros((3, 0), np.int64), [1.0]),
        hm.uniform_tensor("low", "BF16", np.zeros((0,), np.int64), [1.0], low=3, coder=hm.zstd_stream),
        hm.uniform_tensor("scalar", "F64", np.array(-4), [0.25]),
    )


def _row_lengths() -> Contents:
    """Rows that end inside, at and beyond the blocks of 2048 symbols that a fast decoder works with."""
    items = []
    for length in (1, 2047, 2048, 2049, 4100):
        count = 3 if length > 1 else 2050
        levels = _sparse(count * length).reshape(count, length)
        items.append(
            hm.uniform_tensor(f"rows of {length}", "F16", levels, [1.0, 3.0, 5.0],
                              rows=[k % 3 for k in range(count)], coder=hm.zstd_stream, row_coder=hm.zstd_stream)
        )  # fmt: skip
    return pack(*items)


def container_files() -> Made:
    """The manifest: shapes, names, ties, notes."""
    yield "empty", lambda: pack()
    yield "empty-with-meta", lambda: pack(meta={"note": "no tensors"})

    def meta() -> Contents:
        notes = {
            "zero": 0, "small": 23, "byte": 24, "short": 256, "int": 65536, "long": 2**32, "largest": 2**64 - 1,
            "negative": -1, "least": -(2**64), "true": True, "false": False, "null": None, "float": 0.1,
            "minus zero": -0.0, "infinity": float("inf"), "nan": float("nan"), "text": "gr\u00fc\u00df dich \U0001f9e0",
            "bytes": bytes(range(256)), "list": [1, [2, [3, []]]], "map": {"b": {}, "a": {"": ""}}, "": "empty key",
            "a long key " * 30: "x" * 300,
        }  # fmt: skip
        deep: Any = 0
        for _ in range(14):
            deep = [deep]
        return pack(hm.raw_tensor("w", "U8", (3,), b"abc"), meta=notes | {"deep": deep})

    yield "meta-all-types", meta

    for rank in range(9):

        def shaped(rank: int = rank) -> Contents:
            shape = tuple([2, 3, 1, 2, 1, 1, 2, 1][:rank])
            count = int(np.prod(shape, dtype=np.int64))
            data = words("F32", count, 0, rank)
            levels = bell(count, 5, rank).reshape(shape)
            return pack(hm.raw_tensor("raw", "F32", shape, data, 4), hm.uniform_tensor("uniform", "F32", levels, [0.1]))

        yield f"shape-rank{rank}", shaped

    def ranks() -> Contents:
        return pack(
            hm.raw_tensor("32 dimensions", "U8", (1,) * 31 + (2,), b"ab"),
            hm.raw_tensor("empty in the middle", "F64", (5, 0, 7), b"", 8),
            hm.raw_tensor("large but empty", "F16", (2**20, 0, 2**10), b"", 2),
        )

    yield "shape-corners", ranks

    def ties() -> Contents:
        weight = hm.uniform_tensor("embed", "BF16", bell(40, 9, 1).reshape(8, 5), [0.01])
        other = hm.raw_tensor("other", "I64", (), (42).to_bytes(8, "little"))
        return pack(weight, ("head", 0), other, ("again", 0), ("other too", 2))

    yield "ties", ties

    def names() -> Contents:
        odd = [
            "layers.0.weight", " ", "a/b\\c", "..", "\n\t\x01", "\u540d\u524d", "e\u0301", "\u00e9", "\U0001f600",
            "%s{0}", '"quoted"', "x" * 300, "__metadata__", "\ufeff", "\u202ertl", "nan", "\x7f",
        ]  # fmt: skip
        return pack(*(hm.raw_tensor(name, "U8", (1,), bytes([k])) for k, name in enumerate(odd)))

    yield "names", names
    yield "newer-minor-version", lambda: pack(hm.raw_tensor("w", "U8", (2,), b"ab"), minor=7)
    yield (
        "many-tensors",
        lambda: pack(*(hm.raw_tensor(f"t{k}", "U8", (k % 3,), bytes([k % 256] * (k % 3))) for k in range(300))),
    )


def newer_files() -> Made:
    """What formats 1.1 to 1.3 added."""
    groups = {
        golden2d.coder_items: 1,
        golden2d.op_items: 1,
        golden_adaptive.items: 1,
        partial(golden_corners.items, "raw", "zstd", "rans", "rans2d", "adaptive"): 1,
        golden1.items: 2,
        partial(golden_corners.items, "rans1"): 2,
        golden_runs.items: 3,
        partial(golden_corners.items, "runs"): 3,
    }
    for group, minor in groups.items():
        for name, items in group():
            yield name, partial(_newer, items, minor)


def _newer(items: Callable[[], list[hm.Item]], minor: int) -> Contents:
    return pack(*items(), minor=minor)


def written_files() -> Made:
    """What the package's own writer made when its versions 1.0 and 1.1 were new."""
    from tersor.coders import Symbols
    from tersor.encoded import seal
    from tersor.format.manifest import Entry, Manifest
    from tersor.format.writer import write
    from tersor.ops import raw, uniform, uniform2d

    def save(parts: list[Any], ties: dict[str, int] | None = None) -> bytes:
        entries = [part.entry for part in parts]
        for name, index in (ties or {}).items():
            same = entries[index]
            entries.append(Entry(name, same.dtype, same.shape, same.digest, (), index))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "file.tsr"
            write(path, Manifest(tuple(entries), {"recipe": "golden"}), [p for part in parts for p in part.pieces])
            return path.read_bytes()

    def written_raw(dtype: str, count: int, planes: int | None) -> Contents:
        data = words(dtype, count, planes or 0, count)
        step, streams = raw.encode_step(np.frombuffer(data, np.uint8), dtype, planes)
        shape = (count // 2,) if dtype == "C64" else (count,)
        return save([seal("w", dtype, shape, step, streams)], {"tied": 0}), {
            name: [dtype, list(shape), hashlib.sha256(data).hexdigest()] for name in ("w", "tied")
        }

    for dtype, count, planes in (
        ("F32", 900, None), ("BF16", 2000, None), ("F16", 1, None), ("F64", 64, 3), ("I64", 500, None),
        ("BOOL", 4000, 1), ("C64", 300, None), ("F32", 0, None), ("F8_E4M3", 3000, None),
    ):  # fmt: skip
        yield f"written-raw-{dtype.lower()}-{count}", partial(written_raw, dtype, count, planes)

    def written_uniform(dtype: str, shape: tuple[int, int], low: int, steps: int, spread: float) -> Contents:
        levels = bell(shape[0] * shape[1], spread, low + steps).reshape(shape)
        palette = (0.01 * 1.1 ** np.arange(steps)).astype(np.float32)
        rows = (np.arange(shape[0]) % steps).astype(np.uint8) if steps > 1 else None
        grid = uniform.Grid(palette, rows, 0.0625)
        lows = Symbols.of((levels & (1 << low) - 1).astype(np.int32)) if low else None
        step, streams = uniform.encode_step(Symbols.of((levels >> low).astype(np.int32)), "i32", low, grid, lows)
        by_row = palette[rows].reshape(-1, 1) if rows is not None else palette[0]
        decoded = hm.reconstruct(levels, np.asarray(by_row), 0.0625, dtype)
        return save([seal("w", dtype, shape, step, streams)]), {
            "w": [dtype, list(shape), hashlib.sha256(decoded).hexdigest()]
        }

    for k, (dtype, shape, low, steps, spread) in enumerate(
        (("F32", (40, 25), 0, 1, 3.0), ("F16", (64, 50), 0, 8, 1.0), ("BF16", (30, 30), 4, 1, 200.0),
         ("F64", (10, 9), 2, 3, 30.0), ("F32", (300, 300), 0, 1, 0.05), ("F32", (1, 1), 0, 1, 1.0)),
    ):  # fmt: skip
        name = f"written-uniform-{k}-{dtype.lower()}"
        yield name, partial(written_uniform, dtype, shape, low, steps, spread)

    def written_scaled(op: str, dtype: str, shape: tuple[int, int], steps: int, columns: int) -> Contents:
        spread = 1.5 ** (np.arange(shape[0])[:, None] % 6) * 1.3 ** (np.arange(shape[1]) % 4)
        levels = np.clip(np.rint(bell(shape[0] * shape[1], 1000, steps).reshape(shape) * spread / 1000), -300, 300)
        rows, places = np.arange(shape[0]) % steps, np.arange(shape[1]) % columns
        palettes = [(0.01 * 1.1 ** np.arange(n)).astype(np.float32) for n in (steps, columns)]
        values = (np.arange(1, 301) ** 1.2).astype(np.float32) if op == "companded" else None
        scales = uniform2d.Scales.of(palettes[0][rows], palettes[1][places])
        symbols = Symbols.of(levels.astype(np.int32), row_length=shape[1])
        step, streams = uniform2d.encode_step(
            symbols, "i16", scales, offset=0.0625, values=values, trellis=op == "trellis"
        )
        tensor = h2.scaled_tensor(
            "w", dtype, levels, palettes[0].tolist(), palettes[1].tolist(), op=op, rows=rows.tolist(),
            places=places.tolist(), offset=0.0625, values=values.tolist() if values is not None else (),
        )  # fmt: skip
        return save([seal("w", dtype, shape, step, streams)]), expected([tensor])

    for op, dtype, shape, steps, columns in (
        ("uniform2d", "F32", (90, 140), 1, 1), ("uniform2d", "BF16", (60, 75), 5, 9),
        ("companded", "F16", (70, 80), 3, 1), ("trellis", "BF16", (64, 96), 1, 4),
        ("uniform2d", "F64", (700, 100), 1, 2),
    ):  # fmt: skip
        yield f"written-{op}-{dtype.lower()}", partial(written_scaled, op, dtype, shape, steps, columns)


def all_files() -> Made:
    """Every golden file by name, and what makes it."""
    for group in (raw_files, coder_files, uniform_files, container_files, newer_files, written_files):
        yield from group()


def main() -> None:
    """Add the files that are not there yet."""
    FILES.mkdir(exist_ok=True)
    known = json.loads(EXPECTED.read_text()) if EXPECTED.exists() else {}
    for name, make in all_files():
        path = FILES / f"{name}.tsr"
        if path.exists() and path.name in known:
            continue
        data, tensors = make()
        path.write_bytes(data)
        known[path.name] = tensors
    lines = [f"{json.dumps(name)}: {json.dumps(known[name])}" for name in sorted(known)]
    EXPECTED.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    sizes = [path.stat().st_size for path in FILES.glob("*.tsr")]
    print(f"{len(sizes)} files, {sum(sizes):,} bytes, the largest {max(sizes):,}")


if __name__ == "__main__":
    main()
