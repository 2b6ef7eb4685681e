from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import reference

from tersor import _core
from tersor.coders import CORE_TYPES, Symbols, adaptive, encode, open_prelude, rans
from tersor.coders.adaptive import Plan, plan
from tersor.format.manifest import PRELUDES

Integers = npt.NDArray[np.int32]
I32 = CORE_TYPES["i32"]
LOWEST, HIGHEST = -(2**31), 2**31 - 1
SPEC = Path(__file__).resolve().parents[2] / "spec"


def laplace(count: int, scale: float, seed: int = 0) -> Integers:
    return np.rint(np.random.default_rng(seed).laplace(0, scale, count)).clip(LOWEST, HIGHEST).astype(np.int32)


def decode(prelude: bytes, kind: int, first: int, piece: bytes, count: int) -> Integers:
    head = _core.Prelude(np.frombuffer(prelude, np.uint8), PRELUDES.index("adaptive"))
    return _core.decode_integers(head, kind, np.frombuffer(piece, np.uint8), count, first)


def reference_values(prelude: bytes, first: int, piece: bytes, count: int) -> list[int]:
    return reference.decode_adaptive(reference.read_layout(prelude), first, piece, count)


def round_trip(values: npt.ArrayLike, layout: Plan, first: int = 0) -> bytes:
    """Check that the values come back, in the native decoder and in the reference; returns the chunk."""
    wanted = np.asarray(values, np.int32)
    piece = layout.encode(first, wanted)
    assert np.array_equal(decode(layout.prelude, I32, first, piece, wanted.size), wanted)
    if wanted.size <= 6_000:
        assert reference_values(layout.prelude, first, piece, wanted.size) == wanted.tolist()
    return piece


def test_example_of_the_specification(monkeypatch: pytest.MonkeyPatch) -> None:
    block = (SPEC / "ADAPTIVE.md").read_text().partition("```example\n")[2].partition("```")[0]
    fields: dict[str, list[str]] = {}
    for name, *rest in map(str.split, block.splitlines()):
        fields.setdefault(name, []).extend(rest)
    prelude, chunk = (bytes.fromhex("".join(fields[name])) for name in ("prelude", "chunk"))
    first, values = int(fields["first"][0]), [int(v) for v in fields["values"]]
    assert decode(prelude, I32, first, chunk, len(values)).tolist() == values
    assert Plan(4, 0, 1).prelude == prelude and Plan(4, 0, 1).encode(first, np.array(values, np.int32)) == chunk

    decoder = sys.modules[reference.decode_adaptive.__module__].Adaptive
    probabilities, bit = list[int](), decoder.bit

    def note(self: object, p: int) -> bool:
        probabilities.append(p)
        return bit(self, p)

    monkeypatch.setattr(decoder, "bit", note)
    assert reference_values(prelude, first, chunk, len(values)) == values
    assert probabilities == [int(p) for p in fields["p"]]


@pytest.mark.parametrize("count", [0, 1, 2, 2047, 2048, 2049, 5000])
@pytest.mark.parametrize("layout", [Plan(1), Plan(37), Plan(90, 9), Plan(64, 3, -5), Plan(65536, 4096)])
def test_counts_and_layouts(count: int, layout: Plan) -> None:
    round_trip(laplace(count, 2.0), layout, 12345)


@pytest.mark.parametrize("scale", [0.05, 0.3, 1, 4, 30, 1000, 1e6, 1e9])
def test_scales(scale: float) -> None:
    round_trip(laplace(1500, scale), Plan(48, 16), 7)


def test_extremes() -> None:
    values = [LOWEST, HIGHEST, 0, -1, 1, LOWEST, 4095, -4095, 4096, 1 << 30, -(1 << 30), *range(-70, 70)]
    for centre in (0, 1, -1, LOWEST, HIGHEST):
        round_trip(values * 3, Plan(5, 0, centre))


def test_averages_are_halved_alike() -> None:
    round_trip(laplace(5_000, 3.0) * 300, Plan(4))  # the average of a column at 256, that of all at 4096


def test_every_class() -> None:
    powers = np.array([s * v for k in range(31) for v in (2**k, 3 * 2**k // 2) for s in (1, -1)], np.int64)
    round_trip(np.random.default_rng(0).permutation(powers.clip(LOWEST, HIGHEST)), Plan(8))


def test_zeros_cost_next_to_nothing() -> None:
    assert len(round_trip(np.zeros(2**18, np.int32), Plan(512))) < 24


@pytest.mark.parametrize(("scale", "excess"), [(0.6, 0.008), (1.0, 0.005), (4.0, 0.004)])
def test_near_the_entropy(scale: float, excess: float) -> None:
    values = laplace(2**18, scale)
    entropy = rans.Histogram.of(values).entropy_bits / 8
    assert len(round_trip(values, Plan(512))) < entropy * (1 + excess)


def test_rows_and_columns_of_different_scale() -> None:
    rng = np.random.default_rng(0)
    scales = 2 * np.exp(0.5 * rng.standard_normal((512, 1)) + 0.5 * rng.standard_normal((1, 512)))
    values = np.rint(rng.laplace(0, scales)).astype(np.int32)
    magnitudes = np.abs(values)
    zero = 1 - np.exp(-0.5 / scales)
    other = np.exp(-magnitudes / scales) * np.sinh(0.5 / scales)
    ideal = -np.log2(np.where(magnitudes == 0, zero, other)).sum() / 8  # every scale known
    assert len(round_trip(values.reshape(-1), Plan(512))) < 1.015 * ideal


def test_smooth_kernels_are_predicted() -> None:
    rng = np.random.default_rng(0)
    smooth = np.cumsum(rng.standard_normal((256, 64)), axis=1)
    values = np.rint(4 * smooth).astype(np.int32)
    entropy = rans.Histogram.of(values.reshape(-1)).entropy_bits / 8
    assert len(round_trip(values.reshape(-1), Plan(64))) < 0.75 * entropy


def test_truncation_and_extension_are_found() -> None:
    values, layout = laplace(3000, 1.0), Plan(30)
    piece = layout.encode(0, values)
    for size in range(len(piece)):
        with pytest.raises(_core.StreamError, match="truncated"):
            decode(layout.prelude, I32, 0, piece[:size], values.size)
    for more in (b"\0", b"\xff", piece[-1:], bytes(8)):
        with pytest.raises(_core.StreamError, match="trailing"):
            decode(layout.prelude, I32, 0, piece + more, values.size)
    for count in (0, 1, values.size - 1, values.size + 1):
        with pytest.raises(_core.StreamError, match=r"trailing|truncated"):
            decode(layout.prelude, I32, 0, piece, count)


def test_changed_bytes_are_found() -> None:
    values, layout = laplace(2000, 1.0), Plan(40)
    piece = layout.encode(0, values)
    for at in range(len(piece)):
        damaged = bytearray(piece)
        damaged[at] ^= 1 << at % 8
        with pytest.raises(_core.StreamError):
            decode(layout.prelude, I32, 0, bytes(damaged), values.size)


@pytest.mark.parametrize(
    ("kind", "value"), [("u8", -1), ("u8", 256), ("i8", 128), ("i8", -129), ("i16", 32768), ("i16", -32769)]
)
def test_values_outside_the_type(kind: str, value: int) -> None:
    values, layout = np.array([0, value], np.int32), Plan(1)
    with pytest.raises(_core.StreamError, match="range"):
        decode(layout.prelude, CORE_TYPES[kind], 0, layout.encode(0, values), 2)


@pytest.mark.parametrize(
    "prelude",
    [
        b"",
        b"\x05",
        b"\x05\x00",
        b"\x00\x00\x00",  # no columns
        b"\x81\x80\x04\x00\x00",  # 65537 columns
        b"\x09\x01\x00",  # a period of 1
        b"\x09\x02\x00",
        b"\x09\x09\x00",  # as long as a row
        b"\x80\x80\x04\x81\x20\x00",  # a period of 4097
        b"\x05\x00\x00\x00",
        b"\x85\x00\x00\x00",  # not the shortest form
        b"\x05\x00\x80\x80\x80\x80\x10",  # a centre of 33 bits
        b"\x05\x00\x80\x80\x80\x80\x80\x00",
    ],
)
def test_bad_preludes(prelude: bytes) -> None:
    with pytest.raises(_core.StreamError, match="table"):
        _core.Prelude(np.frombuffer(prelude, np.uint8), PRELUDES.index("adaptive"))
    with pytest.raises(reference.DecodeError, match="stream_table"):
        reference.read_layout(prelude)


@pytest.mark.parametrize(
    ("row_length", "kernel", "columns", "period"),
    [(0, 0, 1, 0), (20, 0, 20, 0), (36, 9, 36, 9), (25, 25, 25, 0), (8, 2, 8, 0), (20_000, 5000, 20_000, 0),
     (512_000, 256, 256, 0), (100_000, 0, 1, 0)],
)  # fmt: skip
def test_geometry(row_length: int, kernel: int, columns: int, period: int) -> None:
    found = plan(lambda _: np.zeros(5, np.int32), 5, adaptive.CHUNK, row_length, kernel)
    assert found.columns == columns and found.period in (0, period)


def test_plan_centres_indices_and_not_levels() -> None:
    indices = np.random.default_rng(0).binomial(15, 0.5, 2**16).astype(np.int32)
    assert plan(lambda _: indices, 2**16, adaptive.CHUNK, 256, 0).centre in (7, 8)
    assert plan(lambda _: indices - 8, 2**16, adaptive.CHUNK, 256, 0).centre == 0


def test_streams_use_it_when_asked() -> None:
    steps = np.random.default_rng(0).standard_normal((400, 90))
    levels = np.rint(3 * np.cumsum(steps, axis=1)).clip(-127, 127).astype(np.int32)
    coded = encode(Symbols.of(levels, adaptive.CHUNK, 90, 9, slow=True), "i8")
    assert coded.stream.coder == "adaptive"
    assert coded.stream.nbytes < encode(Symbols.of(levels, adaptive.CHUNK, 90), "i8").stream.nbytes
    piece = np.frombuffer(coded.pieces[1], np.uint8)
    decoded = _core.decode_integers(open_prelude(coded.stream, coded.pieces[0]), 1, piece, levels.size)
    assert np.array_equal(decoded, levels.reshape(-1))


def test_streams_of_next_to_nothing_take_a_faster_coder() -> None:
    """A reader may refuse what decodes slowly and takes no room."""
    levels = np.zeros((1024, 1024), np.int32)
    levels[::64, :8] = 1
    coded = encode(Symbols.of(levels, adaptive.CHUNK, 1024, slow=True), "i8")
    assert coded.stream.coder != "adaptive"
    assert (
        len(plan(lambda _: levels.reshape(-1), levels.size, adaptive.CHUNK, 1024, 0).piece(0, levels.reshape(-1)))
        < coded.stream.nbytes
    )


values32 = st.integers(LOWEST, HIGHEST) | st.integers(-5, 5) | st.sampled_from([LOWEST, HIGHEST, 0])
layouts = st.integers(1, 300).flatmap(
    lambda columns: st.builds(
        Plan, st.just(columns), st.sampled_from([0, *range(3, min(columns, 20))]), st.integers(LOWEST, HIGHEST)
    )
)


@given(st.lists(values32, max_size=300), layouts, st.integers(0, 2**62))
@settings(max_examples=150)
def test_any_values(values: list[int], layout: Plan, first: int) -> None:
    round_trip(values, layout, first)


@given(st.binary(max_size=400), layouts, st.integers(0, 600))
@settings(max_examples=150)
def test_any_bytes_decode_or_are_refused_alike(data: bytes, layout: Plan, count: int) -> None:
    try:
        wanted = reference_values(layout.prelude, 0, data, count)
    except reference.DecodeError as error:
        with pytest.raises(_core.StreamError) as found:
            decode(layout.prelude, I32, 0, data, count)
        assert error.code == f"stream_{found.value}"
    else:
        assert decode(layout.prelude, I32, 0, data, count).tolist() == wanted
