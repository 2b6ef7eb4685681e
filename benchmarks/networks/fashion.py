"""Networks trained here on Fashion-MNIST (28 x 28 grey images of 10 kinds of clothing): residual ones, a MobileNetV2, a
transformer.

Source: this script, on the images of the Debian package dataset-fashion-mnist (MIT). `python -m
benchmarks.networks.fashion NAME` trains one that the cache does not hold yet (some 5 minutes of one core).
Seeds are fixed, yet another kind of processor rounds differently and gives slightly other weights. Metric:
accuracy on the 10 000 test images (one standard deviation of sampling: 0.27 points), and KL divergence and
agreement with the original's decisions on the same images.
"""

import gzip
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import _vision
from ._common import (
    Metrics,
    Network,
    Tensors,
    as_arrays,
    debian_folder,
    divergence,
    evaluator,
    exported,
    share,
    with_weights,
)

_MEAN, _DEVIATION = 0.2860, 0.3530


class Block(nn.Module):
    """Two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if (inputs, stride) != (outputs, 1):
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class ResidualNetwork(nn.Module):
    """A stem that halves the image, stages of which all but the first halve it again, and a linear layer."""

    def __init__(self, widths: tuple[int, ...], blocks: int, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, widths[0], 3, 2, 1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        inputs, layers = widths[0], list[Block]()
        for stage, width in enumerate(widths):
            for block in range(blocks):
                layers.append(Block(inputs, width, 2 if stage and not block else 1))
                inputs = width
        self.blocks = nn.Sequential(*layers)
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.blocks(F.relu(self.norm(self.stem(x)))).mean((2, 3)))


# name: (how it is built, epochs of training)
_NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "fashion_resnet": (lambda: ResidualNetwork((64, 128, 256), 1), 5),
    "resnet18_fashion": (lambda: ResidualNetwork((64, 128, 256, 512), 2), 2),
    "mobilenet_fashion": (_vision.MobileNet, 4),
    "vit_fashion": (_vision.VisionTransformer, 6),
}


def build(name: str) -> nn.Module:
    return _NETWORKS[name][0]()


def images(part: str) -> tuple[Tensor, Tensor]:
    """`train` or `t10k`: images (n, 1, 28, 28) normalized, labels (n,)."""
    folder = debian_folder("usr/share/datasets/fashion-mnist")
    pixels = np.frombuffer(gzip.decompress((folder / f"{part}-images-idx3-ubyte.gz").read_bytes()), np.uint8, offset=16)
    labels = np.frombuffer(gzip.decompress((folder / f"{part}-labels-idx1-ubyte.gz").read_bytes()), np.uint8, offset=8)
    x = torch.from_numpy(pixels.reshape(-1, 1, 28, 28).astype(np.float32))
    return (x / 255 - _MEAN) / _DEVIATION, torch.from_numpy(labels.astype(np.int64))


def train(name: str, batch: int = 128) -> dict[str, np.ndarray]:
    """Nesterov SGD (AdamW for the transformer), one-cycle learning rate, flips, bfloat16 on one thread; prints a line
    an epoch."""
    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = build(name).to(memory_format=torch.channels_last).train()  # pyright: ignore[reportCallIssue]
        x, y = images("train")
        epochs, steps = _NETWORKS[name][1], len(x) // batch
        lr = 2e-3 if name == "vit_fashion" else 0.1
        if name == "vit_fashion":
            optimizer = torch.optim.AdamW(module.parameters(), lr, weight_decay=0.05)
        else:
            optimizer = torch.optim.SGD(module.parameters(), lr, momentum=0.9, nesterov=True, weight_decay=5e-4)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=epochs * steps, pct_start=0.3)
        for epoch in range(epochs):
            total = 0.0
            for chosen in torch.randperm(len(x))[: steps * batch].split(batch):
                flip = torch.rand(batch, 1, 1, 1) < 0.5
                inputs = torch.where(flip, x[chosen].flip(3), x[chosen]).contiguous(memory_format=torch.channels_last)
                with torch.autocast("cpu", torch.bfloat16):
                    loss = F.cross_entropy(module(inputs), y[chosen], label_smoothing=0.05)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.item()
            print(
                f"{name}: epoch {epoch + 1} of {epochs}, training loss {total / steps:.4f}",
                file=sys.stderr,
                flush=True,
            )
    return as_arrays(module.state_dict())


def weights(name: str) -> Path:
    return exported(name, lambda: train(name))


def load(name: str) -> Network:
    x, y = images("t10k")

    def model(tensors: Tensors) -> nn.Module:
        return with_weights(build(name), tensors)

    def logits(module: nn.Module) -> Tensor:
        return torch.cat([module(part) for part in x.split(100)])

    def metrics(before: Tensor, after: Tensor) -> Metrics:
        return {"accuracy": share(after.argmax(1) == y), **divergence(before, after)}

    path = weights(name)
    return Network(name, path, evaluator(path, model, logits, metrics))


if __name__ == "__main__":
    weights(sys.argv[1])
