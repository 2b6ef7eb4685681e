"""Layers that torch computes in one call, taken apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tersor.calibration.collect import collect
from tersor.calibration.recorder import Recorder
from tersor.sources import open_model


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.filterwarnings("ignore:LSTM with projections")
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 2, "bidirectional": True, "batch_first": True},
        {"bias": False, "bidirectional": True},
        {"proj_size": 3, "num_layers": 2},
    ],
    ids=str,
)
def test_recurrent_layers_give_the_same_output(kind: Any, options: Any) -> None:
    if "proj_size" in options and kind is nn.GRU:
        pytest.skip("only an LSTM has projections")
    layer, x = kind(4, 5, **options).eval(), randn(6, 3, 4)
    with torch.no_grad():
        expected = layer(x)
        recorder = Recorder(dict(layer.named_parameters()), 1, torch.Generator(), gradients=False)
        with recorder:
            got = layer(x)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-6)
    assert set(recorder.sums) == {name for name, _ in layer.named_parameters() if name.startswith("weight")}


@pytest.mark.parametrize("kind", [nn.LSTMCell, nn.GRUCell])
def test_cells_give_the_same_output(kind: Any) -> None:
    cell, x = kind(4, 5).eval(), randn(3, 4)
    with torch.no_grad():
        expected = cell(x)
        with Recorder(dict(cell.named_parameters()), 1, torch.Generator(), gradients=False) as recorder:
            torch.testing.assert_close(cell(x), expected, rtol=1e-5, atol=1e-6)
    assert set(recorder.sums) == {"weight_ih", "weight_hh"}


class Last(nn.Module):
    def __init__(self, kind: Any) -> None:
        super().__init__()
        self.rnn = kind(4, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x)[0][:, -1]


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_recurrent_statistics(kind: Any) -> None:
    module, x = Last(kind), randn(3, 7, 4)
    found = collect(open_model(module), [x], kind="vectors")
    with torch.no_grad():
        states = torch.cat([torch.zeros(3, 1, 5), module.rnn(x)[0][:, :-1]], 1).reshape(-1, 5).double().numpy()
    covariance = found["rnn.weight_hh_l0"].covariance
    assert covariance is not None and found["rnn.weight_hh_l0"].count == 21
    np.testing.assert_allclose(covariance[0], states.T @ states / 21, rtol=1e-5, atol=1e-6)
    assert (found["rnn.weight_ih_l0"].fisher > 0).all() and (found["rnn.weight_hh_l0"].fisher > 0).all()


def test_packed_sequences_run_unrecorded() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.out = nn.LSTM(4, 5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([7, 4]))
            return self.out(self.rnn(packed)[1][0][0])

    found = collect(open_model(Packed()), [randn(7, 2, 4)])
    assert set(found) == {"out.weight"}
    assert [note.split(":")[0] for note in found.notes] == ["rnn.weight_ih_l0", "rnn.weight_hh_l0", "out.weight"]
