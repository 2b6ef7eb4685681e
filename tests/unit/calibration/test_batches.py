"""Batches are divided where one would take more memory than the model."""

import gc

import pytest
import torch
from torch import nn

from tersor.calibration import batches
from tersor.calibration.batches import within_memory
from tersor.calibration.samples import Samples
from tersor.calibration.statistics import Sums
from tersor.sources.model import open_model

WIDTH = 64


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))


def samples(*batch: int) -> Samples:
    return Samples([torch.randn(n, WIDTH) for n in batch], [torch.randn(4, WIDTH)])


def test_small_batches_stay_as_they_are() -> None:
    given = samples(8, 8)
    found = within_memory(open_model(model()), given)
    assert [b.data_ptr() for b in found.calibration] == [b.data_ptr() for b in given.calibration]


def test_large_batches_are_divided_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "ROOM", 0)  # the weights alone: 33 KB, and an input takes 4 bytes * 64 * (3 + 6)
    given = samples(32, 32, 5)
    found = within_memory(open_model(model()), given)
    assert max(map(len, found.calibration)) < 32
    assert torch.equal(torch.cat(found.calibration), torch.cat(given.calibration))
    assert torch.equal(torch.cat(found.held_out), torch.cat(given.held_out))


def test_what_is_kept_grows_with_what_the_model_keeps() -> None:
    wide = nn.Sequential(*(nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU()) for _ in range(8)))
    one = torch.randn(1, WIDTH)
    kept = [batches._kept(open_model(m), m, one) for m in (model(), wide)]
    assert 4 * WIDTH * batches.OUTPUTS < kept[0] < kept[1] < 4 * WIDTH * 40


def test_samples_without_a_common_length_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "ROOM", 0)

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model()

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.inner(x).mean(0) + y

    given = torch.randn(63, WIDTH)
    assert within_memory(open_model(Two()), Samples([(given, given[0])], [])).calibration[0][0] is given


def test_sums_are_freed_at_once() -> None:
    gc.collect()
    gc.disable()
    try:
        within_memory(open_model(model()), samples(8))
        assert not any(type(found) is Sums for found in gc.get_objects())
    finally:
        gc.enable()
