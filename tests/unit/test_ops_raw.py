from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from helpers import WIDTHS, container, random_bytes, unit_of

from tersor.encoded import seal
from tersor.errors import FormatError
from tersor.format.layout import LEAF
from tersor.format.manifest import Entry, Step
from tersor.format.reader import TensorFile
from tersor.methods import keep
from tersor.ops import raw

Bytes = npt.NDArray[np.uint8]


def round_trip(dtype: str, shape: tuple[int, ...], data: Bytes) -> Entry:
    """Keep a tensor, read it back from a file, compare the bytes; returns its record."""
    encoded = keep.lossless(unit_of("t", dtype, shape, data), data)
    with TensorFile(container(encoded), workers=1) as file:
        assert file.stored("t").tobytes() == data.tobytes()
        assert (file.entry("t").dtype, file.entry("t").shape) == (dtype, shape)
        return file.entry("t")


SPECIAL: dict[str, list[int]] = {
    # -0.0, smallest and largest subnormals, infinities, quiet and signalling NaNs with payloads, of both signs
    "F32": [0x80000000, 1, 0x80000001, 0x007FFFFF, 0x7F800000, 0xFF800000, 0x7FC00000, 0x7F800001, 0xFFDEADBE,
    0x7FFFFFFF], "F64": [1 << 63, 1, (1 << 63) | 1, (1 << 52) - 1, 0x7FF << 52, 0xFFF << 52, 0x7FF0000000000001,
    0xFFF8DEADBEEF1234], "F16": [0x8000, 1, 0x8001, 0x03FF, 0x7C00, 0xFC00, 0x7E00, 0x7C01, 0xFDEA, 0x7FFF],
    "BF16": [0x8000, 1, 0x8001, 0x007F, 0x7F80, 0xFF80, 0x7FC0, 0x7F81, 0xFFAD, 0x7FFF],
    "F8_E4M3": [0x80, 0x01, 0x81, 0x7F, 0xFF, 0x7E],
    "F8_E5M2": [0x80, 0x01, 0x81, 0x7C, 0xFC, 0x7D, 0xFF],
    "F8_E8M0": [0x00, 0xFF, 0x7F],
}  # fmt: skip


@pytest.mark.parametrize("dtype", SPECIAL)
@pytest.mark.parametrize("repeat", [1, 9000])
def test_special_values_keep_every_bit(dtype: str, repeat: int) -> None:
    words = np.array(SPECIAL[dtype] * repeat, f"<u{WIDTHS[dtype]}")
    round_trip(dtype, (words.size,), words.view(np.uint8))


@pytest.mark.parametrize("dtype", WIDTHS)
@pytest.mark.parametrize("count", [0, 1, 2, 1000, LEAF, LEAF + 1, 2 * LEAF + 77])
def test_every_dtype_with_arbitrary_bits(dtype: str, count: int) -> None:
    round_trip(dtype, (count,), random_bytes(dtype, count, count))


@pytest.mark.parametrize("dtype", WIDTHS)
def test_every_dtype_constant(dtype: str) -> None:
    entry = round_trip(dtype, (100_000,), np.tile(random_bytes(dtype, 1, 5), 100_000))
    assert entry.stored < 1000


@pytest.mark.parametrize("shape", [(), (1,), (0,), (3, 0, 2), (1, 1, 1), (2, 3, 4), (1,) * 32])
@pytest.mark.parametrize("dtype", ["F32", "C64", "BOOL", "I64"])
def test_shapes(dtype: str, shape: tuple[int, ...]) -> None:
    round_trip(dtype, shape, random_bytes(dtype, int(np.prod(shape))))


@pytest.mark.parametrize(("dtype", "least"), [("F32", 1.1), ("BF16", 1.3), ("F16", 1.05), ("C64", 1.1)])
def test_exponents_are_worth_coding(dtype: str, least: float) -> None:
    count = 100_000
    floats = np.random.default_rng(0).standard_normal(2 * count).astype(np.float32) * np.float32(0.02)
    if dtype == "BF16":
        data = (floats[:count].view(np.uint32) >> 16).astype(np.uint16).view(np.uint8)
    else:
        data = floats[: count * WIDTHS["C64"] // 4 if dtype == "C64" else count]
        data = (data.astype(np.float16) if dtype == "F16" else data).view(np.uint8)
    entry = round_trip(dtype, (count,), data)
    assert entry.stored * least < data.size


def test_noise_costs_almost_nothing_extra() -> None:
    data = random_bytes("F32", 100_000)
    assert round_trip("F32", (100_000,), data).stored <= data.size


def test_top_planes_only() -> None:
    words = np.random.default_rng(0).integers(0, 2**16, 1000).astype("<u4") << 16
    step, streams = raw.encode_step(words.view(np.uint8), "F32", 2)
    assert step.parameters == {"planes": 2} and len(streams) == 2
    with TensorFile(container(seal("t", "F32", (1000,), step, streams))) as file:
        assert file.stored("t").tobytes() == words.tobytes()


def test_large_tensors_are_split_into_planes() -> None:
    step, _ = raw.encode_step(random_bytes("F32", LEAF), "F32")
    assert step.parameters == {"planes": 4}


def opened(entry: Entry) -> None:
    """Run the checks of an op that needs no data."""
    raw.open_chunks(entry, entry.chain[0], type("Inputs", (), {"where": "tensor 't'"})())


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda s: {"parameters": {}}, "bad_parameters"),
        (lambda s: {"parameters": {"planes": 4, "more": 1}}, "bad_parameters"),
        (lambda s: {"parameters": {"planes": True}}, "bad_parameters"),
        (lambda s: {"parameters": {"planes": 5}}, "bad_parameters"),
        (lambda s: {"parameters": {"planes": -1}}, "bad_parameters"),
        (lambda s: {"parameters": {"planes": 0}}, "bad_parameters"),  # too large for unsplit bytes
        (lambda s: {"parameters": {"planes": 3}}, "bad_streams"),
        (lambda s: {"streams": s.streams[:3]}, "bad_streams"),
        (lambda s: {"streams": (replace(s.streams[0], type="i8"), *s.streams[1:])}, "bad_stream_type"),
        (lambda s: {"streams": (replace(s.streams[0], count=1), *s.streams[1:])}, "bad_streams"),
        (lambda s: {"streams": (replace(s.streams[0], chunk=3 * LEAF), *s.streams[1:])}, "bad_chunk"),
    ],
)
def test_a_step_that_does_not_fit(change: Callable[[Step], dict[str, Any]], code: str) -> None:
    step, _ = raw.encode_step(random_bytes("F32", 100_000), "F32")
    opened(Entry("t", "F32", (100_000,), 0, (step,)))
    broken = replace(step, **change(step))
    with pytest.raises(FormatError) as caught:
        opened(Entry("t", "F32", (100_000,), 0, (broken,)))
    assert caught.value.code == code and "tensor 't'" in str(caught.value)
