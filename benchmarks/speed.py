"""How fast do weights come back, and how soon?

- `decode`: million weights a second, from the bytes of a file in memory to float32 arrays, all checksums and digests
  verified: with `tersor.load` (arrays are new: their pages are faulted in on the way) and into a buffer that exists
  (`into_buffer`, as a runtime that loads layer after layer would). One and two threads. Copies of the same float32
  bytes beside it in the same rounds (`memcpy`), for the machine is shared: read ratios.
- `lossless`: GB of original bytes a second.
- `threads`: two Python threads that each decode the file against one; and how far a thread that only counts gets
  while another decodes, against counting alone: 1 would mean the decoder never holds the interpreter's lock.
- `start`: `python -c "import tersor; tersor.open(f)[name]"` in an environment of numpy and tersor alone.

Times are the least of many rounds in which everything takes turns.

    python -m benchmarks.speed
"""

import os
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import tersor
from benchmarks.common import Results, environment, fastest, memcpy_calls
from benchmarks.networks import load
from benchmarks.networks._common import read
from tersor.format.reader import TensorFile

ROUNDS = 15
SIDE = 4096


def laplace(seed: int) -> np.ndarray:
    """16.8 M weights, the distribution of a trained matrix as is commonly assumed."""
    return np.random.default_rng(seed).laplace(0, 0.02, (SIDE, SIDE)).astype(np.float32)


def into_buffers(data: bytes) -> Callable[[], None]:
    """Decode every tensor on this thread into a buffer that is there already; digests are checked."""
    file = TensorFile(data, workers=1)
    own = [entry for entry in file.entries if entry.tie is None]
    buffers = {entry.name: np.zeros(entry.nbytes, np.uint8) for entry in own}

    def run() -> None:
        for entry in own:
            file._decode(entry.name, buffers[entry.name], 1)

    return run


def decode(results: Results, files: dict[str, bytes], kind: str) -> None:
    """Speeds of all files, everything taking turns."""
    calls: dict[str, Callable[[], Any]] = {}
    sizes, counts = {}, {}
    for name, data in files.items():
        with tersor.open(data) as file:
            counts[name] = sum(entry.count for entry in file.entries if entry.tie is None)
            sizes[name] = sum(entry.nbytes for entry in file.entries if entry.tie is None)
        calls[f"{name}/memcpy"] = memcpy_calls(sizes[name])
        calls[f"{name}/into_buffer"] = into_buffers(data)
        for threads in (1, 2):
            calls[f"{name}/load{threads}"] = partial(tersor.load, data, workers=threads)
    found = fastest(calls, ROUNDS)
    for name, data in files.items():
        copy = found[f"{name}/memcpy"]
        for way, threads in (("into_buffer", 1), ("load1", 1), ("load2", 2)):
            time_taken = found[f"{name}/{way}"]
            results.add(
                kind=kind, what=name, way=way.rstrip("12"), threads=threads, file_bytes=len(data),
                bits_per_weight=8 * len(data) / counts[name],
                mega_weights_per_second=counts[name] / time_taken.wall / 1e6,
                mega_weights_per_cpu_second=counts[name] / time_taken.cpu / 1e6,
                gigabytes_per_second=sizes[name] / time_taken.wall / 1e9,
                gigabytes_per_cpu_second=sizes[name] / time_taken.cpu / 1e9,
                memcpy_gigabytes_per_second=sizes[name] / copy.wall / 1e9,
                times_memcpy=time_taken.wall / copy.wall,
            )  # fmt: skip


def threads(results: Results, data: bytes) -> None:
    """Does decoding let other Python threads run?"""
    decode_once = into_buffers(data)
    pairs = [into_buffers(data), into_buffers(data)]

    def both() -> None:
        running = [threading.Thread(target=call) for call in pairs]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()

    found = fastest({"one": decode_once, "two": both}, ROUNDS)
    results.add(
        kind="threads", what="two threads against one", one_seconds=found["one"].wall, two_seconds=found["two"].wall,
        speedup=2 * found["one"].wall / found["two"].wall,
    )  # fmt: skip
    shares, alone, beside = [], 0.0, 0.0
    for _ in range(5):
        alone = _counting(lambda: time.sleep(0.5))
        beside = _counting(lambda: [decode_once() for _ in range(10)])
        shares.append(beside / alone)
    results.add(kind="threads", what="counting beside decoding", counts_per_second_alone=alone,
                counts_per_second_beside=beside, share=max(shares))  # fmt: skip


def _counting(work: Callable[[], Any]) -> float:
    """How fast another thread counts in pure Python while this one works: counts a second."""
    stop, reached = threading.Event(), [0]

    def count() -> None:
        while not stop.is_set():
            reached[0] += 1

    counter = threading.Thread(target=count)
    counter.start()
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    value = reached[0]
    stop.set()
    counter.join()
    return value / seconds


def start_up(results: Results, folder: Path, file: Path, name: str) -> None:
    """From nothing to one decoded tensor."""
    python = environment(folder / "environment", "numpy==" + np.__version__)
    programs = {
        "python -c pass": "pass",
        "import numpy": "import numpy",
        "import tersor": "import tersor",
        "open and decode one tensor": f"import tersor; tersor.open({str(file)!r})[{name!r}]",
    }
    quiet = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    calls = {
        what: partial(subprocess.run, [str(python), "-c", code], check=True, env=quiet, cwd=folder)
        for what, code in programs.items()
    }
    torch = [str(python), "-c", programs["open and decode one tensor"] + "; import sys; print('torch' in sys.modules)"]
    imported = subprocess.run(torch, check=True, capture_output=True, text=True, cwd=folder).stdout.strip()
    times: dict[str, list[float]] = {what: [] for what in calls}
    for _ in range(20):
        for what, call in calls.items():
            begin = time.perf_counter()
            call()
            times[what].append(time.perf_counter() - begin)
    for what, seconds in times.items():
        results.add(kind="start", what=what, least_seconds=min(seconds), median_seconds=statistics.median(seconds),
                    torch_imported=imported == "True")  # fmt: skip


def main() -> None:
    with Results("speed") as results, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        minilm = load("minilm").weights
        jobs: dict[str, tuple[Any, dict[str, Any]]] = {
            **{f"Laplace, {bits} bits": ({"layer.weight": laplace(bits)}, {"bits": bits}) for bits in (2, 3, 4)},
            "MiniLM, 8x": (minilm, {"ratio": 8}),
        }
        lossy: dict[str, bytes] = {}
        for what, (source, size) in jobs.items():
            tersor.compress(source, folder / "lossy.tsr", overwrite=True, workers=1, **size)
            lossy[what] = (folder / "lossy.tsr").read_bytes()
        decode(results, lossy, "decode")
        threads(results, lossy["Laplace, 4 bits"])
        start_up(results, folder, folder / "lossy.tsr", "encoder.layer.0.attention.self.query.weight")

        whole: dict[str, bytes] = {}
        for what, source in {"MiniLM, fp32": minilm, "MiniLM, bf16": bf16_copy(minilm)}.items():
            tersor.compress(source, folder / "whole.tsr", lossless=True, overwrite=True, workers=1)
            whole[what] = (folder / "whole.tsr").read_bytes()
        decode(results, whole, "lossless")


def bf16_copy(weights: Path) -> Any:
    """The tensors of a file, those of float32 rounded to bfloat16."""
    import torch

    tensors = {n: torch.from_numpy(np.array(a)) for n, a in read(weights).items()}
    return {n: t.bfloat16() if t.dtype == torch.float32 else t for n, t in tensors.items()}


if __name__ == "__main__":
    main()
