"""Calibrated methods, and the balanced recipe on a small network."""

from __future__ import annotations

import dataclasses
import gc
import math
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import tersor  # noqa: E402
from tersor import balanced  # noqa: E402
from tersor.calibration.collect import collect  # noqa: E402
from tersor.calibration.repair import Repair, mean_outputs  # noqa: E402
from tersor.calibration.statistics import Statistics  # noqa: E402
from tersor.calibration.stored import Stored  # noqa: E402
from tersor.engine import compress  # noqa: E402
from tersor.errors import CalibrationError, OutputError, SettingError, TersorError  # noqa: E402
from tersor.job import Job  # noqa: E402
from tersor.methods import Gptq, SecondOrder, Trellis  # noqa: E402
from tersor.sources import Unit, open_model  # noqa: E402


def network(seed: int = 0) -> Any:
    from torch import nn

    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(48, 96), nn.ReLU(), nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 24)).eval()


@pytest.fixture(scope="module")
def inputs() -> Any:
    torch.manual_seed(1)
    return torch.randn(1600, 48) @ (torch.randn(48, 48) * 0.3)


def divergence(path: Path, inputs: Any, seed: int = 0) -> float:
    module = network(seed)
    with torch.no_grad():
        before = module(inputs).double().log_softmax(1)
        module.load_state_dict({k: torch.from_numpy(v) for k, v in tersor.load(path).items()})
        after = module(inputs).double().log_softmax(1)
    return float((before.exp() * (before - after)).sum(1).mean())


def compressed(path: Path, inputs: Any, ratio: float = 9, seed: int = 0, **options: Any) -> float:
    report = compress(network(seed), path, ratio=ratio, calibration=inputs[:320], workers=1, **options)
    assert 0.995 * report.source_bytes / ratio <= path.stat().st_size <= report.source_bytes / ratio
    return divergence(path, inputs[320:], seed)


def test_balanced_is_better_than_fast_and_gptq(tmp_path: Path, inputs: Any) -> None:
    ways: dict[str, dict[str, Any]] = {"fast": {"recipe": "fast"}, "balanced": {}, "gptq": {"method": Gptq()}}
    found = dict.fromkeys(ways, 1.0)
    for ratio in (6, 9, 12):  # of three files: how errors of one add up is chance
        for name, options in ways.items():
            found[name] *= compressed(tmp_path / f"{name}{ratio}", inputs, ratio, **options)
    assert found["balanced"] < found["fast"] and found["balanced"] < found["gptq"] / 1.3**3


def test_the_same_file_every_time(tmp_path: Path, inputs: Any) -> None:
    for name in "ab":
        compressed(tmp_path / name, inputs)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_killed_run_goes_on_with_what_it_learned(
    tmp_path: Path, inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    compressed(tmp_path / "whole", inputs)
    path, fit = tmp_path / "killed", balanced.Balanced._fit

    def killed(self: Any, journal: Any, budget: int, start: float | None, tolerance: float) -> float:
        if start is not None:
            raise KeyboardInterrupt
        return fit(self, journal, budget, start, tolerance)

    with monkeypatch.context() as patched:
        patched.setattr(balanced.Balanced, "_fit", killed)
        with pytest.raises(KeyboardInterrupt):
            compressed(path, inputs)
    monkeypatch.setattr(balanced.Balanced, "_collect", lambda *_: pytest.fail("learned again"))
    compressed(path, inputs, resume=True)
    assert path.read_bytes() == (tmp_path / "whole").read_bytes()


def test_statistics_are_kept_whole(tmp_path: Path, inputs: Any) -> None:
    model, folder = open_model(network()), tmp_path / "learned"
    found, stored = collect(model, [inputs]), Stored(folder)
    collect(model, [inputs], into=stored)
    balanced.save(folder, stored, 0.25, {"coherence": 1.0}, {"0.weight": 1.5})
    loaded = balanced.load(folder)
    assert loaded is not None and loaded[1:] == (0.25, {"coherence": 1.0}, {"0.weight": 1.5})
    assert SecondOrder().bind(loaded[0]).fingerprint == SecondOrder().bind(found).fingerprint
    (folder / stored.files["0.weight"]).write_bytes(b"PK\3\4 damaged")
    with pytest.raises(OutputError, match="without --resume"):
        loaded[0]["0.weight"]
    (folder / balanced.INDEX).write_text("{")
    assert balanced.load(folder) is None and balanced.load(tmp_path / "none") is None


def test_statistics_are_read_by_many_threads(tmp_path: Path, inputs: Any) -> None:
    """Also where garbage is collected, and other threads run, while numpy parses the header of an array."""

    class Garbage:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            time.sleep(0)

    stored, thresholds = Stored(tmp_path / "learned"), gc.get_threshold()
    collect(open_model(network()), [inputs], into=stored)

    def read(name: str) -> None:
        Garbage()
        assert stored[name].count > 0

    gc.set_threshold(5)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(read, list(stored) * 100))
    finally:
        gc.set_threshold(*thresholds)


def test_layers_that_samples_say_nothing_of_are_quantized_all_the_same(tmp_path: Path, inputs: Any) -> None:
    class Half(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = network(), torch.nn.Linear(64, 64)

        def forward(self, x: Any) -> Any:
            return self.used(x)

    report = compress(Half(), tmp_path / "half", ratio=9, calibration=inputs, workers=1)
    sizes = {t.name: t.nbytes for t in report.tensors}
    assert 0.3 < sizes["unused.weight"] / sizes["used.2.weight"] * 96**2 / 64**2 < 3


def test_a_table_whose_rows_no_output_depends_on_is_a_matrix_like_others() -> None:
    eye = np.eye(8, dtype=np.float32)[None]
    plain = Statistics(eye, np.ones(64))
    looked_up = dataclasses.replace(plain, usage=np.zeros(64))
    sensitivities = [SecondOrder().bind({"w": s}).typical for s in (plain, looked_up)]
    assert sensitivities[0] == sensitivities[1] and math.isfinite(sensitivities[0])


def test_a_row_that_no_output_depends_on_does_not_keep_the_others_apart() -> None:
    weights = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32)
    unit = Unit("w", "F32", weights.shape, lambda: weights.reshape(-1).view(np.uint8))
    fisher = np.ones(64)
    fisher[5] = 0
    coupling = 0.9 * np.sqrt(np.outer(fisher, fisher)) + 0.1 * np.diag(fisher)
    known = Statistics(np.eye(8, dtype=np.float32)[None], fisher, coupling=coupling[None].astype(np.float32))
    levels = [
        SecondOrder(damping=0.0, coupling=share).bind({"w": known}).solution(unit, unit.load(), 1e-2).levels
        for share in (0.0, 1.0)
    ]
    assert (levels[0] != levels[1]).any()


def test_rebuilt_weights_are_those_of_the_file(inputs: Any) -> None:
    model = open_model(network())
    bound = SecondOrder().bind(collect(model, [inputs]))
    unit = model.units()[2]
    encoded = bound.encode(unit, unit.load(), 1e-6)
    original = unit.load().view(np.float32).reshape(unit.shape)
    rebuilt = bound.rebuilt(unit, unit.load(), 1e-6)
    assert encoded.distortion.error == pytest.approx(np.square(rebuilt.astype(np.float64) - original).sum(), rel=1e-9)


def test_a_trellis_is_better_at_the_same_size(tmp_path: Path, inputs: Any) -> None:
    found = {"second_order": 1.0, "trellis": 1.0}
    for seed, ratio in product(range(5), (6, 10)):  # of one network it is chance
        for method in (SecondOrder(coupling=0.0), Trellis()):
            path = tmp_path / f"{method.name}{seed}{ratio}"
            found[method.name] *= compressed(path, inputs, ratio, seed, method=method)
    assert found["trellis"] < found["second_order"]


def test_predicted_sizes_fall_as_the_price_rises_from_end_to_end(inputs: Any) -> None:
    model = open_model(network())
    unit = model.units()[2]
    for method in (SecondOrder(), Gptq()):
        bound = method.bind(collect(model, [inputs]))
        sample = bound.sample(unit, unit.load(), 2**14)
        assert sample is not None
        sizes = [sample.nbytes(price) for price in np.geomspace(1e-30, 1e12, 60)]
        assert all(a >= b for a, b in pairwise(sizes)) and sizes[0] > 30 * sizes[-1]
        real = bound.encode(unit, unit.load(), 1e-7).nbytes
        assert sample.nbytes(1e-7) == pytest.approx(real, rel=0.25)


def test_what_is_missing_is_said(tmp_path: Path, inputs: Any) -> None:
    with pytest.raises(CalibrationError, match="needs samples"):
        compress(network(), tmp_path / "x", ratio=9, recipe="balanced")
    with pytest.raises(SettingError, match="no recipe"):
        compress(network(), tmp_path / "x", ratio=9, recipe="slow")  # type: ignore[arg-type]
    with pytest.raises(TersorError, match="cannot run"):
        arrays = tmp_path / "w.safetensors"
        from safetensors.numpy import save_file

        save_file({"w": np.zeros((64, 64), np.float32)}, arrays)
        compress(str(arrays), tmp_path / "x", ratio=9, calibration=inputs)


def recorded(path: Path) -> dict[str, Any]:
    with tersor.open(path) as file:
        return dict(file.meta["recipe"])


def test_held_out_samples_choose_settings_one_after_another(
    tmp_path: Path, inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[dict[str, float]] = []

    def trial(
        self: Any, journal: Any, budget: int, statistics: Any, settings: dict[str, float], coarser: Any = None
    ) -> float:
        tried.append(dict(settings))
        return 1 - 0.2 * (settings.get("damping") == 0.03) + 0.1 * (settings.get("coherence") == 1.0)

    monkeypatch.setattr(balanced.Balanced, "_trial", trial)
    compressed(tmp_path / "a", inputs, method=SecondOrder(tune=False))
    assert tried == [] and recorded(tmp_path / "a")["damping"] == SecondOrder().damping
    monkeypatch.setattr(SecondOrder, "alternatives", {"damping": (0.01, 0.03), "coherence": (1.0,)})
    compressed(tmp_path / "b", inputs)
    assert tried[:4] == [{}, {"damping": 0.01}, {"damping": 0.03}, {"damping": 0.03, "coherence": 1.0}]
    assert recorded(tmp_path / "b")["damping"] == 0.03


def test_a_trial_counts_what_the_size_is_off(tmp_path: Path, inputs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    scores: list[float] = []
    trial, measured = balanced.Balanced._trial, Job.trial

    def larger(self: Any, journal: Any, budget: int, stage: str) -> int:
        sizes.append(budget - measured(self, journal, budget, stage))
        return budget + 100 if len(sizes) == 1 else budget

    def scored(self: Any, *arguments: Any) -> float:
        scores.append(trial(self, *arguments))
        return scores[-1]

    monkeypatch.setattr(Job, "trial", larger)
    monkeypatch.setattr(balanced.Balanced, "_trial", scored)
    monkeypatch.setattr(SecondOrder, "alternatives", {"damping": (SecondOrder().damping,)})
    compressed(tmp_path / "a", inputs)
    weights = 48 * 96 + 96 * 96 + 96 * 24
    assert scores[0] / scores[1] == pytest.approx(4 ** (800 / weights))
    assert abs(sizes[0]) < 0.1 * weights * 4 / 9  # predictions are about right


def test_repaired_biases_stand_in_the_file(tmp_path: Path, inputs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = np.arange(24, dtype=np.float32)
    repaired = Repair({"4.bias": wanted, "4.weight": np.zeros((24, 96), np.float32)}, "offsets", {})
    monkeypatch.setattr(balanced, "repair", lambda *_: repaired)
    compress(network(), tmp_path / "a", ratio=9, calibration=inputs[:320], workers=1)
    decoded = tersor.load(tmp_path / "a")
    assert np.array_equal(decoded["4.bias"], wanted) and decoded["4.weight"].any()


def test_a_repair_that_is_too_large_is_left_out(tmp_path: Path, inputs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = Job.replace
    results: list[bool] = []

    def without_room(self: Any, journal: Any, budget: int, price: float, tensors: Any) -> bool:
        results.append(replace(self, journal, 100, price, tensors))
        return results[-1]

    monkeypatch.setattr(balanced, "repair", lambda *_: Repair({"4.bias": np.ones(24, np.float32)}, "offsets", {}))
    monkeypatch.setattr(Job, "replace", without_room)
    compress(network(), tmp_path / "a", ratio=9, calibration=inputs[:320], workers=1)
    expected = network().state_dict()["4.bias"].numpy()
    assert results == [False] and np.allclose(tersor.load(tmp_path / "a")["4.bias"], expected, atol=1e-3)


def test_inputs_that_are_very_many_are_taken_apart(
    tmp_path: Path, inputs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tersor.calibration import layers

    whole = compressed(tmp_path / "whole", inputs)
    monkeypatch.setattr(layers, "MOST_NUMBERS", 96 * 40)
    found = collect(open_model(network()), list(inputs[:320].split(32)))["2.weight"]
    assert found.covariance is not None and found.covariance.shape == (3, 32, 32) and found.fisher.shape == (96,)
    with torch.no_grad():
        hidden = torch.relu(network()[0](inputs[:320])).double().numpy()
    for k, own in enumerate(found.covariance):
        part = hidden[:, 32 * k : 32 * (k + 1)]
        np.testing.assert_allclose(own, part.T @ part / len(part), rtol=1e-4, atol=1e-7)
    weights = network().state_dict()["2.weight"].numpy()
    before, after = mean_outputs(weights, np.zeros_like(weights), found)
    np.testing.assert_allclose(before, hidden.mean(0) @ weights.T.astype(np.float64), rtol=1e-4, atol=1e-6)
    assert not after.any()
    assert compressed(tmp_path / "apart", inputs) < 1.5 * whole
    for method in (Trellis(), Gptq()):
        compressed(tmp_path / method.name, inputs, method=method)
