"""The differentiable counter against its definition, automatic differentiation and the empirical entropy."""

from __future__ import annotations

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from tersor.errors import SettingError  # noqa: E402
from tersor.rate import KERNELS, bits, entropy, total_bits  # noqa: E402

SHAPES = [(3.0, 64), (40.0, 16), (40.0, 128), (300.0, 16), (1.5, 2), (12.0, 7.3), (2.0, 500)]


def laplace(scale: float, count: int = 3000, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).laplace(0.3, scale, count)).float().to(dtype)


def definition(codes: Tensor, kernel: str, resolution: float) -> Tensor:
    """Equations 14 to 19 and 5, all pairs of codes and queries; queries move with their codes (straight through)."""
    delta = float((codes.max() - codes.min()).detach()) / resolution
    levels = codes + ((codes + 0.5).floor() - codes).detach()

    def count(x: Tensor) -> Tensor:
        u = ((x[:, None] - codes[None, :]) / delta).clamp(-1, 1)
        relaxed = {"cosine": (1 + (u * (math.pi / 2)).sin()) / 2, "linear": (1 + u) / 2,
                   "triangle": torch.where(u < 0, (1 + u) ** 2 / 2, 1 - (1 - u) ** 2 / 2)}  # fmt: skip
        return relaxed[kernel].sum(1)

    share = (count(levels + 0.5) - count(levels - 0.5)) / codes.numel()
    return -share.log2().sum()


def with_gradient(function: object, codes: Tensor) -> tuple[float, Tensor]:
    leaf = codes.clone().requires_grad_()
    value = function(leaf)  # type: ignore[operator]
    value.backward()
    assert leaf.grad is not None
    return value.item(), leaf.grad


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("scale", "resolution"), SHAPES)
def test_torch_path_is_the_definition(kernel: str, scale: float, resolution: float) -> None:
    codes = laplace(scale, 1500)
    value, gradient = with_gradient(lambda c: bits(c, kernel=kernel, resolution=resolution), codes)
    expected, reference = with_gradient(lambda c: definition(c, kernel, resolution), codes)
    assert value == pytest.approx(expected, rel=1e-10)
    assert torch.allclose(gradient, reference, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("scale", "resolution"), SHAPES)
@pytest.mark.parametrize("count", [1, 7, 3000, 20011])
def test_native_core_agrees_with_torch(kernel: str, scale: float, resolution: float, count: int) -> None:
    codes = laplace(scale, count, seed=count)
    value, gradient = with_gradient(lambda c: bits(c, kernel=kernel, resolution=resolution), codes.float())
    expected, reference = with_gradient(lambda c: bits(c, kernel=kernel, resolution=resolution), codes)
    assert value == pytest.approx(expected, rel=2e-6, abs=1e-9)
    delta = float(codes.max() - codes.min()) / resolution
    size = float(reference.abs().max()) + 0.1 / max(delta, 0.05)  # the height of the kernel: large terms may cancel
    # A box has steps: codes within rounding of one may fall on either side of it.
    off = (gradient.double() - reference).abs() > 2e-5 * size
    assert int(off.sum()) <= (3 if kernel == "linear" else 0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_gradient_is_the_change_of_the_bits_under_a_shift_of_scale(kernel: str) -> None:
    """Stretching all codes by a factor changes the soft bits by the gradient along it, on average over roundings."""
    codes = laplace(6.0, 200_000)

    def value(factor: float) -> float:
        return float(bits(codes * factor, kernel=kernel, resolution=64))

    _, gradient = with_gradient(lambda c: bits(c, kernel=kernel, resolution=64), codes)
    slope = (value(1.02) - value(0.98)) / 0.04
    assert float((gradient * codes).sum()) == pytest.approx(slope, rel=0.02)


@pytest.mark.parametrize("kernel", KERNELS)
def test_narrow_kernels_count_exactly(kernel: str) -> None:
    codes = torch.from_numpy(np.random.default_rng(1).integers(-5, 9, 5000)).float() + 0.2
    assert float(bits(codes, kernel=kernel, resolution=200)) == pytest.approx(entropy(codes.round()), rel=1e-6)


def test_wide_kernels_cost_more_than_the_entropy() -> None:
    codes = laplace(5.0, 20_000, dtype=torch.float32)
    relaxed = [float(bits(codes, resolution=r)) for r in (4, 16, 64, 256)]
    assert relaxed == sorted(relaxed, reverse=True)
    assert relaxed[-1] == pytest.approx(entropy(codes.round()), rel=2e-3)


def test_descent_lowers_the_entropy() -> None:
    codes = laplace(3.0, 4000, dtype=torch.float32).requires_grad_()
    before = entropy(codes.detach().round())
    optimizer = torch.optim.Adam([codes], 0.02)
    for _ in range(60):
        optimizer.zero_grad()
        bits(codes).backward()
        optimizer.step()
    assert entropy(codes.detach().round()) < 0.8 * before


def test_tensors_counted_together_are_those_counted_one_by_one() -> None:
    tensors = {f"t{k}": laplace(scale, 500, k, torch.float32) for k, scale in enumerate((40.0, 3.0, 300.0))}
    tensors |= {"level": torch.full((9,), 2.2), "none": torch.zeros(0)}
    leaves = {name: codes.clone().requires_grad_() for name, codes in tensors.items()}
    total = total_bits(leaves)
    (total * 3).backward()
    alone = {name: with_gradient(bits, codes) for name, codes in tensors.items()}
    assert float(total.detach()) == pytest.approx(sum(value for value, _ in alone.values()))
    for name, (_, gradient) in alone.items():
        assert leaves[name].grad is not None and torch.equal(leaves[name].grad, gradient * 3)
    with pytest.raises(SettingError, match=r"'broken'"):
        total_bits({**tensors, "broken": torch.tensor([0.0, math.nan])})


def test_shape_and_layout_do_not_matter() -> None:
    codes = laplace(3.0, 600, dtype=torch.float32).reshape(20, 30)
    value, gradient = with_gradient(bits, codes)
    turned, turned_gradient = with_gradient(lambda c: bits(c.t()), codes)
    assert value == pytest.approx(turned) and torch.allclose(gradient, turned_gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_and_empty_codes_cost_nothing(dtype: torch.dtype) -> None:
    for codes in (torch.full((50,), 3.2, dtype=dtype), torch.zeros(0, dtype=dtype), torch.zeros(1, dtype=dtype)):
        value, gradient = with_gradient(bits, codes)
        assert value == pytest.approx(0, abs=1e-9) and not gradient.any()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_codes_that_are_not_finite_are_refused(value: float) -> None:
    with pytest.raises(SettingError, match="not finite"):
        bits(torch.tensor([0.0, value, 1.0]))


def test_settings_that_make_no_sense_are_refused() -> None:
    codes = torch.zeros(4)
    with pytest.raises(SettingError, match="no kernel"):
        bits(codes, kernel="box")
    with pytest.raises(SettingError, match="resolution"):
        bits(codes, resolution=0)
    with pytest.raises(SettingError, match="levels"):
        bits(torch.tensor([0.0, 1e6]))
