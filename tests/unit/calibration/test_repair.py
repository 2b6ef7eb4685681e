"""Offsets and gains."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tersor.calibration.collect import collect
from tersor.calibration.repair import Absorber, find_absorbers, gains, repair, repaired
from tersor.evaluate.divergence import Evaluator
from tersor.sources import open_model


def network(bias: bool = True) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=bias), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8, bias=False),
            nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 6, 1), nn.ReLU(), nn.Flatten(), nn.Linear(24, 5),
        )  # fmt: skip
        module.train()
        for k in range(20):
            module(images(k))
    return module.eval()


def images(seed: int) -> Tensor:
    return torch.randn(16, 3, 6, 6, generator=torch.Generator().manual_seed(seed)) + 0.5


def rounded(module: nn.Module, step: float) -> dict[str, np.ndarray]:
    """Weights on grids of so many standard deviations."""
    weights = {name: p.detach().numpy() for name, p in module.named_parameters() if p.dim() > 1}
    return {name: (np.round(w / (step * w.std())) * step * w.std()).astype(np.float32) for name, w in weights.items()}


def test_absorbers() -> None:
    assert find_absorbers(open_model(network()), images(0)) == {
        "0.weight": Absorber("0.bias", "1"),
        "3.weight": Absorber(None, "4"),
        "6.weight": Absorber("6.bias", None),
        "9.weight": Absorber("9.bias", None),
    }
    attention = nn.MultiheadAttention(8, 2)
    wrapped = nn.Sequential(nn.Linear(8, 8, bias=False), nn.TransformerEncoderLayer(8, 2, 16))
    found = find_absorbers(open_model(wrapped), torch.ones(3, 2, 8))
    assert found["1.self_attn.in_proj_weight"] == Absorber("1.self_attn.in_proj_bias", None)
    assert "0.weight" not in found and attention.in_proj_bias is not None


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("with_gains", [False, True])
def test_offsets_restore_the_means_that_norms_see(bias: bool, with_gains: bool) -> None:
    module, xs = network(bias), [images(k) for k in range(100, 108)]
    model = open_model(module)
    statistics, decoded = collect(model, xs), rounded(module, 0.9)
    state = {name: t.numpy() for name, t in module.state_dict().items()}
    changed = repaired(state, {"0.weight": decoded["0.weight"]}, statistics, find_absorbers(model, xs[0]),
                       with_gains=with_gains)  # fmt: skip
    assert set(changed) == {"1.running_mean"} | ({"1.weight"} if with_gains else set())
    copy = network(bias)
    copy[0].weight.data = torch.from_numpy(decoded["0.weight"])
    with torch.no_grad():
        x = torch.cat(xs)
        expected, shifted = (m[:2](x).transpose(0, 1).flatten(1) for m in (module, copy))
        for name, array in changed.items():
            copy.state_dict()[name].copy_(torch.from_numpy(array))
        restored = copy[:2](x).transpose(0, 1).flatten(1)
    torch.testing.assert_close(restored.mean(1), expected.mean(1), atol=2e-3, rtol=0)
    assert (shifted.mean(1) - expected.mean(1)).abs().max() > 0.01
    assert (restored - expected).square().mean() < (shifted - expected).square().mean()
    assert changed["1.running_mean"].dtype == np.float32


def test_gains_are_the_least_squares_factor() -> None:
    module = nn.Linear(6, 4)
    x = torch.randn(4000, 6, generator=torch.Generator().manual_seed(0)) @ torch.randn(
        6, 6, generator=torch.Generator().manual_seed(1)
    )
    statistics = collect(open_model(module), [x])["weight"]
    w = module.weight.detach().double().numpy()
    decoded = w * np.array([[0.8], [1.25], [0.01], [0.0]])
    found = gains(w, decoded, statistics)
    np.testing.assert_allclose(found, [1.25, 0.8, 1.0, 1.0], rtol=1e-9)  # 100 is not believed, and nothing is nothing


def test_the_best_repair_is_chosen_by_the_held_out_divergence() -> None:
    module, xs = network(), [images(k) for k in range(100, 108)]
    model = open_model(module)
    decoded, evaluator = rounded(module, 0.7), Evaluator(open_model(module), [images(200), images(201)])
    before = {name: t.clone() for name, t in module.state_dict().items()}
    best = repair(model, decoded, collect(model, xs), [images(200)], lambda tensors: evaluator(tensors).mean)
    assert best.chosen != "none" and best.divergences[best.chosen] < 0.9 * best.divergences["none"]
    assert evaluator({**decoded, **best.tensors}).mean == best.divergences[best.chosen]
    assert set(best.tensors) >= {"1.running_mean", "4.running_mean", "6.bias", "9.bias"}
    assert all(torch.equal(before[name], t) for name, t in module.state_dict().items())
    nothing = repair(model, {}, {}, [images(200)], lambda tensors: evaluator(tensors).mean)
    assert nothing.chosen == "none" and nothing.tensors == {}


def test_layers_that_are_never_followed_are_left_alone() -> None:
    module = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU())
    model = open_model(module)
    x = torch.ones(3, 4)
    state: dict[str, Any] = {name: t.numpy() for name, t in module.state_dict().items()}
    statistics = collect(model, [x], gradients=False)
    assert repaired(state, {"0.weight": state["0.weight"] * 0}, statistics, find_absorbers(model, x)) == {}
