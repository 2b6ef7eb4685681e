"""Speed of the differentiable counter on one core, forward and backward; goal: 100 M weights/s for both together.

By CPU time of the process, best of several repeats: kernels, resolutions and numbers of weights, codes of a Laplace
distribution with the given entropy.

    python -m benchmarks.rate_counter
"""

import time

import numpy as np
import torch

from benchmarks.common import Results
from tersor.rate import KERNELS, bits

SPREADS = {"2 bits": 0.9, "4 bits": 4.0, "8 bits": 60.0}
REPEATS = 7


def seconds(codes: torch.Tensor, kernel: str, resolution: float) -> tuple[float, float]:
    """CPU seconds of the forward and of the backward pass."""
    leaf = codes.requires_grad_()
    forward, backward = [], []
    for _ in range(REPEATS):
        leaf.grad = None
        start = time.process_time()
        value = bits(leaf, kernel=kernel, resolution=resolution)
        middle = time.process_time()
        value.backward()
        forward.append(middle - start)
        backward.append(time.process_time() - middle)
    return min(forward), min(backward)


def main() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    with Results("rate_counter") as results:
        for count in (10_000, 1_000_000, 16_000_000):
            for label, spread in SPREADS.items():
                codes = torch.from_numpy(rng.laplace(0, spread, count).astype(np.float32))
                for kernel in KERNELS:
                    for resolution in (16, 64, 128):
                        forward, backward = seconds(codes, kernel, resolution)
                        results.add(
                            weights=count, codes=label, kernel=kernel, resolution=resolution,
                            forward=count / forward / 1e6, backward=count / backward / 1e6,
                            both=count / (forward + backward) / 1e6,
                        )  # fmt: skip


if __name__ == "__main__":
    main()
