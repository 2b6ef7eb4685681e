"""Recorded speech: the descriptions of Tux Paint's stamps in many languages, most with a transcript."""

from math import gcd
from pathlib import Path

import numpy as np
import soundfile
from scipy.signal import resample_poly

from ._common import debian_folder

RATE = 16000


def recordings(language: str) -> list[Path]:
    """Every recording in a language such as `es`, in a fixed order."""
    return sorted(debian_folder("usr/share/tuxpaint/stamps").rglob(f"*_desc_{language}.ogg"))


def transcript(recording: Path) -> str | None:
    """What is said: the description in the same language beside the recording, where there is one."""
    stamp, language = recording.stem.split("_desc_")
    descriptions = recording.with_name(f"{stamp}.txt")
    lines = descriptions.read_text(errors="ignore").splitlines() if descriptions.exists() else []
    return next((line.split("=", 1)[1].strip() for line in lines if line.startswith(f"{language}.utf8=")), None)


def samples(recording: Path) -> np.ndarray:
    """One channel at 16 kHz, float32."""
    audio, rate = soundfile.read(recording, dtype="float32", always_2d=True)
    common = gcd(RATE, rate)
    return resample_poly(audio.mean(1), RATE // common, rate // common).astype(np.float32)
