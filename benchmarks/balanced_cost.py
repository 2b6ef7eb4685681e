"""Time and peak memory of the balanced recipe against the number of weights, at one width.

Transformer encoders of width 192 and 1 to 16 blocks at 3 bits a weight, from 64 sequences of 32 vectors, eight to a
batch, each in a process of its own on one thread. Linear means that CPU seconds a weight do not grow. Weights are
random: nothing is said of quality.

    python -m benchmarks.balanced_cost
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import Results

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


def main() -> None:
    with Results("balanced_cost") as results:
        for blocks in BLOCKS:
            command = [sys.executable, "-m", "benchmarks.balanced_cost", str(blocks)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            results.add(**json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(int(sys.argv[1]))))
    else:
        main()
