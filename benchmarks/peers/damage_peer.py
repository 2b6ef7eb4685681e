"""Damage to files of one tool, and what its decoder makes of each; runs in the environment that has the tool.

    python damage_peer.py TOOL MODEL.safetensors ATTACKS SECONDS

Every attempt is a process of its own, forked from one that has loaded the tool. One JSON line per kind of damage goes
to standard output. TOOL is tersor, safetensors, zipnn or nncodec; tersor's file stands beside the model.
"""

import contextlib
import hashlib
import importlib
import io
import json
import os
import random
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

FOUND, SILENT, HARMLESS, CRASH, HANG = "found", "silently wrong", "harmless", "crash", "hang"
TIME_LIMIT = 20
MEMORY_LIMIT = 12 * 2**30
STAND_INS = ("torchvision", "torchvision.transforms", "torchvision.datasets", "torchvision.models",
             "torchvision.models.segmentation", "flwr", "wandb", "timm")  # fmt: skip


def flip(data: bytearray, rng: random.Random) -> tuple[int, int]:
    """One bit; the range that may have changed, as for all of these that keep the length."""
    at = rng.randrange(len(data))
    data[at] ^= 1 << rng.randrange(8)
    return at, at + 1


def replace_byte(data: bytearray, rng: random.Random) -> tuple[int, int]:
    at = rng.randrange(len(data))
    data[at] = rng.randrange(256)
    return at, at + 1


def burst(data: bytearray, rng: random.Random) -> tuple[int, int]:
    """Up to 64 random bytes."""
    at, size = rng.randrange(len(data)), rng.randint(2, 64)
    end = min(at + size, len(data))
    data[at:end] = rng.randbytes(end - at)
    return at, end


def zero_sector(data: bytearray, rng: random.Random) -> tuple[int, int]:
    """An aligned run of 512 bytes that was never written."""
    at = rng.randrange(len(data)) // 512 * 512
    end = min(at + 512, len(data))
    data[at:end] = bytes(end - at)
    return at, end


def splice(data: bytearray, rng: random.Random) -> tuple[int, int]:
    """A part of the file over another part of it."""
    size = min(1 << rng.randrange(13), len(data) // 2)
    source, target = rng.randrange(len(data) - size + 1), rng.randrange(len(data) - size + 1)
    data[target : target + size] = data[source : source + size]
    return target, target + size


def shift(data: bytearray, rng: random.Random) -> tuple[int, int]:
    """A byte lost, and one added further on."""
    first, last = sorted(rng.sample(range(len(data)), 2))
    last = min(last, first + 4096)
    data[first : last + 1] = data[first + 1 : last + 1] + rng.randbytes(1)
    return first, last + 1


SAME_LENGTH = (flip, replace_byte, burst, zero_sector, splice, shift)


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def insert(data: bytes, rng: random.Random) -> bytes:
    view, at = memoryview(data), rng.randint(0, len(data))
    return b"".join((view[:at], rng.randbytes(rng.randint(1, 64)), view[at:]))


def delete(data: bytes, rng: random.Random) -> bytes:
    view, at = memoryview(data), rng.randrange(len(data))
    return b"".join((view[:at], view[at + rng.randint(1, 64) :]))


OTHER_LENGTH = (truncate, insert, delete)


def damaged(data: bytes, kind: str, rng: random.Random) -> bytes:
    """A copy that differs."""
    while True:
        out = mutate(data, kind, rng)
        if out != data:
            return out


def mutate(data: bytes, kind: str, rng: random.Random) -> bytes:
    for change in OTHER_LENGTH:
        if change.__name__ == kind:
            return change(data, rng)
    copy = bytearray(data)
    next(change for change in SAME_LENGTH if change.__name__ == kind)(copy, rng)
    return bytes(copy)


KINDS = {"bit flips": ["flip"], "truncations": ["truncate"], "splices": [
    "burst", "zero_sector", "splice", "shift", "insert", "delete"]}  # fmt: skip


def fingerprint(tensors: Any) -> str:
    """Of the names, dtypes, shapes and bits of arrays."""
    found = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name]
        found.update(f"{name} {array.dtype} {array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()


def open_tool(tool: str, model: Path) -> tuple[bytes, Callable[[bytes], str], str]:
    """A file of the tool, what decodes it to a fingerprint, and the version."""
    if tool == "tersor":
        import tersor

        data = model.with_suffix(".tsr").read_bytes()
        return data, lambda d: fingerprint(tersor.load(d, workers=1)), tersor.__version__
    import safetensors
    import safetensors.numpy

    if tool == "safetensors":
        return model.read_bytes(), lambda d: fingerprint(safetensors.numpy.load(d)), safetensors.__version__
    from importlib.metadata import version

    if tool == "zipnn":
        import zipnn

        coder = zipnn.ZipNN(input_format="byte", bytearray_dtype="float32", threads=1)
        data = bytes(coder.compress(model.read_bytes()))
        return data, lambda d: fingerprint(safetensors.numpy.load(bytes(coder.decompress(d)))), version("zipnn")
    for name in STAND_INS:
        try:
            importlib.import_module(name)
        except Exception:
            sys.modules[name] = MagicMock(__spec__=None, __path__=[])
    from nncodec.nn import decode, encode

    arrays = safetensors.numpy.load_file(model)
    data = bytes(encode(dict(arrays), args={"qp": -32, "use_dq": True, "opt_qp": False, "verbose": False}))

    def read(d: bytes) -> str:
        return fingerprint(decode(bytearray(d)))  # it takes `bytes` for a path

    return data, read, version("nncodec")


EXITS = {10: FOUND, 11: SILENT, 12: HARMLESS}


def attempt(data: bytes, read: Callable[[bytes], str], expected: str) -> str:
    """What becomes of one damaged file, in a process of its own."""
    child = os.fork()
    if child == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.alarm(TIME_LIMIT)
        try:
            status = 12 if read(data) == expected else 11
        except BaseException:
            status = 10
        os._exit(status)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return HANG if os.WTERMSIG(status) == signal.SIGALRM else CRASH
    return EXITS.get(os.WEXITSTATUS(status), CRASH)


def main() -> None:
    tool, model, attacks, seconds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    out = sys.stdout
    with contextlib.redirect_stdout(io.StringIO()):
        data, read, version = open_tool(tool, model)
        expected = read(data)
        if read(data) != expected:
            raise RuntimeError("the tool does not decode the same file to the same weights")
    if (untouched := attempt(data, read, expected)) != HARMLESS:
        raise RuntimeError(f"the harness disturbs the tool: an untouched file is {untouched}")
    for title, kinds in KINDS.items():
        rng = random.Random(f"{title} of a model")
        counts: Counter[str] = Counter({FOUND: 0, SILENT: 0, HARMLESS: 0, CRASH: 0, HANG: 0})
        start = time.monotonic()
        done = 0
        while done < attacks and time.monotonic() - start < seconds:
            counts[attempt(damaged(data, kinds[done % len(kinds)], rng), read, expected)] += 1
            done += 1
        record = {"tool": tool, "version": version, "file_bytes": len(data), "damage": title, "attempts": done}
        print(json.dumps(record | dict(counts)), file=out, flush=True)


if __name__ == "__main__":
    main()
