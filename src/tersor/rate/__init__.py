"""How many bits codes take: differentiable, by relaxed counts (L2, equations 14 to 19)."""

from tersor.rate.counter import KERNELS, bits, entropy

__all__ = ["KERNELS", "bits", "entropy"]
