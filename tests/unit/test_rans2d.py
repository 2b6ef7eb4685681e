"""Coder `rans2d`: what it saves, that it returns what it was given on every vector path, and what it refuses."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tersor import _core
from tersor.coders import CORE_TYPES, EncodedStream, Symbols, encode, open_prelude, rans, rans2d
from tersor.format.layout import chunk_counts
from tersor.format.manifest import PRELUDES

VECTORS = (0, 1, 2)
RANS2D = PRELUDES.index("rans2d")


def heteroscedastic(rows: int, columns: int, scale: float, seed: int = 0) -> npt.NDArray[np.int32]:
    rng = np.random.default_rng(seed)
    row, column = np.exp(0.5 * rng.standard_normal(rows)), np.exp(0.5 * rng.standard_normal(columns))
    return np.round(rng.laplace(0, scale, (rows, columns)) * row[:, None] * column).astype(np.int32)


def plan(levels: npt.NDArray[np.int32], chunk: int = 65536) -> rans2d.Plan2D | None:
    flat = levels.reshape(-1)
    parts = Symbols.of(flat, chunk).values
    return rans2d.plan(parts, flat.size, chunk, levels.shape[1], rans.Histogram.of(flat))


def check(encoded: EncodedStream, expected: npt.NDArray[np.int32]) -> None:
    stream = encoded.stream
    head = open_prelude(stream, encoded.pieces[0])
    for vectors in VECTORS:
        parts = [
            _core.decode_integers(
                head, CORE_TYPES[stream.type], np.frombuffer(piece, np.uint8), count, k * stream.chunk, vectors
            )
            for k, (piece, count) in enumerate(
                zip(encoded.pieces[1:], chunk_counts(stream.count, stream.chunk), strict=True)
            )
        ]
        assert np.array_equal(np.concatenate(parts), expected.reshape(-1))


@pytest.mark.parametrize(("rows", "columns"), [(512, 384), (64, 2304), (2000, 72)])
@pytest.mark.parametrize("scale", [0.3, 1.5, 8])
def test_rows_and_columns_of_different_scale(rows: int, columns: int, scale: float) -> None:
    levels = heteroscedastic(rows, columns, scale)
    encoded = encode(Symbols.of(levels, 65536, columns), "i16")
    assert encoded.stream.coder == "rans2d"
    check(encoded, levels)
    assert encoded.stream.nbytes < encode(Symbols.of(levels, 65536), "i16").stream.nbytes * 0.99
    predicted = plan(levels)
    assert predicted is not None and predicted.nbytes == pytest.approx(encoded.stream.nbytes, rel=0.003, abs=30)


def test_near_the_entropy_of_known_scales() -> None:
    """Rows of 512 Laplace levels, scales exp(0.5 N(0, 1)): within 1.5 % of what knowing the scales would give."""
    rng = np.random.default_rng(1)
    rows, columns = 2000, 512
    row = 1.2 * np.exp(0.5 * rng.standard_normal(rows))
    levels = np.round(rng.laplace(0, 1, (rows, columns)) * row[:, None]).astype(np.int32)
    edges = np.arange(-200, 202) - 0.5
    tail = 0.5 * np.exp(-np.abs(edges) / row[:, None])
    below = np.where(edges < 0, tail, 1 - tail)
    likelihood = np.take_along_axis(np.diff(below, axis=1), levels.astype(np.int64) + 200, axis=1)
    ideal = -np.log2(likelihood).sum() / 8
    assert encode(Symbols.of(levels, 2**18, columns), "i16").stream.nbytes < ideal * 1.015


def test_identically_distributed_levels_keep_one_table() -> None:
    levels = np.round(np.random.default_rng(2).laplace(0, 2, (300, 300))).astype(np.int32)
    assert encode(Symbols.of(levels, 65536, 300), "i8").stream.coder == "rans"


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32), st.floats(0.05, 20), st.sampled_from([1, 16, 32]))
@settings(max_examples=60)
def test_arbitrary_shapes(rows: int, columns: int, seed: int, scale: float, outlier: int) -> None:
    levels = heteroscedastic(rows, columns, scale, seed)
    levels[rows // 2, columns // 2] = outlier * 7
    found = plan(levels)
    if found is None:
        return
    flat = levels.reshape(-1)
    for vectors in VECTORS:
        piece = np.frombuffer(found.piece(0, flat), np.uint8)
        decoded = _core.decode_integers(found.native, CORE_TYPES["i32"], piece, flat.size, 0, vectors)
        assert np.array_equal(decoded, flat)


@pytest.mark.parametrize("place", range(0, 40))
def test_damaged_preludes_are_refused_or_decode(place: int) -> None:
    levels = heteroscedastic(200, 150, 2)
    found = plan(levels)
    assert found is not None
    damaged = bytearray(found.prelude)
    damaged[place % len(damaged)] ^= 1 << place % 8
    piece = np.frombuffer(found.piece(0, levels.reshape(-1)), np.uint8)
    try:
        prelude = _core.Prelude(np.frombuffer(bytes(damaged), np.uint8), RANS2D, levels.size)
        _core.decode_integers(prelude, CORE_TYPES["i32"], piece, levels.size)
    except _core.StreamError as error:
        assert str(error) in {"table", "truncated", "trailing", "patch", "range"}


@pytest.mark.parametrize("size", [0, 1, 2, 3, 10, 60, -1])
def test_truncated_preludes(size: int) -> None:
    found = plan(heteroscedastic(200, 150, 2))
    assert found is not None
    with pytest.raises(_core.StreamError, match="table"):
        _core.Prelude(np.frombuffer(found.prelude[:size], np.uint8), RANS2D, 30000)


def test_wrong_number_of_rows() -> None:
    found = plan(heteroscedastic(200, 150, 2))
    assert found is not None
    with pytest.raises(_core.StreamError, match="table"):
        _core.Prelude(np.frombuffer(found.prelude, np.uint8), RANS2D, 60000)


def test_filters_of_long_kernels_have_classes_of_their_own() -> None:
    rng = np.random.default_rng(5)
    filters = np.exp(rng.standard_normal((16, 64, 1)))  # outputs x inputs, each with a kernel of 64 positions
    levels = np.round(rng.laplace(0, 1.5, (16, 64, 64)) * filters).astype(np.int32).reshape(16, -1)
    by_output = encode(Symbols.of(levels, 65536, levels.shape[1]), "i16")
    by_filter = encode(Symbols.of(levels, 65536, levels.shape[1], kernel=64), "i16")
    assert by_filter.stream.coder == "rans2d"
    assert by_filter.stream.nbytes < 0.95 * by_output.stream.nbytes
    check(by_filter, levels.reshape(-1))


@pytest.mark.parametrize("scale", [0.3, 3.0, 20.0])
def test_bytes_and_integers_are_decoded_alike(scale: float) -> None:
    levels = np.clip(heteroscedastic(300, 700, scale), -128, 127)
    levels[7, 11], levels[250, 3] = -128, 127  # patches, perhaps
    flat = levels.reshape(-1)
    found = plan(levels, flat.size)
    assert found is not None
    alone = rans.plan([rans.Histogram.of(flat)])
    for head, piece, coder in (
        (found.prelude, found.piece(0, flat), RANS2D),
        (alone.prelude, alone.piece(0, flat), 0),
    ):
        prelude, data = _core.Prelude(np.frombuffer(head, np.uint8), coder, flat.size), np.frombuffer(piece, np.uint8)
        out = np.empty(flat.size, np.uint8)
        _core.decode_bytes(out, prelude, CORE_TYPES["i8"], data)
        assert np.array_equal(out.view(np.int8), flat)


def test_a_patch_outside_the_type_is_refused_in_bytes() -> None:
    flat = np.round(np.random.default_rng(6).laplace(0, 2, 200_000)).astype(np.int32)
    flat[777] = 128
    table = rans.fit(rans.Histogram.of(np.clip(flat, -20, 20)))
    head = np.frombuffer(rans.prelude([table], 32), np.uint8)
    piece = np.frombuffer(_core.encode_chunk(flat, _core.Prelude(head)), np.uint8)
    with pytest.raises(_core.StreamError, match="range"):
        _core.decode_bytes(np.empty(flat.size, np.uint8), _core.Prelude(head), CORE_TYPES["i8"], piece)
