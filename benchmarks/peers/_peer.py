"""What the peers' scripts share. Each runs in the environment that has its tool:

    python peer_NAME.py ORIGINAL.safetensors FOLDER

Settings come as lines on standard input. For each, it writes the tool's own file into the folder, reads it again, and
answers with a JSON line: bytes of the file, the decoded weights as `decoded` (.safetensors), and `plain`: what the file
holds with one number an element (codes that the tool packs, unpacked), for a lossless coder behind it. CPU seconds and
peak memory are of `write` (weights in memory to file), `read` (file to float32 weights) and `largest_tensor` (file to
the float32 weights of one tensor; the rest is opened as far as the tool must).

Tools that know linear layers only are handed every matrix as one: embeddings, and kernels flattened to rows. That is
kinder than what they do by themselves; the settings that end in ONLY show that.
"""

import contextlib
import ctypes
import importlib.metadata
import io
import json
import math
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

Tensors = dict[str, np.ndarray]

ONLY = ", linear layers only"
LEAST = 256  # smaller tensors stay in fp32


def matrices(tensors: Tensors, setting: str, multiple: int = 1) -> Tensors:
    """The tensors that are quantized, as rows whose length divides by `multiple`."""
    return {
        name: array.reshape(len(array), -1)
        for name, array in tensors.items()
        if array.dtype == np.float32 and array.ndim >= 2 and array.size >= LEAST
        if array[0].size % multiple == 0
        if not setting.endswith(ONLY) or (array.ndim == 2 and "embed" not in name and not re.search("_[ih]h_", name))
    }


def group(width: int, most: int) -> int | None:
    """The largest group of at most `most` and at least 16 columns that divides the rows; None if there is none."""
    found = math.gcd(width, most)
    return found if found >= 16 else None


def measured(call: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What the call gives; its CPU seconds, and its peak memory in MB beyond what the process held before."""
    ctypes.CDLL(None).malloc_trim(0)  # what was freed goes back first, or it would be taken again unseen
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, start = megabytes("VmRSS"), time.process_time()
    out = call()
    return out, {"seconds": time.process_time() - start, "megabytes": megabytes("VmHWM") - before}


def megabytes(key: str) -> float:
    """What the system says of this process's memory: VmRSS now, VmHWM at its peak."""
    found = re.search(key + r":\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 / 1e6 if found else math.nan


def serve(
    package: str,
    write: Callable[[Tensors, str, Path], None],
    read: Callable[[Path, str | None], Tensors],
    plain: Callable[[Path], Tensors],
) -> None:
    """Run all settings. `read` gives decoded arrays, of any shape: all, or at least that of the name."""
    original, folder = load_file(sys.argv[1]), Path(sys.argv[2])
    largest = max(original, key=lambda name: original[name].nbytes)
    out, path = sys.stdout, folder / Path(sys.argv[0]).stem
    for setting in map(str.strip, sys.stdin):
        record: dict[str, Any] = {"setting": setting, "version": importlib.metadata.version(package)}
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                given = {name: array.copy() for name, array in original.items()}
                _, record["write"] = measured(lambda: write(given, setting, path))  # noqa: B023
                decoded, record["read"] = measured(lambda: read(path, None))
                _, record["largest_tensor"] = measured(lambda: read(path, largest))
                record["bytes"] = path.stat().st_size
                decoded = {n: decoded[n].reshape(a.shape).astype(a.dtype) for n, a in original.items()}
                for kind, arrays in (("decoded", decoded), ("plain", plain(path))):
                    record[kind] = f"{path}.{kind}.safetensors"
                    save_file({n: np.ascontiguousarray(a) for n, a in arrays.items()}, record[kind])
        except Exception as error:
            record["error"] = f"{type(error).__name__}: {error}"[:300]
        path.unlink(missing_ok=True)
        print(json.dumps(record), file=out, flush=True)
