"""Chains of modules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tersor.calibration.blocks import Call, find_blocks, run_call, watched, without_values


def calls_of(module: nn.Module, *args: Any, **kwargs: Any) -> list[Call]:
    with torch.no_grad(), watched(module.eval()) as calls:
        module(*args, **kwargs)
    return calls


def blocks(module: nn.Module, *args: Any, **kwargs: Any) -> list[str]:
    return find_blocks(module, calls_of(module, *args, **kwargs))


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor, scale: Tensor | float = 1.0) -> tuple[Tensor]:
        return (x + scale * self.down(self.up(x).relu()),)


class Stacked(nn.Module):
    """Like an encoder: something before, a list of blocks, something after."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(3, 4), nn.Linear(4, 2)
        self.layers = nn.ModuleList(Residual() for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).tanh()
        scale = torch.full((4,), 0.5)
        for layer in self.layers:
            (x,) = layer(x, scale=scale)
        return self.head(x.mean(1))


def test_lists_and_nested_sequences() -> None:
    assert blocks(Stacked(), torch.ones(2, 5, 3)) == ["layers.0", "layers.1", "layers.2"]
    nested = nn.Sequential(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), nn.Sequential(nn.Linear(4, 4), nn.Sigmoid()))
    assert blocks(nested, torch.ones(2, 3)) == ["0.0", "0.1", "1.0", "1.1"]
    wrapped = nn.ModuleDict({"a": nested})
    wrapped.forward = lambda x: wrapped["a"](x)  # type: ignore[method-assign]
    assert blocks(wrapped, torch.ones(2, 3)) == ["a.0.0", "a.0.1", "a.1.0", "a.1.1"]


def test_modules_that_are_called_again_end_a_chain() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c, self.act = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3), nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.b(self.act(self.a(self.act(x)))))

    assert blocks(Shared(), torch.ones(2, 3)) == ["b", "c"]


def test_what_is_no_chain() -> None:
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(3, 3), nn.Linear(3, 3), nn.Bilinear(3, 3, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x)
            return self.c(self.b(y), y)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(self.a(x))

    assert blocks(Skip(), torch.ones(2, 3)) == ["a", "b"]  # c needs what is two steps back
    assert blocks(Twice(), torch.ones(2, 3)) == []
    assert blocks(nn.Linear(3, 3), torch.ones(2, 3)) == []


def test_a_chain_runs_module_by_module() -> None:
    module, x = Stacked(), torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    calls = {call.name: call for call in calls_of(module, x)}
    flowing = calls["layers.0"].flows_in()
    with torch.no_grad():
        for name in ("layers.0", "layers.1", "layers.2"):
            assert flowing is not None
            kept = without_values(calls[name])
            assert kept.result is None and kept.flows_in().numel() == 0 and kept.kwargs["scale"].numel() == 4
            flowing = run_call(module, kept, flowing)
        torch.testing.assert_close(module.head(flowing.mean(1)), module(x))


def test_hooks_are_removed() -> None:
    module = Stacked()
    calls_of(module, torch.ones(2, 5, 3))
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def test_transformers_encoders() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=3, num_attention_heads=2, intermediate_size=16
    )
    module = transformers.BertModel(config)
    found = blocks(module, input_ids=torch.tensor([[1, 2, 3]]), attention_mask=torch.ones(1, 3, dtype=torch.int64))
    assert found == ["embeddings", *(f"encoder.layer.{k}" for k in range(3)), "pooler"]
