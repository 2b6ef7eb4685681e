"""What outputs of a layer have in common: the estimate from few gradients, and that it foretells the divergence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tersor.calibration.collect import collect
from tersor.calibration.coupling import MOST_OUTPUTS, MOST_TOGETHER, ROOM, SHARE, Outer, most_together, together
from tersor.evaluate.measures import divergence
from tersor.sources import open_model


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("outputs", "expected"),
    [(1, 1), (10, 10), (128, 128), (576, 96), (1000, 125), (131, 1), (MOST_OUTPUTS + 2, 1)],
)
def test_outputs_are_taken_together_by_divisors(outputs: int, expected: int) -> None:
    assert together(outputs, 128) == expected


def test_sums_of_many_outputs_have_room() -> None:
    def most(layers: int) -> int:
        return most_together([torch.empty(1024, 256, device="meta"), torch.empty(512)] * layers)

    assert most(1) == MOST_TOGETHER
    for layers in (64, 1024):  # by a constant, by the weights
        assert 0.9 < most(layers) * layers * 1024 * 8 / max(ROOM, layers * 2**20 / SHARE) <= 1


def estimate(gradients: Tensor, size: int) -> np.ndarray:
    """The estimate from gradients (rows, positions), half of them for each half, at the true diagonal."""
    outer = Outer(len(gradients), size, gradients)
    for half, part in enumerate(gradients.chunk(2, 1)):
        outer.add(part, 0, half)
    found = outer.finish(np.full(len(gradients), 1.0))
    assert found is not None
    return found.astype(np.float64)


def test_estimate_is_better_than_the_mean_of_few_gradients() -> None:
    """By the loss of Stein, which counts directions alike, strong or weak."""
    size = 40
    basis = torch.linalg.qr(randn(size, size).double())[0]
    truth = basis * torch.logspace(1, -2, size).double() @ basis.T
    scale = truth.diagonal().rsqrt()
    truth = truth * scale[:, None] * scale
    factor = torch.linalg.cholesky(truth)
    for count, share in ((50, 0.75), (200, 1.0), (5000, 1.25)):
        gradients = (factor @ randn(size, count, seed=count).double()).float()
        plain = torch.cov(gradients.double(), correction=0)
        plain = plain / plain.diagonal().sqrt() / plain.diagonal().sqrt()[:, None] + 1e-9 * torch.eye(size)

        def stein(matrix: Tensor, plain: Tensor = plain) -> float:
            ratio = torch.linalg.solve(matrix, truth)
            return float(ratio.trace() - torch.logdet(ratio) - len(plain))

        found = torch.from_numpy(estimate(gradients, size)[0])
        assert stein(found) < share * stein(plain), count
    assert stein(found) < 0.5


def test_estimate_is_positive_and_has_the_diagonal_it_is_given() -> None:
    gradients = randn(24, 5)  # fewer than rows
    gradients[3] = 0
    outer = Outer(24, 12, gradients)
    outer.add(gradients[:, :3], 0, 0)
    outer.add(gradients[12:, 3:], 12, 1)
    assert outer.finish(np.ones(24)) is None or bool(gradients[:12, :3].any())
    outer.add(gradients[:12, 3:], 0, 1)
    fisher = np.linspace(0, 3, 24)
    fisher[3] = 0
    found = outer.finish(fisher)
    assert found is not None and found.shape == (2, 12, 12)
    np.testing.assert_allclose(np.diagonal(found, axis1=1, axis2=2).reshape(-1), fisher, rtol=1e-5, atol=1e-9)
    assert np.linalg.eigvalsh(found.astype(np.float64)).min() > -1e-5
    assert not found[0, 3].any()


def test_one_half_says_nothing() -> None:
    outer = Outer(4, 4, randn(4, 4))
    outer.add(randn(4, 9), 0, 0)
    assert outer.finish(np.ones(4)) is None


class Narrow(nn.Module):
    """A wide layer of which few directions reach the output."""

    def __init__(self, convolution: bool) -> None:
        super().__init__()
        self.wide = nn.Conv1d(4, 24, 3, padding=1) if convolution else nn.Linear(6, 24)
        self.out = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.wide(x)
        return self.out(y.mean(-1) if y.dim() == 3 else y)


@pytest.mark.parametrize("convolution", [False, True])
def test_errors_that_cancel_are_foretold(convolution: bool) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Narrow(convolution).eval()
    xs = randn(512, 4, 8) if convolution else randn(512, 6)
    found: Any = collect(open_model(module), list(xs.split(16)), kind="values")["wide.weight"]
    coupling, sigma = found.coupling[0].astype(np.float64), found.covariance[0].astype(np.float64)
    strong = np.linalg.eigh(coupling)[1][:, ::-1]
    weight, original = module.wide.weight, module.wide.weight.detach().clone()
    measured, foretold, apart = list[float](), list[float](), list[float]()
    with torch.no_grad():
        before = module(xs)
        for direction in (strong[:, 0], strong[:, -1]):
            change = 0.01 * np.outer(direction, np.linalg.eigh(sigma)[1][:, -1])
            weight.copy_(original + torch.from_numpy(change).reshape(original.shape))
            measured.append(float(divergence("values", before, module(xs)).mean()))
            rows = change @ sigma @ change.T
            foretold.append(float((coupling * rows).sum()) / 2)
            apart.append(float(found.fisher @ rows.diagonal()) / 2)
    assert measured[1] < 0.01 * measured[0] and foretold[1] < 0.05 * foretold[0]
    assert 0.1 < apart[1] / apart[0] < 10  # the diagonal tells nothing of it
    if not convolution:  # positions of which agree: coherence
        assert foretold[0] == pytest.approx(measured[0], rel=0.4)


def test_parts_of_one_weight_have_rows_of_their_own() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.MultiheadAttention(8, 2, batch_first=True)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = layer

        def forward(self, x: Tensor) -> Tensor:
            return self.attention(x, x.flip(1), x)[0]

    found = collect(open_model(Model()), [randn(4, 5, 8, seed=k) for k in range(4)])["attention.in_proj_weight"]
    assert found.coupling is not None and found.coupling.shape == (3, 8, 8)
    diagonal = np.diagonal(found.coupling, axis1=1, axis2=2).reshape(-1)
    np.testing.assert_allclose(diagonal, found.fisher, rtol=1e-4)
