"""Quality against the bytes of whole files: tersor's recipes and every peer, on the same networks and data in one run.

Peers run in environments of their own (peers/setup.sh; one that is missing is left out) and take turns with tersor,
point by point. All metrics are of weights decoded from the files. A peer that does not code its integers gets tersor's
lossless coder behind it (`coded_bytes`): over its integers, one an element, its scales and the rest, all in one file.
Memory is beyond what the process held before.

    python -m benchmarks.pareto [NETWORK ...]
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.numpy import load_file, save_file

import tersor
from benchmarks.baselines import BASELINES
from benchmarks.calibrated import COUNT
from benchmarks.calibrated import TASKS as CALIBRATED
from benchmarks.common import PEERS, Results
from benchmarks.networks import load
from benchmarks.networks._common import Network, read
from benchmarks.peers._peer import ONLY, Tensors, measured

Point = dict[str, Any]

SCRIPTS = {  # peer: its script and its environment
    "NNCodec": ("peer_nncodec.py", ".venv-nncodec"),
    "GGUF": ("peer_gguf.py", "../.venv"),
    "quanto": ("peer_quanto.py", ".venv-quantizers"),
    "HQQ": ("peer_hqq.py", ".venv-quantizers"),
    "torchao": ("peer_torchao.py", ".venv-quantizers"),
    "ONNX Runtime": ("peer_onnxruntime.py", ".venv-onnxruntime"),
}
SETTINGS: dict[str, tuple[str, ...]] = {
    "GGUF": ("Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0"),
    "quanto": ("int8", "int4", "int2", "int4" + ONLY),
    "HQQ": ("8 bits", "4 bits", "3 bits", "2 bits", "4 bits" + ONLY),
    "torchao": ("int8", "int6", "int5", "int4", "int3"),
    "ONNX Runtime": ("int8", "int8, a channel", "int4"),
}
WAYS = ("", ", trellis", ", trellis, opt_qp")


class Task(NamedTuple):
    """The metric that decides, ratios of tersor's recipes, NNCodec's quantization parameters, and global steps."""

    metric: str  # cosine: higher is better; kl: lower is better
    fast: tuple[float, ...]
    balanced: tuple[float, ...]
    best: tuple[float, ...]
    nncodec: tuple[int, ...]
    steps: tuple[float, ...]


TASKS = {
    "fashion_resnet": Task(
        "kl", (4, 6, 8, 10, 12, 15, 20, 28, 36), (8, 12, 20, 30), (), (-36, -32, -28, -24),
        (0.008, 0.012, 0.016, 0.024, 0.032),
    ),
    "language": Task(
        "kl", (4, 5, 6, 7, 8, 10, 12), (5, 7, 9, 12), (), (-36, -32, -28), (0.004, 0.008, 0.012, 0.02),
    ),
    "crepe_tiny": Task(
        "kl", (4, 6, 8, 10, 12, 16, 20), (8, 12, 18), (12,), (-36, -32, -28, -24), (0.004, 0.008, 0.016, 0.03),
    ),
    "vit_fashion": Task(
        "kl", (4, 6, 8, 10, 12, 16), (8, 12, 16), (), (-36, -32, -28, -24), (0.004, 0.008, 0.016, 0.03),
    ),
    "efficientnet_lite0": Task(
        "kl", (4, 5, 6, 7, 8, 10), (6, 8, 10), (), (-40, -36, -32, -28), (0.004, 0.008, 0.016),
    ),
    "minilm": Task(
        "cosine", (3.8, 5, 6.5, 8, 10, 12.5), (6.5, 8, 10), (), (-38, -32, -28, -24), (0.003, 0.006, 0.012),
    ),
    "crnn": Task("kl", (4, 6, 8, 10, 12), (), (), (-36, -32, -28), (0.004, 0.008, 0.016)),
    "resemblyzer": Task("cosine", (2.5, 3, 4, 5, 6, 8), (), (), (-44, -40, -36, -32), (0.001, 0.003, 0.006)),
    "resnet18_fashion": Task("kl", (8, 16, 24, 36), (16, 36), (), (-32, -24), (0.016, 0.032)),
}  # fmt: skip


def coded(plain: Path, folder: Path) -> int:
    """Bytes of a peer's numbers behind a lossless coder."""
    path = folder / "plain.tsr"
    tersor.compress(plain, path, lossless=True, overwrite=True, workers=1)
    return path.stat().st_size


def peer(tool: str, settings: Sequence[str], source: Path, folder: Path) -> Iterator[tuple[Point, Tensors]]:
    """All settings of a peer, in its own process, one at a time."""
    script, environment = SCRIPTS[tool]
    python = PEERS / environment / "bin" / "python"
    if not python.exists():
        yield {"tool": tool, "error": f"{environment} is not there: run benchmarks/peers/setup.sh"}, {}
        return
    command = [str(python), str(PEERS / script), str(source), str(folder)]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (
        (folder / f"{tool}.log").open("w") as log,
        subprocess.Popen(command, stdin=-1, stdout=-1, stderr=log, text=True, env=quiet) as process,
    ):
        assert process.stdin and process.stdout
        for setting in settings:
            process.stdin.write(setting + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                yield {"tool": tool, "setting": setting, "error": "the tool's process ended"}, {}
                return
            record = {"tool": tool, **json.loads(line)}
            if "error" in record:
                yield record, {}
                continue
            plain = Path(record.pop("plain"))
            record["coded_bytes"] = min(record["bytes"], coded(plain, folder))
            plain.unlink()
            decoded = Path(record.pop("decoded"))
            yield record, load_file(decoded)
            decoded.unlink()


def baseline(tool: str, settings: Sequence[float], tensors: Tensors) -> Iterator[tuple[Point, Tensors]]:
    for setting in settings:
        (nbytes, out), cost = measured(partial(BASELINES[tool], tensors, setting))
        yield {"tool": tool, "setting": f"{setting:g}", "bytes": nbytes, "coded_bytes": nbytes, "write": cost}, out


def own(recipe: str, ratios: Sequence[float], network: Network, folder: Path) -> Iterator[tuple[Point, Tensors]]:
    """tersor's recipe at all ratios."""
    source: Any = network.weights
    given: dict[str, Any] = {"recipe": recipe}
    if recipe != "fast" and ratios:
        able = CALIBRATED.get(network.name)
        if able is None:
            yield {"tool": f"tersor {recipe}", "error": "no model that runs and no calibration data here"}, {}
            return
        source, given = able.model(), given | {"calibration": able.calibration(), "calibration_count": COUNT}
    path = folder / "tersor.tsr"
    for ratio in ratios:
        record: Point = {"tool": f"tersor {recipe}", "setting": f"{ratio:g}x"}
        write = partial(tersor.compress, source, path, ratio=ratio, overwrite=True, workers=1, **given)
        try:
            _, record["write"] = measured(write)
        except tersor.TersorError as error:
            yield record | {"error": str(error).replace(str(network.weights), network.name)}, {}
            continue
        tensors, record["read"] = measured(lambda: tersor.load(path, workers=1))
        with tersor.open(path) as file:
            name = max(file.entries, key=lambda entry: entry.nbytes).name
        _, record["largest_tensor"] = measured(partial(_one, path, name))
        nbytes = path.stat().st_size
        yield record | {"bytes": nbytes, "coded_bytes": nbytes}, tensors


def _one(path: Path, name: str) -> None:
    with tersor.open(path) as file:
        file[name]


def taking_turns(*streams: Iterator[tuple[Point, Tensors]]) -> Iterator[tuple[Point, Tensors]]:
    for points in zip_longest(*streams):
        yield from (point for point in points if point is not None)


def run(results: Results, name: str, task: Task, folder: Path) -> None:
    network = load(name)
    tensors = read(network.weights)
    source = folder / "original.safetensors"
    save_file(tensors, source)
    count = sum(array.size for array in tensors.values())
    nbytes = sum(array.nbytes for array in tensors.values())
    results.add(network=name, tool="original", bytes=nbytes, weights=count, metric=task.metric,
                metrics=network.evaluate(tensors))  # fmt: skip
    parameters = tuple(f"qp {qp}{way}" for qp in task.nncodec for way in WAYS)
    streams: dict[str, Callable[[], Iterator[tuple[Point, Tensors]]]] = {
        **{f"tersor {r}": partial(own, r, getattr(task, r), network, folder) for r in ("fast", "balanced", "best")},
        **{tool: partial(peer, tool, SETTINGS.get(tool, parameters), source, folder) for tool in SCRIPTS},
        "one global step": partial(baseline, "one global step + rANS", task.steps, tensors),
        "per channel": partial(baseline, "per-channel absmax + rANS", (6, 5, 4), tensors),
    }
    for record, decoded in taking_turns(*(make() for make in streams.values())):
        if decoded:
            start = time.process_time()
            record |= {"metrics": network.evaluate(decoded), "evaluation_seconds": time.process_time() - start}
        results.add(network=name, **record)


def main(networks: list[str]) -> None:
    torch.set_num_threads(1)
    for name in networks or TASKS:
        with Results(f"pareto-{name}") as results, tempfile.TemporaryDirectory() as folder:
            run(results, name, TASKS[name], Path(folder))


if __name__ == "__main__":
    main(sys.argv[1:])
