"""A small object detector, trained here: clothes of Fashion-MNIST scattered over a 64 x 64 canvas (0.4 M weights).

One scale, no anchors (as CenterNet, arXiv 1904.07850): a heat map of centres for each of 10 kinds on a grid of 16 x 16,
and the box's offset and size there. Scenes hold one to four items of 14 to 28 pixels that overlap little, in noise; of
the training images for training and calibration, of the test images for evaluation. Metric: average precision at an
intersection over union of 0.5, mean over kinds, on 500 scenes; `kl` is the divergence of the heat maps' Bernoulli
outputs, a cell and kind, summed over a scene, from the original's. `python -m benchmarks.networks.detector` trains it
(some 4 minutes of one core); seeds are fixed, yet another kind of processor gives slightly other weights.
"""

import sys
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._common import (
    Metrics,
    Network,
    Tensors,
    as_arrays,
    bernoulli_kl,
    evaluator,
    exported,
    with_weights,
)
from .fashion import images

NAME, KINDS = "detector", 10
SIDE, STRIDE = 64, 4
CELLS = SIDE // STRIDE
_MEAN, _DEVIATION = 0.075, 0.19  # of pixels of scenes
_MOST = 4  # items in a scene
_FOUND = 12  # peaks of a heat map that are boxes


class Scenes(NamedTuple):
    """Pictures (n, 1, 64, 64), normalized, and what is where, rows of absent items zero."""

    pictures: Tensor
    kinds: Tensor  # (n, items), -1 for none
    boxes: Tensor  # (n, items, 4): left, top, right, bottom in pixels


class Unit(nn.Sequential):
    """Convolution, normalisation, rectifier."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
        )


class Detector(nn.Module):
    """Centres' logits, and offset and logarithm of size in cells: (n, kinds + 4, 16, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            Unit(1, 24, 2), Unit(24, 48, 2), Unit(48, 64), Unit(64, 96, 2), Unit(96, 128), Unit(128, 96)
        )
        self.lateral = nn.Conv2d(64, 96, 1)
        self.neck = Unit(96, 96)
        self.centres = nn.Conv2d(96, KINDS, 1)
        self.sizes = nn.Conv2d(96, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.backbone[:3](x)
        coarse = F.interpolate(self.backbone[3:](fine), scale_factor=2.0)
        y = self.neck(coarse + self.lateral(fine))
        return torch.cat([self.centres(y), self.sizes(y)], 1)


@cache
def scenes(part: str, count: int, seed: int) -> Scenes:
    """Composed from the images of `train` or `t10k`, always the same for a seed."""
    x, y = images(part)
    grey = ((x * 0.3530 + 0.2860) * 255).round().clamp(0, 255)
    rng = np.random.default_rng(seed)
    pictures = torch.zeros(count, 1, SIDE, SIDE)
    kinds, boxes = torch.full((count, _MOST), -1), torch.zeros(count, _MOST, 4)
    for n in range(count):
        for item in range(int(rng.integers(1, _MOST + 1))):
            chosen, side = int(rng.integers(len(x))), int(rng.integers(14, 29))
            small = F.interpolate(grey[chosen : chosen + 1], (side, side), mode="bilinear", antialias=True)[0, 0]
            rows, columns = ((small > 25).any(d).nonzero().flatten() for d in (1, 0))
            if len(rows) < 5 or len(columns) < 5:
                continue
            small = small[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            left, top = (int(rng.integers(0, SIDE - size + 1)) for size in (small.shape[1], small.shape[0]))
            box = torch.tensor([left, top, left + small.shape[1], top + small.shape[0]]).float()
            if item and float(overlap(box[None], boxes[n, :item]).max()) > 0.05:
                continue
            place = pictures[n, 0, top : top + small.shape[0], left : left + small.shape[1]]
            torch.maximum(place, small, out=place)
            kinds[n, item], boxes[n, item] = int(y[chosen]), box
    noise = torch.from_numpy(rng.normal(0, 10, pictures.shape).astype(np.float32))
    return Scenes((((pictures + noise).clamp(0, 255) / 255) - _MEAN) / _DEVIATION, kinds, boxes)


def overlap(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes (n, 4) and (m, 4): (n, m)."""
    low, high = torch.maximum(a[:, None, :2], b[None, :, :2]), torch.minimum(a[:, None, 2:], b[None, :, 2:])
    common = (high - low).clamp(min=0).prod(2)
    areas = ((part[:, 2:] - part[:, :2]).prod(1) for part in (a, b))
    return common / (next(areas)[:, None] + next(areas)[None] - common).clamp(min=1e-9)


def targets(found: Scenes) -> tuple[Tensor, Tensor, Tensor]:
    """Heat maps with a bump at every centre, offset and log size there, and where that is."""
    n = len(found.kinds)
    heat, shape, where = (
        torch.zeros(n, KINDS, CELLS, CELLS),
        torch.zeros(n, 4, CELLS, CELLS),
        torch.zeros(n, 1, CELLS, CELLS),
    )
    grid = torch.arange(CELLS).float()
    for k, item in (found.kinds >= 0).nonzero().tolist():
        left, top, right, bottom = (found.boxes[k, item] / STRIDE).tolist()
        x, y = (left + right) / 2, (top + bottom) / 2
        column, row = int(x), int(y)
        spread = max(0.6, (right - left + bottom - top) / 12)
        bump = torch.exp(-((grid[None] - column) ** 2 + (grid[:, None] - row) ** 2) / (2 * spread**2))
        torch.maximum(heat[k, found.kinds[k, item]], bump, out=heat[k, found.kinds[k, item]])
        shape[k, :, row, column] = torch.tensor([x - column, y - row, np.log(right - left), np.log(bottom - top)])
        where[k, 0, row, column] = 1
    return heat, shape, where


def train(epochs: int = 8, batch: int = 32, count: int = 12_000) -> dict[str, np.ndarray]:
    """AdamW, one-cycle learning rate; focal loss of the heat maps, absolute error of the boxes; a line an epoch."""
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Detector().train()
        nn.init.constant_(module.centres.bias, -3.0)  # pyright: ignore[reportArgumentType]
        found = scenes("train", count, 1)
        heat, shape, where = targets(found)
        steps = count // batch
        optimizer = torch.optim.AdamW(module.parameters(), 2e-3, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=epochs * steps, pct_start=0.2)
        for epoch in range(epochs):
            total = 0.0
            for chosen in torch.randperm(count)[: steps * batch].split(batch):
                with torch.autocast("cpu", torch.bfloat16):
                    result = module(found.pictures[chosen])
                logits, sizes = result.float().split([KINDS, 4], 1)
                wanted, mask = heat[chosen], where[chosen]
                p = logits.sigmoid()
                hit = (wanted == 1).float()
                focal = hit * (1 - p) ** 2 * F.logsigmoid(logits) + (1 - hit) * (1 - wanted) ** 4 * p**2 * F.logsigmoid(
                    -logits
                )
                boxes = (mask * (sizes - shape[chosen]).abs()).sum()
                loss = (boxes - focal.sum()) / mask.sum()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.item()
            print(
                f"{NAME}: epoch {epoch + 1} of {epochs}, training loss {total / steps:.4f}", file=sys.stderr, flush=True
            )
    return as_arrays(module.state_dict())


class Detections(NamedTuple):
    """Boxes of all scenes with their kinds, scores and scenes, best first."""

    scene: Tensor
    kind: Tensor
    score: Tensor
    box: Tensor


def detections(result: Tensor) -> Detections:
    """The highest peaks of every heat map."""
    logits, sizes = result.split([KINDS, 4], 1)
    p = logits.sigmoid()
    peaks = (p * (F.max_pool2d(p, 3, 1, 1) == p)).flatten(1)
    score, place = peaks.topk(_FOUND, 1)
    kind, cell = place // CELLS**2, place % CELLS**2
    row, column = cell // CELLS, cell % CELLS
    at = sizes.flatten(2).gather(2, cell[:, None].expand(-1, 4, -1))
    x, y = column + at[:, 0], row + at[:, 1]
    width, height = at[:, 2].clamp(max=4).exp(), at[:, 3].clamp(max=4).exp()
    box = torch.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], 2) * STRIDE
    scene = torch.arange(len(logits))[:, None].expand_as(score)
    order = score.flatten().argsort(descending=True)
    return Detections(*(t.flatten(0, 1)[order] for t in (scene, kind, score, box)))


def average_precision(found: Detections, truth: Scenes) -> float:
    """Area under precision against recall at an overlap of 0.5, mean over kinds; each item is found once."""
    areas = []
    for kind in range(KINDS):
        mine, taken, right = found.kind == kind, set[tuple[int, int]](), list[float]()
        for scene, box in zip(found.scene[mine].tolist(), found.box[mine], strict=True):
            over = overlap(box[None], truth.boxes[scene])[0] * (truth.kinds[scene] == kind)
            best = int(over.argmax())
            hit = float(over[best]) >= 0.5 and (scene, best) not in taken
            taken |= {(scene, best)} if hit else set()
            right.append(float(hit))
        hits = np.cumsum(right)
        precision = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
        areas.append(float((precision * np.array(right)).sum()) / max(1, int((truth.kinds == kind).sum())))
    return sum(areas) / KINDS


def load(name: str) -> Network:
    path = exported(name, train)
    found = scenes("t10k", 500, 2)

    def model(tensors: Tensors) -> nn.Module:
        return with_weights(Detector(), tensors)

    def outputs(module: nn.Module) -> Tensor:
        return torch.cat([module(part) for part in found.pictures.split(100)])

    def metrics(before: Tensor, after: Tensor) -> Metrics:
        heat = (result[:, :KINDS].sigmoid().flatten(1) for result in (before, after))
        return {"average_precision": average_precision(detections(after), found), **bernoulli_kl(*heat)}

    return Network(name, path, evaluator(path, model, outputs, metrics))


if __name__ == "__main__":
    exported(NAME, train)
