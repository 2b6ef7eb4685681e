"""The unified transformation: its five forms, their gradients, and what the decoder rebuilds."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402

from tersor.joint.transforms import FORMS, KEPT_LEVELS, LEVELS  # noqa: E402


def weights(shape: tuple[int, ...] = (40, 30), seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).laplace(0, 0.05, shape))


@pytest.mark.parametrize("name", FORMS)
def test_decoding_inverts_encoding(name: str) -> None:
    form, w = FORMS[name], weights()
    parameters = form.start(w)
    assert torch.allclose(form.decode(form.encode(w, *parameters), *parameters), w, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", FORMS)
def test_codes_rise_with_weights_and_are_odd(name: str) -> None:
    form = FORMS[name]
    w = torch.linspace(-1, 1, 2001, dtype=torch.float64)
    codes = form.encode(w, *form.start(w, 0.05))
    assert bool((codes.diff() > 0).all()) and torch.allclose(codes, -codes.flip(0))


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("rows", [False, True])
def test_gradients_are_those_of_automatic_differentiation(name: str, rows: bool) -> None:
    form, w = FORMS[name], weights().requires_grad_()
    scale = torch.linspace(0.5, 2, 40, dtype=torch.float64)[:, None] if rows else 1.0
    parameters = [(p.double() * scale).requires_grad_() for p in form.start(w, 0.03)]
    a, b = weights(seed=1), weights(seed=2)

    def loss(quantized: Tensor, codes: Tensor) -> Tensor:
        return (quantized * a).sum() + (codes * b).sum()

    leaves = [w, *parameters]
    found = torch.autograd.grad(loss(*form.quantize([w], [tuple(parameters)])[0]), leaves, allow_unused=True)
    codes = form.encode(w, *parameters)
    levels = codes + (codes.round() - codes).detach()
    expected = torch.autograd.grad(loss(form.decode(levels, *parameters), codes), leaves, allow_unused=True)
    for x, y in zip(found, expected, strict=True):
        assert x is not None and y is not None and x.shape == y.shape and torch.allclose(x, y, rtol=1e-9, atol=1e-12)


def test_joint_form_is_equation_13() -> None:
    e, s = 0.3, 0.1
    w = torch.tensor([-0.62, -0.31, -0.1, 0.0, 0.29, 0.3, 0.36, 0.55], dtype=torch.float64)
    codes = FORMS["joint"].encode(w, torch.tensor(s).double(), torch.tensor(e).double())
    expected = [np.sign(x) * ((abs(x) - e) / s + 0.5) if abs(x) >= e else 0.5 * x / e for x in w.tolist()]
    assert codes.tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["linear", "joint", "pruning"])
def test_uniform_op_rebuilds_the_levels(name: str) -> None:
    step, threshold = 0.1, 0.23
    form = FORMS[name]
    parameters = (step,) if name == "linear" else (step, threshold)
    offset = 0.0 if name == "linear" else threshold / step - 0.5
    expected = [0.0, *((k + offset) * step for k in range(1, 9))]
    assert form.rebuilt(8, *parameters).tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", FORMS)
def test_start(name: str) -> None:
    """The paper's start spans 256 levels; from a given step, small weights get that step."""
    form, w = FORMS[name], weights((100, 100))
    span = torch.ceil((w.max() - w.min()) * 1e3)
    assert span > 0
    codes = form.encode(w, *form.start(w)).round()
    levels = float(codes.max() - codes.min())
    if name in ("linear", "joint"):
        assert levels == pytest.approx(LEVELS, abs=2)
    if name == "pruning":
        assert levels == pytest.approx(KEPT_LEVELS, rel=0.01)
    if name != "pruning":
        rebuilt = form.rebuilt(3, *(float(p) for p in form.start(w, 0.002)))
        assert float(rebuilt[2] - rebuilt[1]) == pytest.approx(0.002, rel=0.05)


def test_pruned_weights_pull_the_threshold_and_rounding_errors_the_step() -> None:
    step, threshold = (torch.tensor(v, requires_grad=True) for v in (0.1, 0.3))
    w = torch.tensor([0.2, 0.44])
    quantized = FORMS["joint"].quantize([w], [(step, threshold)])[0].weights
    assert quantized.tolist() == pytest.approx([0.0, 0.45])
    pulls = torch.autograd.grad(quantized.sum(), [step, threshold])
    assert [p.item() for p in pulls] == pytest.approx([2 - 1.9, -0.2 / 0.3], rel=1e-4)


@pytest.mark.parametrize("count", [1, 15, 16, 1003])
def test_native_core_agrees_with_torch(count: int) -> None:
    """In float32 with one step a tensor the native core works, in float64 torch does."""
    form, results = FORMS["joint"], []
    for dtype in (torch.float64, torch.float32):
        w = weights((count,)).to(dtype).requires_grad_()
        parameters = [torch.tensor(v, dtype=dtype, requires_grad=True) for v in (0.02, 0.013)]
        quantized, codes = form.quantize([w], [(parameters[0], parameters[1])])[0]
        loss = (quantized * weights((count,), 1).to(dtype)).sum() + (codes * weights((count,), 2).to(dtype)).sum()
        results.append([quantized, codes, *torch.autograd.grad(loss, [w, *parameters])])
    for expected, found in zip(*results, strict=True):
        assert found.dtype == torch.float32 and found.shape == expected.shape
        assert torch.allclose(found.double(), expected, rtol=2e-5, atol=2e-5)
