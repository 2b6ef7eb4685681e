from __future__ import annotations

import struct

import handmade as h
import numpy as np
import numpy.typing as npt
import pytest

from tersor import _core
from tersor.coders import CORE_TYPES, Symbols, encode, rans

Integers = npt.NDArray[np.int32]
LANES = [1, 2, 4, 8, 16, 32]
COUNTS = [0, 1, 2, 31, 32, 33, 63, 2047, 2048, 2049, 4096 + 17, 65_536 + 5]


def write_prelude(lanes_log2: int, tables: list[tuple[int, int, npt.NDArray[np.uint16]]]) -> bytes:
    return _core.write_tables(buffer(bytes([lanes_log2, len(tables)])), tables)


def opened(prelude: bytes) -> _core.Prelude:
    return _core.Prelude(buffer(prelude))


def buffer(data: bytes) -> npt.NDArray[np.uint8]:
    return np.frombuffer(data, np.uint8)


def prelude_of(lowest: int, frequencies: list[int], precision: int, lanes: int = 4) -> bytes:
    return write_prelude(lanes.bit_length() - 1, [(precision, lowest, np.array(frequencies, np.uint16))])


def round_trip(values: Integers, prelude: bytes, kind: str = "i32", table: int = 0) -> int:
    """Check that the values come back; returns the size of the chunk."""
    chunk = _core.encode_chunk(values, opened(prelude), table)
    assert chunk[0] == table
    decoded = _core.decode_integers(opened(prelude), CORE_TYPES[kind], buffer(chunk), values.size)
    assert decoded.dtype == np.int32 and np.array_equal(decoded, values)
    return len(chunk)


def laplacian(count: int, scale: float = 3.0, seed: int = 0) -> Integers:
    return np.rint(np.random.default_rng(seed).laplace(0, scale, count)).astype(np.int32)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize("precision", range(8, 16))
def test_every_lane_count_and_precision(lanes: int, precision: int) -> None:
    values = laplacian(5000 + lanes // 2, 2.0)
    lowest, counts = _core.histogram(values)
    frequencies = _core.round_table(counts, precision)
    assert frequencies is not None
    prelude = write_prelude(lanes.bit_length() - 1, [(precision, lowest, frequencies)])
    assert prelude[0] == lanes.bit_length() - 1 and prelude[1] == 1
    round_trip(values, prelude)


@pytest.mark.parametrize("lanes", LANES)
@pytest.mark.parametrize(("scale", "precision"), [(1.0, 12), (9.0, 12), (60.0, 13), (60.0, 11)])
def test_chunks_are_those_made_by_hand(lanes: int, scale: float, precision: int) -> None:
    """With tables of up to 32, up to 128 and more symbols, in vectors and without, patches included."""
    values = laplacian(1500 + lanes // 2, scale)
    values[::9] = 0  # the most frequent, beyond doubt: it stands in for patches
    table = h.Table.of(np.clip(values, -int(4 * scale), int(4 * scale)), precision)
    values[::97] = 5000
    chunk = _core.encode_chunk(values, opened(h.prelude([table], lanes)), 0)
    assert chunk == h.rans_chunk(values.tolist(), table, lanes)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("lanes", [1, 4, 8, 16, 32])
def test_counts_that_lanes_and_blocks_do_not_divide(count: int, lanes: int) -> None:
    prelude = prelude_of(-2, [16, 48, 128, 48, 16], 8, lanes)
    values = np.random.default_rng(count).integers(-2, 3, count).astype(np.int32)
    size = round_trip(values, prelude, "i8")
    assert size >= 2 + 4 * lanes


def test_alphabet_of_one_costs_nothing_a_symbol() -> None:
    prelude = prelude_of(7, [1 << 12], 12)
    assert round_trip(np.full(100_000, 7, np.int32), prelude) == 2 + 4 * 4


def test_symbol_with_the_whole_probability_among_others() -> None:
    prelude = prelude_of(-1, [0, 1 << 15, 0], 15, 1)
    values = np.zeros(3000, np.int32)
    assert round_trip(values, prelude) == 2 + 4
    values[[0, 1500, 2999]] = (-1, 1, 5)  # frequency zero, and outside the table: patches
    round_trip(values, prelude)


def test_patches_at_int32_extremes() -> None:
    prelude = prelude_of(0, [128, 128], 8, 2)
    values = np.random.default_rng(0).integers(0, 2, 1000).astype(np.int32)
    values[[0, 1, 500, 998, 999]] = (-(2**31), 2**31 - 1, -1, 2, -(2**31))
    round_trip(values, prelude)


def test_a_chunk_of_patches_only() -> None:
    values = np.array([-(2**31), 2**31 - 1] * 50, np.int32)
    round_trip(values, prelude_of(0, [256], 8, 1))


def test_patch_outside_the_stream_type_is_refused() -> None:
    prelude = prelude_of(0, [256], 8, 1)
    chunk = _core.encode_chunk(np.array([0, 200, 0], np.int32), opened(prelude), 0)
    with pytest.raises(_core.StreamError, match="range"):
        _core.decode_integers(opened(prelude), CORE_TYPES["i8"], buffer(chunk), 3)


def test_largest_alphabet() -> None:
    values = np.random.default_rng(0).integers(-2048, 2048, 60_000).astype(np.int32)
    lowest, counts = _core.histogram(values)
    frequencies = _core.round_table(counts, 15)
    assert frequencies is not None and frequencies.size == 4096
    round_trip(values, write_prelude(5, [(15, lowest, frequencies)]), "i16")


def test_tables_far_from_zero() -> None:
    for lowest in (rans.FARTHEST - 1, 1 - rans.FARTHEST, -(2**30), 2**20):
        round_trip(np.array([lowest, lowest + 1, lowest + 2] * 9, np.int32), prelude_of(lowest, [100, 100, 56], 8))


def test_several_tables_in_one_prelude() -> None:
    first, second = np.array([250, 6], np.uint16), np.array([6, 250], np.uint16)
    prelude = write_prelude(2, [(8, 0, first), (8, 0, second)])
    zeros = np.zeros(4000, np.int32)
    assert round_trip(zeros, prelude, table=0) < round_trip(zeros, prelude, table=1)


def test_verbatim_chunk() -> None:
    values = np.arange(256, dtype=np.int32)
    chunk = bytes([rans.VERBATIM]) + values.astype(np.uint8).tobytes()
    decoded = _core.decode_integers(opened(prelude_of(0, [256], 8)), CORE_TYPES["u8"], buffer(chunk), 256)
    assert np.array_equal(decoded, values)


@pytest.mark.parametrize(("kind", "pack"), [("u8", "B"), ("i8", "b"), ("i16", "<h"), ("i32", "<i")])
def test_plain_values(kind: str, pack: str) -> None:
    bits = 8 * struct.calcsize(pack)
    values = [0, 2**bits - 1] if kind == "u8" else [-(2 ** (bits - 1)), -1, 0, 2 ** (bits - 1) - 1]
    data = b"".join(struct.pack(pack, v) for v in values)
    assert _core.decode_integers(None, CORE_TYPES[kind], buffer(data), len(values)).tolist() == values


@pytest.mark.parametrize(("count", "error"), [(2, "trailing"), (4, "truncated")])
def test_plain_values_of_another_count(count: int, error: str) -> None:
    with pytest.raises(_core.StreamError, match=error):
        _core.decode_integers(None, CORE_TYPES["u8"], buffer(b"abc"), count)


def test_every_cut_and_every_extra_byte_is_found() -> None:
    values = laplacian(300, 2.0)
    lowest, counts = _core.histogram(values)
    frequencies = _core.round_table(counts, 12)
    prelude = write_prelude(1, [(12, lowest, frequencies)])
    chunk = _core.encode_chunk(values, opened(prelude), 0)
    for damaged in [chunk[:k] for k in range(len(chunk))] + [chunk + b"\0", chunk + b"\0\0"]:
        with pytest.raises(_core.StreamError):
            _core.decode_integers(opened(prelude), CORE_TYPES["i32"], buffer(damaged), values.size)


@pytest.mark.parametrize("precision", range(8, 16))
def test_rounded_tables_are_whole_and_lose_no_symbol(precision: int) -> None:
    rng = np.random.default_rng(precision)
    for alphabet in (1, 2, 3, 17, 60):
        counts = (rng.pareto(0.5, alphabet) * 3).astype(np.uint64)
        counts[0] += np.uint64(1)
        frequencies = _core.round_table(counts, precision)
        assert frequencies is not None
        assert int(frequencies.astype(np.int64).sum()) == 1 << precision
        assert np.array_equal(frequencies > 0, counts > 0)
        write_prelude(0, [(precision, 0, frequencies)])  # representable


def test_more_symbols_than_room() -> None:
    assert _core.round_table(np.ones(300, np.uint64), 8) is None
    assert _core.round_table(np.ones(300, np.uint64), 9) is not None


@pytest.mark.parametrize(
    "values",
    [
        [0],
        [5, 5, 5],
        [-3, 4, 4, 0],
        [2**31 - 1, 2**31 - 1],
        [-(2**31), -(2**31) + 1],
        [-(2**31), 0, 2**31 - 1],
        [100_000, 300_000],
        [-300_000, -100_000],
    ],
)
def test_histogram_counts_what_it_lists(values: list[int]) -> None:
    lowest, counts = _core.histogram(np.array(values, np.int32))
    assert counts.size <= 65_536
    listed = {lowest + k: int(c) for k, c in enumerate(counts) if c}
    assert listed == {v: values.count(v) for v in values if lowest <= v < lowest + counts.size}
    if max(values) - min(values) < 65_536:
        assert sum(listed.values()) == len(values)


def test_histogram_of_nothing() -> None:
    lowest, counts = _core.histogram(np.zeros(0, np.int32))
    assert (lowest, counts.size) == (0, 0)


@pytest.mark.parametrize("scale", [0.15, 0.4, 1.0, 4.0, 40.0])
def test_coded_size_is_within_three_thousandths_of_the_entropy(scale: float) -> None:
    values = laplacian(300_000, scale)
    _, counts = np.unique(values, return_counts=True)
    entropy = float(-(counts * np.log2(counts / values.size)).sum()) / 8
    stream = encode(Symbols.of(values, 2**18), "i16").stream
    assert stream.coder == ("runs" if scale < 0.2 else "rans")
    assert entropy <= stream.nbytes + 16 * stream.chunks  # chunks adapt a little; tables and lanes cost a little
    assert stream.nbytes <= 1.003 * entropy + 64
