"""Decoding takes what the file declares and at most 64 MB beside it; learning from samples, some of their outputs.

All is measured in processes of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import handmade as hm
import handmade2d as h2
import numpy as np
import pytest
from helpers import container, run_python, unit_of

import tersor
from tersor.coders import adaptive
from tersor.errors import LimitError
from tersor.methods import keep

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak from /proc")

MB = 10**6
ALLOWED = 64 * MB
CHUNK = 2**20

PROGRAM = """
import re, sys
from pathlib import Path
import numpy, tersor
from tersor.coders import zstd

def peak():
    return int(re.search(r"VmHWM:[^0-9]*([0-9]+)", Path("/proc/self/status").read_text())[1]) * 1024

what, path, workers = sys.argv[1:]
before, returned = peak(), 0
if what == "load":
    returned = sum(array.nbytes for array in tersor.load(path, workers=int(workers)).values())
elif what == "verify":
    tersor.verify(path, workers=int(workers))
elif what == "decompress":
    tersor.decompress(path, path + ".safetensors")
elif what == "open":
    tersor.open(path).close()
elif what == "refused":
    try:
        tersor.load(path, workers=int(workers))
    except tersor.errors.LimitError:
        pass
print(peak() - before - returned)
"""
"""How much the peak grew, less the arrays that were returned."""


def planes(pieces: Callable[[int], tuple[bytes, ...]], coder: str, chunks: int, value: int = 0) -> hm.Tensor:
    """A U64 tensor of eight planes of equal bytes."""
    count = chunks * CHUNK
    stream = hm.Stream(coder, "u8", count, pieces(chunks), CHUNK)
    return hm.Tensor("w", "U64", (count,), bytes([value]) * 8 * count, "raw", {"planes": 8}, (stream,) * 8)


def verbatim(chunks: int) -> tuple[bytes, ...]:
    return (hm.prelude([hm.Table()], 1), *(b"\xff" + bytes(CHUNK),) * chunks)


def patched(chunks: int) -> tuple[bytes, ...]:
    """Every symbol is a patch: three times the bytes that it decodes to."""
    states = (1 << 16).to_bytes(4, "little")
    chunk = b"\0" + hm.varint(CHUNK) + (b"\0" + hm.varint(hm.zigzag(200))) * CHUNK + states
    return (hm.prelude([hm.Table()], 1), *(chunk,) * chunks)


def stored_raw(chunks: int) -> tuple[bytes, ...]:
    return (bytes(CHUNK),) * chunks


def stored_zstd(chunks: int) -> tuple[bytes, ...]:
    from tersor.coders import zstd

    return (zstd.pack(bytes(CHUNK)),) * chunks


def wide_levels() -> hm.Tensor:
    """F64 from i32 with low bits apart, in zstd frames that hardly compress."""
    levels = np.random.default_rng(0).integers(-(2**20), 2**20, 8 * CHUNK)
    return hm.uniform_tensor(
        "w", "F64", levels, [0.5], low=8, kind="i32", coder=hm.zstd_stream, low_coder=hm.zstd_stream, chunk=CHUNK
    )


def tall(name: str) -> hm.Tensor:
    """As many rows with steps of their own as are allowed, an element each."""
    rows = 2**24
    zeros = hm.Stream(
        "rans", "i8", rows, (hm.prelude([hm.Table()], 1), *(hm.rans_chunk([], hm.Table(), 1),) * 16), CHUNK
    )
    numbers = hm.Stream("raw", "u8", rows, (bytes(CHUNK),) * 16, CHUNK)
    parameters = {"steps": np.array([1, 2], "<f4").tobytes(), "offset": bytes(4), "low": 0}
    return hm.Tensor(name, "F16", (rows,), bytes(2 * rows), "uniform", parameters, (zeros, numbers))


def wide(name: str, columns: int) -> hm.Tensor:
    """Columns with steps and classes of their own, in one row."""
    prelude = h2.Classed([hm.Table(), hm.Table()], [0], [0], column_count=hm.varint(columns)).prelude()
    chunks = columns // CHUNK
    zeros = hm.Stream("rans2d", "i8", columns, (prelude, *(hm.rans_chunk([], hm.Table(), 1),) * chunks), CHUNK)
    numbers = hm.Stream("raw", "u8", columns, (bytes(CHUNK),) * chunks, CHUNK)
    parameters = {"steps": np.float32(1).tobytes(), "columns": np.array([1, 2], "<f4").tobytes(), "offset": bytes(4)}
    return hm.Tensor(name, "F16", (1, columns), bytes(2 * columns), "trellis", parameters, (zeros, numbers))


def mixed(count: int) -> hm.Stream:
    """Coder `adaptive` with as much to remember as it may have."""
    plan = adaptive.Plan(adaptive.MAX_COLUMNS, chunk=hm.LEAF)
    counts = [min(hm.LEAF, count - at) for at in range(0, count, hm.LEAF)]
    pieces = (plan.piece(k, np.zeros(n, np.int32)) for k, n in enumerate(counts))
    return hm.Stream("adaptive", "u8", count, (plan.prelude, *pieces))


def classed(count: int) -> hm.Stream:
    """As many tables as there may be, of slots that do not fit in 32 bits."""
    tables = [hm.Table(100 * (k % 2), precision=13) for k in range(64)]
    prelude = h2.Classed(tables, [0] * count, [0]).prelude()
    return hm.Stream("rans2d", "u8", count, (prelude, hm.rans_chunk([], hm.Table(), 1)))


def by_level(count: int) -> hm.Stream:
    """The same, chosen by the level before."""
    tables = [hm.Table(100 * (k % 2), precision=13) for k in range(64)]
    return hm.Stream("rans1", "u8", count, (hm.prelude(tables, 1), hm.rans_chunk([], hm.Table(), 1)))


def eight_planes(name: str, stream: hm.Stream) -> hm.Tensor:
    """Zeros."""
    count = stream.count
    return hm.Tensor(name, "U64", (count,), bytes(8 * count), "raw", {"planes": 8}, (stream,) * 8)


def widened() -> bytes:
    """BF16 becomes float32, which numpy has."""
    words = np.zeros(2 * 24 * CHUNK, np.uint8)
    eighths = np.zeros(24 * CHUNK, np.uint8)
    return container(
        keep.lossless(unit_of("b", "BF16", (words.size // 2,), words), words),
        keep.lossless(unit_of("f", "F8_E4M3", (eighths.size,), eighths), eighths),
    )


def many_tensors() -> bytes:
    """Hundreds of small ones, whose pieces are as large as they may be."""
    count = 2**16
    states = (1 << 16).to_bytes(4, "little")
    chunk = b"\0" + hm.varint(count) + (b"\0" + hm.varint(hm.zigzag(200))) * count + states
    stream = hm.Stream("rans", "u8", count, (hm.prelude([hm.Table()], 1), chunk))
    data = bytes([200]) * 8 * count
    return hm.assemble(
        *(hm.Tensor(f"w{k}", "U64", (count,), data, "raw", {"planes": 8}, (stream,) * 8) for k in range(60))
    )


FILES: dict[str, Callable[[], bytes]] = {
    "planes verbatim": lambda: hm.assemble(planes(verbatim, "rans", 9)),
    "planes raw": lambda: hm.assemble(planes(stored_raw, "raw", 9)),
    "planes in zstd frames": lambda: hm.assemble(planes(stored_zstd, "zstd", 9)),
    "planes of patches": lambda: hm.assemble(planes(patched, "rans", 4, 200)),
    "wide levels in zstd frames": lambda: hm.assemble(wide_levels()),
    "steps of 16 million rows": lambda: hm.assemble(*(tall(f"w{k}") for k in range(3))),
    "steps of 6 million columns": lambda: hm.assemble(*(wide(f"w{k}", 6 * CHUNK) for k in range(3)), minor=1),
    "planes by adaptive models": lambda: hm.assemble(
        eight_planes("w", mixed(20 * hm.LEAF)), meta={"worth": np.random.default_rng(0).bytes(80_000)}, minor=1
    ),
    "many tensors by adaptive models": lambda: hm.assemble(
        *(eight_planes(f"w{k}", mixed(1000)) for k in range(60)), minor=1
    ),
    "many tensors with 64 tables": lambda: hm.assemble(
        *(eight_planes(f"w{k}", classed(1000)) for k in range(60)), minor=1
    ),
    "many tensors with 64 tables by level": lambda: hm.assemble(
        *(eight_planes(f"w{k}", by_level(1000)) for k in range(60)), minor=2
    ),
    "types that numpy lacks": widened,
    "many tensors": many_tensors,
}


@pytest.fixture(scope="module", params=FILES)
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("memory") / "model.tsr"
    path.write_bytes(FILES[request.param]())
    return path


def growth(what: str, path: Path, workers: int) -> int:
    done = run_python(PROGRAM, what, str(path), str(workers))
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize(
    ("what", "workers"), [("load", 1), ("load", 2), ("load", 16), ("verify", 1), ("decompress", 1)]
)
def test_declared_output_and_64_megabytes(file: Path, what: str, workers: int) -> None:
    assert growth(what, file, workers) < ALLOWED


@pytest.mark.parametrize(
    ("item", "count"),
    [([], 336_000), ({}, 336_000), ("", 336_000), (1, 336_000), (None, 336_000), (1e300, 145_000), (-(2**64), 145_000)],
    ids=lambda v: repr(v),
)
def test_manifests_at_the_limit(tmp_path: Path, item: object, count: int) -> None:
    """An item takes up to 72 bytes of memory, eight of them a byte of the file: 64 MB need a manifest of 100 kB."""
    path = tmp_path / "m.tsr"
    path.write_bytes(hm.assemble(meta={"noise": np.random.default_rng(0).bytes(40_000), "items": [item] * count}))
    assert growth("open", path, 1) < ALLOWED


def test_what_takes_more_is_refused_before_it_is_taken(tmp_path: Path) -> None:
    """Steps of as many columns as the format allows; whoever has the memory can allow it."""
    path = tmp_path / "m.tsr"
    path.write_bytes(hm.assemble(wide("w", 2**24), minor=1))
    for limits in (tersor.Limits(), tersor.Limits(scratch_bytes=2**26)):
        with pytest.raises(LimitError, match="scratch_bytes") as caught:
            tersor.load(path, limits=limits)
        assert caught.value.code == "limit"
    assert growth("refused", path, 2) < 2**24
    assert not tersor.load(path, limits=tersor.Limits(scratch_bytes=2**28))["w"].any()


def test_the_measure_sees_what_is_allocated(tmp_path: Path) -> None:
    path = tmp_path / "m.tsr"
    path.write_bytes(FILES["planes in zstd frames"]())
    whole = PROGRAM.replace("print(", "x = numpy.ones(10**8, numpy.uint8)\nprint(")
    assert int(run_python(whole, "verify", str(path), "1").stdout) > 10**8


LEARNING = """
import re, sys
from pathlib import Path
import torch
from torch import nn
from tersor import balanced
from tersor.engine import compress

def peak():
    return int(re.search(r"VmHWM:[^0-9]*([0-9]+)", Path("/proc/self/status").read_text())[1]) * 1024

torch.set_num_threads(1)
torch.manual_seed(0)
words, width = 2**15, 64
layers = [nn.Linear(width, width), nn.ReLU()] * 2
module = nn.Sequential(nn.Embedding(words, width), *layers, nn.Linear(width, words, bias=False)).eval()
samples = list(torch.randint(0, words, (24, 1, 128)))
before = peak()
compress(module, sys.argv[1], bits=4, calibration=samples, workers=1)
print(peak() - before)
"""
"""How much the peak grows while a model with a large vocabulary is compressed: 16 MB of weights, 24 outputs of 16 MB
each. It is 380 MB, and was 750 before outputs were looked at in parts and memory given back between them."""


def test_outputs_over_a_vocabulary_are_looked_at_in_parts(tmp_path: Path) -> None:
    done = run_python(LEARNING, str(tmp_path / "x.tsr"))
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 500 * MB
