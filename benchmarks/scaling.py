"""What does a weight cost, from 1 M to 100 M weights, or up to 1 B?

Compressing, opening, reading one tensor, decoding. Checkpoints are Hugging Face folders of fp16 shards of ten matrices
of 1 M weights (1024 x 1024; one matrix is the smallest checkpoint), heavy-tailed with rows of unequal scale. Each job
is a process of its own; memory is beyond that of one that only imported tersor and its engine. Times are of the job
alone: CPU seconds, and by the clock for two workers against one.

    python -m benchmarks.scaling [MILLION ...]

Checkpoints of so many times 1024 x 1024 weights, by default 1, 10 and 100; 1000 takes 5 GB of disk.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from benchmarks.common import Table

SIDE = 1024
SHARD = 10
SIZES = (1, 10, 100)
PROGRAM = """
import json, sys, time, tersor, tersor.engine
from benchmarks.peers._peer import measured
def job(): {code}
wall = time.perf_counter()
_, found = measured(job)
print(json.dumps({{**found, "wall": time.perf_counter() - wall}}))
"""


def make_checkpoint(folder: Path, matrices: int) -> None:
    """Write shard by shard."""
    rng, where = np.random.default_rng(0), dict[str, str]()
    for start in range(0, matrices, SHARD):
        name, tensors = f"model-{start:05d}.safetensors", dict[str, np.ndarray]()
        for k in range(start, min(start + SHARD, matrices)):
            scale = 0.02 * np.exp(rng.normal(0, 0.3, (SIDE, 1)))
            normal = rng.standard_normal((SIDE, SIDE), np.float32)
            tensors[f"layers.{k}.weight"] = (normal * np.abs(normal) ** 0.5 * scale).astype(np.float16)
        save_file(tensors, folder / name)
        where |= dict.fromkeys(tensors, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "torch_dtype": "float16"}))


def run(code: str) -> dict[str, float]:
    """Seconds and peak memory of a job in a new process."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(code=code)], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout)


def main(sizes: tuple[int, ...]) -> None:
    table = Table("scaling", "weights", "job")
    for matrices in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            make_checkpoint(folder, matrices)
            names = ("", "model.tsr", "again.tsr", "out.safetensors")
            source, file, again, out = (repr(str(folder / part)) for part in names)
            jobs = {
                "compress at 8x": f"tersor.compress({source}, {file}, ratio=8, workers=1)",
                "compress at 8x, two workers": f"tersor.compress({source}, {again}, ratio=8, workers=2)",
                "open": f"tersor.open({file}).close()",
                "read one tensor": f"tersor.open({file})['layers.0.weight']",
                "decompress to a file": f"tersor.decompress({file}, {out})",
                "load": f"tersor.load({file}, workers=1)",
                "load, two workers": f"tersor.load({file}, workers=2)",
            }
            for job, code in jobs.items():
                found = run(code)
                nbytes = (folder / "model.tsr").stat().st_size
                table.add(weights=matrices * SIDE * SIDE, job=job, file_bytes=nbytes, **found)


if __name__ == "__main__":
    main(tuple(map(int, sys.argv[1:])) or SIZES)
