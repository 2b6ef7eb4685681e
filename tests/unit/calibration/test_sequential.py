"""Statistics over a compressed prefix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tersor.calibration.collect import collect
from tersor.calibration.sequential import Sequential, collect_sequential
from tersor.calibration.statistics import Statistics
from tersor.errors import CalibrationError
from tersor.sources import open_model


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, 12), nn.Linear(12, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(self.up(x).relu())


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(3, 6), nn.Linear(6, 4)
        self.blocks = nn.ModuleList(Block(6) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).tanh()
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


@pytest.fixture
def module() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Network().eval()


SAMPLES = [randn(16, 5, 3, seed=k) for k in range(6)]


class Coarse:
    """Rounds weights (their targets, if there are any) and remembers what it was given."""

    def __init__(self, module: nn.Module, step: float, *, targets: bool = True) -> None:
        self.weights = {n: p.detach().clone().numpy() for n, p in module.named_parameters()}
        self.step, self.targets = step, targets
        self.given: list[dict[str, Statistics]] = []

    def __call__(self, statistics: Mapping[str, Statistics]) -> dict[str, np.ndarray]:
        self.given.append(dict(statistics))
        out = {}
        for name, found in statistics.items():
            weights = found.target if self.targets and found.target is not None else self.weights[name]
            assert weights.shape == self.weights[name].shape
            out[name] = (np.round(weights / self.step) * self.step).astype(np.float32)
        return out


def sequential(module: nn.Module, quantize: Any, samples: list[Any] = SAMPLES, **options: Any) -> Sequential:
    model = open_model(module)
    return collect_sequential(model, samples, quantize, collect(model, samples), **options)


def test_order_and_inputs(module: Network) -> None:
    quantize = Coarse(module, 0.2)
    before = {n: v.clone() for n, v in module.state_dict().items()}
    result = sequential(module, quantize)
    assert result.blocks == ("blocks.0", "blocks.1", "blocks.2") and result.notes == ()
    stages = [set(given) for given in quantize.given]
    pairs = [{f"blocks.{k}.up.weight", f"blocks.{k}.down.weight"} for k in range(3)]
    assert stages == [{"stem.weight"}, *pairs, {"head.weight"}]
    assert all(torch.equal(before[n], v) for n, v in module.state_dict().items())
    with torch.no_grad():
        x = result.module.stem(torch.cat(SAMPLES)).tanh()  # the copy holds the rounded weights now
        for k, given in enumerate(quantize.given[1:4]):
            rows = x.reshape(-1, 6).double().numpy()
            statistics = given[f"blocks.{k}.up.weight"]
            np.testing.assert_allclose(statistics.covariance[0], rows.T @ rows / len(rows), rtol=1e-5, atol=1e-6)
            x = result.module.blocks[k](x)
        pooled = x.mean(1).double().numpy()
    np.testing.assert_allclose(quantize.given[4]["head.weight"].covariance[0], pooled.T @ pooled / len(pooled),
                               rtol=1e-5, atol=1e-6)  # fmt: skip
    for name, parameter in result.module.named_parameters():
        if name.endswith("weight"):
            steps = parameter.detach().numpy() / 0.2
            np.testing.assert_allclose(steps, np.round(steps), atol=1e-5)


def test_without_any_loss_the_target_is_the_weight(module: Network) -> None:
    quantize = Coarse(module, 1e-7, targets=False)
    sequential(module, quantize)
    assert quantize.given[0]["stem.weight"].target is None  # its inputs are those of the original
    for given in quantize.given[1:]:
        for name, statistics in given.items():
            np.testing.assert_allclose(statistics.target, quantize.weights[name], atol=1e-4)


def test_targets_are_the_least_squares_solution(module: Network) -> None:
    quantize = Coarse(module, 0.3)
    result = sequential(module, quantize, damping=0.0)
    x = torch.cat(SAMPLES)
    with torch.no_grad():
        old, new = (m.stem(x).tanh().reshape(-1, 6).double().numpy() for m in (module, result.module))
    outputs = old @ quantize.weights["blocks.0.up.weight"].T
    best = np.linalg.lstsq(new, outputs, rcond=None)[0].T
    np.testing.assert_allclose(quantize.given[1]["blocks.0.up.weight"].target, best, atol=2e-3)


def test_targets_make_up_for_what_was_lost(module: Network) -> None:
    x = torch.cat([randn(16, 5, 3, seed=k) for k in range(50, 60)])
    errors = {}
    for targets in (False, True):
        copy = sequential(module, Coarse(module, 0.25, targets=targets)).module
        with torch.no_grad():
            errors[targets] = float((copy(x) - module(x)).square().mean())
    assert errors[True] < 0.8 * errors[False]


def test_fisher_information_is_the_originals(module: Network) -> None:
    quantize = Coarse(module, 0.2)
    model = open_model(module)
    original = collect(model, SAMPLES)
    collect_sequential(model, SAMPLES, quantize, original)
    for given in quantize.given:
        for name, statistics in given.items():
            assert (statistics.fisher == original[name].fisher).all() and statistics.fisher.any()
            assert statistics.coupling is original[name].coupling


def test_a_model_that_is_no_chain_is_one_block() -> None:
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(3, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) + self.b(x)

    module = Branches()
    quantize = Coarse(module, 0.2)
    result = sequential(module, quantize, [randn(8, 3)])
    assert result.blocks == () and "cannot be run block by block" in result.notes[0]
    assert [set(given) for given in quantize.given] == [{"a.weight", "b.weight"}]
    assert not torch.equal(result.module.a.weight, module.a.weight)


def test_blocks_can_be_named(module: Network) -> None:
    result = sequential(module, Coarse(module, 0.2), blocks=["blocks.0", "blocks.1", "blocks.2", "head"][:3])
    assert len(result.blocks) == 3
    with pytest.raises(CalibrationError, match="not called once each"):
        sequential(module, Coarse(module, 0.2), blocks=["blocks.1", "blocks.0"])


def test_tied_weights_are_compressed_once() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.head = nn.Embedding(11, 6), nn.Linear(6, 11, bias=False)
            self.blocks = nn.ModuleList(Block(6) for _ in range(2))
            self.head.weight = self.embed.weight

        def forward(self, ids: Tensor) -> Tensor:
            x = self.embed(ids)
            for block in self.blocks:
                x = block(x)
            return self.head(x)

    module = Tied()
    quantize = Coarse(module, 0.2)
    result = sequential(module, quantize, [torch.arange(10).reshape(2, 5)] * 2)
    names = [name for given in quantize.given for name in given]
    assert sorted(names) == sorted({*names}) and "embed.weight" in names
    first = next(given["embed.weight"] for given in quantize.given if "embed.weight" in given)
    assert first.usage is not None and first.covariance is not None
    assert result.module.head.weight is result.module.embed.weight


def test_convolutions_and_changes_in_place() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3, groups=4), nn.BatchNorm2d(4),
            nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(16, 3),
        ).eval()  # fmt: skip
    samples = [randn(8, 2, 6, 6, seed=k) for k in range(3)]
    quantize = Coarse(module, 1e-7, targets=False)
    result = sequential(module, quantize, samples)
    assert [set(given) for given in quantize.given] == [{"0.weight"}, {"2.weight"}, {"6.weight"}]
    for given in quantize.given:
        for name, statistics in given.items():
            np.testing.assert_allclose(statistics.target, quantize.weights[name], atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(result.module(samples[0]), module(samples[0]), rtol=1e-4, atol=1e-5)


def test_transformers_encoders() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16
    )
    module = transformers.BertModel(config).eval()
    ids = torch.randint(1, 30, (4, 7), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1:, 5:] = 0
    quantize = Coarse(module, 0.02)
    result = sequential(module, quantize, [{"input_ids": ids, "attention_mask": mask}] * 2)
    assert result.blocks == ("embeddings", "encoder.layer.0", "encoder.layer.1", "pooler")
    statistics = quantize.given[2]["encoder.layer.1.intermediate.dense.weight"]
    assert statistics.count == 2 * int(mask.sum()) and statistics.target is not None


def test_decoders_see_no_keys_and_values_of_the_original() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=16, tie_word_embeddings=True,
    )  # fmt: skip
    module = transformers.LlamaForCausalLM(config).eval()
    samples = [torch.randint(1, 30, (4, 7), generator=torch.Generator().manual_seed(k)) for k in range(2)]
    quantize = Coarse(module, 0.05, targets=False)
    result = sequential(module, quantize, samples)
    assert module.config.use_cache
    name = "model.layers.1.self_attn.o_proj.weight"
    given = next(statistics[name] for statistics in quantize.given if name in statistics)
    result.module.model.layers[1] = module.model.layers[1]  # as it was when its inputs were looked at
    expected = collect(open_model(result.module), samples)[name]
    np.testing.assert_allclose(given.covariance, expected.covariance, rtol=1e-4, atol=1e-9)
