"""For arbitrary input: what must come back does, and what may change stays within its bounds."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
from helpers import WIDTHS, array_unit, container, identical, save_raw_safetensors, unit_of
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tersor
from tersor import _core
from tersor.coders import CORE_TYPES, Symbols, chunk_data, encode, integer_type, open_prelude, rans
from tersor.errors import BudgetError
from tersor.format import cbor
from tersor.format.layout import chunk_counts
from tersor.methods import Nearest, keep
from tersor.sources import open_source

shapes = st.lists(st.integers(0, 4), max_size=8).map(tuple)
names = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=20)


@st.composite
def tensors(draw: st.DrawFn) -> tuple[str, tuple[int, ...], bytes]:
    """Any dtype, any shape, any bits."""
    dtype, shape = draw(st.sampled_from(sorted(WIDTHS))), draw(shapes)
    size = math.prod(shape) * WIDTHS[dtype]
    if draw(st.booleans()):
        data = draw(st.binary(min_size=size, max_size=size))
    else:
        data = np.random.default_rng(draw(st.integers(0, 2**32))).integers(0, 256, size, dtype=np.uint8).tobytes()
    return dtype, shape, bytes(b & 1 for b in data) if dtype == "BOOL" else data


@given(tensors())
@settings(max_examples=150)
def test_lossless_tensor(tensor: tuple[str, tuple[int, ...], bytes]) -> None:
    dtype, shape, data = tensor
    words = np.frombuffer(data, np.uint8)
    with tersor.open(container(keep.lossless(unit_of("t", dtype, shape, words), words)), workers=1) as file:
        assert file.stored("t").tobytes() == data
        assert (file.entry("t").dtype, file.entry("t").shape) == (dtype, shape)
        assert file["t"].shape == shape


@given(st.dictionaries(names, tensors(), min_size=1, max_size=5))
def test_lossless_model(model: dict[str, tuple[str, tuple[int, ...], bytes]]) -> None:
    with TemporaryDirectory() as folder:
        source = save_raw_safetensors(Path(folder) / "m.safetensors", model)
        tersor.compress(source, Path(folder) / "m.tsr", lossless=True, workers=2)
        with tersor.open(Path(folder) / "m.tsr") as file:
            assert list(file) == [unit.name for unit in open_source(source).units()]
            for name, (dtype, shape, data) in model.items():
                assert (file.entry(name).dtype, file.entry(name).shape) == (dtype, shape)
                assert file.stored(name).tobytes() == data


floats = st.sampled_from([np.float32, np.float16, np.float64])


@st.composite
def weight_tensors(draw: st.DrawFn) -> npt.NDArray[Any]:
    """Finite weights of any scale that a network might have."""
    shape = tuple(draw(st.lists(st.integers(2, 12), min_size=2, max_size=4)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    scale = 10.0 ** draw(st.integers(-3, 1))
    values = draw(st.sampled_from([rng.standard_normal, rng.random, lambda s: rng.standard_t(2, s)]))(shape)
    return np.clip(scale * values, -60_000, 60_000).astype(draw(floats))


@given(weight_tensors(), st.integers(-13, -3))
@settings(max_examples=100)
def test_quantized_tensor_stays_within_its_step(array: npt.NDArray[Any], exponent: int) -> None:
    """Without a price of rounding, no weight moves by more than half a step and what the gain and rounding add."""
    unit = array_unit("w.weight", array)
    tensor = Nearest(rounding_price=0.0).encode(unit, unit.load(), 10.0**exponent)
    decoded = tersor.load(container(tensor))["w.weight"]
    assert decoded.shape == array.shape and decoded.dtype == array.dtype
    (step,) = tensor.entry.chain
    if step.op == "raw":
        assert identical(decoded, array)
        return
    (width,) = np.frombuffer(step.parameters["steps"], "<f4").astype(np.float64)
    # The stored step holds a gain of 1/2 to 2 that makes up for shrinkage: take the rounding of the plain step.
    plain = Nearest(rounding_price=0.0).sample(unit, unit.load(), 2**18).plan(10.0**exponent)
    gain = width / plain.step
    wide = array.astype(np.float64)
    half_ulp = float(np.finfo(array.dtype).eps) * np.abs(decoded).max(initial=0)
    bound = gain * 0.5 * plain.step + abs(gain - 1) * np.abs(wide) + half_ulp + 1e-6 * np.abs(wide)
    assert np.all(np.abs(decoded.astype(np.float64) - wide) <= bound * (1 + 1e-5))


@given(st.lists(weight_tensors(), min_size=1, max_size=4), st.floats(1.2, 12))
def test_no_file_exceeds_its_budget(arrays: list[npt.NDArray[Any]], ratio: float) -> None:
    model = {f"layer.{k}.weight": array for k, array in enumerate(arrays)}
    with TemporaryDirectory() as folder:
        path = Path(folder) / "m.tsr"
        try:
            report = tersor.compress(model, path, ratio=ratio)
        except BudgetError:
            assert not path.exists()
            return
        assert path.stat().st_size == report.file_bytes <= sum(a.nbytes for a in arrays) / ratio
        back = tersor.load(path)
        assert [(n, a.shape, a.dtype) for n, a in back.items()] == [(n, a.shape, a.dtype) for n, a in model.items()]
        assert all(np.all(np.isfinite(a)) for a in back.values())


int32 = st.integers(-(2**31), 2**31 - 1)
integers = st.one_of(
    st.lists(int32, max_size=60),
    st.lists(st.sampled_from([-(2**31), -1, 0, 1, 2**31 - 1]), max_size=300),
    st.builds(lambda seed, n, s: np.rint(np.random.default_rng(seed).laplace(0, s, n)).tolist(), int32.map(abs),
              st.integers(0, 3000), st.sampled_from([0.2, 3.0, 500.0, 1e6])),
)  # fmt: skip


@given(integers)
@settings(max_examples=150)
def test_streams_of_arbitrary_integers(values: list[int]) -> None:
    array = np.array(values, np.int64).astype(np.int32)
    kind = integer_type(int(array.min()), int(array.max())) if array.size else "i8"
    encoded = encode(Symbols.of(array), kind)
    stream = encoded.stream
    head = open_prelude(stream, encoded.pieces[0]) if stream.preludes else None
    parts = [np.zeros(0, np.int32)]
    for k, count in enumerate(chunk_counts(stream.count, stream.chunk)):
        data = chunk_data(stream, k, encoded.pieces[stream.preludes + k], "here")
        parts.append(_core.decode_integers(head, CORE_TYPES[kind], data, count, k * stream.chunk))
    assert np.array_equal(np.concatenate(parts), array)


@given(integers, st.sampled_from([1, 2, 4, 8, 16, 32]))
def test_rans_alone(values: list[int], lanes: int) -> None:
    array = np.array(values, np.int64).astype(np.int32)
    table = rans.fit(rans.Histogram.of(array))
    prelude = _core.Prelude(np.frombuffer(rans.prelude([table], lanes), np.uint8))
    chunk = np.frombuffer(_core.encode_chunk(array, prelude, 0), np.uint8)
    assert np.array_equal(_core.decode_integers(prelude, CORE_TYPES["i32"], chunk, array.size), array)


@given(st.lists(integers, min_size=1, max_size=4))
def test_merged_histograms_count_what_they_list(parts: list[list[int]]) -> None:
    arrays = [np.array(p, np.int64).astype(np.int32) for p in parts]
    merged = rans.merge([rans.Histogram.of(a) for a in arrays])
    assert merged.total == sum(a.size for a in arrays) and merged.counts.size <= rans.WIDEST
    if all(a.size == 0 or int(a.max()) - int(a.min()) < 1000 for a in arrays):
        together = np.concatenate(arrays)
        if together.size and int(together.max()) - int(together.min()) < 1000:
            values, counts = np.unique(together, return_counts=True)
            assert [int(merged.counts[v - merged.lowest]) for v in values] == counts.tolist()


@given(st.binary(max_size=300), st.integers(1, 5))
def test_damaged_chunks_never_crash(data: bytes, count: int) -> None:
    table = rans.Table(8, -1, np.array([16, 224, 16], np.uint16))
    bytes_of = partial(np.frombuffer, dtype=np.uint8)
    for prelude in (rans.prelude([table], 2), data, None):
        try:
            head = None if prelude is None else _core.Prelude(bytes_of(prelude))
            decoded = _core.decode_integers(head, 3, np.frombuffer(data, np.uint8), count)
        except _core.StreamError:
            continue
        assert decoded.size == count


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**64), 2**64 - 1) | st.floats(allow_nan=False) | st.text(st.characters(
        exclude_categories=("Cs",))) | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(exclude_categories=("Cs",))),
                                                                inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(values)
@settings(max_examples=200)
def test_cbor_round_trip(value: Any) -> None:
    encoded = cbor.encode(value)
    decoded = cbor.decode(encoded)
    assert decoded == value and cbor.encode(decoded) == encoded


@given(st.binary(max_size=60))
@settings(max_examples=300)
def test_cbor_accepts_only_what_it_would_write(data: bytes) -> None:
    try:
        value = cbor.decode(data)
    except cbor.CborError:
        return
    assert cbor.encode(value) == data


@given(hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=40), elements=st.floats(width=32)))
def test_rounded_small_tensors(array: npt.NDArray[np.float32]) -> None:
    unit = array_unit("b", array)
    back = tersor.load(container(keep.rounded(unit, unit.load())))["b"]
    if not np.all(np.isfinite(array)):
        assert identical(back, array)
    else:
        normal = np.abs(array) >= np.finfo(np.float32).tiny
        error = np.abs(back.astype(np.float64) - array)
        assert np.all(error[normal] <= 2.0**-7 * np.abs(array[normal]).astype(np.float64))
        assert np.all(error[~normal] <= np.finfo(np.float32).tiny * 2.0**-7)
