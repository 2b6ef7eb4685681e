"""Two textbook quantizers with our entropy coder behind: what a few lines of numpy reach.

They make no file and are counted kindly: coded levels, steps, and the rest in fp32, without any header.
"""

from collections.abc import Callable

import numpy as np

from tersor.coders import Symbols, encode, integer_type

Tensors = dict[str, np.ndarray]

EMBEDDING_FACTOR = 3


def quantized(array: np.ndarray) -> bool:
    return array.dtype == np.float32 and array.ndim >= 2 and array.size >= 256


def coded_size(levels: np.ndarray) -> int:
    """Bytes of levels in our coder."""
    flat = levels.reshape(-1).astype(np.int32)
    return encode(Symbols.of(flat, 2**18), integer_type(int(flat.min()), int(flat.max()))).stream.nbytes


def global_step(tensors: Tensors, step: float) -> tuple[int, Tensors]:
    """One step for all matrices, a larger one for embeddings."""

    def rounded(name: str, array: np.ndarray) -> tuple[int, np.ndarray]:
        own = np.float32(step * (EMBEDDING_FACTOR if "embed" in name else 1))
        levels = np.rint(array / own)
        return coded_size(levels) + 4, levels * own

    return _each(tensors, rounded)


def per_channel(tensors: Tensors, bits: float) -> tuple[int, Tensors]:
    """A step in fp16 for every row: its largest weight over the largest level."""
    top = 2 ** (bits - 1) - 1

    def rounded(name: str, array: np.ndarray) -> tuple[int, np.ndarray]:
        rows = array.reshape(array.shape[0], -1)
        steps = (np.abs(rows).max(1, keepdims=True) / top).astype(np.float16).astype(np.float32)
        steps[steps == 0] = 1
        levels = np.clip(np.rint(rows / steps), -top, top)
        return coded_size(levels) + 2 * len(rows), levels * steps

    return _each(tensors, rounded)


def _each(tensors: Tensors, rounded: Callable[[str, np.ndarray], tuple[int, np.ndarray]]) -> tuple[int, Tensors]:
    nbytes, out = 0, dict(tensors)
    for name, array in tensors.items():
        size = array.nbytes
        if quantized(array):
            size, values = rounded(name, array)
            out[name] = values.reshape(array.shape).astype(np.float32)
        nbytes += size
    return nbytes, out


GLOBAL_STEP, ABSMAX = "one global step + rANS", "per-channel absmax + rANS"
BASELINES = {GLOBAL_STEP: global_step, ABSMAX: per_channel}
