"""Silero VAD for 16 kHz, a speech detector (four convolutions and an LSTM; 0.31 M weights in fp32).

Source: package silero-vad (MIT); its PyTorch form is a TorchScript archive, so the module is written out
here for the weights of its .safetensors. Data: 24 recordings of Tux Paint's stamps between two seconds of
silence, in white noise as loud as the speech. Metric: area under the ROC curve of telling the recording's
louder 32 ms from the silence; KL divergence and agreement (at a probability of a half) with the original's
outputs.
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ._common import (
    Metrics,
    Network,
    Tensors,
    area_under_curve,
    bernoulli_kl,
    evaluator,
    package_folder,
    share,
    with_weights,
)
from ._speech import RATE, recordings, samples

_STEP, _CONTEXT = 512, 64  # samples judged at once, and the samples before them that are seen too


class SpeechDetector(nn.Module):
    """Audio (samples,) to the probability of speech in each step (steps,)."""

    def __init__(self) -> None:
        super().__init__()
        self.stft_conv = nn.Conv1d(1, 258, 256, 128, bias=False)
        self.conv1 = nn.Conv1d(129, 128, 3, 1, 1)
        self.conv2 = nn.Conv1d(128, 64, 3, 2, 1)
        self.conv3 = nn.Conv1d(64, 64, 3, 2, 1)
        self.conv4 = nn.Conv1d(64, 128, 3, 1, 1)
        self.lstm_cell = nn.LSTMCell(128, 128)
        self.final_conv = nn.Conv1d(128, 1, 1)

    def forward(self, audio: Tensor) -> Tensor:
        steps = F.pad(audio, (_CONTEXT, 0)).unfold(0, _STEP + _CONTEXT, _STEP)
        real, imaginary = self.stft_conv(F.pad(steps[:, None], (0, 64), mode="reflect")).chunk(2, 1)
        x = (real**2 + imaginary**2).sqrt()
        for layer in (self.conv1, self.conv2, self.conv3, self.conv4):
            x = F.relu(layer(x))
        state, hidden = None, list[Tensor]()
        for features in x[:, None, :, 0]:
            state = self.lstm_cell(features, state)
            hidden.append(state[0])
        return self.final_conv(F.relu(torch.cat(hidden))[..., None]).sigmoid().flatten()


def clips() -> tuple[list[Tensor], Tensor]:
    """Noisy clips, and for all their steps: 1 speech, 0 silence, -1 neither for sure."""
    rng, heard, labels = np.random.default_rng(0), list[Tensor](), list[Tensor]()
    for file in (file for language in ("fr", "es", "ru") for file in recordings(language)[::100][:8]):
        speech = samples(file)
        clean = np.pad(speech, RATE)
        clean = torch.from_numpy(clean[: len(clean) // _STEP * _STEP] / np.abs(speech).max())
        power = clean.view(-1, _STEP).square().mean(1)
        noise = power[power > 0].mean().sqrt() * torch.from_numpy(rng.standard_normal(len(clean)).astype(np.float32))
        heard.append(0.5 * (clean + noise))
        labels.append(torch.where(power > power.max() / 10, 1, torch.where(power == 0, 0, -1)))
    return heard, torch.cat(labels)


def load(name: str) -> Network:
    weights = package_folder("silero_vad") / "data" / "silero_vad_16k.safetensors"
    heard, labels = clips()
    sure = labels >= 0

    def model(tensors: Tensors) -> nn.Module:
        return with_weights(SpeechDetector(), tensors)

    def outputs(module: nn.Module) -> Tensor:
        return torch.cat([module(audio) for audio in heard])

    def metrics(before: Tensor, after: Tensor) -> Metrics:
        return {
            "area_under_curve": area_under_curve(after[sure], labels[sure] == 1),
            **bernoulli_kl(before[:, None], after[:, None]),
            "agreement": share((before > 0.5) == (after > 0.5)),
        }

    return Network(name, weights, evaluator(weights, model, outputs, metrics))
