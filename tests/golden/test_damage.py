"""Every truncation of every golden file, and every flipped bit of the small ones, ends in a `FormatError`.

The whole campaign, with a million random damages to a large file, is benchmarks/damage.py; its results are in
docs/damage.md.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from handmade import digest_of

import tersor
from tersor.errors import FormatError
from tersor.format import reader
from tersor.format.layout import HEADER_SIZE

FILES = sorted((Path(__file__).resolve().parent / "files").glob("*.tsr"))
SMALL = [path for path in FILES if path.stat().st_size <= 400]
SHARDS = 8


def code_of(data: bytes) -> str:
    """The code a file is refused with; any other exception is a failure of the test."""
    try:
        with tersor.open(data, workers=1) as file:
            file.verify()
    except FormatError as error:
        return error.code
    return "silent"


@pytest.mark.parametrize("shard", range(SHARDS))
def test_every_truncation_is_found(shard: int) -> None:
    for path in FILES[shard::SHARDS]:
        data = path.read_bytes()
        codes = Counter(code_of(data[:size]) for size in range(len(data)))
        assert codes == {"empty": 1, "truncated": len(data) - 1}, path.name


@pytest.mark.parametrize("shard", range(SHARDS))
def test_every_flipped_bit_is_found(shard: int) -> None:
    for path in SMALL[shard::SHARDS]:
        data = bytearray(path.read_bytes())
        for at in range(len(data)):
            for bit in range(8):
                data[at] ^= 1 << bit
                code = code_of(bytes(data))
                data[at] ^= 1 << bit
                part = "not_tersor" if at < 8 else "header_checksum" if at < HEADER_SIZE else None
                assert code == part or (part is None and code in ("manifest_checksum", "chunk_checksum")), (
                    path.name,
                    at,
                )


@pytest.mark.parametrize("shard", range(SHARDS))
def test_flipped_data_behind_forged_checksums(shard: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The decoder itself meets the damage: it refuses the stream, or the digest does, or the weights are the same."""

    class Forged(int):
        def __ne__(self, other: object) -> bool:
            return False

    monkeypatch.setattr(reader, "checksum", lambda data: Forged())
    seen: Counter[str] = Counter()
    for path in SMALL[shard::SHARDS]:
        data = bytearray(path.read_bytes())
        start = HEADER_SIZE + int.from_bytes(data[24:32], "little")
        for at in range(start, len(data)):
            data[at] ^= 1 << at % 8
            seen[code_of(bytes(data))] += 1
            data[at] ^= 1 << at % 8
    expected = {"stream_table", "stream_truncated", "stream_trailing", "stream_patch", "stream_range", "digest", "zstd"}
    assert set(seen) <= expected | {"silent"}
    assert seen["silent"] < 0.1 * seen.total()  # under a patch, in a table nobody uses
    assert seen["digest"] > 0


def test_two_chunks_exchanged_behind_forged_checksums() -> None:
    """What no checksum of a piece can see, the digest of the tensor does."""
    data, other = bytes(range(100)), bytes(reversed(range(100)))
    assert digest_of(data, 1) != digest_of(other, 1)
    assert digest_of(data, 1) != digest_of(data, 2)
    assert digest_of(data + b"\0", 1) != digest_of(data, 1)
    assert digest_of(bytes(2 * 65536), 1) != digest_of(bytes(65536), 1)


def test_nothing_at_all() -> None:
    assert code_of(b"") == "empty"
    for byte in range(256):
        assert code_of(bytes([byte])) == ("truncated" if byte == 0x89 else "not_tersor")
        assert code_of(bytes([byte]) * 100) == "not_tersor"
