"""Header, manifest and limits: what was packed is unpacked; the malformed files have a folder of their own."""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers import array_unit, container, unit_of

from tersor import _core
from tersor.errors import FormatError, LimitError, TersorError, UnsupportedError
from tersor.format import cbor
from tersor.format.layout import HEADER_SIZE, LEAF, MAGIC, MAX_CHUNK, Header, chunk_counts
from tersor.format.limits import Limits
from tersor.format.manifest import Entry, Manifest, Step, Stream, place_of
from tersor.format.reader import TensorFile
from tersor.methods import keep

HEADER = Header(1000, 100, 300, 0x0123456789ABCDEF)


def test_header_as_specified() -> None:
    packed = HEADER.pack()
    assert len(packed) == HEADER_SIZE == 56
    assert packed[:8] == bytes.fromhex("89545352 0d0a1a0a")
    assert struct.unpack("<HHIQQQQ", packed[8:48]) == (1, 3, 0, 1000, 100, 300, 0x0123456789ABCDEF)
    assert packed[48:] == struct.pack("<Q", _core.hash(packed[:48]))
    assert Header.unpack(packed, 1000) == HEADER


def sealed(body: bytes) -> bytes:
    return body + struct.pack("<Q", _core.hash(body))


def header(**changed: Any) -> bytes:
    fields = {
        "magic": MAGIC,
        "major": 1,
        "minor": 0,
        "reserved": 0,
        "size": 1000,
        "stored": 100,
        "plain": 300,
        "hash": 0,
    }
    return sealed(struct.pack("<8sHHIQQQQ", *(fields | changed).values()))


@pytest.mark.parametrize(
    ("data", "size", "code"),
    [
        (b"", 0, "empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(48), 1000, "not_tersor"),
        (b"x", 1, "not_tersor"),
        (b"\x89", 1, "truncated"),
        (header()[:55], 55, "truncated"),
        (header()[:-1] + b"\0", 1000, "header_checksum"),
        (header(major=2), 1000, "version"),
        (header(major=0), 1000, "version"),
        (header(reserved=1), 1000, "reserved"),
        (header(), 999, "truncated"),
        (header(), 1001, "trailing"),
        (header(stored=945), 1000, "manifest_bounds"),
        (header(stored=2**64 - 1), 1000, "manifest_bounds"),
        (header(major=2, reserved=1), 5, "version"),  # the order of the checks
        (header(reserved=1), 5, "reserved"),
    ],
)
def test_headers_that_are_refused(data: bytes, size: int, code: str) -> None:
    with pytest.raises(FormatError) as caught:
        Header.unpack(data, size)
    assert caught.value.code == code
    assert isinstance(caught.value, UnsupportedError) == (code == "version")


def test_newer_minor_version_is_read() -> None:
    assert Header.unpack(header(minor=7), 1000).minor == 7


@pytest.mark.parametrize(
    ("count", "chunk", "expected"),
    [(0, LEAF, []), (1, LEAF, [1]), (LEAF, LEAF, [LEAF]), (2 * LEAF + 1, LEAF, [LEAF, LEAF, 1]), (5, MAX_CHUNK, [5])],
)
def test_chunk_counts(count: int, chunk: int, expected: list[int]) -> None:
    assert chunk_counts(count, chunk) == expected


STREAM = Stream("rans", "i8", 6, LEAF, (10, 20), (1, 2**32 - 1))
ENTRY = Entry("w", "F32", (2, 3), 2**64 - 1, (Step("raw", {"planes": 1}, (STREAM,)),))
MANIFEST = Manifest((ENTRY, replace(ENTRY, name="tie", chain=(), tie=0)), {"tersor": "0", "x": [1, 2.5, None]})


def test_manifest_round_trip() -> None:
    stored, size = MANIFEST.pack()
    assert Manifest.unpack(stored, size, Limits()) == MANIFEST
    assert MANIFEST.pack() == (stored, size)
    assert MANIFEST.data_size == 30 and ENTRY.stored == 30 and STREAM.chunks == 1 and STREAM.preludes == 1
    assert (ENTRY.count, ENTRY.words, ENTRY.nbytes) == (6, 6, 24)
    assert replace(ENTRY, dtype="C64").words == 12 and replace(ENTRY, dtype="C64").nbytes == 48
    assert replace(ENTRY, shape=()).count == 1 and replace(ENTRY, shape=(3, 0)).count == 0


def root() -> dict[str, Any]:
    value: Any = cbor.decode(zlib.decompress(MANIFEST.pack()[0]))
    return value


def unpack(value: Any, limits: Limits | None = None) -> Manifest:
    plain = cbor.encode(value)
    return Manifest.unpack(zlib.compress(plain), len(plain), limits or Limits())


def set_at(*path: Any) -> Any:
    *way, last, new = path

    def change(value: Any) -> None:
        for key in way:
            value = value[key]
        value[last] = new

    return change


STREAM_PATH = ("tensors", 0, 4, 0, 2, 0)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (set_at("extra", 1), "manifest_schema"),
        (lambda r: r.pop("meta"), "manifest_schema"),
        (set_at("needs", ["telepathy"]), "unknown_feature"),
        (set_at("needs", [1]), "manifest_schema"),
        (set_at("meta", []), "manifest_schema"),
        (set_at("tensors", {}), "manifest_schema"),
        (set_at("tensors", 0, []), "manifest_schema"),
        (set_at("tensors", 0, 0, ""), "bad_name"),
        (set_at("tensors", 0, 0, "a\0b"), "bad_name"),
        (set_at("tensors", 0, 0, b"w"), "manifest_schema"),
        (set_at("tensors", 1, 0, "w"), "duplicate_name"),
        (set_at("tensors", 0, 1, "F31"), "unknown_dtype"),
        (set_at("tensors", 0, 2, [1] * 33), "bad_shape"),
        (set_at("tensors", 0, 2, [-1]), "manifest_schema"),
        (set_at("tensors", 0, 2, [2**63]), "bad_shape"),
        (set_at("tensors", 0, 2, [True]), "manifest_schema"),
        (set_at("tensors", 0, 2, [1.0]), "manifest_schema"),
        (set_at("tensors", 0, 2, [2**40, 2**40]), "limit"),
        (set_at("tensors", 0, 3, bytes(7)), "manifest_schema"),
        (set_at("tensors", 0, 4, []), "bad_chain"),
        (set_at("tensors", 0, 4, [["raw", {}, []]] * 2), "bad_chain"),
        (set_at("tensors", 0, 4, 0, 0, "magic"), "unknown_op"),
        (set_at("tensors", 0, 4, 0, 1, []), "manifest_schema"),
        (set_at("tensors", 1, 1, 1), "bad_tie"),
        (set_at("tensors", 1, 1, 7), "bad_tie"),
        (set_at(*STREAM_PATH, 0, "lzma"), "unknown_coder"),
        (set_at(*STREAM_PATH, 1, "u16"), "bad_stream_type"),
        (set_at(*STREAM_PATH, 2, -1), "manifest_schema"),
        (set_at(*STREAM_PATH, 3, 0), "bad_chunk"),
        (set_at(*STREAM_PATH, 3, LEAF + 1), "bad_chunk"),
        (set_at(*STREAM_PATH, 3, 2 * MAX_CHUNK), "bad_chunk"),
        (set_at(*STREAM_PATH, 2, LEAF + 1), "bad_pieces"),
        (set_at(*STREAM_PATH, 0, "raw"), "bad_pieces"),
        (set_at(*STREAM_PATH, 5, bytes(7)), "manifest_schema"),
    ],
)
def test_manifests_that_are_refused(change: Any, code: str) -> None:
    value = root()
    assert unpack(value) == MANIFEST
    change(value)
    with pytest.raises(FormatError) as caught:
        unpack(value)
    assert caught.value.code == code


@pytest.mark.parametrize("delta", [-1, 1])
def test_stated_size_of_the_manifest(delta: int) -> None:
    stored, size = MANIFEST.pack()
    with pytest.raises(FormatError) as caught:
        Manifest.unpack(stored, size + delta, Limits())
    assert caught.value.code == "manifest_deflate"


@pytest.mark.parametrize("damage", [lambda s: s[:-1], lambda s: s + b"\0", lambda s: b"", lambda s: b"\0" + s[1:]])
def test_broken_deflate(damage: Any) -> None:
    stored, size = MANIFEST.pack()
    with pytest.raises(FormatError) as caught:
        Manifest.unpack(damage(stored), size, Limits())
    assert caught.value.code == "manifest_deflate"


# -- limits -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def file() -> bytes:
    array = np.zeros((1000, 1000), np.float32)
    return container(*(keep.lossless(u, u.load()) for u in [array_unit("zeros", array), array_unit("b", array[0])]))


@pytest.mark.parametrize(
    ("limits", "setting"),
    [
        (Limits(manifest_bytes=20), "manifest_bytes"),
        (Limits(tensors=1), "tensors"),
        (Limits(tensor_bytes=3_999_999), "tensor_bytes"),
        (Limits(base_bytes=0, expansion=1), "expansion"),
    ],
)
def test_limits_are_kept_and_named(file: bytes, limits: Limits, setting: str) -> None:
    with pytest.raises(LimitError) as caught:
        TensorFile(file, limits=limits)
    assert caught.value.code == "limit"
    assert f"Limits.{setting} " in str(caught.value) and f"--limit-{setting.replace('_', '-')}" in str(caught.value)


def test_limits_are_inclusive(file: bytes) -> None:
    decoded = 4_000_000 + 4000
    with TensorFile(file, limits=Limits(tensors=2, tensor_bytes=4_000_000, base_bytes=decoded, expansion=0)) as opened:
        assert len(opened) == 2
    with pytest.raises(LimitError):
        TensorFile(file, limits=Limits(base_bytes=decoded - 1, expansion=0))


def test_errors_say_what_where_and_what_to_do() -> None:
    error = TersorError("something is wrong", where="tensor 'w'", remedy="mend it")
    assert str(error) == "something is wrong (tensor 'w'): mend it"
    assert (error.what, error.where, error.remedy) == ("something is wrong", "tensor 'w'", "mend it")
    assert str(TersorError("bare")) == "bare"
    damaged = FormatError("digest", "what")
    assert damaged.code == "digest" and damaged.remedy


def test_thousands_of_equal_scalars_are_within_the_limits() -> None:
    """Zero points of a quantized model, counters of normalizations: no records deflate better."""
    zero = np.zeros(8, np.uint8)
    tensors = [keep.lossless(unit_of(f"layers.{k // 7}.{k % 7}.zero", "I64", (), zero), zero) for k in range(5000)]
    with TensorFile(container(*tensors)) as file:
        assert len(file) == 5000


def test_places_are_short_however_long_the_name() -> None:
    assert place_of("w") == "tensor 'w'"
    assert len(place_of("\0" * 10**6)) < 1000 and place_of("x" * 10**6).endswith("x'...")
