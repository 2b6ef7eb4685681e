"""How many bits codes take: differentiable, by relaxed counts (L2, equations 14 to 19)."""

from tersor.rate.counter import KERNELS, bits, entropy, total_bits

__all__ = ["KERNELS", "bits", "entropy", "total_bits"]
