"""Every op and method on whatever may come: rank 0 to 8, all dtypes, NaN payloads, -0.0, streams of one symbol."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import handmade as hm
import numpy as np
import numpy.typing as npt
import pytest
from helpers import WIDTHS, container, save_raw_safetensors, unit_of
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from reference import reference

import tersor
from tersor import _core
from tersor.calibration.statistics import Statistics
from tersor.coders import CORE_TYPES, rans
from tersor.errors import BudgetError
from tersor.format.dtypes import to_numpy
from tersor.methods import METHODS, Calibrated, keep
from tersor.methods.nearest import SMALLEST
from tersor.ops.uniform import FLOATS

shapes = st.lists(st.integers(1, 4), max_size=8).map(tuple).filter(lambda shape: math.prod(shape) <= 500)
seeds = st.integers(0, 2**32 - 1)

SPECIAL = {  # zeros and infinities of either sign, quiet and signalling NaN with payloads, least and largest numbers
    "F32": [0, 1 << 31, 0x7F800000, 0xFF800000, 0x7FC00001, 0xFFC12345, 0x7F800001, 0xFFBFFFFF, 1, 0x7F7FFFFF],
    "F16": [0, 1 << 15, 0x7C00, 0xFC00, 0x7E01, 0xFE55, 0x7C01, 0xFDFF, 1, 0x03FF, 0x7BFF],
    "BF16": [0, 1 << 15, 0x7F80, 0xFF80, 0x7FC1, 0xFFD5, 0x7F81, 0xFFBF, 1, 0x007F, 0x7F7F],
    "F64": [0, 1 << 63, 0x7FF << 52, 0xFFF << 52, (0x7FF8 << 48) + 1, (0xFFF8 << 48) + 12345, (0x7FF << 52) + 1, 1],
    "F8_E4M3": [0, 0x80, 0x7F, 0xFF, 1, 0x7E],
    "F8_E5M2": [0, 0x80, 0x7C, 0xFC, 0x7D, 0xFE, 1, 0x7B],
}  # fmt: skip


def words_of(dtype: str, values: list[int]) -> npt.NDArray[np.uint8]:
    """The bytes of words."""
    return np.array(values, f"<u{WIDTHS[dtype]}").view(np.uint8)


@st.composite
def levels_of(draw: st.DrawFn) -> npt.NDArray[np.int64]:
    """Levels of any shape: small ones as a rule, of one value now and then, as large as levels may be."""
    shape = draw(shapes)
    rng = np.random.default_rng(draw(seeds))
    most = draw(st.sampled_from([1, 7, 300, 2**22, 2**31 - 256]))
    kind = draw(st.sampled_from(["laplace", "one value", "extremes"]))
    if kind == "one value":
        return np.full(shape, draw(st.integers(-most, most)))
    if kind == "extremes":
        return rng.choice(np.array([-most, -1, 0, 1, most]), shape)
    return np.clip(np.rint(rng.laplace(0, most / 8, shape)), -most, most).astype(np.int64)


def coders(lanes: int) -> dict[str, Any]:
    """How a stream may be coded. Tables cover 4096 values around zero; what is beyond becomes patches."""

    def by_rans(values: npt.NDArray[Any], kind: str = "u8", chunk: int = hm.LEAF) -> hm.Stream:
        near = values[np.abs(values) < 2048]
        tables = [hm.Table.of(near if near.size else np.zeros(1, np.int64), 13)]
        return hm.rans_stream(values, kind, tables, lanes=lanes, chunk=chunk, by_hand=True)

    return {"raw": hm.raw_stream, "zstd": hm.zstd_stream, "rans": by_rans}


coder_names = st.sampled_from(["raw", "zstd", "rans"])
small_floats = st.floats(-0.5, 0.5, width=32)
positive = st.floats(2.0**-40, 2.0**40, width=32)


@given(
    levels_of(), st.sampled_from(sorted(FLOATS)), st.lists(positive, min_size=1, max_size=5), small_floats,
    st.integers(0, 8), st.sampled_from([1, 2, 8, 32]), coder_names, coder_names, coder_names, seeds,
)  # fmt: skip
@settings(max_examples=150)
def test_uniform_is_what_the_specification_says(
    levels: npt.NDArray[np.int64], dtype: str, steps: list[float], offset: float, low: int, lanes: int,
    coder: str, low_coder: str, row_coder: str, seed: int,
) -> None:  # fmt: skip
    """Rows of several steps, low bits apart, any coder, lanes that symbols do not fill: both decoders, bit by bit."""
    steps = steps[:1] if levels.ndim == 0 else steps
    rows = np.random.default_rng(seed).integers(0, len(steps), levels.shape[0]).tolist() if len(steps) > 1 else ()
    known = coders(lanes)
    tensor = hm.uniform_tensor(
        "w", dtype, levels, steps, rows=rows, offset=offset, low=low, coder=known[coder],
        low_coder=known[low_coder], row_coder=known[row_coder],
    )  # fmt: skip
    data = hm.assemble(tensor)
    with tersor.open(data, workers=1) as file:
        assert file.stored("w").tobytes() == tensor.decoded
        assert file["w"].shape == levels.shape
    assert reference.decode(data)["w"] == (dtype, levels.shape, tensor.decoded)


@given(st.sampled_from(sorted(WIDTHS)), shapes, st.integers(0, 8), coder_names, st.sampled_from([1, 4, 32]), seeds)
@settings(max_examples=150)
def test_raw_with_any_number_of_planes(
    dtype: str, shape: tuple[int, ...], planes: int, coder: str, lanes: int, seed: int
) -> None:
    """The planes that are left out are zero."""
    width = hm.WORDS[dtype]
    count = math.prod(shape) * (2 if dtype == "C64" else 1)
    data = np.random.default_rng(seed).integers(0, 256, (count, width), dtype=np.uint8)
    planes = min(planes, width)
    if planes:
        data[:, : width - planes] = 0
    tensor = hm.raw_tensor("w", dtype, shape, data.tobytes(), planes, coders(lanes)[coder])
    file = hm.assemble(tensor)
    with tersor.open(file, workers=1) as opened:
        assert opened.stored("w").tobytes() == data.tobytes()
    assert reference.decode(file)["w"] == (dtype, shape, data.tobytes())


@st.composite
def special_tensors(draw: st.DrawFn) -> tuple[str, tuple[int, ...], npt.NDArray[np.uint8]]:
    """Elements that arithmetic would change."""
    dtype, shape = draw(st.sampled_from(sorted(SPECIAL))), draw(shapes)
    values = np.random.default_rng(draw(seeds)).choice(np.array(SPECIAL[dtype], np.uint64), math.prod(shape))
    return dtype, shape, words_of(dtype, values.tolist())


@given(special_tensors())
def test_payloads_and_signs_survive(tensor: tuple[str, tuple[int, ...], npt.NDArray[np.uint8]]) -> None:
    dtype, shape, data = tensor
    unit = unit_of("w.weight", dtype, shape, data)
    kept = [keep.lossless(unit, data)]
    if dtype in FLOATS and not keep.all_finite(data, dtype):
        kept.append(keep.rounded(unit, data))
    for encoded in kept:
        with tersor.open(container(encoded), workers=1) as file:
            assert file.stored("w.weight").tobytes() == data.tobytes()
            expected = to_numpy(data, dtype, shape)
            assert np.array_equal(np.isnan(file["w.weight"]), np.isnan(expected))


@given(st.integers(-(2**31), 2**31 - 1), st.integers(1, 500), st.sampled_from([1, 2, 4, 8, 16, 32]))
def test_a_stream_of_one_symbol(value: int, count: int, lanes: int) -> None:
    """An alphabet of one has the whole probability and takes no words; beyond 2^30 it is all patches."""
    values = np.full(count, value, np.int32)
    table = rans.fit(rans.Histogram.of(values))
    head = _core.Prelude(np.frombuffer(rans.prelude([table], lanes), np.uint8))
    chunk = np.frombuffer(_core.encode_chunk(values, head, 0), np.uint8)
    assert np.array_equal(_core.decode_integers(head, CORE_TYPES["i32"], chunk, count), values)
    if abs(value) <= rans.FARTHEST:
        assert table.frequencies.tolist() == [1 << table.precision]
        assert chunk.size == 2 + 4 * lanes


@given(st.integers(8, 15), st.integers(1, 40), st.integers(0, 39), st.integers(1, 300), st.sampled_from([1, 8, 32]))
def test_a_symbol_with_the_whole_probability_among_others(
    precision: int, alphabet: int, mode: int, count: int, lanes: int
) -> None:
    """The others have none: whatever they stand for becomes patches."""
    assume(mode < alphabet)
    table = hm.Table(-5, (0,) * alphabet, precision, mode)
    values = [(k * 7) % alphabet - 5 if k % 3 == 0 else mode - 5 for k in range(count)]
    head = _core.Prelude(np.frombuffer(hm.prelude([table], lanes), np.uint8))
    chunk = np.frombuffer(hm.rans_chunk(values, table, lanes), np.uint8)
    assert _core.decode_integers(head, CORE_TYPES["i32"], chunk, count).tolist() == values


@given(st.integers(0, 300), st.sampled_from(sorted(hm.TYPES)), st.sampled_from([1, 32]), seeds)
def test_no_chunk_needs_more_than_its_bound(count: int, kind: str, lanes: int, seed: int) -> None:
    """Section 4.2: a table that has none of the values, so that each is a patch, and takes a word all the same."""
    limits = np.iinfo(hm.TYPES[kind])
    values = np.random.default_rng(seed).choice([limits.min, limits.max], count)
    table = hm.Table(3, (1, 0), 15, 1)  # the symbol 3 has the least probability there is
    rare = hm.rans_chunk([3] * count, table, lanes, patches={i: int(v) for i, v in enumerate(values)})
    stream = hm.Stream("rans", kind, count, (hm.prelude([table], lanes), rare) if count else ())
    data = hm.assemble(hm.Tensor("w", "F32", (count,), hm.reconstruct(
        values.astype(np.int64), np.array(1.0, np.float32), 0.0, "F32"), "uniform",
        {"steps": np.float32(1).tobytes(), "offset": bytes(4), "low": 0}, (stream,)))  # fmt: skip
    tersor.verify(data)
    assert len(rare) <= (np.dtype(hm.TYPES[kind]).itemsize + 4) * count + 132


# -- methods ----------------------------------------------------------------------------------------------------------


layers = (
    st.lists(st.integers(1, 12), min_size=2, max_size=8)
    .map(tuple)
    .filter(lambda shape: math.prod(shape) <= 2000 and math.prod(shape[1:]) <= 150)
)


@st.composite
def weight_units(draw: st.DrawFn) -> tuple[str, npt.NDArray[np.float64], npt.NDArray[np.uint8]]:
    """Finite weights of every float type, with zeros of either sign; their values and their bytes."""
    dtype, shape = draw(st.sampled_from(sorted(FLOATS))), draw(layers)
    rng = np.random.default_rng(draw(seeds))
    values = rng.standard_t(3, shape) * 10.0 ** draw(st.integers(-3, 1))
    values = np.clip(np.where(rng.random(shape) < draw(st.sampled_from([0.0, 0.3])), -0.0, values), -60_000, 60_000)
    if dtype == "BF16":
        data = (values.astype("<f4").view("<u4") >> 16).astype("<u2").view(np.uint8).reshape(-1)
    else:
        kind = {"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype]
        data = np.ascontiguousarray(values.astype(kind)).view(np.uint8).reshape(-1)
    return dtype, to_numpy(data, dtype, shape).astype(np.float64), data


def bound(method: type[Any], statistics: Mapping[str, Statistics]) -> Any:
    """The method, with these statistics where it takes any, and the fewest iterations where there are any."""
    settings_of_it = method(**{f.name: 2 for f in fields(method) if f.name == "iterations"})
    return settings_of_it.bind(statistics) if isinstance(settings_of_it, Calibrated) else settings_of_it


def learned(shape: tuple[int, ...], seed: int) -> Statistics:
    """As samples might give them: inputs of any scale and rank, outputs of which some do not matter."""
    rng, fan_in = np.random.default_rng(seed), math.prod(shape[1:])
    inputs = rng.standard_normal((rng.integers(1, 2 * fan_in + 2), fan_in)) * np.exp2(rng.normal(0, 3, fan_in))
    covariance = (inputs.T @ inputs / len(inputs)).astype(np.float32)
    return Statistics(covariance[None], rng.exponential(1e-3, shape[0]) * rng.integers(0, 2, shape[0]))


every_method = pytest.mark.parametrize("method", METHODS, ids=[m.name for m in METHODS])


@every_method
@given(weight_units(), st.integers(-13, -3), st.booleans(), seeds)
@settings(max_examples=60)
def test_every_method_tells_the_distortion_that_a_reader_will_see(
    method: type[Any], unit: tuple[str, npt.NDArray[np.float64], npt.NDArray[np.uint8]], exponent: int,
    informed: bool, seed: int,
) -> None:  # fmt: skip
    """On every float type, with statistics and without: the file decodes, to finite weights, with the error that was
    reported."""
    dtype, values, data = unit
    source = unit_of("w.weight", dtype, values.shape, data)
    found = bound(method, {"w.weight": learned(values.shape, seed)} if informed else {})
    assume(found.sample(source, data, 2**18) is not None)
    encoded = found.encode(source, data, 10.0**exponent)
    with tersor.open(container(encoded), workers=1) as file:
        decoded = file["w.weight"].astype(np.float64)
        assert file.entry("w.weight").dtype == dtype and decoded.shape == values.shape
    assert np.all(np.isfinite(decoded))
    error, energy = float(np.square(decoded - values).sum()), float(np.square(values).sum())
    assert math.isclose(encoded.distortion.error, error, rel_tol=1e-3, abs_tol=1e-9 * energy + 1e-300)


@every_method
@given(st.sampled_from(sorted(FLOATS)), seeds, st.integers(1, 3))
@settings(max_examples=8)
def test_every_method_keeps_what_is_not_finite(method: type[Any], dtype: str, seed: int, rank: int) -> None:
    """One NaN with a payload in a tensor that would be quantized: all its bits are kept, the others fit the budget."""
    rng = np.random.default_rng(seed)
    side = math.ceil(SMALLEST ** (1 / max(rank, 2))) + 1
    shape = (side,) * max(rank, 2)
    count = math.prod(shape)

    def noise() -> npt.NDArray[np.uint8]:
        values = rng.standard_normal(count) * 0.05
        if dtype == "BF16":
            return (values.astype("<f4").view("<u4") >> 16).astype("<u2").view(np.uint8)
        return values.astype({"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype]).view(np.uint8)

    odd, plain = noise(), noise()
    odd[: WIDTHS[dtype]] = words_of(dtype, [SPECIAL[dtype][5]])
    model = {f"plain.{k}.weight": (dtype, shape, plain.tobytes()) for k in range(4)}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "m.tsr"
        model["odd.weight"] = (dtype, shape, odd.tobytes())
        source = save_raw_safetensors(Path(folder) / "m.safetensors", model)
        try:
            report = tersor.compress(source, path, ratio=1.5, method=bound(method, {}), workers=1)
        except BudgetError:
            assert not path.exists()
            return
        with tersor.open(path) as file:
            assert file.stored("odd.weight").tobytes() == odd.tobytes()
            assert all(np.all(np.isfinite(file[f"plain.{k}.weight"])) for k in range(4))
        assert "odd.weight" in report.kept_whole
