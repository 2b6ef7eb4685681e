"""The worth of finished files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import tersor
from tersor.errors import CalibrationError
from tersor.evaluate.quality import Assessment, is_metric
from tersor.sources import open_model

X = torch.randn(40, 24, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def module() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(24, 40), nn.ReLU(), nn.Linear(40, 12))


def test_divergence_of_decoded_weights(tmp_path: Path, module: nn.Module) -> None:
    path = tmp_path / "a.tsr"
    tersor.compress(module, path, ratio=6)
    found = Assessment(open_model(module), X)(path)
    other = nn.Sequential(nn.Linear(24, 40), nn.ReLU(), nn.Linear(40, 12))
    tersor.load_into(other, path)
    with torch.no_grad():
        p, q = (m(X).double().log_softmax(1) for m in (module, other))
    assert found.divergence is not None and found.divergence.rows == 40
    assert found.divergence.mean == pytest.approx(float((p.exp() * (p - q)).sum(1).mean()), rel=1e-5)
    assert found.divergence.mean > 0 and "KL divergence" in str(found) and set(found.to_dict()) == {"divergence"}
    tersor.compress(module, path, lossless=True, overwrite=True)
    assert Assessment(open_model(module), X)(path).to_dict()["divergence"]["mean"] == 0


def test_metrics(tmp_path: Path, module: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "quality_of_test.py").write_text(
        "import torch\ndef energy(module):\n    return float(module[0].weight.square().sum())\n"
        "def nan(module):\n    return float('nan')\ndef batches(count=3):\n    return [torch.ones(2, 24)] * count\n"
    )
    monkeypatch.chdir(tmp_path)
    tersor.compress(module, "a.tsr", ratio=6)
    model = open_model(module)
    found = Assessment(model, "python:quality_of_test:energy")("a.tsr")
    assert found.before == pytest.approx(float(module[0].weight.detach().square().sum()))
    assert found.after == pytest.approx(found.before, rel=0.1) and found.after != found.before
    assert "of the original" in str(found) and set(found.to_dict()) == {"before", "after"}
    with pytest.raises(CalibrationError, match="NaN"):
        Assessment(model, "python:quality_of_test:nan")("a.tsr")
    assert Assessment(model, "python:quality_of_test:batches")("a.tsr").divergence is not None
    assert not is_metric(X) and not is_metric("a.tsr")


def test_files_with_fewer_tensors_than_the_module(tmp_path: Path) -> None:
    from tersor.sources import Model, open_source

    module = nn.Sequential(nn.Embedding(30, 12), nn.Linear(12, 30, bias=False))
    module[1].weight = module[0].weight
    weights = open_source({"0.weight": module[0].weight.detach().numpy(), "more": X.numpy()})
    model = Model(module, weights)
    tersor.compress(model, tmp_path / "a.tsr", lossless=True)
    found = Assessment(model, torch.arange(30).reshape(5, 6))(tmp_path / "a.tsr")
    assert found.divergence is not None and found.divergence.mean == 0
