"""The ablations of the L2 paper (Shi et al. 2023), in shape, on networks that take minutes on one core.

Networks are trained by this project's scripts on Fashion-MNIST; calibration images come from its training part, without
labels; quality is measured on the test part, of weights decoded from the file. Every record states its ratio both ways:
of the whole file, and by the paper's formula (32 bits a learned number over the entropy of its levels, all else
uncounted). Whole recipes against each other, and the paper's baselines: benchmarks/l2_ratios.py.

The schedule is shortened to less than a minute of one core, with batches of 16; every record says to what. Recipe
`l2-paper` has absolute learning rates, which would stop far from the target: they are raised in proportion, so that the
way is the paper's (1500 iterations at 1e-4, 5000 at 5e-6).

    python -m benchmarks.l2_tables [PART [NETWORK ...]]

A row replaces the one of the same settings; those that are there already do not run again.

| part        | table of the paper                                                              |
|-------------|---------------------------------------------------------------------------------|
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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import tersor
from benchmarks.common import Table
from benchmarks.networks import fashion, load
from benchmarks.networks._common import Network, read, with_weights
from tersor.joint import BEST, L2_PAPER, Recipe, Refined, refine
from tersor.joint.transforms import FORMS
from tersor.methods.nearest import to_float32
from tersor.rate import KERNELS
from tersor.report import Report
from tersor.sources import MappingSource

BATCH = 16
IMAGES = 1024
SHORT_PAPER = dataclasses.replace(
    L2_PAPER, rounds=2, transformation_iterations=60, weight_iterations=60,
    transformation_lr=1e-4 * 1500 / 120, weight_lr=5e-6 * 5000 / 120,
)  # fmt: skip
KEY = ("recipe", "form", "kernel", "resolution", "iterations", "images", "target")
"""What names a record."""


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
        "resolution": recipe.resolution, "iterations": recipe.iterations, "batch": BATCH, "images": images,
        "target": ratio,
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


def row(network: Network, table: Table, recipe: Recipe, ratio: float, folder: Path, images: int = IMAGES) -> None:
    """Add the record of a learned file, unless it is known."""
    key = (recipe.name, recipe.form, recipe.kernel, recipe.resolution, recipe.iterations, images, ratio)
    if key not in table.known():
        table.add(**learn(network, recipe, ratio, folder / "m.tsr", images))


def forms(network: Network, folder: Path, table: Table) -> None:
    for ratio in (15, 20):
        for form in FORMS:
            row(network, table, dataclasses.replace(SHORT_PAPER, form=form), ratio, folder)


def kernels(network: Network, folder: Path, table: Table) -> None:
    for kernel in KERNELS:
        for resolution in (16, 32, 64, 128):
            row(network, table, dataclasses.replace(SHORT_PAPER, kernel=kernel, resolution=resolution), 15, folder)


def coding(network: Network, folder: Path, table: Table) -> None:
    """Streams against the entropy of levels, order 0 and tensor by tensor: of all, and of what the entropy loss counts.

    The others are vectors of 8 bits. The coder may go below the entropy where rows or columns differ.
    """
    recipe = dataclasses.replace(BEST, rounds=1, transformation_iterations=10, weight_iterations=10)
    for ratio in (8, 10, 12, 15, 20):
        path = folder / "m.tsr"
        refined = refine(original(network), calibration(), ratio=ratio, recipe=recipe)
        report = tersor.compress(
            refined.tensors, path, size=refined.budget, method=refined.method(), overwrite=True, workers=1
        )
        counts = {name: np.unique(v, return_counts=True)[1] for name, v in levels_of(refined, report)}
        with tersor.open(path) as file:
            sizes = {e.name: sum(s.nbytes for s in e.chain[0].streams) for e in file.entries if e.name in counts}
        priced = coded({n: c for n, c in counts.items() if refined.transformations[n].stretches}, sizes)
        table.add(
            network=network.name, recipe=recipe.name, target=ratio, file_bytes=report.file_bytes, ratio=report.ratio,
            **coded(counts, sizes), **{f"priced_{key}": value for key, value in priced.items()},
        )  # fmt: skip


def coded(counts: Mapping[str, np.ndarray], sizes: Mapping[str, int]) -> dict[str, float]:
    """Bytes by entropy, by Huffman codes, and of the streams, of the tensors counted."""
    return {
        "entropy": sum(map(entropy_bytes, counts.values())),
        "huffman": sum(map(huffman_bytes, counts.values())),
        "coded": sum(sizes[name] for name in counts),
    }


def by_images(network: Network, folder: Path, table: Table) -> None:
    for images in (2000, 1000, 768, 512, 256):
        row(network, table, SHORT_PAPER, 20, folder, images)


def weights(network: Network, folder: Path, table: Table) -> None:
    for recipe in (BEST, SHORT_PAPER):
        for ratio in (10, 20):
            row(network, table, dataclasses.replace(recipe, weight_iterations=0), ratio, folder)


PARTS = {"forms": forms, "kernels": kernels, "coding": coding, "calibration": by_images, "weights": weights}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", nargs="?", choices=PARTS, help="all by default")
    parser.add_argument("networks", nargs="*", default=["fashion_resnet"])
    given = parser.parse_args()
    torch.set_num_threads(1)
    for part in [given.part] if given.part else PARTS:
        for name in given.networks:
            with tempfile.TemporaryDirectory() as folder:
                PARTS[part](load(name), Path(folder), Table(f"l2-{part}-{name}", *KEY))


if __name__ == "__main__":
    main()
