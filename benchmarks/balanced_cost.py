"""Time and peak memory of the balanced recipe: against the number of weights, at one width, and on real networks.

Transformer encoders of width 192 and 1 to 16 blocks at 3 bits a weight, from 64 sequences of 32 vectors, eight to a
batch, each in a process of its own on one thread. Linear means that CPU seconds a weight do not grow. Weights are
random: nothing is said of quality. Real networks (part balanced_time) have the samples of benchmarks/calibrated.py, and
both cores.

    python -m benchmarks.balanced_cost [NETWORK ...]
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import Results, Table
from benchmarks.peers._peer import megabytes

NETWORKS = {"efficientnet_lite0": 4.0, "resnet18_fashion": 32 / 12, "smollm2": 4.0}
"""Bits a weight."""
BLOCKS = (1, 2, 4, 8, 16)
WIDTH, SEQUENCES, BATCH, POSITIONS = 192, 64, 8, 32


def measure(blocks: int) -> dict[str, float]:
    """One compression: weights, CPU seconds, and by how much it raised the peak of resident memory, in MiB."""
    import torch
    from torch import nn

    from tersor.engine import compress

    torch.set_num_threads(1)
    torch.manual_seed(0)
    layers = [nn.TransformerEncoderLayer(WIDTH, 4, 4 * WIDTH, batch_first=True) for _ in range(blocks)]
    module = nn.Sequential(*layers, nn.Linear(WIDTH, 64)).eval()
    samples = torch.randn(SEQUENCES, POSITIONS, WIDTH).split(BATCH)
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        report = compress(module, Path(folder) / "x.tsr", bits=3, calibration=samples, workers=1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "blocks": blocks,
        "weights": report.source_bytes // 4,
        "cpu": time.process_time() - start,
        "peak_mib": (peak - before) / 1024,
        "model_mib": report.source_bytes / 2**20,
    }


def real(name: str) -> dict[str, float]:
    """One compression of a real network, from batches; the peak of all memory of the process meanwhile."""
    from benchmarks.calibrated import COUNT, TASKS
    from tersor.engine import compress

    task = TASKS[name]
    model, samples = task.model(), task.calibration().clone().split(8)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    start, cpu = time.monotonic(), time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.tsr"
        report = compress(model, path, bits=NETWORKS[name], calibration=samples, calibration_count=COUNT, workers=2)
    return {
        "network": name,
        "weights": report.weights,
        "file_bytes": report.file_bytes,
        "cpu": time.process_time() - cpu,
        "seconds": time.monotonic() - start,
        "peak_mib": megabytes("VmHWM") * 1e6 / 2**20,
        "model_mib": report.weights * 4 / 2**20,
    }


def apart(*arguments: str) -> dict[str, float]:
    """What a process of its own measures."""
    command = [sys.executable, "-m", "benchmarks.balanced_cost", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(names: list[str]) -> None:
    for name in names or NETWORKS:
        Table("balanced_time", "network").add(**apart("--network", name))
    if names:
        return
    with Results("balanced_cost") as results:
        for blocks in BLOCKS:
            results.add(**apart("--blocks", str(blocks)))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--blocks", blocks]:
            print(json.dumps(measure(int(blocks))))
        case ["--network", name]:
            print(json.dumps(real(name)))
        case names:
            main(names)
