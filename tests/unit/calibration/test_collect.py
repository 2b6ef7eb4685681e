"""Statistics against direct computation, and their prediction against the divergence of changed weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from tersor.calibration import layers
from tersor.calibration.collect import Collected, collect
from tersor.calibration.statistics import Statistics
from tersor.errors import CalibrationError
from tersor.evaluate.measures import Kind, divergence
from tersor.sources import open_model

F64 = np.float64


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=seeded(seed))


def collected(module: nn.Module, samples: list[Any], **options: Any) -> Collected:
    return collect(open_model(module), samples, **options)


def build(make: Any, seed: int = 0) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


# -- covariances -------------------------------------------------------------------------------------------------------


def direct(x: Tensor) -> np.ndarray:
    rows = x.reshape(-1, x.shape[-1]).double().numpy()
    return rows.T @ rows / len(rows)


def test_linear_covariance_is_that_of_its_inputs() -> None:
    module = build(lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3, bias=False)))
    xs = [randn(7, 6, seed=k) for k in range(3)]
    found = collected(module, xs)
    assert list(found) == ["0.weight", "2.weight"]
    np.testing.assert_allclose(found["0.weight"].covariance[0], direct(torch.cat(xs)), rtol=1e-6, atol=1e-7)
    with torch.no_grad():
        hidden = module[:2](torch.cat(xs))
    np.testing.assert_allclose(found["2.weight"].covariance[0], direct(hidden), rtol=1e-6, atol=1e-7)
    assert [s.count for s in found.values()] == [21, 21] and found.kind == "logits" and found.notes == ()
    assert found["0.weight"].covariance.dtype == np.float32 and found["0.weight"].fisher.shape == (5,)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((6, 9, 7), {"kernel_size": 3, "padding": 1}),
        ((6, 9, 7), {"kernel_size": (3, 2), "stride": (2, 1), "padding": (2, 0), "dilation": (1, 2)}),
        ((6, 9, 7), {"kernel_size": (4, 3), "padding": "same"}),
        ((6, 9, 7), {"kernel_size": 3, "groups": 2}),
        ((6, 9, 7), {"kernel_size": 3, "groups": 6}),
        ((6, 9, 7), {"kernel_size": 3, "padding": 1, "padding_mode": "circular"}),
        ((6, 11), {"kernel_size": 5, "stride": 2, "padding": 1}),
        ((6, 4, 5, 3), {"kernel_size": (2, 3, 1)}),
    ],
    ids=str,
)  # fmt: skip
def test_convolution_covariance_predicts_the_energy_of_outputs(shape: tuple[int, ...], options: Any) -> None:
    kind = {2: nn.Conv1d, 3: nn.Conv2d, 4: nn.Conv3d}[len(shape)]
    groups = options.get("groups", 1)
    conv = build(lambda: kind(shape[0], 12, bias=False, **options))
    x = randn(5, *shape)
    statistics = collected(nn.Sequential(conv, nn.Flatten()), [x], kind="values")["0.weight"]
    with torch.no_grad():
        out = conv(x)
    energy = out.double().square().transpose(0, 1).flatten(1).mean(1).numpy()
    assert statistics.count == out[:, 0].numel()
    w = conv.weight.detach().double().numpy().reshape(groups, 12 // groups, -1)
    predicted = np.einsum("gij,gjk,gik->gi", w, statistics.covariance, w).reshape(-1)
    np.testing.assert_allclose(predicted, energy, rtol=1e-5)


class Padded(nn.Conv2d):
    """Pads by itself, as EfficientNet-Lite's convolutions do."""

    def __init__(self) -> None:
        super().__init__(3, 4, 3, bias=False)
        self.static_padding = nn.ZeroPad2d((0, 1, 0, 1))

    def forward(self, input: Tensor) -> Tensor:
        return functional.conv2d(self.static_padding(input), self.weight, None)


def test_what_a_module_does_to_its_inputs_is_seen() -> None:
    conv, x = build(Padded), randn(2, 3, 5, 5)
    statistics = collected(nn.Sequential(conv, nn.Flatten()), [x], kind="values")["0.weight"]
    with torch.no_grad():
        energy = conv(x).double().square().mean((0, 2, 3)).numpy()
    w = conv.weight.detach().double().numpy().reshape(4, -1)
    np.testing.assert_allclose(np.einsum("ij,jk,ik->i", w, statistics.covariance[0], w), energy, rtol=1e-5)


def test_many_inputs_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "FEWEST_ROWS", 2048)
    conv, x = build(lambda: nn.Conv2d(2, 3, 3)), randn(8, 2, 64, 64)
    found = [collected(nn.Sequential(conv, nn.Flatten()), [x], kind="values", seed=s)["0.weight"] for s in (0, 0, 1)]
    assert found[0].count == 2048
    assert (found[0].covariance == found[1].covariance).all() and (found[0].covariance != found[2].covariance).any()
    np.testing.assert_allclose(found[0].covariance[0], np.eye(18), atol=0.15)


def test_padding_tokens_do_not_count() -> None:
    class Text(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(20, 8)
            self.linear = nn.Linear(8, 4, bias=False)
            self.flat = nn.Linear(4, 4, bias=False)

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
            x = self.linear(self.embed(input_ids))
            return {"last_hidden_state": x + self.flat(x.view(-1, 4)).view(x.shape)}

    module = build(Text)
    ids = torch.tensor([[3, 4, 5, 0, 0], [6, 7, 0, 0, 0]])
    mask = (ids > 0).long()
    found = collected(module, [{"input_ids": ids, "attention_mask": mask}])
    kept = module.embed.weight.detach()[ids[mask.bool()]]
    np.testing.assert_allclose(found["linear.weight"].covariance[0], direct(kept), rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found["flat.weight"].covariance[0], direct(module.linear(kept).detach()), rtol=1e-5,
                               atol=1e-7)  # fmt: skip
    assert found["linear.weight"].count == found["flat.weight"].count == 5 and found.kind == "vectors"
    usage = found["embed.weight"].usage
    assert usage is not None and set(np.flatnonzero(usage)) == {3, 4, 5, 6, 7}
    assert found["embed.weight"].covariance is None


def test_transposed_weights_and_plain_products() -> None:
    class Products(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.randn(6, 3))
            self.bias = nn.Parameter(torch.zeros(6))

        def forward(self, x: Tensor) -> Tensor:
            return torch.addmm(self.bias, x, self.a) @ self.b

    module, x = build(Products), randn(9, 4)
    found = collected(module, [x])
    assert found["a"].transposed and found["a"].fisher.shape == (6,) and found["b"].covariance.shape == (1, 6, 6)
    np.testing.assert_allclose(found["a"].covariance[0], direct(x), rtol=1e-6, atol=1e-7)


def test_attention_is_taken_apart() -> None:
    attention = build(lambda: nn.MultiheadAttention(8, 2, batch_first=True)).eval()

    class Cross(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = attention

        def forward(self, x: Tensor, memory: Tensor) -> Tensor:
            return self.attention(x, memory, memory)[0]

    x, memory = randn(3, 5, 8), randn(3, 7, 8, seed=1)
    found = collected(Cross(), [(x, memory)], kind="vectors")
    covariance = found["attention.in_proj_weight"].covariance
    for group, given in zip(covariance, (x, memory, memory), strict=True):
        np.testing.assert_allclose(group, direct(given), rtol=1e-5, atol=1e-6)
    assert (found["attention.in_proj_weight"].fisher > 0).all() and found["attention.in_proj_weight"].fisher.size == 24
    assert found["attention.out_proj.weight"].covariance.shape == (1, 8, 8)
    own = collected(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), [x], kind="vectors")
    assert own["self_attn.in_proj_weight"].covariance.shape == (1, 8, 8)


def test_attention_taken_apart_gives_the_same_output() -> None:
    from tersor.calibration.recorder import Recorder

    layer = build(lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)).eval()
    x, hidden = randn(3, 5, 8), torch.tensor([[False] * 5, [False] * 3 + [True] * 2, [False] * 5])
    with torch.no_grad():
        expected = layer(x, src_key_padding_mask=hidden)
        with Recorder(dict(layer.named_parameters()), 1, seeded(), gradients=False):
            got = layer(x, src_key_padding_mask=hidden)
    torch.testing.assert_close(got[~hidden], expected[~hidden], rtol=1e-5, atol=1e-5)


# -- Fisher information ------------------------------------------------------------------------------------------------


def prediction(found: Collected, name: str, change: Tensor) -> float:
    s = found[name]
    if s.covariance is None:
        assert s.usage is not None
        return float((s.usage * change.double().square().sum(1).numpy()).sum() / 2)
    dw = change.double().numpy().reshape(len(s.covariance), -1, s.covariance.shape[1])
    return float((s.fisher.reshape(len(dw), -1) * np.einsum("gij,gjk,gik->gi", dw, s.covariance, dw)).sum() / 2)


def whitened(statistics: Statistics, noise: Tensor) -> Tensor:
    """Noise as quantization with error feedback leaves it: its effects on the outputs are white."""
    sigma = statistics.covariance
    if sigma is None:
        return noise
    groups, fan_in = sigma.shape[:2]
    level = np.trace(sigma, axis1=1, axis2=2) / fan_in
    factor = np.linalg.cholesky(sigma / level[:, None, None] + 0.01 * np.eye(fan_in))
    return torch.from_numpy(noise.double().numpy().reshape(groups, -1, fan_in) @ np.linalg.inv(factor)).reshape(
        noise.shape
    )


class Classifier(nn.Module):
    def __init__(self, last: nn.Module | None = None) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 6)
        self.conv = nn.Conv1d(6, 12, 3, padding=1)
        self.depthwise = nn.Conv1d(12, 12, 3, groups=12)
        self.hidden = nn.Linear(12, 16)
        self.out = nn.Linear(16, 5)
        self.last = last or nn.Identity()

    def forward(self, ids: Tensor) -> Tensor:
        x = functional.gelu(self.conv(self.embed(ids).mT), approximate="tanh")
        x = functional.silu(self.depthwise(x)).mean(-1)
        return self.last(self.out(functional.silu(self.hidden(x))))


@pytest.mark.parametrize("kind", ["logits", "probabilities", "bernoulli", "vectors", "values"])
def test_divergence_of_changed_weights_is_predicted(kind: Kind) -> None:
    last = {"probabilities": nn.Softmax(-1), "bernoulli": nn.Sigmoid()}.get(kind)
    module = build(lambda: Classifier(last)).eval()
    ids = torch.randint(0, 50, (512, 10), generator=seeded())
    found = collected(module, list(ids.split(64)) * 4, kind=kind)
    with torch.no_grad():
        before = module(ids)
        for name in ("embed.weight", "conv.weight", "depthwise.weight", "hidden.weight", "out.weight"):
            weight, measured, predicted = module.get_parameter(name), 0.0, 0.0
            original = weight.clone()
            for seed in range(6):
                change = 0.02 * float(original.std()) * whitened(found[name], randn(*weight.shape, seed=seed))
                weight.copy_(original + change)
                measured += float(divergence(kind, before, module(ids)).mean())
                predicted += prediction(found, name, change)
            weight.copy_(original)
            assert 0.55 < predicted / measured < 1.8, (name, predicted / measured)


def test_layers_behind_other_outputs_get_their_gradients_there() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk, self.main, self.side = nn.Linear(4, 4), nn.Linear(4, 3), nn.Linear(4, 6)
            self.unused = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = self.trunk(x)
            self.unused(x)
            return self.main(x), self.side(x)

    module, x = build(Two), randn(500, 4)
    found = collected(module, [x, x])
    assert (found["side.weight"].fisher > 0).all() and not found["unused.weight"].fisher.any()
    assert any("unused.weight" in note and "depends" in note for note in found.notes)

    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.two = module

        def forward(self, x: Tensor) -> Tensor:
            return self.two(x)[0]

    alone = collected(First(), [x, x])
    np.testing.assert_allclose(alone["two.main.weight"].fisher.mean(), found["main.weight"].fisher.mean(), rtol=0.25)


def test_tied_weights_have_both_kinds_of_statistics() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(11, 4), nn.Linear(4, 11, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids: Tensor) -> Tensor:
            return self.head(self.embed(ids))

    found = collected(build(Tied), [torch.arange(10).reshape(2, 5)])
    assert list(found) == ["embed.weight"]
    assert found["embed.weight"].usage is not None and found["embed.weight"].covariance.shape == (1, 4, 4)
    assert found["embed.weight"].usage[10] == 0 and (found["embed.weight"].fisher > 0).all()


def test_the_same_seed_gives_the_same_statistics_and_another_one_others() -> None:
    module, xs = build(lambda: nn.Linear(4, 3)), [randn(8, 4)]
    first, again, other = (collected(module, xs, seed=s)["weight"] for s in (3, 3, 4))
    assert (first.fisher == again.fisher).all() and (first.fisher != other.fisher).any()
    assert not collected(module, xs, gradients=False)["weight"].fisher.any()


# -- the module stays as it is -----------------------------------------------------------------------------------------


def test_the_module_is_left_alone() -> None:
    module = build(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.BatchNorm2d(4), nn.Dropout(),
                                         nn.Flatten(), nn.LazyLinear(3)))  # fmt: skip
    module(randn(2, 3, 6, 6))
    module.train()
    module[2].eval()
    module[0].weight.requires_grad_(False)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    found = collected(module, [randn(2, 3, 6, 6)])
    assert set(found) == {"0.weight", "5.weight"} and (found["0.weight"].fisher > 0).any()
    assert [part.training for part in module] == [True, True, False, True, True, True]
    assert not module[0].weight.requires_grad and module[5].weight.requires_grad
    assert all(parameter.grad is None for parameter in module.parameters())
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
    assert not any(part._forward_hooks or part._backward_hooks for part in module.modules())


# -- bad input ---------------------------------------------------------------------------------------------------------


class Poisoned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.log(self.first(x) - 100))


def test_nan_names_the_layer() -> None:
    with pytest.raises(CalibrationError, match=r"inputs of a layer are NaN.*layer 'second.weight'"):
        collected(build(Poisoned), [randn(2, 3)])
    with pytest.raises(CalibrationError, match="layer 'weight'"):
        collected(build(lambda: nn.Linear(3, 3)), [torch.full((2, 3), float("nan"))])
    broken = build(lambda: nn.Linear(3, 3))
    broken.weight.data[0, 0] = float("inf")
    with pytest.raises(CalibrationError, match=r"output is NaN or infinite.*sample 0"):
        collected(broken, [randn(2, 3)])


def test_samples_that_do_not_fit_are_described() -> None:
    module = build(lambda: nn.Linear(3, 3))
    with pytest.raises(CalibrationError, match=r"Linear fails on float32 \(2, 5\): .*sample 1"):
        collected(module, [randn(2, 3), randn(2, 5)])
    with pytest.raises(CalibrationError, match=r"int64 \(2, 3\)"):
        collected(module, [torch.ones(2, 3, dtype=torch.int64)])
    with pytest.raises(CalibrationError, match=r"\{nonsense: float32 \(2, 3\)\}.*nonsense"):
        collected(module, [{"nonsense": randn(2, 3)}])
    with pytest.raises(CalibrationError, match="no samples"):
        collected(module, [])


def test_a_model_without_gradients_or_floating_output_is_refused() -> None:
    class Detached(nn.Module):
        def __init__(self, integer: bool) -> None:
            super().__init__()
            self.linear, self.integer = nn.Linear(3, 3), integer

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x).argmax(1) if self.integer else self.linear(x).detach()

    with pytest.raises(CalibrationError, match="no floating tensor"):
        collected(build(lambda: Detached(True)), [randn(2, 3)])
    with pytest.raises(CalibrationError, match="differentiable"):
        collected(build(lambda: Detached(False)), [randn(2, 3)])


def test_layers_never_called_and_dead_inputs_are_reported() -> None:
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.never = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    x = randn(4, 3)
    x[:, 1] = 0
    found = collected(build(Partly), [x])
    assert set(found) == {"used.weight"}
    assert [note.split(":")[0] for note in found.notes] == ["used.weight", "never.weight"]
    assert "1 of its inputs are always zero" in found.notes[0] and "never called" in found.notes[1]


def test_samples_that_are_few_for_the_widest_layers_are_reported() -> None:
    module = build(lambda: nn.Sequential(nn.Linear(16, 8), nn.Linear(8, 16), nn.Linear(16, 4)))
    assert collected(module, [randn(16, 16)]).notes == ()
    (one,) = collected(module, [randn(6, 16), randn(3, 16)]).notes
    assert one.startswith("0.weight (and 1 more): fewer inputs (9) than they are wide (16): ")
