"""Quality at equal bytes without any data: tersor's method `nearest` beside the peers that need no data either.

Peers: NNCodec (quantization parameter swept; with and without its trellis and opt_qp), one step for the whole network
and our entropy coder (embeddings with three times the step), a step for every channel from its largest weight (4, 5, 6
bits, our entropy coder), and llama.cpp's block formats (gguf's own numpy quantizers, for matrices whose rows divide
by 32; kernels of convolutions are flattened to rows). Peers that make no file are counted kindly: coded levels,
steps in fp16, and the rest in fp32, without any header.

Then tersor makes a file at every size that matters: the sizes of issue 2 and that of every peer's point that no
other peer beats (`rival`). The goal: no rival is better than tersor at its size. All metrics are of weights decoded
from the files.

    python -m benchmarks.quality [NETWORK ...]
"""

import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gguf
import numpy as np
import torch
from safetensors.numpy import save_file

import tersor
from benchmarks import baselines
from benchmarks.common import Results
from benchmarks.networks import load
from benchmarks.networks._common import read
from benchmarks.pareto import peer

Tensors = dict[str, np.ndarray]

BLOCKS = {"Q8_0": 8.5, "Q5_1": 6.0, "Q4_1": 5.0, "Q4_0": 4.5}


class Task(NamedTuple):
    """A network, the metric that decides, and the sizes asked for."""

    metric: str  # cosine: higher is better; kl: lower is better
    sizes: tuple[int, ...]
    nncodec: tuple[int, ...]  # quantization parameters
    steps: tuple[float, ...]


def fractions(nbytes: int, *ratios: float) -> tuple[int, ...]:
    return tuple(int(nbytes / ratio) for ratio in ratios)


TASKS = {
    "minilm": Task(
        "cosine",
        (24_000_000, 18_000_000, 14_000_000, 11_300_000, 8_650_000, 7_000_000),
        (-38, -32, -28, -24),
        (0.003, 0.006, 0.008, 0.012),
    ),
    "fashion_resnet": Task(
        "kl",
        fractions(4_916_592, 12, 18, 25, 36),
        (-36, -32, -24, -20),
        (0.008, 0.012, 0.016, 0.024, 0.032),
    ),
    "efficientnet_lite0": Task(
        "kl",
        fractions(18_776_488, 4, 6, 8, 12),
        (-40, -32, -28),
        (0.006, 0.01, 0.016, 0.024, 0.032),
    ),
}


class Point(NamedTuple):
    """A method's setting, what it costs and what it gives."""

    method: str
    setting: str
    nbytes: int
    tensors: Tensors


def global_step(tensors: Tensors, steps: tuple[float, ...]) -> Iterator[Point]:
    """One step for all matrices, a larger one for embeddings."""
    for step in steps:
        yield Point("one global step", f"step {step}", *baselines.global_step(tensors, step))


def per_channel(tensors: Tensors) -> Iterator[Point]:
    """A step for every row: its largest weight over the largest level."""
    for bits in (6, 5, 4):
        yield Point("per-channel absmax", f"{bits} bits", *baselines.per_channel(tensors, bits))


def block_formats(tensors: Tensors) -> Iterator[Point]:
    """llama.cpp's formats of 32 weights a block."""
    for kind, bits in BLOCKS.items():
        nbytes, out, number = 0, dict(tensors), gguf.GGMLQuantizationType[kind]
        for name, array in tensors.items():
            rows = array.reshape(array.shape[0], -1) if array.ndim >= 2 else array
            if not baselines.quantized(array) or rows.shape[1] % 32:
                nbytes += array.nbytes
                continue
            blocks = gguf.quantize(rows, number)
            assert blocks.nbytes == rows.size * bits / 8
            nbytes += blocks.nbytes
            out[name] = gguf.dequantize(blocks, number).reshape(array.shape).astype(np.float32)
        yield Point("GGUF", kind, nbytes, out)


def nncodec(
    tensors: Tensors,
    parameters: tuple[int, ...],
    folder: Path,
    flags: tuple[tuple[bool, bool], ...] = ((False, False), (True, False), (True, True)),
) -> Iterator[Point]:
    """NNCodec in its own environment, with each of these settings of (its trellis, opt_qp)."""
    names = {(False, False): "", (True, False): ", trellis", (True, True): ", trellis, opt_qp"}
    source = folder / "original.safetensors"
    save_file({n: np.ascontiguousarray(a) for n, a in tensors.items()}, source)
    settings = [f"qp {qp}{names[flag]}" for qp in parameters for flag in flags]
    for record, decoded in peer("NNCodec", settings, source, folder):
        if "error" in record:
            print(record, flush=True)
            continue
        setting, _, way = record["setting"].partition(", ")
        yield Point("NNCodec" + (way and f", {way}"), setting, record["bytes"], decoded)


def goodness(metrics: dict[str, float], metric: str) -> float:
    """The deciding metric, turned so that higher is better."""
    return -metrics[metric] if metric == "kl" else metrics[metric]


def rivals(points: list[dict[str, Any]], metric: str) -> list[dict[str, Any]]:
    """Points that no other point of fewer or equal bytes matches, cheapest first."""
    found: list[dict[str, Any]] = []
    for point in sorted(points, key=lambda p: (p["bytes"], -goodness(p["metrics"], metric))):
        if not found or goodness(point["metrics"], metric) > goodness(found[-1]["metrics"], metric):
            found.append(point)
    return found


def useful(metrics: dict[str, float]) -> bool:
    """Whether the network still works at all: half its decisions, or a cosine of a half."""
    return metrics.get("agreement", metrics.get("cosine", 0.0)) >= 0.5


def run(results: Results, name: str, task: Task, folder: Path) -> None:
    """All peers of one network, then tersor at their sizes."""
    network = load(name)
    tensors = read(network.weights)
    source = sum(a.nbytes for a in tensors.values())
    results.add(network=name, method="original", bytes=source, metrics=network.evaluate(tensors))
    peers: list[dict[str, Any]] = []
    makers: list[Callable[[], Iterator[Point]]] = [
        lambda: global_step(tensors, task.steps),
        lambda: per_channel(tensors),
        lambda: block_formats(tensors),
        lambda: nncodec(tensors, task.nncodec, folder),
    ]
    for make in makers:
        for point in make():
            metrics = network.evaluate(point.tensors)
            record = {"network": name, "method": point.method, "setting": point.setting, "bytes": point.nbytes,
                      "metrics": metrics}  # fmt: skip
            results.add(**record)
            if all(map(math.isfinite, metrics.values())):
                peers.append(record)
    candidates = [p for p in peers if p["bytes"] < source / 3 and useful(p["metrics"])]
    best = {p["bytes"]: p for p in rivals(candidates, task.metric)}
    for size in sorted({*task.sizes, *best}, reverse=True):
        path = folder / f"{name}.tsr"
        try:
            tersor.compress(network.weights, path, size=size, overwrite=True, workers=1)
        except tersor.TersorError as error:
            results.add(network=name, method="tersor", asked=size, error=str(error).replace(str(network.weights), name))
            continue
        nbytes, metrics = path.stat().st_size, network.evaluate(tersor.load(path))
        record: dict[str, Any] = {"network": name, "method": "tersor", "asked": size, "bytes": nbytes}
        record["metrics"] = metrics
        if size in best:
            rival = best[size]
            margin = goodness(metrics, task.metric) - goodness(rival["metrics"], task.metric)
            record |= {"rival": f"{rival['method']}, {rival['setting']}", "rival_metrics": rival["metrics"]}
            record |= {"metric": task.metric, "margin": margin}
        results.add(**record)


def main(networks: list[str]) -> None:
    torch.set_num_threads(1)
    for name in networks or TASKS:
        with Results(f"quality-{name}") as results, tempfile.TemporaryDirectory() as folder:
            run(results, name, TASKS[name], Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
