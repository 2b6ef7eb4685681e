"""Tiny files that claim much, or that are as awkward as the limits allow, are answered in under 50 ms."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from typing import Any

import handmade as hm
import handmade2d as h2
import numpy as np
import pytest

import tersor
from tersor.errors import FormatError

SECONDS = 0.05
ROUNDS = 7
TINY = 16_384
MEMORY = 8 * 2**20

SMALL = hm.raw_tensor("w", "U8", (4,), b"abcd")
STREAM = SMALL.streams[0]


def claim(dtype: str, shape: list[int], *streams: list[Any], op: str = "raw", **parameters: Any) -> bytes:
    """A tensor that has nothing behind its claims."""
    record = ["w", dtype, shape, bytes(8), [[op, parameters or {"planes": 1}, list(streams)]]]
    return hm.assemble(record)


def stream(count: int, sizes: list[int], coder: str = "rans", kind: str = "u8", chunk: int = 2**20) -> list[Any]:
    return [coder, kind, count, chunk, sizes, bytes(4 * len(sizes))]


def zeros(count: int) -> hm.Tensor:
    """Chunks of 2^20 equal symbols, which take six bytes each."""
    pieces = (hm.prelude([hm.Table()], 1), *(hm.rans_chunk([], hm.Table(), 1),) * -(-count // 2**20))
    return hm.Tensor("w", "U8", (count,), b"", "raw", {"planes": 1}, (hm.Stream("rans", "u8", count, pieces, 2**20),))


def nested(depth: int) -> list[Any]:
    """Empty arrays in each other."""
    return [nested(depth - 1)] if depth > 1 else []


LONG = "x" * 30_000

REFUSED: dict[str, Callable[[], bytes]] = {
    "a petabyte in one chunk": lambda: claim("U8", [2**50], stream(2**50, [2, 6])),
    "a product that wraps": lambda: claim("F64", [2**32, 2**32], stream(0, [])),
    "64 GB and a byte": lambda: claim("U8", [2**36 + 1], stream(2**36 + 1, [])),
    "512 MB, each chunk of which takes 6 bytes": lambda: hm.assemble(zeros(2**29)),
    "2 million symbols of the slowest coder": lambda: hm.assemble(h2.slow_to_decode(2), minor=1),
    "a piece of 2^62 bytes": lambda: claim("U8", [2**20], stream(2**20, [2, 2**62])),
    "a prelude of 2^62 bytes": lambda: claim("U8", [2**20], stream(2**20, [2**62, 6])),
    "sizes that add up to 2^64": lambda: claim("U8", [2**22], stream(2**22, [2**62] * 4, "raw")),
    "5 bytes a symbol that are not there": lambda: claim("U8", [2**20], stream(2**20, [2**21, 5 * 2**20 + 1024])),
    "more pieces than bytes": lambda: claim("U8", [2**33], stream(2**33, [0] * 3000, "raw")),
    "3000 streams of nothing": lambda: claim("U8", [4], *[stream(0, [], "raw")] * 3000),
    "3000 ties to what is not there": lambda: hm.assemble(*([f"t{k}", 2**40] for k in range(3000))),
    "a long name in the place of 1500 streams": lambda: hm.assemble(
        [LONG, "U8", [4], bytes(8), [["raw", {"planes": 1}, [stream(0, [], "raw")] * 1500]]]
    ),
    "a dtype of 30 kB": lambda: claim(LONG, [4]),
    "an op of 30 kB": lambda: claim("U8", [4], op=LONG),
    "30 kB of steps": lambda: claim("F32", [4], stream(4, [4], "raw"), op="uniform", steps=bytes(30_000),
                                    offset=bytes(4), low=0),
    "16 million rows of nothing": lambda: claim(
        "F16", [2**24], stream(2**24, [2, *[6] * 16]), stream(2**24, [2, *[6] * 16]),
        op="uniform", steps=bytes(8), offset=bytes(4), low=0),
    "an inflated manifest of 2^63 bytes": lambda: hm.assemble(SMALL, inflated=2**63),
    "a manifest of zeros": lambda: hm.assemble(meta={"n": bytes(8 << 20)}),
    "20 000 empty arrays": lambda: hm.assemble(meta={"n": [[]] * 20_000}),
    "an array that claims 2^62 items": lambda: hm.file(b"\xa3\x64meta\xa1\x61n\x9b\x40" + bytes(7)),
    "1000 arrays in each other": lambda: hm.file(b"\xa3\x64meta\xa1\x61n" + b"\x81" * 1000 + b"\x80"),
    "many arrays, the last of them too deep": lambda: hm.file(
        b"\xa3\x64meta\xa1\x61n\x99\x27\x10" + b"\x80" * 9999 + b"\x81" * 20),
    "a wide map with two keys swapped at its end": lambda: hm.file(
        b"\xa3\x64meta\xb9\x0b\xb8" + b"".join(b"\x62" + f"{k:02x}".encode()[-2:] + b"\0" for k in range(3000))),
    "the needs of a newer version, 15 000 of them": lambda: hm.assemble(needs=["x"] * 15_000),
}  # fmt: skip

ACCEPTED: dict[str, Callable[[], bytes]] = {
    "16 000 numbers": lambda: hm.assemble(meta={"n": [0] * 16_000}),
    "16 000 arrays": lambda: hm.assemble(meta={"n": [[]] * 16_000}),
    "15 levels of arrays, a thousand times": lambda: hm.assemble(meta={"n": [nested(14)] * 1000}),
    "8000 keys": lambda: hm.assemble(meta={f"{k:x}": 0 for k in range(3000)}),
    "a name of 60 kB": lambda: hm.assemble(hm.raw_tensor("n" * 60_000, "U8", (4,), b"abcd")),
    "300 ties": lambda: hm.assemble(SMALL, *((f"t{k}", 0) for k in range(300))),
    "a shape of 32 ones": lambda: hm.assemble(hm.raw_tensor("w", "U8", (1,) * 32, b"a")),
    "a prelude of 255 tables": lambda: hm.assemble(hm.raw_tensor(
        "w", "U8", (1000,), bytes(1000), 1,
        lambda values, kind: hm.rans_stream(values, kind, [hm.Table.of(np.arange(30) % 7)] * 255))),
}  # fmt: skip


def fastest(call: Callable[[], object]) -> float:
    """Seconds of the processor: the machine may have other things to do."""
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
        if times[-1] < SECONDS / 2:
            break
    return min(times)


def peak(call: Callable[[], object]) -> int:
    """Bytes that Python and numpy had allocated at most."""
    tracemalloc.start()
    call()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most


@pytest.mark.parametrize("name", REFUSED)
def test_claims_are_refused_at_once(name: str) -> None:
    data = REFUSED[name]()
    assert len(data) < TINY

    def refused() -> None:
        with pytest.raises(FormatError):
            tersor.verify(data)

    assert fastest(refused) < SECONDS
    assert peak(refused) < MEMORY


@pytest.mark.parametrize("name", ACCEPTED)
def test_awkward_files_are_read_at_once(name: str) -> None:
    data = ACCEPTED[name]()
    assert len(data) < TINY
    assert fastest(lambda: tersor.verify(data)) < SECONDS
    assert peak(lambda: tersor.verify(data)) < MEMORY


def test_time_grows_with_the_manifest_and_no_faster() -> None:
    """Names and places of megabytes: what a manifest of 200 kB can ask for takes as long as its bytes."""
    noise = np.random.default_rng(0).bytes(100_000)
    streams = [stream(0, [], "raw")] * 9000
    record = ["x" * 2**20, "U8", [4], bytes(8), [["raw", {"planes": 1}, streams]]]
    data = hm.assemble(record, meta={"noise": noise})

    def refused() -> None:
        with pytest.raises(FormatError):
            tersor.verify(data)

    assert fastest(refused) < 1.0


def test_slow_symbols_are_few() -> None:
    """As many of the slowest ones as a tiny file may have; more if the caller allows it."""
    data = hm.assemble(h2.slow_to_decode(1), minor=1)
    assert len(data) < 300
    assert fastest(lambda: tersor.verify(data)) < 1.0
    data = hm.assemble(h2.slow_to_decode(2), minor=1)
    with tersor.open(data, limits=tersor.Limits(adaptive_expansion=2**13)) as file:
        file.verify()


def many_tables(coder: str, tensors: int) -> bytes:
    """Planes of one symbol, each with as many tables as there may be, of slots that do not fit in 32 bits."""
    tables = [hm.Table(100 * (k % 2), precision=13) for k in range(64)]
    head = hm.prelude(tables, 1) if coder == "rans1" else h2.Classed(tables, [0], [0]).prelude()
    stream = hm.Stream(coder, "u8", 1, (head, hm.rans_chunk([0], hm.Table(), 1)))
    return hm.assemble(
        *(hm.Tensor(f"{k:x}", "U64", (1,), bytes(8), "raw", {"planes": 8}, (stream,) * 8) for k in range(tensors)),
        minor=2,
    )


def many_chunks(chunks: int) -> bytes:
    """Chunks of a few bytes, each of which builds the last of 255 tables of 4096 symbols."""
    table, size = hm.Table(0, (0,) * 4096, 15, 2048), hm.LEAF
    empty = b"\xfe" + hm.rans_chunk([], table, 1)[1:]
    pieces = (hm.prelude([table] * 255, 1), *(empty,) * chunks)
    stream = hm.Stream("rans", "i16", chunks * size, pieces)
    levels = np.full(chunks * size, 2048, np.float16).tobytes()
    parameters = {"steps": np.float32(1).tobytes(), "offset": bytes(4), "low": 0}
    return hm.assemble(hm.Tensor("w", "F16", (chunks * size,), levels, "uniform", parameters, (stream,)))


@pytest.mark.parametrize(
    ("make", "count"), [(partial(many_tables, "rans1"), 10), (partial(many_tables, "rans2d"), 10), (many_chunks, 100)],
    ids=["rans1", "rans2d", "rans"],
)  # fmt: skip
def test_tables_cost_what_there_is_of_them(make: Callable[[int], bytes], count: int) -> None:
    """Four times as many tensors or chunks with large tables take four times as long, not sixteen times."""
    small, large = (make(n) for n in (count, 4 * count))
    times = [fastest(lambda data=data: tersor.verify(data)) for data in (small, large)]
    assert times[1] < 8 * times[0] + SECONDS
    assert times[1] < 2.0
