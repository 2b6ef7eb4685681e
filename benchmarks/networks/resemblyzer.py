"""Resemblyzer, a speaker encoder (3 LSTM layers of 256; 1.42 M weights in fp32).

Source: package resemblyzer (Apache-2.0), whose checkpoint also holds the optimizer and two scalars of the
training loss: only the network is exported. Data: the 20 largest recordings in each of eight well covered
languages of Tux Paint's stamps, taken as one voice a language. Metric: equal error rate when telling same
from different voices by the cosine of embeddings, over all pairs of recordings; mean cosine between the
decoded and the original network's embeddings.
"""

from unittest.mock import MagicMock

import numpy as np
import torch
from torch import Tensor, nn
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from ._common import (
    Metrics,
    Network,
    Tensors,
    as_arrays,
    evaluator,
    exported,
    import_part,
    mean_cosine,
    package_folder,
    with_weights,
)
from ._speech import RATE, recordings, samples

_LANGUAGES, _VOICE_RECORDINGS = (
    ("fr", "ru", "ro", "bg", "es", "be", "el", "da"),
    20,
)  # Catalan has several voices
_FRAMES = 160  # 1.6 s, what the network reads at once


def mel(audio: np.ndarray) -> Tensor:
    """Mel spectrogram (frames, 40) of audio brought to -30 dB, padded to the network's window."""
    audio = audio * 10 ** (-30 / 20) / np.sqrt((audio**2).mean())
    audio = np.pad(audio, (0, max(0, _FRAMES * 160 - len(audio))))
    filters = mel_filter_bank(201, 40, 0, RATE / 2, RATE, norm="slaney", mel_scale="slaney")
    power = spectrogram(audio, window_function(400, "hann"), 400, 160, power=2.0, mel_filters=filters, mel_floor=0.0)
    return torch.from_numpy(np.asarray(power, np.float32).T)


def windows(audio: np.ndarray) -> Tensor:
    """Half overlapping windows (n, frames, 40)."""
    return mel(audio).unfold(0, _FRAMES, _FRAMES // 2).transpose(1, 2)


def equal_error_rate(same: np.ndarray, different: np.ndarray) -> float:
    """The rate at the threshold where false rejections and false acceptances are nearest."""
    thresholds = np.sort(np.concatenate([same, different]))
    rejected = np.searchsorted(np.sort(same), thresholds) / len(same)
    accepted = 1 - np.searchsorted(np.sort(different), thresholds) / len(different)
    best = np.abs(rejected - accepted).argmin()
    return float(rejected[best] + accepted[best]) / 2


def load(name: str) -> Network:
    checkpoint = package_folder("resemblyzer") / "pretrained.pt"
    unused = {module: MagicMock() for module in ("librosa", "webrtcvad", "scipy.ndimage.morphology")}
    package = import_part("resemblyzer", "voice_encoder", stubs=unused)

    def state() -> dict[str, np.ndarray]:
        saved = torch.load(checkpoint, map_location="cpu", weights_only=True)["model_state"]
        return as_arrays({key: tensor for key, tensor in saved.items() if not key.startswith("similarity_")})

    voices = [
        sorted(recordings(language), key=lambda file: -file.stat().st_size)[:_VOICE_RECORDINGS]
        for language in _LANGUAGES
    ]
    heard = [windows(samples(file)) for voice in voices for file in voice]
    speaker = np.repeat(np.arange(len(voices)), _VOICE_RECORDINGS)

    def model(tensors: Tensors) -> nn.Module:
        return with_weights(package.VoiceEncoder("cpu", verbose=False, weights_fpath=checkpoint), tensors)

    def outputs(module: nn.Module) -> Tensor:
        return torch.stack([module(part).mean(0) for part in heard])

    def metrics(before: Tensor, after: Tensor) -> Metrics:
        direction = nn.functional.normalize(after, dim=1).numpy()
        left, right = np.triu_indices(len(direction), 1)
        score, same = (direction[left] * direction[right]).sum(1), speaker[left] == speaker[right]
        return {
            "equal_error_rate": equal_error_rate(score[same], score[~same]),
            **mean_cosine(before, after),
        }

    weights = exported(name, state)
    return Network(name, weights, evaluator(weights, model, outputs, metrics))
