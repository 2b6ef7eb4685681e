"""Real trained networks with the metrics that say what compressed weights are worth.

    from benchmarks.networks import load
    network = load("minilm")
    network.evaluate(tersor.load("minilm.tsr"))

`python -m benchmarks.networks` prints them all with the metrics of the original weights. setup.sh installs
what they need.
"""

import importlib
import os

from ._common import Network

__all__ = ["Network", "load", "names"]

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # everything comes from installed packages: never ask a hub

_FAMILIES = {
    "minilm": "minilm",
    "efficientnet_lite0": "efficientnet_lite",
    "efficientnet_lite1": "efficientnet_lite",
    "fashion_resnet": "fashion",
    "resnet18_fashion": "fashion",
    "mobilenet_fashion": "fashion",
    "vit_fashion": "fashion",
    "detector": "detector",
    "crepe_tiny": "crepe",
    "crepe_full": "crepe",
    "resemblyzer": "resemblyzer",
    "crnn": "crnn",
    "whisper_base": "whisper",
    "smollm2": "smollm2",
    "language": "language",
    "silero": "silero",
    "craft": "craft",
}


def names() -> list[str]:
    """Every network, in the order of the table."""
    return list(_FAMILIES)


def load(name: str) -> Network:
    """The network of this name; one that must be trained or exported first is, once, into the cache folder.

    Raises KeyError for an unknown name, ModuleNotFoundError or FileNotFoundError where setup.sh has not run.
    """
    if name not in _FAMILIES:
        raise KeyError(f"{name}: no such network; there are {', '.join(_FAMILIES)}")
    return importlib.import_module(f".{_FAMILIES[name]}", __package__).load(name)
