"""Divergences of outputs, and metrics of the user's own."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tersor.errors import CalibrationError, MismatchError, SettingError
from tersor.evaluate.divergence import Evaluator, user_metric
from tersor.evaluate.measures import check_kind, divergence, draw, kind_of
from tersor.sources import open_model


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


A, B = randn(6, 4), randn(6, 4, seed=1)


def test_divergences_by_hand() -> None:
    p, q = A.double().softmax(1), B.double().softmax(1)
    kl = (p * (p / q).log()).sum(1)
    torch.testing.assert_close(divergence("logits", A, B), kl)
    torch.testing.assert_close(divergence("probabilities", p, q), kl)
    torch.testing.assert_close(divergence("logits", A[:, :, None, None], B[:, :, None, None]), kl)
    cosine = nn.functional.cosine_similarity(A.double(), B.double())
    torch.testing.assert_close(divergence("vectors", A, B), 1 - cosine)
    expected = (A - B).double().square().sum() / A.double().square().sum()
    torch.testing.assert_close(divergence("values", A, B).mean(), expected)
    s, t = A.double().sigmoid(), B.double().sigmoid()
    bernoulli = (s * (s / t).log() + (1 - s) * ((1 - s) / (1 - t)).log()).sum(1)
    torch.testing.assert_close(divergence("bernoulli", s, t), bernoulli)


@pytest.mark.parametrize("kind", ["logits", "probabilities", "bernoulli", "vectors", "values"])
def test_draws_have_the_second_derivative_as_covariance(kind: str) -> None:
    kind = check_kind(kind)
    y = {"probabilities": A[:1].softmax(1), "bernoulli": A[:1].sigmoid()}.get(kind, A[:1])
    many = y.expand(200_000, 4)
    flat, gradients = draw(kind, many, torch.Generator().manual_seed(0))
    assert flat.shape == gradients.shape
    measured = (gradients.double().T @ gradients.double() / len(many)).numpy()
    half = torch.autograd.functional.hessian(lambda other: divergence(kind, y.double(), other).sum(), y.double())
    # Distributions change along their tangent space only.
    along = np.eye(4) - 0.25 if kind == "probabilities" else np.eye(4)
    measured, expected = (along @ m @ along for m in (measured, half.reshape(4, 4).numpy()))
    np.testing.assert_allclose(measured, expected, atol=0.03 * float(np.abs(measured).max()))


def test_outputs_are_recognized() -> None:
    assert kind_of({"logits": A}, A) == "logits" and kind_of({"logits": A[:, :1]}, A[:, :1]) == "values"
    assert kind_of({"last_hidden_state": A}, A) == "vectors" and kind_of(A, A) == "logits"
    assert kind_of(A, A.softmax(1)) == "probabilities" and kind_of(A, A.sigmoid()) == "bernoulli"
    assert kind_of(A, nn.functional.normalize(A.abs())) == "vectors" == kind_of(A, nn.functional.normalize(A))
    assert kind_of(A, A[:, :, None, None]) == "values" == kind_of(A, A[:, 0])
    with pytest.raises(SettingError, match="nonsense"):
        check_kind("nonsense")


def test_weights_are_compared_and_put_back() -> None:
    module = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 5))
    evaluator = Evaluator(open_model(module), [A, B])
    changed = module[2].weight.detach().numpy() * 1.5
    found = evaluator({"2.weight": changed})
    with torch.no_grad():
        x = torch.cat([A, B])
        other = nn.functional.linear(module[:2](x), torch.from_numpy(changed), module[2].bias)
        expected = divergence("logits", module(x), other).mean()
    assert found.mean == pytest.approx(float(expected), rel=1e-4) and (found.kind, found.rows) == ("logits", 12)
    assert "KL divergence in nats over 12 outputs" in str(found)
    assert evaluator({}).mean == 0 and evaluator.of_module(module).mean == 0
    assert evaluator({"2.weight": changed * np.nan}).mean == math.inf
    assert evaluator({}).mean == 0
    with pytest.raises(MismatchError, match="nothing"):
        evaluator({"nothing": changed})
    with pytest.raises(MismatchError, match=r"2\.weight of shape \(3,\)"):
        evaluator({"2.weight": changed[0]})


def test_models_that_cannot_be_evaluated() -> None:
    with pytest.raises(CalibrationError, match="no samples"):
        Evaluator(open_model(nn.Linear(4, 3)), [])
    broken = nn.Linear(4, 3)
    broken.bias.data.fill_(math.nan)
    with pytest.raises(CalibrationError, match=r"NaN or infinite \(sample 0\)"):
        Evaluator(open_model(broken), [A])


def test_metrics_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "metrics_of_test.py").write_text(
        "def good(module):\n    assert not module.training\n    return module.weight.sum()\n"
        "def nan(module):\n    return float('nan')\ndef fails(module):\n    raise ValueError('broken')\n"
        "def text(module):\n    return 'no number'\nnumber = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    module = nn.Linear(4, 3).train()
    assert user_metric("python:metrics_of_test:good", module) == pytest.approx(float(module.weight.detach().sum()))
    assert module.training
    for name, message in (("nan", "is NaN"), ("fails", "ValueError: broken"), ("text", "the metric fails")):
        with pytest.raises(CalibrationError, match=message):
            user_metric(f"python:metrics_of_test:{name}", module)
    with pytest.raises(SettingError, match="no function"):
        user_metric("python:metrics_of_test:number", module)
