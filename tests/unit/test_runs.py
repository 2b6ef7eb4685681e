"""Coder `runs`: what it saves and when it is chosen, that it returns what it was given on every vector path, what it
refuses."""

import handmade as hm
import handmade_runs as hr
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import reference

from tersor import _core
from tersor.coders import CORE_TYPES, Symbols, coded_bytes, encode, open_prelude, rans, runs
from tersor.format.layout import chunk_counts
from tersor.format.manifest import PRELUDES

I32, I8 = CORE_TYPES["i32"], CORE_TYPES["i8"]


def native_of(made: hr.Runs) -> _core.Prelude:
    return _core.Prelude(np.frombuffer(made.prelude(), np.uint8), PRELUDES.index("runs"))


def sparse(count: int, share: float, seed: int = 0) -> npt.NDArray[np.int32]:
    return hr.sparse(count, share, seed).astype(np.int32)


@pytest.mark.parametrize("share", [0.0, 1e-6, 1e-4, 0.005, 0.05])
def test_sparse_levels(share: float) -> None:
    """Chosen, as small as `rans` within 0.1 %, and decoded alike on every vector path."""
    levels = sparse(2**20 + 77, share)
    symbols = Symbols.of(levels, 2**18)
    encoded = encode(symbols, "i8")
    assert encoded.stream.coder == "runs"
    assert encoded.stream.nbytes <= rans.plan([rans.Histogram.of(v) for v in symbols]).nbytes * 1.001 + 8
    assert coded_bytes(symbols, "i8") == pytest.approx(encoded.stream.nbytes, rel=0.005, abs=8)
    head = open_prelude(encoded.stream, encoded.pieces[0])
    for vectors in (0, 1, 2):
        parts = [
            _core.decode_integers(head, I32, np.frombuffer(piece, np.uint8), count, 0, vectors)
            for piece, count in zip(encoded.pieces[1:], chunk_counts(levels.size, 2**18), strict=True)
        ]
        assert np.array_equal(np.concatenate(parts), levels)


def test_near_the_entropy() -> None:
    levels = np.sign(sparse(2**22, 0.005))
    whole = rans.Histogram.of(levels)
    found = runs.plan(*Symbols.of(levels, 2**20).layout, whole)
    assert found is not None
    size = len(found.prelude) + sum(len(found.piece(k, part)) for k, part in enumerate(Symbols.of(levels, 2**20)))
    assert size == pytest.approx(found.nbytes, abs=16)
    assert 8 * size < 1.0015 * whole.entropy_bits


@pytest.mark.parametrize("levels", [sparse(2**18, 0.1), sparse(60_000, 0.01), sparse(2**18, 0.01) * 70_000])
def test_not_planned(levels: npt.NDArray[np.int32]) -> None:
    """Where too many levels are not zero, or there are too few in all, or too many to list."""
    assert runs.plan(*Symbols.of(levels, 2**18).layout, rans.Histogram.of(levels)) is None


def test_not_chosen_where_runs_are_not_geometric() -> None:
    """All levels in the second half: rans has a table for either."""
    levels = np.concatenate([np.zeros(2**18, np.int32), sparse(2**18, 0.12)])
    assert encode(Symbols.of(levels, 2**16), "i8").stream.coder == "rans"


@given(
    st.integers(1, 9000), st.integers(0, 2**32), st.floats(0, 1), st.sampled_from([1, 2, 4, 8, 16, 32]),
    st.integers(1, 15), st.integers(0, 9),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_any_levels_come_back(count: int, seed: int, share: float, lanes: int, bits: int, outliers: int) -> None:
    """Also those that the table lacks, by every kind of vectors, by hand and by the reference decoder."""
    rng = np.random.default_rng(seed)
    levels = sparse(count, share**4, seed)
    levels[rng.integers(0, count, outliers)] = rng.integers(-(2**31), 2**31, outliers)
    made = hr.Runs(hr.table(bits, 0.01 + 0.9 * share**4, int(rng.integers(8, 16))), bits, lanes)
    native, parsed = native_of(made), reference.PRELUDES["runs"](made.prelude(), count)
    for piece in (_core.encode_runs(levels, native), made.chunk(levels.tolist())):
        for vectors in (0, 1, 2):
            found = _core.decode_integers(native, I32, np.frombuffer(piece, np.uint8), count, 0, vectors)
            assert np.array_equal(found, levels)
        assert reference.decode_rans(piece, count, "i", parsed, 0) == levels.tolist()


def test_bytes_and_weights_are_decoded_alike() -> None:
    levels = np.clip(sparse(200_001, 0.02), -128, 127)
    made = hr.Runs(hr.table(3, 0.02), 3, 8)
    piece = np.frombuffer(_core.encode_runs(levels, native_of(made)), np.uint8)
    out, weights = np.empty(levels.size, np.uint8), np.empty(4 * levels.size, np.uint8)
    _core.decode_bytes(out, native_of(made), I8, piece)
    assert np.array_equal(out.view(np.int8), levels)
    step = np.array([0.5], np.float32)
    _core.decode_uniform(weights, 0, native_of(made), I8, piece, levels.size, step, None, 0, 0, 0.25)
    assert np.array_equal(weights.view(np.float32), (np.sign(levels) * (np.abs(levels) + 0.25) * 0.5).astype("f4"))


@pytest.mark.parametrize("place", range(80))
def test_damaged_chunks_are_refused_or_decode(place: int) -> None:
    """Alike on every path; the number of levels, low parts, states and words among what is damaged."""
    levels = sparse(50_000, 0.02)
    made = hr.Runs(hr.table(3, 0.02), 3, 8)
    piece = bytearray(_core.encode_runs(levels, native_of(made)))
    piece[place if place < 20 else place * 37 % len(piece)] ^= 1 << place % 8
    answers = set[str]()
    for vectors in (0, 1, 2):
        try:
            data = np.frombuffer(bytes(piece), np.uint8)
            answers.add(_core.decode_integers(native_of(made), I32, data, levels.size, 0, vectors).tobytes().hex())
        except _core.StreamError as error:
            answers.add(str(error))
    assert len(answers) == 1


def test_no_low_part_beyond_the_chunk_is_followed() -> None:
    """Low parts that add up to more than the chunk."""
    made = hr.Runs(hm.Table(1, (0,), 8), 15)
    piece = b"\3" + made.parts([30_000, 30_000, 30_000]) + made.body([1, 1, 1])
    data = np.frombuffer(piece, np.uint8)
    assert np.flatnonzero(_core.decode_integers(native_of(made), I32, data, 90_003)).tolist() == [30000, 60001, 90002]
    with pytest.raises(_core.StreamError, match="range"):
        _core.decode_integers(native_of(made), I32, data, 90_002)
