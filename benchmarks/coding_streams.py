"""The integer streams of benchmarks/coding.py: synthetic, levels of networks, codebook indices, deltas, factors."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.networks import load
from benchmarks.networks._common import exported, read
from tersor.coders import rans
from tersor.methods.nearest import Nearest, to_float32
from tersor.sources import Unit, open_source

Levels = npt.NDArray[np.int32]

NETWORKS = ("minilm", "efficientnet_lite0", "fashion_resnet", "crepe_tiny", "crepe_full", "crnn", "smollm2")
EXCERPT = 8_000_000
"""Weights taken of SmolLM2, the largest."""
ROW = 512
SPREAD = 0.5
"""Of the logarithm of the rows' scales."""


@dataclass(frozen=True)
class Stream:
    """Tensors of levels that are coded one by one, and what an ideal code would need."""

    kind: str  # iid, rows, levels, codebook, delta, lowrank
    name: str
    tensors: list[Levels]
    ideal_bits: float | None = None  # the scale of every row known; None: entropy of every row by itself

    @property
    def symbols(self) -> int:
        """Of all tensors."""
        return sum(t.size for t in self.tensors)

    @property
    def entropy_bits(self) -> float:
        """Order 0, every tensor by itself, without tables."""
        return sum(entropy(t) for t in self.tensors)

    @property
    def row_bits(self) -> float:
        """What a code needs that knows the scale, or else the histogram, of every row; too little for short rows."""
        if self.ideal_bits is not None:
            return self.ideal_bits
        return sum(entropy(row) for t in self.tensors for row in t.reshape(len(t) if t.ndim > 1 else 1, -1))


def entropy(levels: Levels) -> float:
    """Bits of an ideal order-0 code."""
    return rans.Histogram.of(np.ascontiguousarray(levels).reshape(-1)).entropy_bits


def laplace_bits(levels: Levels, scale: npt.NDArray[np.float64]) -> float:
    """Bits of rounded Laplace variables of known scale."""
    magnitude = np.abs(levels)
    other = magnitude / scale - np.log(np.sinh(0.5 / scale))
    return float(np.where(magnitude == 0, -np.log(-np.expm1(-0.5 / scale)), other).sum() / math.log(2))


def synthetic(count: int) -> Iterator[Stream]:
    """PEERS' streams: rounded Laplace variables, of one scale, sparse, and of a scale by row."""
    rows = count // ROW
    for bits in (0.05, 0.8, 1.5, 2.1, 3.0, 4.0, 6.0):
        levels, scale = _laplace(bits, np.ones((rows, 1)), seed=1)
        yield Stream("iid", f"{bits} bits", [levels], laplace_bits(levels, scale))
    spread = np.exp(SPREAD * np.random.default_rng(2).standard_normal((rows, 1)))
    for bits in (0.8, 1.5, 2.1, 3.0, 4.0):
        levels, scale = _laplace(bits, spread, seed=3)
        yield Stream("rows", f"{bits} bits", [levels], laplace_bits(levels, scale))


def _laplace(bits: float, scales: npt.NDArray[np.float64], seed: int) -> tuple[Levels, npt.NDArray[np.float64]]:
    """Levels of so many bits each, ideally coded, and the scale of every row."""
    unit = np.random.default_rng(seed).laplace(0, scales, (len(scales), ROW))
    some = slice(None, None, max(1, len(scales) // 512))

    def rate(scale: float) -> float:
        levels = np.rint(unit[some] * scale).astype(np.int32)
        return laplace_bits(levels, scales[some] * scale) / levels.size

    scale = _bisect(rate, bits)
    return np.rint(unit * scale).astype(np.int32), scales * scale


def _bisect(rate: Callable[[float], float], target: float, rising: bool = True, low: float = 1e-18) -> float:
    """Where a monotone rate meets the target."""
    high = 1e6
    for _ in range(24):  # 80 octaves, down to less than a thousandth of a bit
        middle = math.sqrt(low * high)
        if (rate(middle) < target) == rising:
            low = middle
        else:
            high = middle
    return math.sqrt(low * high)


def _weights(network: str) -> list[tuple[Unit, npt.NDArray[np.float32]]]:
    """The tensors that `nearest` quantizes."""
    method, found, total = Nearest(), list[tuple[Unit, npt.NDArray[np.float32]]](), 0
    for unit in open_source(load(network).weights).units():
        if unit.tied_to is None and method.quantizes(unit) and (network != "smollm2" or "layers." in unit.name):
            found.append((unit, to_float32(unit.load(), unit.dtype)))
            total += unit.count
        if total > EXCERPT and network == "smollm2":
            break
    return found


def _global_step(name: str, kind: str, arrays: list[npt.NDArray[np.float32]], bits: float) -> Stream:
    """One step for all tensors, at which they have so many bits a weight, order 0."""
    total = sum(a.size for a in arrays)
    samples = [(a.reshape(-1)[:: max(1, a.size // 2**15)], a.size) for a in arrays]

    def rate(step: float) -> float:
        parts = ((np.rint(s / step).clip(-(2**30), 2**30).astype(np.int32), size) for s, size in samples)
        return sum(entropy(levels) / levels.size * size for levels, size in parts) / total

    finest = max(float(np.abs(a).max()) for a in arrays) / 30_000  # more levels than a histogram lists look like none
    step = np.float32(_bisect(rate, bits, rising=False, low=finest))
    return Stream(kind, f"{name}, one step, {bits} bits", [np.rint(a / step).astype(np.int32) for a in arrays])


def levels(network: str, rates: tuple[float, ...]) -> Iterator[Stream]:
    """Levels of a network at so many bits a weight: by tersor's `nearest`, and with one step for all tensors."""
    weights, method = _weights(network), Nearest()
    samples = [method.sample(unit, unit.load(), 2**17) for unit, _ in weights]
    total = sum(unit.count for unit, _ in weights)

    def rate(price: float) -> float:
        return sum(s.plan(price).bits_per_weight * s.unit.count for s in samples if s is not None) / total

    for bits in rates:
        price = _bisect(rate, bits, rising=False)
        tensors = [
            sample.plan(price).quantize(w).reshape(unit.shape)
            for sample, (unit, w) in zip(samples, weights, strict=True)
            if sample is not None
        ]
        yield Stream("levels", f"{network}, nearest, {bits} bits", tensors)
        yield _global_step(network, "levels", [w.reshape(unit.shape) for unit, w in weights], bits)


def codebook(network: str, size: int) -> Stream:
    """Indices of the weights in a codebook of each tensor, by k-means in one dimension."""
    tensors = []
    for unit, w in _weights(network):
        thinned = np.sort(w[:: max(1, w.size // 2**16)]).astype(np.float64)
        centres = np.quantile(thinned, (np.arange(size) + 0.5) / size)
        for _ in range(30):
            parts = np.split(thinned, np.searchsorted(thinned, (centres[1:] + centres[:-1]) / 2))
            centres = np.array([p.mean() if p.size else c for p, c in zip(parts, centres, strict=True)])
        found = np.searchsorted((centres[1:] + centres[:-1]) / 2, w)
        tensors.append(found.astype(np.int32).reshape(unit.shape))
    return Stream("codebook", f"{network}, {size} entries", tensors)


def delta(bits: float) -> Stream:
    """What fine-tuning on turned images changes in the residual network, with one step."""
    base, tuned = read(load("fashion_resnet").weights), read(exported("fashion_resnet_turned", _fine_tune))
    pairs = [(base[name], tuned[name]) for name in base if base[name].ndim > 1]
    return _global_step("fashion_resnet fine-tuned", "delta", [b - a for a, b in pairs], bits)


def lowrank(network: str, rates: tuple[float, ...]) -> Iterator[Stream]:
    """Factors of half as many numbers as each matrix has, A = U S^(1/2) and B = S^(1/2) V^T of its truncated singular
    value decomposition, with one step for all factors of the network."""
    factors: list[npt.NDArray[np.float32]] = []
    for unit, w in _weights(network):
        matrix = w.reshape(unit.shape[0], -1).astype(np.float64)
        rank = max(1, matrix.size // (2 * sum(matrix.shape)))
        u, s, v = np.linalg.svd(matrix, full_matrices=False)
        root = np.sqrt(s[:rank])
        factors += [(u[:, :rank] * root).astype(np.float32), (root[:, None] * v[:rank]).astype(np.float32)]
    for bits in rates:
        yield _global_step(f"{network}, factors", "lowrank", factors, bits)


def _fine_tune(steps: int = 200, batch: int = 64) -> dict[str, npt.NDArray[np.float32]]:
    """Train the residual network on images turned by 90 degrees."""
    import torch
    from torch.nn import functional as F

    from benchmarks.networks._common import as_arrays, with_weights
    from benchmarks.networks.fashion import build, images

    torch.set_num_threads(1)
    module = with_weights(build("fashion_resnet"), read(load("fashion_resnet").weights)).train().requires_grad_(True)
    optimizer = torch.optim.SGD(module.parameters(), 0.01, momentum=0.9)
    x, y = images("train")
    for chosen in torch.arange(steps * batch).split(batch):
        loss = F.cross_entropy(module(x[chosen].rot90(1, (2, 3))), y[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return as_arrays(module.state_dict())
