from __future__ import annotations

import errno
import io
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Arrays, array_unit, container, identical, random_bytes, unit_of

import tersor
from tersor import TensorFile
from tersor.encoded import Encoded
from tersor.errors import FormatError
from tersor.format.layout import HEADER_SIZE, LEAF
from tersor.format.reader import BLOCK, HUGE
from tersor.format.writer import write
from tersor.methods import keep

RNG = np.random.default_rng(0)
ARRAYS: Arrays = {
    "first": RNG.standard_normal((300, 400)).astype(np.float32),
    "second": RNG.integers(0, 50, (70, 80), dtype=np.int64),
    "third": RNG.standard_normal(3 * LEAF + 5).astype(np.float16),
    "scalar": np.array(7, np.uint8),
    "empty": np.zeros((4, 0), np.float32),
}


def encoded(arrays: Arrays) -> list[Encoded]:
    return [keep.lossless(unit, unit.load()) for unit in (array_unit(n, a) for n, a in arrays.items())]


@pytest.fixture(scope="module")
def data() -> bytes:
    return container(*encoded(ARRAYS), meta={"origin": "here"})


class Counting(io.BytesIO):
    """Remembers which bytes were read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.ranges: list[tuple[int, int]] = []

    def read(self, size: int | None = -1, /) -> bytes:
        start = self.tell()
        result = super().read(size)
        self.ranges.append((start, start + len(result)))
        return result

    @property
    def total(self) -> int:
        return sum(b - a for a, b in self.ranges)


def test_opening_reads_the_manifest_only(data: bytes) -> None:
    counting = Counting(data)
    with TensorFile(counting) as file:
        assert counting.total == HEADER_SIZE + file.header.stored_size
        assert list(file) == list(ARRAYS) and len(file) == 5 and "first" in file and "nothing" not in file
        assert file.meta == {"origin": "here"} and file.nbytes == len(data)
        assert file.entry("first").shape == (300, 400)
        assert counting.total == HEADER_SIZE + file.header.stored_size


@pytest.mark.parametrize("name", ARRAYS)
def test_one_tensor_reads_its_own_bytes_once(data: bytes, name: str) -> None:
    counting = Counting(data)
    with TensorFile(counting, workers=1) as file:
        counting.ranges.clear()
        assert identical(file[name], ARRAYS[name])
        start = HEADER_SIZE + file.header.stored_size
        for entry in file.entries:
            if entry.name == name:
                break
            start += entry.stored
        assert counting.total == entry.stored
        assert all(start <= a <= b <= start + entry.stored for a, b in counting.ranges)


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_any_number_of_workers(data: bytes, workers: int) -> None:
    with TensorFile(data, workers=workers) as file:
        loaded = file.load()
        assert list(loaded) == list(ARRAYS)
        assert all(identical(loaded[n], a) and identical(file[n], a) for n, a in ARRAYS.items())


@pytest.mark.parametrize("kind", ["path", "text", "bytes", "BytesIO", "file", "unbuffered"])
def test_sources(data: bytes, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.tsr"
    path.write_bytes(data)
    sources: dict[str, Any] = {"path": path, "text": str(path), "bytes": data, "BytesIO": io.BytesIO(data)}
    if kind in sources:
        assert identical(tersor.load(sources[kind])["first"], ARRAYS["first"])
    else:
        with open(path, "rb", buffering=0 if kind == "unbuffered" else -1) as file:
            assert identical(tersor.load(file)["first"], ARRAYS["first"])
            assert not file.closed  # the caller's files stay open


def test_files_that_read_in_small_pieces(data: bytes) -> None:
    class Reluctant(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, 997))

    assert identical(tersor.load(Reluctant(data))["third"], ARRAYS["third"])


def test_file_that_shrinks_while_open(data: bytes) -> None:
    source = io.BytesIO(data)
    with TensorFile(source) as file:
        source.truncate(len(data) // 2)
        with pytest.raises(FormatError) as caught:
            file["third"]
        assert caught.value.code == "truncated"


def test_closed_file(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.tsr").write_bytes(data)
    for source in (data, tmp_path / "a.tsr"):
        file = TensorFile(source)
        first = file["first"]
        file.close()
        file.close()
        assert identical(first, ARRAYS["first"])
        with pytest.raises(ValueError, match="closed"):
            file["first"]


def test_what_is_kept_of_small_tensors_keeps_one_block() -> None:
    arrays = {str(k): np.full(2**18 + k, k, np.float32) for k in range(40)}  # 1 MiB each
    with TensorFile(container(*encoded(arrays)), workers=2) as file:
        loaded = file.load()
    blocks: dict[int, set[str]] = {}
    for name, array in loaded.items():
        assert array.flags.aligned and np.array_equal(array, arrays[name])
        base = array
        while isinstance(base.base, np.ndarray):
            base = base.base
        assert base.nbytes <= BLOCK + HUGE
        blocks.setdefault(id(base), set()).add(name)
    assert len(blocks) == 3


def test_missing_tensor(data: bytes) -> None:
    with TensorFile(data) as file:
        for read in (file.__getitem__, file.stored, file.entry):
            with pytest.raises(KeyError):
                read("nothing")
        assert file.get("nothing") is None


def test_ties_are_one_array(model: Arrays, compressed: dict[int, tuple[Path, Any]]) -> None:
    with TensorFile(compressed[8][0]) as file:
        embedding, head = file.entry("embed.weight"), file.entry("head.weight")
        assert head.tie == 0 and head.stored == 0 and head.shape == embedding.shape and head.digest == embedding.digest
        assert identical(file["head.weight"], file["embed.weight"])
        loaded = file.load()
        assert np.shares_memory(loaded["head.weight"], loaded["embed.weight"])
        assert b"".join(file.chunks("head.weight")) == loaded["embed.weight"].tobytes()


@pytest.mark.parametrize("name", ARRAYS)
def test_chunks_add_up(data: bytes, name: str) -> None:
    with TensorFile(data) as file:
        parts = list(file.chunks(name))
        assert b"".join(parts) == ARRAYS[name].tobytes() == file.stored(name).tobytes()
        assert all(part.size <= 2 * LEAF * ARRAYS[name].itemsize for part in parts)


def test_bfloat16_widens_and_keeps_its_bytes() -> None:
    words = np.arange(65536, dtype="<u2")
    bits = words.view(np.uint8)
    with TensorFile(container(keep.lossless(unit_of("b", "BF16", (256, 256), bits), bits))) as file:
        assert file["b"].dtype == np.float32 and file["b"].shape == (256, 256)
        assert file["b"].view("<u4").reshape(-1).tolist() == (words.astype("<u4") << 16).tolist()
        assert file.stored("b").tobytes() == bits.tobytes()


def test_many_threads_share_one_file(data: bytes) -> None:
    errors: list[str] = []
    with TensorFile(data, workers=2) as file:

        def work(name: str) -> None:
            for _ in range(5):
                if not identical(file[name], ARRAYS[name]):
                    errors.append(name)

        threads = [threading.Thread(target=work, args=(name,)) for name in ARRAYS for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert errors == []


def test_a_wrong_digest_is_found_and_named() -> None:
    from dataclasses import replace

    (tensor,) = encoded({"w": ARRAYS["first"]})
    wrong = replace(tensor, entry=replace(tensor.entry, digest=tensor.entry.digest ^ 1))
    with TensorFile(container(wrong)) as file:
        for read in (file.__getitem__, file.stored, lambda name: list(file.chunks(name)), lambda _: file.verify()):
            with pytest.raises(FormatError, match="'w'") as caught:
                read("w")
            assert caught.value.code == "digest"


def test_a_flipped_bit_names_tensor_and_offset(data: bytes) -> None:
    with TensorFile(data) as file:
        start = HEADER_SIZE + file.header.stored_size + file.entry("first").stored
    damaged = bytearray(data)
    damaged[start] ^= 4
    with TensorFile(bytes(damaged)) as file:
        assert identical(file["first"], ARRAYS["first"])  # others are untouched
        with pytest.raises(FormatError, match=rf"'second'.*byte {start:,}") as caught:
            file["second"]
        assert caught.value.code == "chunk_checksum"
        with pytest.raises(FormatError):
            file.verify()
        with pytest.raises(FormatError):
            file.load()


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda p: p / "missing.tsr", "missing"),
        (lambda p: p, "not_tersor"),
        (lambda p: (p / "empty.tsr").touch() or p / "empty.tsr", "empty"),
        (lambda p: (p / "text.tsr").write_text("hello, world") and p / "text.tsr", "not_tersor"),
        (lambda p: (p / "text.tsr").write_text("x") and p / "text.tsr" / "below", "unreadable"),
    ],
)
def test_paths_that_hold_no_file(tmp_path: Path, make: Any, code: str) -> None:
    path = make(tmp_path)
    with pytest.raises(FormatError) as caught:
        TensorFile(path)
    assert caught.value.code == code and caught.value.remedy


class Broken(io.BytesIO):
    """A device that fails after the manifest was read."""

    failing = False

    def read(self, size: int | None = -1, /) -> bytes:
        if self.failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read(size)


def test_devices_that_fail(data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Broken(data)
    (tmp_path / "a.tsr").write_bytes(data)
    with TensorFile(source) as broken, TensorFile(tmp_path / "a.tsr") as on_disk:
        source.failing = True
        monkeypatch.setattr(os, "pread", lambda *_: source.read())
        for file in (broken, on_disk):
            with pytest.raises(FormatError, match=os.strerror(errno.EIO)) as caught:
                file["first"]
            assert caught.value.code == "unreadable" and "device" in caught.value.remedy


def test_systems_without_positional_reads(data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pread", raising=False)
    (tmp_path / "a.tsr").write_bytes(data)
    with TensorFile(tmp_path / "a.tsr", workers=2) as file:
        assert all(identical(file[n], a) for n, a in ARRAYS.items())
    with pytest.raises(ValueError, match="closed"):
        file["first"]


def test_every_truncation_is_refused_at_opening(data: bytes) -> None:
    for size in [*range(0, 400, 7), len(data) // 2, len(data) - 1]:
        with pytest.raises(FormatError) as caught:
            TensorFile(data[:size])
        assert caught.value.code == ("empty" if size == 0 else "truncated")


def test_write_then_read_through_the_disk(tmp_path: Path) -> None:
    from tersor.format.manifest import Manifest

    tensors = encoded(ARRAYS)
    pieces = [piece for t in tensors for piece in t.pieces]
    write(tmp_path / "a.tsr", Manifest(tuple(t.entry for t in tensors)), pieces)
    tersor.verify(tmp_path / "a.tsr")


def test_an_empty_file_of_no_tensors() -> None:
    data = container()
    tersor.verify(data)
    assert tersor.load(data) == {}


def test_noise_of_every_chunk_size() -> None:
    for count in (LEAF - 1, LEAF, LEAF + 1):
        bits = random_bytes("U8", count)
        with TensorFile(container(keep.lossless(unit_of("n", "U8", (count,), bits), bits)), workers=3) as file:
            assert file.stored("n").tobytes() == bits.tobytes()
