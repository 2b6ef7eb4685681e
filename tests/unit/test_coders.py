from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from tersor import _core
from tersor.coders import (
    CORE_TYPES,
    NUMPY,
    EncodedStream,
    Symbols,
    chunk_data,
    encode,
    integer_type,
    open_prelude,
    rans,
    zstd,
)
from tersor.errors import FormatError, UnsupportedError
from tersor.format.layout import LEAF, chunk_counts
from tersor.format.manifest import INTEGER_TYPES


def decode(encoded: EncodedStream) -> npt.NDArray[np.int32]:
    """All symbols, by the spec's rule of pieces: tables first, then one piece a chunk."""
    stream, pieces = encoded.stream, encoded.pieces
    head = open_prelude(stream, pieces[0]) if stream.preludes else None
    parts = [np.zeros(0, np.int32)]
    for k, count in enumerate(chunk_counts(stream.count, stream.chunk)):
        data = chunk_data(stream, k, pieces[stream.preludes + k], "here")
        parts.append(_core.decode_integers(head, CORE_TYPES[stream.type], data, count, k * stream.chunk))
    return np.concatenate(parts)


def check(values: npt.NDArray[np.integer], kind: str, chunk: int = LEAF) -> EncodedStream:
    encoded = encode(Symbols.of(values, chunk), kind)
    stream = encoded.stream
    assert np.array_equal(decode(encoded), values)
    assert (stream.type, stream.count, stream.chunk) == (kind, values.size, chunk)
    assert stream.sizes == tuple(map(len, encoded.pieces)) and stream.nbytes == sum(map(len, encoded.pieces))
    assert stream.checksums == tuple(_core.hash(p) & 0xFFFFFFFF for p in encoded.pieces)
    assert len(stream.sizes) == stream.preludes + stream.chunks
    assert stream.nbytes <= values.size * INTEGER_TYPES[kind]  # never larger than raw
    return encoded


RNG = np.random.default_rng(0)
SKEWED = np.rint(RNG.laplace(0, 1, 150_000)).astype(np.int32)
NOISE = RNG.integers(0, 256, 150_000).astype(np.int32)
REPEATING = np.tile(RNG.integers(0, 256, 5000), 30).astype(np.int32)


@pytest.mark.parametrize(
    ("values", "kind", "coder"),
    [(SKEWED, "i8", "rans"), (SKEWED, "i32", "rans"), (NOISE, "u8", "raw"), (REPEATING, "u8", "zstd")],
    ids=["skewed", "skewed-wide", "noise", "repeating"],
)
def test_the_smallest_coder_is_chosen(values: npt.NDArray[np.int32], kind: str, coder: str) -> None:
    encoded = check(values, kind)
    assert encoded.stream.coder == coder
    plain = values.astype(NUMPY[kind]).tobytes()
    assert encoded.stream.nbytes <= len(plain)
    whole_zstd = sum(
        len(zstd.pack(plain[k : k + LEAF * INTEGER_TYPES[kind]]))
        for k in range(0, len(plain), LEAF * INTEGER_TYPES[kind])
    )
    assert encoded.stream.nbytes <= whole_zstd


def test_nothing_to_code() -> None:
    encoded = check(np.zeros(0, np.int32), "i8")
    assert encoded.stream.coder == "raw" and len(encoded.pieces) == 0


@pytest.mark.parametrize("count", [1, 2, 5, 100, LEAF - 1, LEAF, LEAF + 1, 3 * LEAF])
def test_counts_around_chunks(count: int) -> None:
    check(np.resize(SKEWED, count), "i8")
    check(np.full(count, 3, np.int32), "u8")


@pytest.mark.parametrize(
    "values",
    [
        np.full(1000, 2**31 - 1),
        np.full(1000, -(2**31)),
        np.full(1000, 2**31 - 8),
        np.array([-(2**31), 2**31 - 1] * 500),
        np.append(np.zeros(10_000), [2**31 - 1, -(2**31)]),
        np.concatenate([np.full(LEAF, 2**31 - 1), np.full(LEAF, -(2**31)), np.zeros(5)]),
        np.concatenate([np.full(LEAF, 10**6), np.full(LEAF, 2 * 10**6), np.arange(50)]),
        np.random.default_rng(1).integers(-(2**31), 2**31, 5000),
    ],
    ids=["top", "bottom", "near-top", "both", "rare", "chunks-apart", "chunks-above", "anything"],
)
def test_int32_extremes(values: npt.NDArray[np.integer]) -> None:
    check(values.astype(np.int32), "i32")


def test_chunks_that_differ_get_their_own_tables() -> None:
    rng = np.random.default_rng(2)
    parts = [np.rint(rng.laplace(m, 2, LEAF)) for m in (-50, 50, -50, 50)]
    encoded = check(np.concatenate(parts).astype(np.int32), "i8")
    assert encoded.stream.coder == "rans" and encoded.pieces[0][1] == 2
    assert [piece[0] for piece in encoded.pieces[1:]] == [0, 1, 0, 1] or encoded.pieces[1][0] != encoded.pieces[2][0]


def test_a_chunk_of_noise_among_others_is_stored_as_it_is() -> None:
    values = np.concatenate([np.abs(SKEWED[:LEAF]), NOISE[:LEAF], np.abs(SKEWED[:LEAF])])
    encoded = check(values.astype(np.int32), "u8")
    assert [piece[0] == rans.VERBATIM for piece in encoded.pieces[1:]] == [False, True, False]
    assert len(encoded.pieces[2]) == 1 + LEAF


def test_rare_inner_values_are_patches_where_that_is_cheaper() -> None:
    values = np.repeat(np.arange(0, 4000, 40, dtype=np.int32), 2**14)
    values[:: 2**12] = np.arange(400) * 10 + 1  # once each, between the others
    RNG.shuffle(values)
    encoded = check(values, "i16", 2**18)
    histogram = rans.Histogram.of(values)
    table = rans.fit(histogram)
    assert np.count_nonzero(table.frequencies) == 100 < np.count_nonzero(histogram.counts)
    assert encoded.stream.nbytes < 1.004 * histogram.entropy_bits / 8


def test_a_histogram_without_low_bits() -> None:
    values = RNG.integers(-1000, 900, 10_000).astype(np.int32)
    for low in (0, 1, 5):
        high, rest = rans.Histogram.of(values).split(low)
        for split, part in ((high, values >> low), (rest, values & ((1 << low) - 1))):
            direct = rans.Histogram.of(part)
            assert (split.lowest, split.total) == (direct.lowest, direct.total)
            assert np.array_equal(split.counts, direct.counts)


def test_lanes_grow_with_the_chunks() -> None:
    short = check(SKEWED[:500], "i8").pieces[0]
    long = check(np.resize(SKEWED, 2**20), "i8", 2**20).pieces[0]
    assert short[0] == 0 and long[0] == 5


@pytest.mark.parametrize(
    ("lowest", "highest", "kind"),
    [
        (0, 0, "i8"),
        (-128, 127, "i8"),
        (-129, 0, "i16"),
        (0, 128, "i16"),
        (-32768, 32767, "i16"),
        (0, 32768, "i32"),
        (-32769, 0, "i32"),
    ],
)
def test_integer_type(lowest: int, highest: int, kind: str) -> None:
    assert integer_type(lowest, highest) == kind


def test_symbols_are_asked_for_chunk_by_chunk() -> None:
    asked: list[int] = []

    def values(k: int) -> npt.NDArray[np.int32]:
        asked.append(k)
        return SKEWED[k * LEAF : (k + 1) * LEAF]

    encoded = encode(Symbols(SKEWED.size, LEAF, values), "i8")
    assert np.array_equal(decode(encoded), SKEWED) and set(asked) == {0, 1, 2}


def test_zstd_frame_of_another_size() -> None:
    frame = zstd.pack(b"x" * 1000)
    assert zstd.unpack(frame, 1000, "here") == b"x" * 1000
    for damaged, size in [(frame, 999), (frame, 1001), (frame + b"\0", 1000), (frame[:-1], 1000), (b"", 0), (b"?", 3)]:
        with pytest.raises(FormatError) as caught:
            zstd.unpack(damaged, size, "here")
        assert caught.value.code == "zstd" and "here" in str(caught.value)


def test_zstd_bomb_is_not_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    import tracemalloc

    bomb = zstd.pack(bytes(200_000_000))
    tracemalloc.start()
    with pytest.raises(FormatError):
        zstd.unpack(bomb, 1000, "here")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20_000_000


def test_without_a_zstd_library(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = zstd.pack(b"abc")
    monkeypatch.setattr(zstd, "_zstd", None)
    assert check(REPEATING, "u8").stream.coder != "zstd"
    with pytest.raises(UnsupportedError, match=r"pip install backports\.zstd") as caught:
        zstd.unpack(frame, 3, "here")
    assert caught.value.code == "zstd_missing"
