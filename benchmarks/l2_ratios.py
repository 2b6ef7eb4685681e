"""Tables 1 and 7 and figures 5 and 7 of the L2 paper (Shi et al. 2023), in shape: whole recipes at the same file size.

Classifiers, a vision transformer, a pitch tracker, a reader of lines and a detector, as benchmarks/networks has them.
From unlabelled inputs; quality is of weights decoded from the file, on other inputs. Every record states its ratio both
ways: of the whole file, and by the paper's formula (32 bits a weight over the entropy of its levels, order 0, tensor by
tensor, all else uncounted).

| method            | what                                                                                        |
|-------------------|---------------------------------------------------------------------------------------------|
| nearest           | recipe `fast`: rounding without data                                                        |
| 8 bits            | as DFQ: 8 bits, no data, entropy coded; a step for every row does what equalisation is for  |
| adaround          | AdaRound with one number of levels everywhere, entropy coded, at the first ratio            |
| second order      | recipe `balanced`                                                                           |
| best              | recipe `best`, as the product has it                                                        |
| l2-paper, a tenth | the paper's recipe, a tenth of its iterations, learning rates ten times as high             |
| l2-paper          | the paper's recipe in full: 6500 iterations, of a transformer 3900                          |

DeepCABAC, and NNCodec at its best, are points of benchmarks/pareto.py.

    python -m benchmarks.l2_ratios [--method NAME ...] [NETWORK ...]

A row replaces the one of its method and ratio; with --missing, only those run that are not there.
"""

import argparse
import dataclasses
import math
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tersor
from benchmarks.baselines import per_channel
from benchmarks.calibrated import COUNT, TASKS
from benchmarks.common import Table
from benchmarks.l2_tables import entropy_bytes
from benchmarks.networks import load
from benchmarks.networks._common import Network, read
from tersor.joint import BEST, L2_PAPER
from tersor.methods import AdaRound
from tersor.ops.chunks import read_all

ONE = np.ones(1, "<f4").tobytes()
PAPER = dataclasses.replace(
    L2_PAPER, transformation_iterations=30, weight_iterations=100,
    transformation_lr=10 * L2_PAPER.transformation_lr, weight_lr=10 * L2_PAPER.weight_lr,
)  # fmt: skip
RATIOS: dict[str, tuple[float, ...]] = {
    "fashion_resnet": (20, 10, 12, 15, 30),
    "vit_fashion": (10, 6, 8, 12, 14),
    "mobilenet_fashion": (10, 8, 12),
    "detector": (15, 10, 20, 30),
    "crepe_tiny": (12, 18),
    "crnn": (10,),
    "resnet18_fashion": (20, 40),
    "minilm": (10,),
    "efficientnet_lite0": (10,),
}
METHODS: dict[str, dict[str, Any]] = {
    "nearest": {"recipe": "fast"},
    "second order": {"recipe": "balanced"},
    "best": {"method": BEST},
    "l2-paper, a tenth": {"method": PAPER},
    "l2-paper": {"method": L2_PAPER},
    "adaround": {"method": AdaRound(iterations=200)},
}
ORIGINAL, EIGHT = "original", "8 bits"
TRANSFORMERS = ("vit_fashion", "minilm")
"""For which the paper has three rounds."""


def levels_bytes(path: Path) -> tuple[float, int]:
    """Entropy in bytes, order 0, of the levels of a file's weights, tensor by tensor; and how many these are."""
    entropy, count = 0.0, 0
    with tersor.open(path) as file:
        for entry in file.entries:
            step = entry.chain[0] if entry.chain else None
            if step is None or "steps" not in step.parameters or len(entry.shape) < 2:
                continue
            places, number = file[entry.name].reshape(entry.shape[0], -1), 1
            for key, shape in (("steps", (-1, 1)), ("columns", (1, -1))):
                palette, index = np.frombuffer(step.parameters.get(key, ONE), "<f4"), np.zeros(1, np.uint8)
                if palette.size > 1:
                    index, number = read_all(file._open_tensor(entry.name)[1], number, step.streams[number]), number + 1
                places = places / palette[index].reshape(shape)
            # levels stand about 1 apart; an irrational number of bins between them, so that none falls on an edge
            found = np.unique(np.rint(places * 3 * math.e), return_counts=True)[1]
            entropy, count = entropy + entropy_bytes(found), count + places.size
    return entropy, count


def compressed(options: dict[str, Any], ratio: float, path: Path, network: Network) -> dict[str, Any]:
    """A file of the asked ratio, and its record."""
    start, task = time.process_time(), TASKS[network.name]
    if options.get("method") is L2_PAPER and network.name in TRANSFORMERS:
        options = {"method": dataclasses.replace(L2_PAPER, rounds=3)}
    given = {} if options.get("recipe") == "fast" else {"calibration": task.calibration(), "calibration_count": COUNT}
    report = tersor.compress(task.model(), path, ratio=ratio, overwrite=True, workers=1, **given, **options)
    seconds = time.process_time() - start
    entropy, count = levels_bytes(path)
    return {
        "file_bytes": report.file_bytes, "ratio": report.ratio, "paper_ratio": 4 * count / entropy,
        "cpu_seconds": seconds, "notes": [note for note in report.notes if "is kept" in note],
        **network.evaluate(tersor.load(path)),
    }  # fmt: skip


def eight_bits(network: Network) -> dict[str, Any]:
    """Rows of 8 bits, entropy coded, headers uncounted."""
    tensors = read(network.weights)
    nbytes, out = per_channel(tensors, 8)
    return {"file_bytes": nbytes, "ratio": sum(a.nbytes for a in tensors.values()) / nbytes, **network.evaluate(out)}


def original(network: Network) -> dict[str, Any]:
    """The weights as they are."""
    tensors = read(network.weights)
    return {"file_bytes": sum(a.nbytes for a in tensors.values()), "ratio": 1.0, **network.evaluate(tensors)}


WHOLE = {ORIGINAL: original, EIGHT: eight_bits}
"""What has no ratio."""


def main() -> None:
    """The first ratio of every network, then the second ones."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--method", action="append", choices=[*WHOLE, *METHODS])
    parser.add_argument("--missing", action="store_true")
    parser.add_argument("--first", action="store_true", help="the first ratio of every network only")
    parser.add_argument("networks", nargs="*", default=list(RATIOS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    for place in range(1 if given.first else max(len(RATIOS[name]) for name in given.networks)):
        for name in given.networks:
            if place >= len(RATIOS[name]):
                continue
            network, table = load(name), Table(f"l2-ratios-{name}", "method", "target")
            done = table.known() if given.missing else set()
            for method in given.method or [*WHOLE, *METHODS]:
                ratio = None if method in WHOLE else RATIOS[name][place]
                if (method, ratio) in done or (method in (*WHOLE, "adaround") and place > 0):
                    continue
                with tempfile.TemporaryDirectory() as folder:
                    job = WHOLE.get(method) or partial(compressed, METHODS[method], ratio, Path(folder) / "m.tsr")
                    table.add(network=name, method=method, target=ratio, **job(network))


if __name__ == "__main__":
    main()
