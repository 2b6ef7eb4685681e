"""Coder `rans1`: what it saves, that it returns what it was given on every vector path, what it refuses; and the
estimate of coded bytes."""

import handmade1 as h1
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import reference

from tersor import _core
from tersor.coders import CORE_TYPES, Symbols, coded_bytes, encode, open_prelude, rans, rans1
from tersor.format.layout import chunk_counts

I32 = CORE_TYPES["i32"]


def similar(count: int, scale: float, seed: int = 0) -> npt.NDArray[np.int32]:
    """Levels that resemble the one before."""
    noise = np.random.default_rng(seed).laplace(0, scale, count + 1)
    return np.rint(noise[1:] + 0.6 * noise[:-1]).astype(np.int32)


def decoded(stream: rans1.Plan1, piece: bytes, count: int, vectors: int) -> npt.NDArray[np.int32]:
    return _core.decode_integers(stream.native, I32, np.frombuffer(piece, np.uint8), count, 0, vectors)


@pytest.mark.parametrize("scale", [0.4, 1.5, 10.0])
def test_levels_like_the_one_before(scale: float) -> None:
    levels = similar(300_000, scale)
    encoded = encode(Symbols.of(levels, 65536, 3000), "i16")
    assert encoded.stream.coder == "rans1"
    assert encoded.stream.nbytes < 0.98 * encode(Symbols.of(levels, 65536), "i16").stream.nbytes
    head = open_prelude(encoded.stream, encoded.pieces[0])
    for vectors in (0, 1, 2):
        parts = [
            _core.decode_integers(head, I32, np.frombuffer(piece, np.uint8), count, 0, vectors)
            for piece, count in zip(encoded.pieces[1:], chunk_counts(levels.size, 65536), strict=True)
        ]
        assert np.array_equal(np.concatenate(parts), levels)


@given(
    st.integers(1, 5000), st.integers(0, 2**32), st.floats(0.05, 30), st.sampled_from([1, 2, 4, 8, 16, 32]),
    st.integers(1, 6), st.integers(0, 9),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_any_levels_come_back(count: int, seed: int, scale: float, lanes: int, tables: int, outliers: int) -> None:
    """Also those that no table has, by every kind of vectors, by hand and by the reference decoder."""
    rng = np.random.default_rng(seed)
    levels = similar(count, scale, seed)
    contexts = h1.Contexts(h1.by_size(tables, int(rng.integers(8, 14))), lanes)
    levels[rng.integers(0, count, outliers)] = rng.integers(-(2**31), 2**31, outliers)
    prelude = np.frombuffer(contexts.prelude(), np.uint8)
    native = _core.Prelude(prelude, rans1.PRELUDES.index("rans1"))
    parsed = reference.PRELUDES["rans1"](contexts.prelude(), count)
    for piece in (_core.encode_chunk(levels, native), contexts.chunk(levels.tolist())):
        for vectors in (0, 1, 2):
            found = _core.decode_integers(native, I32, np.frombuffer(piece, np.uint8), count, 0, vectors)
            assert np.array_equal(found, levels)
        assert reference.decode_rans(piece, count, "i", parsed, 0) == levels.tolist()


def test_bytes_and_integers_are_decoded_alike() -> None:
    levels = np.clip(similar(200_001, 9.0), -128, 127)
    found = rans1.plan(*Symbols.of(levels, 2**18).layout, rans.Histogram.of(levels))
    assert found is not None
    out = np.empty(levels.size, np.uint8)
    _core.decode_bytes(out, found.native, CORE_TYPES["i8"], np.frombuffer(found.piece(0, levels), np.uint8))
    assert np.array_equal(out.view(np.int8), levels)


def test_a_turned_level_outside_the_type_is_refused() -> None:
    """-128 fits a byte; behind a negative level it stands for 128."""
    contexts = h1.Contexts([h1.Table(-128, (0,), 12), h1.Table(-128, (0,), 12)], 1)
    native = _core.Prelude(np.frombuffer(contexts.prelude(), np.uint8), rans1.PRELUDES.index("rans1"))
    piece = np.frombuffer(contexts.chunk([-128, 128]), np.uint8)
    assert _core.decode_integers(native, I32, piece, 2).tolist() == [-128, 128]
    with pytest.raises(_core.StreamError, match="range"):
        _core.decode_bytes(np.empty(2, np.uint8), native, CORE_TYPES["i8"], piece)


@pytest.mark.parametrize("place", range(60))
def test_damaged_chunks_are_refused_or_decode(place: int) -> None:
    levels = similar(50_000, 1.5)
    found = rans1.plan(*Symbols.of(levels, 65536).layout, rans.Histogram.of(levels))
    assert found is not None
    piece = bytearray(found.piece(0, levels))
    piece[place * 37 % len(piece)] ^= 1 << place % 8
    answers = set[str]()
    for vectors in (0, 1, 2):
        try:
            answers.add(decoded(found, bytes(piece), levels.size, vectors).tobytes().hex())
        except _core.StreamError as error:
            answers.add(str(error))
    assert len(answers) == 1


@pytest.mark.parametrize("kernel", [0, 64])
@pytest.mark.parametrize("spread", [0.0, 0.5])
@pytest.mark.parametrize("scale", [0.15, 0.8, 3.0, 20.0])
@pytest.mark.parametrize("correlated", [False, True])
def test_estimate_of_coded_bytes(scale: float, spread: float, kernel: int, correlated: bool) -> None:
    rng = np.random.default_rng(int(scale * 10))
    noise = similar(256 * 2048, 50.0).reshape(256, 2048) / 50 if correlated else rng.laplace(0, 1, (256, 2048))
    levels = np.rint(noise * scale * np.exp(spread * rng.standard_normal((256, 1)))).astype(np.int32)
    symbols = Symbols.of(levels, 2**18, 2048, kernel)
    assert coded_bytes(symbols, "i16") == pytest.approx(encode(symbols, "i16").stream.nbytes, rel=0.005)
