"""How much memory does a checkpoint of 1.07 GB take? Goal: under 400 MB beyond the interpreter, both ways.

The checkpoint is a Hugging Face folder of fp16 shards: an embedding of 32000 x 4096 and two layers of a 7B language
model (weights of a normal distribution whose scale varies by row). Each job is a process of its own; its peak
(VmHWM: the `ru_maxrss` of a child would count its parent's) is stated less that of a process that only imported
tersor and its engine. Pages of mapped files count too, if there are any.

    python -m benchmarks.memory
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Results

HIDDEN, INNER, WORDS, LAYERS = 4096, 11008, 32000, 2
IMPORTS = "import tersor, tersor.engine"
WATCH = """
import re, pathlib
def _megabytes(key):
    return int(re.search(key + r":\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) / 1024 * 1.048576
print(_megabytes("VmHWM"))
"""


def shapes() -> list[dict[str, tuple[int, ...]]]:
    """Names and shapes of the tensors, shard by shard."""
    shards: list[dict[str, tuple[int, ...]]] = [{"model.embed_tokens.weight": (WORDS, HIDDEN)}]
    for k in range(LAYERS):
        attention = {f"self_attn.{p}_proj.weight": (HIDDEN, HIDDEN) for p in "qkvo"}
        mlp = {f"mlp.{p}_proj.weight": (INNER, HIDDEN) for p in ("gate", "up")}
        norms = {"input_layernorm.weight": (HIDDEN,), "post_attention_layernorm.weight": (HIDDEN,)}
        layer = {**attention, **mlp, "mlp.down_proj.weight": (HIDDEN, INNER), **norms}
        shards.append({f"model.layers.{k}.{name}": shape for name, shape in layer.items()})
    return shards


def make_checkpoint(folder: Path) -> int:
    """Write the folder shard by shard; returns the bytes of its tensors."""
    rng, where, total = np.random.default_rng(0), {}, 0
    shards = shapes()
    for k, tensors in enumerate(shards, 1):
        name, header, end = f"model-{k:05d}-of-{len(shards):05d}.safetensors", {}, 0
        for tensor, shape in tensors.items():
            size = 2 * int(np.prod(shape))
            header[tensor] = {"dtype": "F16", "shape": list(shape), "data_offsets": [end, end + size]}
            where[tensor] = name
            end += size
        total += end
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with (folder / name).open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for shape in tensors.values():
                for start in range(0, shape[0], 1024):
                    rows = (min(1024, shape[0] - start), *shape[1:])
                    scale = 0.02 * np.exp(rng.normal(0, 0.3, (rows[0],) + (1,) * (len(rows) - 1)))
                    file.write((rng.standard_normal(rows, np.float32) * scale).astype(np.float16).tobytes())
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "torch_dtype": "float16"}))
    return total


def peak(code: str) -> tuple[float, float]:
    """Peak memory in MB (10^6 bytes) of a process that runs `code`, and its seconds."""
    start = time.perf_counter()
    program = [sys.executable, "-c", f"{IMPORTS}\n{code}\n{WATCH}"]
    done = subprocess.run(program, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.splitlines()[-1]), time.perf_counter() - start


def main() -> None:
    with Results("memory") as results, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model").mkdir()
        source = make_checkpoint(folder / "model")
        base, _ = peak("")
        results.add(job="import tersor and its engine only", source_bytes=source, peak_megabytes=base)
        lossy, whole = folder / "lossy.tsr", folder / "whole.tsr"
        arguments = f"{str(folder / 'model')!r}, {str(lossy)!r}, ratio=4"
        out = f"{str(folder / 'out.safetensors')!r}, overwrite=True"
        jobs: dict[str, Any] = {
            "compress at 4x": f"tersor.compress({arguments})",
            "compress at 4x, one thread": f"tersor.compress({arguments}, overwrite=True, workers=1)",
            "decompress from 4x": f"tersor.decompress({str(lossy)!r}, {out})",
            "verify 4x": f"tersor.verify({str(lossy)!r})",
            "compress losslessly": f"tersor.compress({str(folder / 'model')!r}, {str(whole)!r}, lossless=True)",
            "decompress lossless": f"tersor.decompress({str(whole)!r}, {out})",
        }
        for job, code in jobs.items():
            megabytes, seconds = peak(code)
            path = whole if "lossless" in job else lossy
            results.add(job=job, source_bytes=source, file_bytes=path.stat().st_size, peak_megabytes=megabytes,
                        beyond_megabytes=megabytes - base, seconds=seconds)  # fmt: skip


if __name__ == "__main__":
    main()
