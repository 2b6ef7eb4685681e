from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import xxhash
from helpers import SOURCE

from tersor import _core
from tersor.format.layout import checksum, digest_of

DATA = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8).tobytes()
# The borders of XXH3's code paths: 1-3, 4-8, 9-16, 17-128, 129-240, then stripes of 64 in blocks of 1024.
LENGTHS = [*range(600), 1023, 1024, 1025, 1087, 1088, 1089, 2048, 2049, 4096 + 63, 65536, 200_003]


@pytest.mark.parametrize("seed", [0, 1, 0x9E3779B97F4A7C15, 2**64 - 1])
def test_hash_is_xxh3(seed: int) -> None:
    wrong = [n for n in LENGTHS if _core.hash(DATA[:n], seed) != xxhash.xxh3_64_intdigest(DATA[:n], seed)]
    assert wrong == []


@pytest.mark.parametrize("flags", [[], ["-DTSR_NARROW"], ["-DTSR_SCALAR"]], ids=["best", "narrow", "scalar"])
def test_every_way_of_hashing_is_xxh3(tmp_path: Path, flags: list[str]) -> None:
    """The core picks the widest vectors that the processor has; here each is built alone."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("needs a C compiler")
    library = tmp_path / "hash.so"
    command = [compiler, "-O2", "-shared", "-fPIC", *flags, "-o", str(library), str(SOURCE / "core" / "hash.c")]
    subprocess.run(command, check=True, capture_output=True)
    function = ctypes.CDLL(str(library)).tsr_hash
    function.restype, function.argtypes = ctypes.c_uint64, [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_uint64]
    for seed in (0, 0x9E3779B97F4A7C15):
        wrong = [n for n in LENGTHS if function(DATA[:n], n, seed) != xxhash.xxh3_64_intdigest(DATA[:n], seed)]
        assert wrong == []


def test_hash_of_unaligned_buffers() -> None:
    array = np.frombuffer(DATA, np.uint8)
    wrong = [k for k in range(16) if _core.hash(array[k : k + 5001]) != xxhash.xxh3_64_intdigest(DATA[k : k + 5001])]
    assert wrong == []


def test_seed_defaults_to_zero() -> None:
    assert _core.hash(b"abc") == _core.hash(b"abc", 0) != _core.hash(b"abc", 1)


def test_checksum_is_the_low_half() -> None:
    assert checksum(DATA) == xxhash.xxh3_64_intdigest(DATA) & 0xFFFFFFFF


def test_digest_covers_leaves_and_length() -> None:
    leaves = np.array([1, 2**64 - 1], np.uint64)
    expected = xxhash.xxh3_64_intdigest(b"\1" + bytes(7) + b"\xff" * 8, seed=70_000)
    assert digest_of(leaves, 70_000) == expected
    assert digest_of(np.zeros(0, np.uint64), 0) == xxhash.xxh3_64_intdigest(b"")
