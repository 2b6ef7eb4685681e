"""What every network here shares: where files live, how tensors are read and loaded, and the divergences."""

import fcntl
import importlib
import importlib.util
import os
import random
import re
import sys
import sysconfig
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar
from unittest.mock import patch

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from scipy.stats import rankdata
from torch import Tensor, nn

Tensors = Mapping[str, np.ndarray]
Metrics = dict[str, float]
Outputs = TypeVar("Outputs")


@dataclass(frozen=True)
class Network:
    """A trained network: its original weights, and what decoded weights are worth.

    `evaluate` takes tensors under the names and shapes of the file and returns the task's metrics and a
    divergence from the original's outputs. It loads strictly: a missing, unknown or misshapen tensor is an
    error. The original's outputs are computed on the first call and kept.
    """

    name: str
    weights: Path
    evaluate: Callable[[Tensors], Metrics]


def cache_folder() -> Path:
    """Where data and exported or trained weights are kept: $TERSOR_CACHE or ~/.cache/tersor-benchmarks."""
    return Path(os.environ.get("TERSOR_CACHE", "~/.cache/tersor-benchmarks")).expanduser()


def debian_folder(path: str) -> Path:
    """A folder of the Debian packages that setup.sh unpacked."""
    folder = cache_folder() / "debian" / path
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: not there; run benchmarks/networks/setup.sh")
    return folder


def package_folder(package: str) -> Path:
    """The folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{package}: not installed; run benchmarks/networks/setup.sh")
    return Path(spec.origin).parent


def import_part(package: str, part: str, stubs: Mapping[str, Any] | None = None, **attributes: object) -> Any:
    """`package.part` without running the package's own __init__, which imports what is not installed here.

    The part sees `attributes` as the package's, and `stubs` in place of the modules of those names.
    """
    parent = ModuleType(package)
    parent.__path__ = [str(package_folder(package))]
    parent.__dict__.update(attributes)
    with patch.dict(sys.modules, {package: parent, **(stubs or {})}):
        return importlib.import_module(f"{package}.{part}")


def sentences() -> list[str]:
    """English sentences of 41 to 249 characters from the docstrings of Python's standard library.

    Shuffled, the same every time with one version of Python; another version's docstrings differ.
    """
    found = set[str]()
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for block in re.findall(r'"""(.*?)"""', path.read_text(errors="ignore"), re.S):
            found.update(s for s in re.split(r"(?<=[.!?])\s+", " ".join(block.split())) if 40 < len(s) < 250)
    ordered = sorted(found)
    random.Random(0).shuffle(ordered)
    return ordered


def exported(name: str, make: Callable[[], dict[str, np.ndarray]]) -> Path:
    """`name`.safetensors in the cache folder, made on first use; who comes while another makes it waits."""
    path = cache_folder() / "weights" / f"{name}.safetensors"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                save_file(make(), partial)
                partial.replace(path)
    return path


def as_arrays(state: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """A state dict as contiguous numpy arrays."""
    return {name: tensor.detach().contiguous().numpy() for name, tensor in state.items()}


def read(weights: Path) -> dict[str, np.ndarray]:
    """The tensors of a .safetensors file or of a pickled state dict."""
    if weights.suffix == ".safetensors":
        return load_file(weights)
    return as_arrays(torch.load(weights, map_location="cpu", weights_only=True))


def with_weights(module: nn.Module, tensors: Tensors) -> nn.Module:
    """`module` in evaluation mode with exactly these tensors; non-persistent buffers may be among them."""
    state = {name: torch.from_numpy(np.array(array)) for name, array in tensors.items()}
    extra = {name: buffer for name, buffer in module.named_buffers() if name not in module.state_dict()}
    for name in state.keys() & extra.keys():
        extra[name].copy_(state.pop(name).reshape(extra[name].shape))
    module.load_state_dict(state, strict=True)
    return module.eval().requires_grad_(False)


def evaluator(
    weights: Path,
    model: Callable[[Tensors], nn.Module],
    outputs: Callable[[nn.Module], Outputs],
    metrics: Callable[[Outputs, Outputs], Metrics],
) -> Callable[[Tensors], Metrics]:
    """`evaluate` of a network: metrics(outputs of the original, computed once, outputs of the decoded)."""

    @cache
    def original() -> Outputs:
        return outputs(model(read(weights)))

    def evaluate(tensors: Tensors) -> Metrics:
        with torch.inference_mode():
            return metrics(original(), outputs(model(tensors)))

    return evaluate


def mean_of(key: str, items: Tensor) -> Metrics:
    """The mean of a quantity over samples (n,), and the bounds of its 95 % interval by bootstrap: KEY_low, KEY_high."""
    n, values = len(items), items.double().numpy()
    counts = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), 400)
    low, high = np.quantile(counts @ values / n, (0.025, 0.975))
    return {key: float(values.mean()), f"{key}_low": float(low), f"{key}_high": float(high)}


def divergence(before: Tensor, after: Tensor) -> Metrics:
    """Logits (samples, classes) to mean KL(before || after) in nats, and the share of equal decisions."""
    p, q = before.double().log_softmax(-1), after.double().log_softmax(-1)
    kl = (p.exp() * (p - q)).sum(-1).clamp(min=0)
    return {**mean_of("kl", kl.flatten()), "agreement": share(before.argmax(-1) == after.argmax(-1))}


def bernoulli_kl(before: Tensor, after: Tensor) -> Metrics:
    """Probabilities (samples, outputs) to mean KL(before || after) summed over outputs, in nats."""
    p, q = (x.double().clamp(1e-9, 1 - 1e-9) for x in (before, after))
    return mean_of("kl", (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum(1))


def area_under_curve(scores: Tensor, truth: Tensor) -> float:
    """How often a true sample scores above a false one (ties count half): the area under the ROC curve."""
    rank, positives = torch.from_numpy(rankdata(scores.numpy())), int(truth.sum())
    excess = rank[truth].sum().item() - positives * (positives + 1) / 2
    return excess / (positives * (len(truth) - positives))


def share(right: Tensor) -> float:
    """The share of true entries."""
    return right.double().mean().item()


def mean_cosine(before: Tensor, after: Tensor, key: str = "cosine") -> Metrics:
    """Mean cosine between rows."""
    return mean_of(key, nn.functional.cosine_similarity(before.double(), after.double(), dim=-1))


def character_error(references: list[str], readings: list[str]) -> float:
    """Edit distance between readings and references over the characters of the references."""
    return sum(map(edit_distance, references, readings)) / sum(map(len, references))


def edit_distance(a: str, b: str) -> int:
    """Insertions, deletions and substitutions that turn a into b."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]
