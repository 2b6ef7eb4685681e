"""Quality against the bytes of whole files: tersor's recipes and every peer, on the same networks and data.

Peers run in environments of their own (peers/setup.sh; one that is missing is left out) and take turns with tersor,
point by point. All metrics are of weights decoded from the files. A peer that does not code its integers gets tersor's
lossless coder behind it (`coded_bytes`): over its integers, one an element, its scales and the rest, all in one file.
Memory is beyond what the process held before. The paper's recipe runs shortened: its settings say so.

    python -m benchmarks.pareto [--tool NAME ...] [--missing] [NETWORK ...]

A point replaces that of its network, tool and setting in the results; with --missing, only those run that are not
there. NAME is how a tool's name begins ("tersor", "tersor fast", "GGUF"), or "peers": all but tersor.
"""

import argparse
import json
import os
import subprocess
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
from benchmarks import scaling
from benchmarks.baselines import ABSMAX, BASELINES, GLOBAL_STEP
from benchmarks.calibrated import COUNT
from benchmarks.calibrated import TASKS as CALIBRATED
from benchmarks.common import PEERS, Table
from benchmarks.l2_ratios import PAPER
from benchmarks.networks import load
from benchmarks.networks._common import Network, read
from benchmarks.peers._peer import ONLY, Tensors, measured

Point = dict[str, Any]
Points = Iterator[tuple[Point, Tensors]]

SCRIPTS = {  # peer: its script and its environment
    "NNCodec": ("peer_nncodec.py", ".venv-nncodec"),
    "GGUF": ("peer_gguf.py", "../.venv"),
    "quanto": ("peer_quanto.py", ".venv-quantizers"),
    "HQQ": ("peer_hqq.py", ".venv-quantizers"),
    "torchao": ("peer_torchao.py", ".venv-quantizers"),
    "ONNX Runtime": ("peer_onnxruntime.py", ".venv-onnxruntime"),
    "llm-compressor": ("peer_llmcompressor.py", ".venv-llmcompressor"),
}
TRANSFORMERS = ("language", "minilm")
"""Networks that llm-compressor can run."""
SETTINGS: dict[str, tuple[str, ...]] = {
    "GGUF": ("Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0"),
    "quanto": ("int8", "int4", "int2", "int4" + ONLY),
    "HQQ": ("8 bits", "4 bits", "3 bits", "2 bits", "4 bits" + ONLY),
    "torchao": ("int8", "int6", "int5", "int4", "int3"),
    "ONNX Runtime": ("int8", "int8, a channel", "int4"),
    "llm-compressor": ("8 bits", "4 bits", "3 bits", "4 bits" + ONLY),
}
WAYS = ("", ", trellis", ", trellis, opt_qp")
PER_CHANNEL = ("6", "5", "4")
RECIPES = ("fast", "balanced", "best", PAPER.name)


class Task(NamedTuple):
    """Ratios of tersor's recipes; NNCodec's quantization parameters; steps that the whole network shares; how many of
    its inputs tersor is calibrated with."""

    ratios: dict[str, tuple[float, ...]]
    nncodec: tuple[int, ...]
    steps: tuple[float, ...]
    count: int = COUNT


def ratios(fast: tuple[float, ...], balanced: tuple[float, ...], best: tuple[float, ...] = ()) -> dict[str, Any]:
    """The recipe of the paper runs where `best` does."""
    return {"fast": fast, "balanced": balanced, "best": best, "l2-paper": best}


TASKS = {  # the small networks first
    "crepe_tiny": Task(
        ratios((4, 6, 8, 10, 12, 16, 20), (5, 8, 12, 18), (12,)), (-36, -32, -28, -24), (0.004, 0.008, 0.016, 0.03),
    ),
    "vit_fashion": Task(
        ratios((4, 6, 8, 10, 12, 16), (5, 8, 12, 16), (12,)), (-36, -32, -28, -24), (0.004, 0.008, 0.016, 0.03),
    ),
    "mobilenet_fashion": Task(
        ratios((4, 6, 8, 10, 12, 16), (5, 8, 12, 16), (8, 12)), (-36, -32, -28, -24), (0.004, 0.008, 0.016, 0.03),
    ),
    "fashion_resnet": Task(
        ratios((4, 6, 8, 10, 12, 15, 20, 28, 36), (5, 8, 12, 20, 30), (12, 20)), (-36, -32, -28, -24, -20),
        (0.008, 0.012, 0.016, 0.024, 0.032),
    ),
    "detector": Task(
        ratios((4, 6, 8, 10, 12, 16, 20), (6, 10, 16, 24)), (-36, -32, -28, -24, -20), (0.004, 0.008, 0.016, 0.032),
    ),
    "language": Task(
        ratios((4, 5, 6, 7, 8, 10, 12), (6, 9, 12)), (-36, -32, -28), (0.004, 0.008, 0.012, 0.02), count=64
    ),
    "crnn": Task(ratios((4, 6, 8, 10, 12), (4, 6, 10, 24)), (-36, -32, -28), (0.004, 0.008, 0.016)),
    "efficientnet_lite0": Task(
        ratios((4, 5, 6, 7, 8, 10, 12), (4, 6, 10)), (-40, -36, -32, -28), (0.004, 0.006, 0.008, 0.016),
    ),
    "minilm": Task(
        ratios((3.8, 5, 6.5, 8, 10, 12.5), (4, 6.5, 10, 20)), (-38, -32, -28, -24), (0.003, 0.006, 0.008, 0.012),
    ),
    "resemblyzer": Task(ratios((2.5, 3, 4, 5, 6, 8), (2.5, 4, 6)), (-44, -40, -36, -32), (0.001, 0.003, 0.006)),
    "resnet18_fashion": Task(ratios((8, 16, 24, 36), (16, 36)), (-32, -24), (0.016, 0.032)),
    "crepe_full": Task(ratios((4, 6, 8, 12, 16), (8, 16)), (-36, -32, -28, -24), (0.004, 0.008, 0.016)),
}  # fmt: skip


def coded(plain: Path, folder: Path) -> int:
    """Bytes of a peer's numbers behind a lossless coder."""
    path = folder / "plain.tsr"
    tersor.compress(plain, path, lossless=True, overwrite=True, workers=1)
    return path.stat().st_size


def peer(tool: str, source: Path, folder: Path, settings: Sequence[str]) -> Points:
    """Settings of a peer, in its own process, one at a time."""
    script, environment = SCRIPTS[tool]
    python = PEERS / environment / "bin" / "python"
    if not python.exists():
        print(f"{tool} is left out: {environment} is not there: run benchmarks/peers/setup.sh", flush=True)
        return
    command = [str(python), str(PEERS / script), str(source), str(folder)]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "LLM_COMPRESSOR_LOG_LEVEL": "CRITICAL"}
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
            plain, decoded = Path(record.pop("plain")), Path(record.pop("decoded"))
            record["coded_bytes"] = min(record["bytes"], coded(plain, folder))
            yield record, load_file(decoded)
            plain.unlink()
            decoded.unlink()


def baseline(tool: str, tensors: Tensors, settings: Sequence[str]) -> Points:
    for setting in settings:
        (nbytes, out), cost = measured(partial(BASELINES[tool], tensors, float(setting)))
        yield {"tool": tool, "setting": setting, "bytes": nbytes, "coded_bytes": nbytes, "write": cost}, out


def own(recipe: str, network: Network, folder: Path, settings: Sequence[str]) -> Points:
    """tersor's recipe at ratios such as "8x" or "8x, 650 iterations"."""
    source: Any = network.weights
    given: dict[str, Any] = {"method": PAPER} if recipe == PAPER.name else {"recipe": recipe}
    if recipe != "fast":
        task, count = CALIBRATED[network.name], TASKS[network.name].count
        source, given = task.model(), given | {"calibration": task.calibration(), "calibration_count": count}
    path = folder / "tersor.tsr"
    for setting in settings:
        record: Point = {"tool": f"tersor {recipe}", "setting": setting}
        ratio = float(setting.partition("x")[0])
        write = partial(tersor.compress, source, path, ratio=ratio, overwrite=True, workers=1, **given)
        try:
            _, record["write"] = measured(write)
        except tersor.TersorError as error:
            yield record | {"error": str(error).replace(str(network.weights), network.name)}, {}
            continue
        with tersor.open(path) as file:
            name = max(file.entries, key=lambda entry: entry.nbytes).name
        record["read"] = scaling.run(f"tersor.load({str(path)!r}, workers=1)")
        record["largest_tensor"] = scaling.run(f"tersor.open({str(path)!r}, workers=1)[{name!r}]")
        nbytes = path.stat().st_size
        yield record | {"bytes": nbytes, "coded_bytes": nbytes}, tersor.load(path, workers=1)


def taking_turns(*streams: Points) -> Points:
    for points in zip_longest(*streams):
        yield from (point for point in points if point is not None)


def running(name: str, folder: Path) -> None:
    """A network that runs, `model`, and the batches that tersor is calibrated with too, `calibration.pt`."""
    task = CALIBRATED[name]
    task.model().module.save_pretrained(folder / "model")
    inputs = task.calibration()
    batches = [{"input_ids": part} for part in inputs.split(8)] if isinstance(inputs, torch.Tensor) else inputs
    torch.save(batches, folder / "calibration.pt")


def settings(name: str) -> dict[str, tuple[str, ...]]:
    """What every tool is asked for on a network."""
    task = TASKS[name]
    schedule = {PAPER.name: f", {PAPER.iterations} iterations"}
    return {
        **{f"tersor {r}": tuple(f"{ratio:g}x{schedule.get(r, '')}" for ratio in task.ratios[r]) for r in RECIPES},
        "NNCodec": tuple(f"qp {qp}{way}" for qp in task.nncodec for way in WAYS),
        **{tool: asked for tool, asked in SETTINGS.items() if tool != "llm-compressor" or name in TRANSFORMERS},
        GLOBAL_STEP: tuple(f"{step:g}" for step in task.steps),
        ABSMAX: PER_CHANNEL,
    }


def chosen(tool: str, names: Sequence[str]) -> bool:
    ours = tool.startswith("tersor")
    return not names or any(tool.startswith(name) or (name == "peers" and not ours) for name in names)


def run(table: Table, name: str, asked: dict[str, tuple[str, ...]], folder: Path) -> None:
    """These settings of these tools."""
    network = load(name)
    tensors = read(network.weights)
    source = folder / "original.safetensors"
    save_file(tensors, source)
    if "llm-compressor" in asked:
        running(name, folder)
    sizes = {"bytes": sum(a.nbytes for a in tensors.values()), "weights": sum(a.size for a in tensors.values())}
    table.add(network=name, tool="original", setting="", **sizes, metrics=network.evaluate(tensors))
    makers: dict[str, Callable[[Sequence[str]], Points]] = {
        **{f"tersor {recipe}": partial(own, recipe, network, folder) for recipe in RECIPES},
        **{tool: partial(peer, tool, source, folder) for tool in SCRIPTS},
        **{tool: partial(baseline, tool, tensors) for tool in BASELINES},
    }
    for record, decoded in taking_turns(*(makers[tool](wanted) for tool, wanted in asked.items())):
        if decoded:
            start = time.process_time()
            record |= {"metrics": network.evaluate(decoded), "evaluation_seconds": time.process_time() - start}
        table.add(network=name, **record)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tool", action="append", default=[])
    parser.add_argument("--missing", action="store_true")
    parser.add_argument("network", nargs="*", default=list(TASKS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    table = Table("pareto", "network", "tool", "setting")
    for name in arguments.network:
        done = table.known() if arguments.missing else set()
        asked = {
            tool: tuple(s for s in wanted if (name, tool, s) not in done)
            for tool, wanted in settings(name).items()
            if chosen(tool, arguments.tool)
        }
        asked = {tool: left for tool, left in asked.items() if left}
        if asked:
            with tempfile.TemporaryDirectory() as folder:
                run(table, name, asked, Path(folder))


if __name__ == "__main__":
    main()
