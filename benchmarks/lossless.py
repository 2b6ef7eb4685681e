"""Lossless compression of real weights, beside the best tools for it. Goals: MiniLM at least 1.22x in fp32 and 1.51x as
bfloat16, never below the best peer; at least 1 GB/s decoded a core; every bit back, NaN payloads and -0.0 included.

All tools run on one thread, in one process, taking turns; times are the least of the rounds. tersor and lmzip go from
file to file in a folder in memory (/dev/shm), the others from bytes to bytes; byte planes are numpy and zstandard. The
`tersor, bytes to arrays` row decodes from bytes in memory with `tersor.load`, as the others do; ratios are against the
bytes of the tensors.

This part runs in the environment peers/.venv-lossless, where it installs tersor from this tree first:

    python -m benchmarks.lossless
"""

import hashlib
import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.common import PEERS, Results, fastest, install_tersor, memcpy_calls

ROUNDS = 7
HOSTILE = {
    "F32": np.array([0x7FC00001, 0xFFC12345, 0x7F800001, 0xFF812345, 0x80000000, 0x7F800000, 0xFF800000, 1,
    0x807FFFFF], "<u4"), "BF16": np.array([0x7FC1, 0xFFC3, 0x7F81, 0xFF85, 0x8000, 0x7F80, 0xFF80, 1, 0x807F], "<u2"),
}  # fmt: skip
"""Quiet and signalling NaNs with payloads, negative zero, infinities, subnormal numbers."""


class Tool(NamedTuple):
    """How a tool encodes and decodes the tensors; sizes are known after encoding, bytes after decoding."""

    encode: Callable[[], Any]
    decode: Callable[[], Any]
    size: Callable[[], int]
    decoded: Callable[[], bytes]


def read_safetensors(path: Path) -> tuple[dict[str, Any], bytes]:
    """Header and data of a file."""
    raw = path.read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    return json.loads(raw[8:start]), raw[start:]


def write_safetensors(path: Path, tensors: dict[str, tuple[str, list[int], bytes]]) -> None:
    """Tensors as dtype, shape and bytes."""
    header, end = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(data)]}
        end += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(t[2] for t in tensors.values()))


def to_bfloat16(data: bytes) -> bytes:
    """Float32 bytes, rounded to nearest even."""
    words = np.frombuffer(data, "<u4")
    return ((words + 0x7FFF + ((words >> 16) & 1)) >> 16).astype("<u2").tobytes()


def float_tensors(source: Path, dtype: str, *, hostile: bool) -> dict[str, tuple[str, list[int], bytes]]:
    """The float32 tensors of a file, perhaps as bfloat16, perhaps with hostile values strewn in."""
    header, data = read_safetensors(source)
    tensors = {}
    for name, record in header.items():
        if name == "__metadata__" or record["dtype"] != "F32":
            continue
        first, last = record["data_offsets"]
        part = data[first:last] if dtype == "F32" else to_bfloat16(data[first:last])
        if hostile:
            values = np.frombuffer(part, HOSTILE[dtype].dtype).copy()
            places = np.random.default_rng(values.size).integers(0, values.size, max(9, values.size // 1000))
            values[places] = np.resize(HOSTILE[dtype], places.size)
            part = values.tobytes()
        tensors[name] = (dtype, record["shape"], part)
    return tensors


def tersor_tool(path: Path, folder: Path) -> Tool:
    import tersor

    packed, out = folder / "t.tsr", folder / "t.safetensors"
    return Tool(
        lambda: tersor.compress(path, packed, lossless=True, overwrite=True, workers=1),
        lambda: tersor.decompress(packed, out, overwrite=True),
        lambda: packed.stat().st_size,
        lambda: in_order(out, path),
    )


def in_order(decoded: Path, original: Path) -> bytes:
    """The data of the decoded file in the order of the original's."""
    header, data = read_safetensors(decoded)
    names = [n for n in read_safetensors(original)[0] if n != "__metadata__"]
    return b"".join(data[slice(*header[n]["data_offsets"])] for n in names)


def lmzip_tool(path: Path, folder: Path) -> Tool:
    lmz = importlib.import_module("lmz")
    packed, out = folder / "l.lmz", folder / "l.safetensors"

    def encode() -> None:
        packed.unlink(missing_ok=True)
        lmz.compress(str(path), str(packed), workers=1)

    def decode() -> None:
        out.unlink(missing_ok=True)
        lmz.decompress(str(packed), str(out), workers=1)

    return Tool(encode, decode, lambda: packed.stat().st_size, lambda: in_order(out, path))


def zipnn_tool(data: bytes, dtype: str) -> Tool:
    zipnn = importlib.import_module("zipnn")
    tool = zipnn.ZipNN(bytearray_dtype={"F32": "float32", "BF16": "bfloat16"}[dtype], input_format="byte", threads=1)
    kept: dict[str, Any] = {}
    given = bytearray(data)  # zipnn may change what it is given
    return Tool(
        lambda: kept.update(packed=tool.compress(bytearray(given))),
        lambda: kept.update(out=tool.decompress(kept["packed"])),
        lambda: len(kept["packed"]),
        lambda: bytes(kept["out"]),
    )


def z4ai_tool(data: bytes, dtype: str) -> Tool:
    z4ai = importlib.import_module("z4ai")
    kept: dict[str, Any] = {}
    name = {"F32": "fp32", "BF16": "bf16"}[dtype]
    return Tool(
        lambda: kept.update(packed=z4ai.compress(data, dtype=name, threads=1)),
        lambda: kept.update(out=z4ai.decompress(kept["packed"])),
        lambda: len(kept["packed"]),
        lambda: bytes(kept["out"]),
    )


def planes_tool(
    data: bytes, dtype: str, compress: Callable[[bytes], bytes], decompress: Callable[[bytes], bytes]
) -> Tool:
    """The first bytes of all numbers, then the second ones, and so on, by a coder of bytes."""
    width = {"F32": 4, "BF16": 2}[dtype]
    kept: dict[str, Any] = {}

    def encode() -> None:
        planes = np.ascontiguousarray(np.frombuffer(data, np.uint8).reshape(-1, width).T)
        kept["packed"] = [compress(plane.tobytes()) for plane in planes]

    def decode() -> None:
        out = np.empty((len(data) // width, width), np.uint8)
        for k, plane in enumerate(kept["packed"]):
            out[:, k] = np.frombuffer(decompress(plane), np.uint8)
        kept["out"] = out

    return Tool(encode, decode, lambda: sum(map(len, kept["packed"])), lambda: kept["out"].tobytes())


def zstd_tool(data: bytes, dtype: str) -> Tool:
    zstandard = importlib.import_module("zstandard")
    return planes_tool(
        data, dtype, lambda p: zstandard.ZstdCompressor(level=1).compress(p),
        lambda p: zstandard.ZstdDecompressor().decompress(p),
    )  # fmt: skip


def brotli_tool(data: bytes, dtype: str) -> Tool:
    brotli = importlib.import_module("brotli")
    return planes_tool(data, dtype, lambda p: brotli.compress(p, quality=5), brotli.decompress)


def tools(path: Path, data: bytes, dtype: str, folder: Path) -> dict[str, Tool]:
    """Every tool that can be imported."""
    makers: dict[str, Callable[[], Tool]] = {
        "tersor": lambda: tersor_tool(path, folder),
        "zipnn": lambda: zipnn_tool(data, dtype),
        "lmzip": lambda: lmzip_tool(path, folder),
        "z4ai": lambda: z4ai_tool(data, dtype),
        "byte planes, zstd -1": lambda: zstd_tool(data, dtype),
        "byte planes, brotli -5": lambda: brotli_tool(data, dtype),
    }
    found = {}
    for name, make in makers.items():
        try:
            found[name] = make()
        except ImportError as error:
            print(f"{name} is left out: {error}", flush=True)
    return found


def compare(results: Results, source: Path, dtype: str, folder: Path) -> None:
    """One network in one dtype through all tools."""
    import tersor

    tensors = float_tensors(source, dtype, hostile=False)
    path = folder / f"{dtype}.safetensors"
    write_safetensors(path, tensors)
    data = b"".join(t[2] for t in tensors.values())
    every = tools(path, data, dtype, folder)
    encoding = fastest({n: t.encode for n, t in every.items()}, 2)
    packed = (folder / "t.tsr").read_bytes()
    calls = {n: t.decode for n, t in every.items()}
    calls["tersor, bytes to arrays"] = lambda: tersor.load(packed, workers=1)
    calls["memcpy"] = memcpy_calls(len(data))
    decoding = fastest(calls, ROUNDS)
    digest = hashlib.sha256(data).digest()
    for name, tool in every.items():
        results.add(
            network="minilm", dtype=dtype, tool=name, bytes=tool.size(), ratio=len(data) / tool.size(),
            encode_mb_per_second=len(data) / encoding[name].wall / 1e6,
            decode_mb_per_second=len(data) / decoding[name].wall / 1e6,
            decode_mb_per_cpu_second=len(data) / decoding[name].cpu / 1e6,
            identical=hashlib.sha256(tool.decoded()).digest() == digest,
        )  # fmt: skip
    for name in ("tersor, bytes to arrays", "memcpy"):
        results.add(network="minilm", dtype=dtype, tool=name, decode_mb_per_second=len(data) / decoding[name].wall /
        1e6,
                    decode_mb_per_cpu_second=len(data) / decoding[name].cpu / 1e6)  # fmt: skip


def hostile(results: Results, source: Path, dtype: str, folder: Path) -> None:
    """NaN payloads, -0.0, infinities and subnormal numbers in every tensor."""
    tensors = float_tensors(source, dtype, hostile=True)
    path = folder / "hostile.safetensors"
    write_safetensors(path, tensors)
    data = b"".join(t[2] for t in tensors.values())
    for name, tool in tools(path, data, dtype, folder).items():
        tool.encode()
        tool.decode()
        results.add(network="minilm with one hostile value in a thousand", dtype=dtype, tool=name,
                    ratio=len(data) / tool.size(), identical=tool.decoded() == data)  # fmt: skip


def main(source: Path) -> None:
    where = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with Results("lossless") as results, tempfile.TemporaryDirectory(dir=where) as folder:
        for dtype in ("F32", "BF16"):
            compare(results, source, dtype, Path(folder))
        for dtype in ("F32", "BF16"):
            hostile(results, source, dtype, Path(folder))


def in_peers_environment() -> None:
    """Run this part with the peers' interpreter."""
    from benchmarks.networks import load

    python = PEERS / ".venv-lossless" / "bin" / "python"
    if not python.exists():
        sys.exit("the peers are not installed: run benchmarks/peers/setup.sh")
    install_tersor(python)
    command = [str(python), "-m", "benchmarks.lossless", str(load("minilm").weights)]
    subprocess.run(command, check=True, cwd=PEERS.parent.parent)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        in_peers_environment()
