"""Methods by their properties; what rates they reach is for benchmarks to say."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from helpers import array_unit, container, identical, random_bytes, unit_of, weights

import tersor
from tersor import _core
from tersor.methods import Nearest, keep
from tersor.sources import Unit

W = weights(np.random.default_rng(0), (200, 300), 0.05)
PRICES = [1e-12, 1e-10, 1e-8, 1e-7]


def encode(array: npt.NDArray[Any], price: float, method: Nearest | None = None, name: str = "w.weight") -> Any:
    unit = array_unit(name, array)
    return (method or Nearest()).encode(unit, unit.load(), price)


def test_dearer_bits_give_fewer_bytes_and_more_noise() -> None:
    tensors = [encode(W, price) for price in PRICES]
    sizes, errors = [t.nbytes for t in tensors], [t.distortion.error for t in tensors]
    assert sizes == sorted(sizes, reverse=True) and errors == sorted(errors)
    assert len(set(sizes)) == len(sizes) and sizes[0] > 4 * sizes[-1]


@pytest.mark.parametrize("price", PRICES)
def test_distortion_is_that_of_the_decoded_weights(price: float) -> None:
    tensor = encode(W, price)
    decoded = tersor.load(container(tensor))["w.weight"]
    wide = W.astype(np.float64)
    assert tensor.distortion.error == pytest.approx(np.square(decoded - wide).sum(), rel=1e-9)
    assert tensor.distortion.energy == pytest.approx(np.square(wide).sum(), rel=1e-9)


def test_free_bits_round_to_the_nearest_level() -> None:
    step = 0.01
    levels = np.empty(W.size, np.int32)
    _core.quantize(W.reshape(-1), step, np.zeros(1, np.float32), levels)
    assert np.all(np.abs(levels * step - W.reshape(-1)) <= step / 2 * (1 + 1e-5))


def test_dear_levels_are_avoided() -> None:
    flat = np.ascontiguousarray(W.reshape(-1))
    free, dear = np.empty(W.size, np.int32), np.empty(W.size, np.int32)
    _core.quantize(flat, 0.03, np.zeros(3, np.float32), free)
    _core.quantize(flat, 0.03, np.array([1, 0, 1], np.float32), dear)
    assert np.count_nonzero(dear) < np.count_nonzero(free)
    assert np.all(np.abs(dear) <= np.abs(free)) and np.all(dear * free >= 0)


def test_rounding_that_costs_nothing_saves_nothing() -> None:
    plain = encode(W, 1e-8, Nearest(rounding_price=0.0))
    priced = encode(W, 1e-8, Nearest(rounding_price=0.1))
    assert priced.nbytes < plain.nbytes and priced.distortion.error > plain.distortion.error


@pytest.mark.parametrize("price", PRICES)
def test_samples_predict_sizes(price: float) -> None:
    unit = array_unit("w.weight", W)
    for budget in (10**6, 2**14):
        predicted = Nearest().sample(unit, unit.load(), budget).nbytes(price)
        assert predicted == pytest.approx(encode(W, price).nbytes, rel=0.03)


def test_same_input_same_bytes() -> None:
    assert list(encode(W, 1e-8).pieces) == list(encode(W.copy(), 1e-8).pieces)


@pytest.mark.parametrize("value", [0.0, 1.0, -3.5e-5, 1e-40])
def test_one_value(value: float) -> None:
    array = np.full((64, 64), value, np.float32)
    for price in PRICES:
        tensor = encode(array, price)
        assert tensor.nbytes < 200
        assert np.all(np.isfinite(tersor.load(container(tensor))["w.weight"]))


def test_fine_steps_split_the_levels() -> None:
    tensor = encode(W, 1e-19)
    (step,) = tensor.entry.chain
    assert step.parameters["low"] > 0 and len(step.streams) == 2
    decoded = tersor.load(container(tensor))["w.weight"]
    assert np.abs(decoded - W).max() <= 1e-5


def test_levels_are_split_where_columns_can_then_have_classes() -> None:
    rng = np.random.default_rng(0)
    columns = np.where(np.arange(64) % 2, 1.0, 100.0)
    matrix = (rng.standard_normal((32768, 64)) * columns).astype(np.float32)
    unit = array_unit("fc.weight", matrix)
    encoded = Nearest().encode(unit, unit.load(), 1e-8)  # one stream of more levels than classes are made for
    (step,) = encoded.entry.chain
    assert step.parameters["low"] > 0 and step.streams[0].coder == "rans2d"


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [
        ((64, 64), "F32", True),
        ((64, 64), "F64", True),
        ((64, 64), "F16", True),
        ((64, 64), "BF16", True),
        ((8, 4, 3, 3), "F32", True),
        ((4096,), "F32", False),
        ((1, 4096), "F32", False),
        ((), "F32", False),
        ((4, 4), "F32", False),
        ((0, 5), "F32", False),
        ((64, 64), "I32", False),
        ((64, 64), "BOOL", False),
        ((64, 64), "C64", False),
        ((64, 64), "F8_E4M3", False),
    ],
)
def test_what_is_quantized(shape: tuple[int, ...], dtype: str, expected: bool) -> None:
    unit = Unit("w.weight", dtype, shape, lambda: np.zeros(0, np.uint8))
    assert Nearest().quantizes(unit) is expected


# -- kept tensors -----------------------------------------------------------------------------------------------------


def kept(dtype: str, data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    count = data.size // {"F32": 4, "F64": 8, "F16": 2, "BF16": 2}.get(dtype, 1)
    tensor = keep.rounded(unit_of("t", dtype, (count,), data), data)
    with tersor.open(container(tensor)) as file:
        return file.stored("t")


def test_float32_is_rounded_to_nearest_even_bfloat16() -> None:
    torch = pytest.importorskip("torch")
    bits = random_bytes("F32", 50_000).view("<u4")
    bits = bits[(bits & 0x7F800000) < 0x7F000000]  # finite, and far from infinity
    halves = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF, 0x80000000, 1, 0x8000, 0x18000], np.uint32)
    bits = np.concatenate([bits, halves]).astype("<u4")
    expected = torch.from_numpy(bits.view("<f4").copy()).bfloat16().float().numpy()
    assert identical(kept("F32", bits.view(np.uint8)).view("<f4"), expected)


def test_float64_keeps_twelve_bits() -> None:
    values = np.random.default_rng(0).standard_normal(5000) * 10.0 ** np.arange(-100, 100, 0.04)
    back = kept("F64", values.view(np.uint8)).view("<f8")
    assert np.all(np.abs(back - values) <= 2.0**-13 * np.abs(values))
    assert not np.any(back.view("<u8") & ((1 << 40) - 1))


@pytest.mark.parametrize("finer", [1, 4, 9])
def test_every_finer_bit_halves_the_error(finer: int) -> None:
    values = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    tensor = keep.rounded(unit_of("t", "F32", (5000,), values.view(np.uint8)), values.view(np.uint8), finer)
    with tersor.open(container(tensor)) as file:
        back = file.stored("t").view("<f4")
    assert np.all(np.abs(back - values) <= 2.0 ** -(8 + finer) * np.abs(values))
    assert not np.any(back.view("<u4") & ((1 << (16 - finer)) - 1))
    least = keep.rounded(unit_of("t", "F32", (5000,), values.view(np.uint8)), values.view(np.uint8))
    assert tensor.nbytes - least.nbytes == pytest.approx(5000 * finer / 8, rel=0.05)


def test_rounding_to_every_bit_is_lossless() -> None:
    values = np.random.default_rng(0).standard_normal(5000).astype(np.float32).view(np.uint8)
    for finer in (16, 100):
        tensor = keep.rounded(unit_of("t", "F32", (5000,), values), values, finer)
        assert tensor.distortion == (0, 0)


def test_small_tensors_are_as_precise_as_the_file_deserves() -> None:
    count = 8 * keep.SMALL_FILE
    assert [keep.finer(bits * count // 8, count, count // 100) for bits in (1, 2, 3, 4, 8)] == [0, 0, 1, 2, 6]
    for small in (count // 10, count // 2, count):  # they leave as many bits to the other weights as they count on
        finer = keep.finer(20 * count // 8, count, small)
        assert 20 * count - small * (16 + finer) >= (finer + 1.5) * (count - small)
    assert keep.finer(0, 0, 0) == keep.finer(keep.SMALL_FILE - 1, 1000, 0) == 0


def test_rounding_never_makes_infinity() -> None:
    largest = np.array([np.finfo(np.float32).max, np.finfo(np.float32).min] * 300, np.float32)
    values = np.concatenate([largest, np.random.default_rng(0).standard_normal(3000).astype(np.float32)])
    back = kept("F32", values.view(np.uint8)).view("<f4")
    assert np.all(np.isfinite(back)) and np.all(np.abs(back - values) <= 2.0**-7 * np.abs(values))


@pytest.mark.parametrize("dtype", ["F16", "BF16", "I64", "BOOL", "U8", "F8_E5M2", "C64"])
def test_narrow_and_other_types_are_kept_whole(dtype: str) -> None:
    data = random_bytes(dtype, 1000)
    tensor = keep.rounded(unit_of("t", dtype, (1000,), data), data)
    with tersor.open(container(tensor)) as file:
        assert file.stored("t").tobytes() == data.tobytes()
    assert tensor.distortion == (0, 0)


def test_nonfinite_tensors_are_kept_whole() -> None:
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    for broken in (np.nan, np.inf, -np.inf):
        values[500] = broken
        assert identical(kept("F32", values.view(np.uint8)).view("<f4"), values)


def test_what_is_short_already_is_kept_whole() -> None:
    for values in (np.ones(1000, np.float32), np.zeros(1000, np.float32), np.arange(100, dtype=np.float32)):
        assert identical(kept("F32", values.view(np.uint8)).view("<f4"), values)


@pytest.mark.parametrize("dtype", ["F32", "F16", "F64", "BF16"])
def test_all_finite(dtype: str) -> None:
    width = {"F32": 4, "F16": 2, "F64": 8, "BF16": 2}[dtype]
    quiet_nan = {"F32": 0x7FC00000, "F16": 0x7E00, "F64": 0x7FF8 << 48, "BF16": 0x7FC0}[dtype]
    infinity = {"F32": 0xFF800000, "F16": 0xFC00, "F64": 0xFFF0 << 48, "BF16": 0xFF80}[dtype]
    words = np.zeros(2_200_000, f"<u{width}")
    assert keep.all_finite(words.view(np.uint8), dtype)
    for value in (quiet_nan, infinity):
        for position in (0, 1_000_000, words.size - 1):
            words[position] = value
            assert not keep.all_finite(words.view(np.uint8), dtype)
            words[position] = 0
