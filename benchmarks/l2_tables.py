"""The tables of the L2 paper (Shi et al. 2023), in shape, on networks that take minutes on one core.

Networks are trained by this project's scripts on Fashion-MNIST; calibration images come from its training part, without
labels; quality is measured on the test part, of weights decoded from the file. Every record states its ratio both ways:
of the whole file, and by the paper's formula (32 bits a learned number over the entropy of its levels, all else
uncounted).

The schedules are shortened to what two busy cores allow, and every record says to what. Recipe `l2-paper` has absolute
learning rates, which would stop far from the target: they are raised in proportion, so that the way is the paper's
(1500 iterations at 1e-4, 5000 at 5e-6). Recipe `best` decays to nothing whatever its length.

    python -m benchmarks.l2_tables PART [NETWORK ...]

| part        | table of the paper                                                              |
|-------------|---------------------------------------------------------------------------------|
| ratios      | 1 and 7: ratios, recipes, rounding without data                                 |
| forms       | 2: forms of the transformation                                                  |
| kernels     | 3: kernels and resolutions                                                      |
| coding      | 4: entropy, Huffman and file                                                    |
| calibration | 5: number of images                                                             |
| weights     | 6: without weight tuning                                                        |
"""

import argparse
import dataclasses
import heapq
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import tersor
from benchmarks.common import Results
from benchmarks.networks import fashion, load
from benchmarks.networks._common import Network, read, with_weights
from tersor.joint import BEST, L2_PAPER, Recipe, Refined, refine
from tersor.methods.nearest import to_float32
from tersor.report import Report
from tersor.sources import MappingSource

BATCH = 32
LARGE = 10_000
IMAGES = 1024
SHORT_BEST = dataclasses.replace(BEST, rounds=2, transformation_iterations=50, weight_iterations=100)
SHORT_PAPER = dataclasses.replace(
    L2_PAPER, rounds=2, transformation_iterations=100, weight_iterations=100,
    transformation_lr=1e-4 * 1500 / 200, weight_lr=5e-6 * 5000 / 200,
)  # fmt: skip
RATIOS = {
    "fashion_resnet": (20, 15, 10),
    "resnet18_fashion": (20, 40),
    "mobilenet_fashion": (10, 8),
    "vit_fashion": (10, 8, 14),
}
RECIPES = {"best": SHORT_BEST, "l2-paper": SHORT_PAPER}


def calibration(images: int = IMAGES) -> list[torch.Tensor]:
    """Unlabelled training images in batches, always the same."""
    x, _ = fashion.images("train")
    chosen = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))[:images]
    return list(x[chosen].split(BATCH))


def original(network: Network) -> nn.Module:
    return with_weights(fashion.build(network.name), read(network.weights))


def learn(network: Network, recipe: Recipe, ratio: float, path: Path, images: int = IMAGES) -> dict[str, Any]:
    """A file learned to a ratio, and its record."""
    start = time.process_time()
    refined = refine(original(network), calibration(images), ratio=ratio, recipe=recipe)
    report = tersor.compress(
        refined.tensors, path, size=refined.budget, method=refined.method(), overwrite=True, workers=1
    )
    return {
        "network": network.name, "recipe": recipe.name, "form": recipe.form, "kernel": recipe.kernel,
        "resolution": recipe.resolution, "iterations": recipe.iterations, "images": images, "target": ratio,
        **measured(network, report, path), "paper_ratio": 32 * refined.weights / (8 * levels_bytes(refined, report)),
        "learned_paper_ratio": refined.paper_ratio,
        "cpu_seconds": time.process_time() - start,
    }  # fmt: skip


def measured(network: Network, report: Report, path: Path) -> dict[str, Any]:
    """Size and quality of a file."""
    return {
        "file_bytes": report.file_bytes, "ratio": report.ratio, **network.evaluate(tersor.load(path))
    }  # fmt: skip


def levels_of(refined: Refined, report: Report) -> Iterator[tuple[str, np.ndarray]]:
    """Names and levels of every tensor in the file that was learned as levels."""
    scale = math.sqrt(report.recipe["price"])
    for unit in MappingSource(refined.tensors).units():
        known = refined.transformations.get(unit.name)
        if known is not None:
            yield unit.name, known.levels(to_float32(unit.load(), unit.dtype).reshape(unit.shape), scale)


def entropy_bytes(counts: np.ndarray) -> float:
    return float((counts * np.log2(counts.sum() / counts)).sum()) / 8


def huffman_bytes(counts: np.ndarray) -> float:
    """Bytes with the best code of whole bits a level, without its table."""
    heap, total = counts.tolist(), 0
    if len(heap) == 1:
        return heap[0] / 8
    heapq.heapify(heap)
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        total += merged
        heapq.heappush(heap, merged)
    return total / 8


def levels_bytes(refined: Refined, report: Report) -> float:
    return sum(entropy_bytes(np.unique(v, return_counts=True)[1]) for _, v in levels_of(refined, report))


def ratios(network: Network, folder: Path, results: Results) -> None:
    for ratio in RATIOS[network.name]:
        path = folder / "m.tsr"
        report = tersor.compress(original(network), path, ratio=ratio, overwrite=True, workers=1)
        results.add(network=network.name, recipe="nearest", target=ratio, **measured(network, report, path))
        for recipe in RECIPES.values():
            results.add(**learn(network, recipe, ratio, path))


def forms(network: Network, folder: Path, results: Results) -> None:
    for ratio in (15, 20):
        for form in ("linear", "logarithmic", "exponential", "joint"):
            results.add(**learn(network, dataclasses.replace(SHORT_BEST, form=form), ratio, folder / "m.tsr"))


def kernels(network: Network, folder: Path, results: Results) -> None:
    for kernel in ("cosine", "linear", "triangle"):
        for resolution in (16, 64, 128):
            recipe = dataclasses.replace(SHORT_BEST, kernel=kernel, resolution=resolution)
            results.add(**learn(network, recipe, 15, folder / "m.tsr"))


def coding(network: Network, folder: Path, results: Results) -> None:
    """The entropy is that of each tensor's levels, order 0; the coder may go below it where rows or columns differ."""
    recipe = dataclasses.replace(SHORT_BEST, rounds=1, transformation_iterations=10, weight_iterations=10)
    for ratio in (8, 10, 12, 15, 20):
        path = folder / "m.tsr"
        refined = refine(original(network), calibration(), ratio=ratio, recipe=recipe)
        report = tersor.compress(
            refined.tensors, path, size=refined.budget, method=refined.method(), overwrite=True, workers=1
        )
        levels = dict(levels_of(refined, report))
        counts = {name: np.unique(v, return_counts=True)[1] for name, v in levels.items()}
        with tersor.open(path) as file:
            sizes = {e.name: sum(s.nbytes for s in e.chain[0].streams) for e in file.entries if e.name in levels}
        streams = sum(sizes.values())
        entropy, huffman = sum(map(entropy_bytes, counts.values())), sum(map(huffman_bytes, counts.values()))
        large = [name for name, v in levels.items() if v.size >= LARGE]
        coded_large, entropy_large = sum(sizes[n] for n in large), sum(entropy_bytes(counts[n]) for n in large)
        results.add(
            network=network.name, target=ratio, file_bytes=report.file_bytes, ratio=report.ratio, entropy=entropy,
            huffman=huffman, huffman_percent=100 * (huffman / entropy - 1), coded=streams,
            coded_percent=100 * (streams / entropy - 1),
            large_coded_percent=100 * (coded_large / entropy_large - 1),
        )  # fmt: skip


def by_images(network: Network, folder: Path, results: Results) -> None:
    for images in (2048, 1024, 512, 320):
        results.add(**learn(network, SHORT_BEST, 20, folder / "m.tsr", images))


def weights(network: Network, folder: Path, results: Results) -> None:
    for recipe in RECIPES.values():
        alone = dataclasses.replace(
            recipe, weight_iterations=0, transformation_iterations=recipe.transformation_iterations
        )
        for ratio in (10, 20):
            results.add(**learn(network, alone, ratio, folder / "m.tsr"))


PARTS = {
    "ratios": ratios, "forms": forms, "kernels": kernels, "coding": coding, "calibration": by_images, "weights": weights
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("networks", nargs="*", default=["fashion_resnet"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.networks:
        with Results(f"l2-{given.part}-{name}") as results, tempfile.TemporaryDirectory() as folder:
            PARTS[given.part](load(name), Path(folder), results)


if __name__ == "__main__":
    main()
