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
from collections.abc import Mapping
from typing import Any

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
    return total_bits({"": codes}, kernel=kernel, resolution=resolution)


def total_bits(codes: Mapping[str, Tensor], *, kernel: str = "cosine", resolution: float = 64) -> Tensor:
    """`bits` of tensors on one device, added up; errors say the tensor's name."""
    if kernel not in KERNELS:
        raise SettingError(f"there is no kernel {kernel!r}", remedy=f"choose one of {', '.join(KERNELS)}")
    if not (resolution > 0 and math.isfinite(resolution)):
        raise SettingError(f"a resolution of {resolution} makes no sense", remedy="16 to 128 are usual")
    if all(code.device.type == "cpu" and code.dtype == torch.float32 for code in codes.values()):
        settings = list(codes), KERNELS.index(kernel), resolution
        return _NativeBits.apply(*settings, *(code.reshape(-1) for code in codes.values()))  # pyright: ignore[reportReturnType]
    return torch.stack([_bits_torch(name, code.reshape(-1), kernel, resolution) for name, code in codes.items()]).sum()


def entropy(levels: Tensor) -> float:
    """Bits of integer levels by their own frequencies: what `bits` tends to as the kernel narrows."""
    flat = levels.reshape(-1).long()
    counts = torch.bincount(flat - flat.min()).double()
    counts = counts[counts > 0]
    return float((counts * (counts.sum() / counts).log2()).sum())


class _NativeBits(torch.autograd.Function):
    """Bits on the native core, which finds the gradient at once."""

    @staticmethod
    def forward(ctx: Any, names: list[str], kernel: int, resolution: float, *codes: Tensor) -> Tensor:
        codes = tuple(code.detach().contiguous() for code in codes)
        gradients = [torch.empty_like(code) for code in codes]
        arrays = [code.numpy() for code in codes], [gradient.numpy() for gradient in gradients]
        found = _core.soft_bits(arrays[0], kernel, resolution, MOST_BINS, arrays[1])
        for name, code, value in zip(names, codes, found, strict=True):
            if math.isnan(value):
                _range(name, code)
        ctx.save_for_backward(*gradients)
        return torch.tensor(sum(found), dtype=torch.float64)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        price = float(gradients[0])
        return (None, None, None, *(gradient * price for gradient in ctx.saved_tensors))


def _range(name: str, codes: Tensor) -> tuple[float, float]:
    """The least code and the greatest. Raises `SettingError` if levels between them cannot be counted."""
    low, high = (float(v) for v in torch.aminmax(codes)) if codes.numel() else (0.0, 0.0)
    where = f"tensor {name!r}" if name else ""
    if not max(-low, high) < 2**31:
        raise SettingError("some codes are not finite", where=where, remedy="lower the learning rates")
    levels = math.floor(high + 0.5) - math.floor(low + 0.5) + 1
    if levels > MOST_BINS:
        raise SettingError(
            f"codes span {levels:,} levels, more than {MOST_BINS:,}",
            where=where,
            remedy="start from a larger step, or learn more slowly",
        )
    return low, high


def _bits_torch(name: str, codes: Tensor, kernel: str, resolution: float) -> Tensor:
    """`bits` by torch operations: the edges near every code in turn, at most 2 delta + 2 of them."""
    low, high = _range(name, codes.detach())
    if high == low:  # one level, certain
        return 0 * codes.sum(dtype=torch.float64)
    lowest, delta = math.floor(low + 0.5), (high - low) / resolution
    bins = math.floor(high + 0.5) - lowest + 1
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
