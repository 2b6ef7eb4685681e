"""First inputs for the targets of the native core: tables and chunks of the golden files, and pseudo-random bytes."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "reader"))
from files import bases, streams_of

TYPES = ("u8", "i8", "i16", "i32")
CHOICES = {"rans": b"\0", "rans1": b"\3", "rans2d": b"\5"}
"""Of coders, in streams.h."""
LARGE = b"\x71\x9c"
"""A count of symbols around the leaf of 65536, see common.h."""


def write_seeds(target: str, folder: Path) -> None:
    """Fill `folder` with inputs for `target`."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(target)
    for number, seed in enumerate([*_special(target), *(rng.randbytes(8 + 3 * k) for k in range(100))]):
        (folder / f"seed-{number}").write_bytes(seed)


def _special(target: str) -> Iterator[bytes]:
    match target:
        case "table":
            for _, prelude, _ in _chunks(*CHOICES):
                yield b"\0" + prelude
                yield b"\0" + prelude[2:]
        case "rans" | "paths":
            for stream, prelude, chunk in _chunks(*CHOICES):
                count = min(stream[2], stream[3])
                if count >= 8192 or len(prelude) > 255 or len(prelude) + len(chunk) > 480:
                    continue
                head = bytes([TYPES.index(stream[1])]) + (b"" if target == "rans" else b"\0")
                yield (
                    head
                    + b"\0\0\1"
                    + CHOICES[stream[0]]
                    + count.to_bytes(2, "little")
                    + bytes([len(prelude)])
                    + prelude
                    + chunk
                )
        case "runs":
            for stream, prelude, chunk in _chunks("runs"):
                count = min(stream[2], stream[3])
                if count < 101:
                    yield (
                        bytes([TYPES.index(stream[1])])
                        + count.to_bytes(2, "little")
                        + bytes([len(prelude)])
                        + prelude
                        + chunk
                    )
        case "uniform":
            for shape in range(16):  # nothing by row, no low bits; a plain stream
                yield bytes([shape, 15, 0]) + LARGE + bytes([shape, 0, 0, 0, 0, 0, 0, 0, 128, 63, 2]) + bytes(range(64))
        case "planes":
            for shape in range(8):
                yield bytes([shape, shape]) + LARGE + bytes([shape]) + b"\2\0" * 8 + bytes(range(64))


def _chunks(*coders: str) -> Iterator[tuple[list, bytes, bytes]]:
    """Every stream of the golden files by these coders, it, its prelude, and its first chunk."""
    for base in bases():
        pieces = iter(base.pieces)
        for stream in streams_of(base.root):
            own = [next(pieces) for _ in stream[4]]
            if stream[0] in coders and len(own) > 1:
                yield stream, own[0], own[1]
