"""The differentiable counter of L2 (Shi et al. 2023, equations 14 to 19): exact, without sampling, in linear time.

The bits of codes c_1 .. c_m are S = -sum log2 P(round c_i) with P(q) = (C(q + 1/2) - C(q - 1/2)) / m and the relaxed
count C(x) = sum F(x - c_i), F the integral of a kernel of half-width delta = (max c - min c) / resolution. S depends on
a code through C, and through the two edges its own level asks for, which move with it (straight-through rounding):

    dS/dc_j = -sum_k dS/dC(x_k) K(x_k - c_j)  +  dS/dq at q = round c_j.

The edges are the same K + 1 for all codes. On the CPU the native core counts in float32 codes and float64 sums;
anything else (CUDA, float64) goes through torch, with the same result.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tersor import _core
from tersor.errors import SettingError

KERNELS = ("cosine", "linear", "triangle")
"""By the native core's numbers."""
MOST_BINS = 2**16
"""A tensor with more levels than this is not being compressed: its step has collapsed."""
LOG_2 = math.log(2)


def bits(codes: Tensor, *, kernel: str = "cosine", resolution: float = 64) -> Tensor:
    """Bits of `codes` (any shape, before rounding), a float64 scalar that can be differentiated; delta counts as
    constant.

    Raises `SettingError` for an unknown kernel, a resolution that is not positive, codes that are not finite, or more
    than 65 536 levels.
    """
    if kernel not in KERNELS:
        raise SettingError(f"there is no kernel {kernel!r}", remedy=f"choose one of {', '.join(KERNELS)}")
    if not (resolution > 0 and math.isfinite(resolution)):
        raise SettingError(f"a resolution of {resolution} makes no sense", remedy="16 to 128 are usual")
    flat = codes.reshape(-1)
    low, high = (float(v) for v in torch.aminmax(flat.detach())) if flat.numel() else (0.0, 0.0)
    if not math.isfinite(high - low):
        raise SettingError("some codes are not finite", remedy="lower the learning rates")
    if high == low:  # one level, certain
        return 0 * flat.sum(dtype=torch.float64)
    lowest = math.floor(low + 0.5)
    bins = math.floor(high + 0.5) - lowest + 1
    if bins > MOST_BINS:
        raise SettingError(
            f"codes span {bins:,} levels, more than {MOST_BINS:,}",
            remedy="start from a larger step, or learn more slowly",
        )
    delta = (high - low) / resolution
    if flat.device.type == "cpu" and flat.dtype == torch.float32:
        return _NativeBits.apply(flat, KERNELS.index(kernel), delta, lowest, bins)  # pyright: ignore[reportReturnType]
    return _bits_torch(flat, kernel, delta, lowest, bins)


def entropy(levels: Tensor) -> float:
    """Bits of integer levels by their own frequencies: what `bits` tends to as the kernel narrows."""
    counts = torch.unique(levels, return_counts=True)[1].double()
    return float((counts * (counts.sum() / counts).log2()).sum())


class _NativeBits(torch.autograd.Function):
    """`bits` on the native core."""

    @staticmethod
    def forward(ctx: Any, codes: Tensor, kernel: int, delta: float, lowest: int, bins: int) -> Tensor:
        codes = codes.detach().contiguous()
        counts, densities, numbers = _core.soft_count(codes.numpy(), kernel, delta, lowest, bins)
        seen = numbers > 0  # levels that occur; a code's own level always keeps some of its mass
        mass = np.where(seen, np.maximum(counts[1:] - counts[:-1], 1e-9), 1.0)
        ctx.save_for_backward(codes)
        ctx.kernel, ctx.delta, ctx.lowest, ctx.bins = kernel, delta, lowest, bins
        slopes, ctx.edge = numbers / (LOG_2 * mass), np.zeros(bins + 1)
        ctx.edge[:-1] += slopes
        ctx.edge[1:] -= slopes
        ctx.bin = np.where(seen, (densities[:-1] - densities[1:]) / (LOG_2 * mass), 0.0)
        return torch.tensor(-(numbers * np.log2(mass / codes.numel())).sum())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (codes,) = ctx.saved_tensors
        gradient = torch.empty_like(codes)
        _core.soft_count_gradient(
            codes.numpy(),
            ctx.kernel,
            ctx.delta,
            ctx.lowest,
            ctx.bins,
            ctx.edge,
            ctx.bin,
            float(gradients[0]),
            gradient.numpy(),
        )
        return gradient, None, None, None, None


def _bits_torch(codes: Tensor, kernel: str, delta: float, lowest: int, bins: int) -> Tensor:
    """`bits` by torch operations: the edges near every code in turn, at most 2 delta + 2 of them."""
    index = (codes.detach() + 0.5).floor().long() - lowest
    numbers = torch.bincount(index, minlength=bins).double()
    offset = codes.double() - (index + lowest - 0.5)  # of a code from the lower edge of its bin, in 0 .. 1
    counts = torch.cat([numbers.new_zeros(1), numbers.cumsum(0)])
    densities = torch.zeros_like(counts)
    reach = math.ceil(delta)
    for step in range(-reach, reach + 2):
        edge = index + step
        near = (edge >= 0) & (edge <= bins)
        distance = (step - offset)[near]
        below = 1.0 if step > 0 else 0.0  # what the true count holds of this code at this edge
        counts = counts.index_add(0, edge[near], integral(kernel, distance, delta) - below)
        densities = densities.index_add(0, edge[near], density(kernel, distance.detach(), delta))
    seen = numbers > 0
    mass = torch.where(seen, counts.diff().clamp_min(1e-9), 1.0)
    with torch.no_grad():
        slope = torch.where(seen, -densities.diff() / (LOG_2 * mass), 0.0)
    moving = ((codes - codes.detach()) * slope[index]).sum()
    return -(numbers * (mass / codes.numel()).log2()).sum() + moving


def integral(kernel: str, u: Tensor, delta: float) -> Tensor:
    """F(u), the integral of the kernel up to u (equation 17)."""
    v = (u / delta).clamp(-1, 1)
    if kernel == "cosine":
        return (1 + (v * (math.pi / 2)).sin()) / 2
    return (1 + v) / 2 if kernel == "linear" else 0.5 + v - v * v.abs() / 2


def density(kernel: str, u: Tensor, delta: float) -> Tensor:
    """K(u), the kernel (equation 18 for the cosine)."""
    v = u / delta
    inside = v.abs() < 1
    if kernel == "cosine":
        value = (v * (math.pi / 2)).cos() * (math.pi / 4)
    else:
        value = torch.full_like(v, 0.5) if kernel == "linear" else 1 - v.abs()
    return torch.where(inside, value, 0.0) / delta
