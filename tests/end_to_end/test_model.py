"""The main job: a model in, a file of the asked size out, the same weights back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import (
    Arrays,
    hidden,
    identical,
    model_bytes,
    noise_to_signal,
    read_safetensors,
    run_python,
    save_safetensors,
)

import tersor
from tersor.errors import BudgetError, FormatError, SourceError
from tersor.report import Report

RATIOS = [4, 8, 12]
Compressed = dict[int, tuple[Path, Report]]


@pytest.mark.parametrize("ratio", RATIOS)
def test_asked_size_is_met_on_the_real_file(model: Arrays, compressed: Compressed, ratio: int) -> None:
    path, report = compressed[ratio]
    budget = model_bytes(model) // ratio
    assert os.path.getsize(path) == report.file_bytes
    assert budget * 0.995 <= report.file_bytes <= budget
    assert report.source_bytes == model_bytes(model) and not report.predicted
    assert report.file_bytes == report.overhead_bytes + sum(t.nbytes for t in report.tensors)


def test_more_bytes_more_quality(model: Arrays, compressed: Compressed) -> None:
    noise = []
    for path, report in compressed.values():
        back = tersor.load(path)
        lossy = [t.name for t in report.tensors if t.op == "uniform"]
        error = sum(float(np.square(model[n].astype(float) - back[n]).sum()) for n in lossy)
        energy = sum(float(np.square(model[n].astype(float)).sum()) for n in lossy)
        noise.append(error / energy)
        # The quality reported is that of the decoded weights, of those that were quantized.
        assert report.snr_db == pytest.approx(10 * np.log10(energy / error), abs=0.002)
    assert noise == sorted(noise) and noise[0] < 1e-3 and noise[-1] < 0.1


def test_nothing_else_is_left_in_the_folder(model: Arrays, tmp_path: Path) -> None:
    tersor.compress(model, tmp_path / "m.tsr", ratio=8)
    assert os.listdir(tmp_path) == ["m.tsr"]


def test_weights_come_back(model: Arrays, compressed: Compressed) -> None:
    back = tersor.load(compressed[8][0])
    assert list(back) == list(model)
    for name, array in model.items():
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape), name
        if array.dtype != np.float32:
            assert identical(back[name], array), name
        elif array.ndim == 1:
            assert np.all(np.abs(back[name] - array) <= 2.0**-8 * np.abs(array)), name
        else:
            assert noise_to_signal(array, back[name]) < 0.2, name
    assert np.shares_memory(back["head.weight"], back["embed.weight"])


@pytest.mark.parametrize("settings", [{"ratio": 8}, {"lossless": True}], ids=str)
def test_same_bytes_whatever_the_number_of_workers(model: Arrays, tmp_path: Path, settings: dict[str, Any]) -> None:
    files = []
    for run, workers in enumerate((1, 1, 4)):
        tersor.compress(model, tmp_path / f"{run}.tsr", workers=workers, **settings)
        files.append((tmp_path / f"{run}.tsr").read_bytes())
    assert files[0] == files[1] == files[2]


def test_same_bytes_whatever_the_threads_of_blas(model_file: Path, tmp_path: Path) -> None:
    code = "import sys, tersor; tersor.compress(sys.argv[1], sys.argv[2], ratio=8, workers=2)"
    files = []
    for threads in ("1", "2", "3"):
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
        result = run_python(code, str(model_file), str(tmp_path / threads), env=environment)
        assert result.returncode == 0, result.stderr
        files.append((tmp_path / threads).read_bytes())
    assert files[0] == files[1] == files[2]


def test_size_and_bits(model: Arrays, tmp_path: Path) -> None:
    report = tersor.compress(model, tmp_path / "size.tsr", size=100_000)
    assert 100_000 * 0.995 <= os.path.getsize(tmp_path / "size.tsr") <= 100_000
    floats = sum(a.size for n, a in model.items() if a.dtype == np.float32 and n != "head.weight")
    assert report.weights == floats
    report = tersor.compress(model, tmp_path / "bits.tsr", bits=4)
    assert 0.995 * 4 <= report.bits_per_weight <= 4.0


def test_lossless(model: Arrays, tmp_path: Path) -> None:
    report = tersor.compress(model, tmp_path / "m.tsr", lossless=True)
    back = tersor.load(tmp_path / "m.tsr")
    assert all(identical(back[name], array) for name, array in model.items())
    assert report.ratio > 1.1 and report.snr_db is None
    assert tersor.compare(model, tmp_path / "m.tsr").identical


def test_a_generous_budget_loses_nothing(model: Arrays, tmp_path: Path) -> None:
    tersor.compress(model, tmp_path / "m.tsr", ratio=1)
    assert tersor.compare(model, tmp_path / "m.tsr").identical


def test_prediction_is_near_the_truth(model: Arrays, compressed: Compressed, tmp_path: Path) -> None:
    lossless = tersor.compress(model, tmp_path / "lossless.tsr", lossless=True)
    for settings, real in (
        ({"ratio": 4}, compressed[4][1]),
        ({"ratio": 12}, compressed[12][1]),
        ({"lossless": True}, lossless),
    ):
        forecast = tersor.compress(model, tmp_path / "m.tsr", dry_run=True, **settings)
        assert forecast.predicted and os.listdir(tmp_path) == ["lossless.tsr"]
        assert forecast.file_bytes == pytest.approx(real.file_bytes, rel=0.03)
        assert [t.name for t in forecast.tensors] == [t.name for t in real.tensors]


# -- sources ----------------------------------------------------------------------------------------------------------


def test_safetensors_file_gives_the_same_weights(model: Arrays, model_file: Path, tmp_path: Path) -> None:
    tersor.compress(model_file, tmp_path / "m.tsr", lossless=True)
    assert tersor.decompress(tmp_path / "m.tsr", tmp_path / "back.safetensors") == os.path.getsize(
        tmp_path / "back.safetensors"
    )
    assert read_safetensors(tmp_path / "back.safetensors") == read_safetensors(model_file)


def test_sharded_folder(model: Arrays, tmp_path: Path) -> None:
    import json

    folder = tmp_path / "hub"
    folder.mkdir()
    names = [n for n in model if n != "head.weight"]
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for shard, part in shards.items():
        save_safetensors(folder / shard, {n: model[n] for n in part})
    index = {"metadata": {}, "weight_map": {n: shard for shard, part in shards.items() for n in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text("{}")
    report = tersor.compress(folder, tmp_path / "m.tsr", ratio=8)
    assert model_bytes(model) / 8 * 0.995 <= report.file_bytes <= model_bytes(model) / 8
    back = tersor.load(tmp_path / "m.tsr")
    assert set(back) == set(names)
    assert all(noise_to_signal(model[n], back[n]) < 0.2 for n in names if model[n].ndim > 1 and model[n].dtype != bool)
    assert sorted(os.listdir(folder)) == sorted([*shards, "config.json", "model.safetensors.index.json"])


def test_torch_checkpoint_and_module(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Embedding(300, 64), torch.nn.Linear(64, 256), torch.nn.LayerNorm(256), torch.nn.Linear(256, 64)
    )
    network.append(torch.nn.Linear(64, 300, bias=False))
    network[4].weight = network[0].weight
    before = {n: t.clone() for n, t in network.state_dict().items()}
    torch.save(network.state_dict(), tmp_path / "m.pt")
    tersor.compress(tmp_path / "m.pt", tmp_path / "file.tsr", ratio=6)
    tersor.compress(network, tmp_path / "module.tsr", ratio=6)
    assert all(torch.equal(before[n], t) for n, t in network.state_dict().items())  # the caller's model is untouched
    assert tersor.compare(tmp_path / "file.tsr", tmp_path / "module.tsr").identical
    with tersor.open(tmp_path / "module.tsr") as file:
        assert file.entry("4.weight").tie == 0
    tersor.load_into(network, tmp_path / "module.tsr")
    back = tersor.load(tmp_path / "module.tsr")
    assert all(np.array_equal(t.numpy(), back[n]) for n, t in network.state_dict().items())
    assert network[4].weight is network[0].weight
    assert noise_to_signal(before["1.weight"].numpy(), back["1.weight"]) < 0.05


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_float_types(tmp_path: Path, dtype: str) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    state = {
        "w": (0.05 * torch.randn(256, 512)).to(getattr(torch, dtype)),
        "b": torch.randn(512).to(getattr(torch, dtype)),
    }
    torch.save(state, tmp_path / "m.pt")
    total = sum(t.numel() * t.element_size() for t in state.values())
    report = tersor.compress(tmp_path / "m.pt", tmp_path / "m.tsr", ratio=5)
    assert total / 5 * 0.995 <= report.file_bytes <= total / 5
    back = tersor.load(tmp_path / "m.tsr")
    assert noise_to_signal(state["w"].double().numpy(), back["w"]) < 0.05
    tersor.decompress(tmp_path / "m.tsr", tmp_path / "m.safetensors")
    assert {record[0] for record in read_safetensors(tmp_path / "m.safetensors").values()} == {
        {"float16": "F16", "bfloat16": "BF16", "float64": "F64"}[dtype]
    }


# -- what a model may hold --------------------------------------------------------------------------------------------


def with_nonfinite(model: Arrays) -> Arrays:
    broken = model["conv.weight"].copy()
    broken[0, 0, 0] = (np.nan, np.inf, -np.inf)
    broken.view(np.uint32)[1, 0, 0, 0] = 0xFFC12345  # a payload
    bias = model["layers.0.mlp.up.bias"].copy()
    bias[3] = np.inf
    return {**model, "conv.weight": broken, "layers.0.mlp.up.bias": bias}


def test_nonfinite_tensors_are_kept_bit_for_bit_and_named(model: Arrays, tmp_path: Path) -> None:
    broken = with_nonfinite(model)
    report = tersor.compress(broken, tmp_path / "m.tsr", ratio=5)
    back = tersor.load(tmp_path / "m.tsr")
    for name in ("conv.weight", "layers.0.mlp.up.bias"):
        assert identical(back[name], broken[name])
        assert name in report.kept_whole
    assert not identical(back["embed.weight"], broken["embed.weight"])
    assert len(report.kept_whole) == 2


@pytest.mark.parametrize(
    "settings", [{"ratio": 5}, {"ratio": 1.5}, {"lossless": True}, {"ratio": 5, "dry_run": True}], ids=str
)
@pytest.mark.parametrize("name", ["conv.weight", "layers.0.mlp.up.bias"])
def test_nonfinite_tensors_are_refused_if_asked(
    model: Arrays, tmp_path: Path, name: str, settings: dict[str, Any]
) -> None:
    broken = {**model, name: with_nonfinite(model)[name]}
    with pytest.raises(SourceError, match="NaN or infinite") as caught:
        tersor.compress(broken, tmp_path / "m.tsr", nonfinite="fail", **settings)
    assert repr(name) in str(caught.value)
    assert not (tmp_path / "m.tsr").exists()


ODD: Arrays = {
    "scalar": np.array(1.5, np.float32),
    "empty": np.zeros(0, np.float32),
    "empty matrix": np.zeros((0, 5), np.float32),
    "no columns": np.zeros((300, 0), np.float16),
    "one": np.ones(1, np.float64),
    "one value, large": np.full((100, 300), 0.1, np.float32),
    "zeros": np.zeros((300, 300), np.float32),
    "minus zeros": np.full((20, 30), -0.0, np.float32),
    "tiny": np.full((40, 40), 1e-42, np.float32) * np.arange(1600, dtype=np.float32).reshape(40, 40),
    "huge": np.full((40, 40), 1e38, np.float32) * np.linspace(-3, 3, 1600, dtype=np.float32).reshape(40, 40),
    "one outlier": np.where(np.arange(90_000).reshape(300, 300) == 777, np.float32(1e20), np.float32(0)),
    "bool": np.random.default_rng(0).random((50, 60)) < 0.1,
    "int": np.arange(10_000).reshape(100, 100),
    "uint8": np.random.default_rng(0).integers(0, 256, (99, 99), dtype=np.uint8),
    "complex": np.random.default_rng(0).standard_normal((30, 40)).astype(np.complex64),
    "transposed": np.random.default_rng(0).standard_normal((100, 64)).astype(np.float32).T,
    "strided": np.random.default_rng(0).standard_normal((100, 64)).astype(np.float32)[::2, ::-3],
    "rank 8": np.random.default_rng(0).standard_normal((2, 1, 3, 2, 5, 1, 7, 4)).astype(np.float32),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_tensor_beside_an_ordinary_one(tmp_path: Path, name: str) -> None:
    array = ODD[name]
    arrays = {"w": np.random.default_rng(1).standard_normal((200, 300)).astype(np.float32), "odd": array}
    report = tersor.compress(arrays, tmp_path / "m.tsr", size=60_000)
    assert report.file_bytes <= 60_000
    back = tersor.load(tmp_path / "m.tsr")["odd"]
    assert (back.dtype, back.shape) == (array.dtype, array.shape)
    if array.dtype.kind in "biuc":
        assert identical(back, np.ascontiguousarray(array))
    elif array.size and np.any(array):
        assert np.all(np.isfinite(back))
        assert name == "tiny" or noise_to_signal(array, back) < 0.3
    else:
        assert not np.any(back)


@pytest.mark.parametrize("name", ODD)
def test_odd_tensor_alone_is_kept(tmp_path: Path, name: str) -> None:
    tersor.compress({name: ODD[name]}, tmp_path / "m.tsr", lossless=True)
    assert identical(tersor.load(tmp_path / "m.tsr")[name], np.ascontiguousarray(ODD[name]).reshape(ODD[name].shape))


def test_float64_beyond_float32(tmp_path: Path) -> None:
    wide = np.random.default_rng(0).standard_normal((100, 100)) * 1e100
    arrays = {"w": np.random.default_rng(1).standard_normal((200, 300)).astype(np.float32), "wide": wide}
    tersor.compress(arrays, tmp_path / "m.tsr", size=140_000)
    assert noise_to_signal(wide / 1e100, tersor.load(tmp_path / "m.tsr")["wide"] / 1e100) < 0.1


def test_odd_names(tmp_path: Path) -> None:
    names = ["ünï.コード", "with space", "quo\"te'", "new\nline", "tab\t", "back\\slash", "[bold]x[/]", "🙂",
             "/etc/passwd", "a" * 3000, "../up", "__metadata__x", "per%cent", "\x1b[31m", "\u202e"]  # fmt: skip
    arrays = {n: np.full((3, k + 1), k, np.float32) for k, n in enumerate(names)}
    tersor.compress(arrays, tmp_path / "m.tsr", lossless=True)
    assert list(tersor.load(tmp_path / "m.tsr")) == names
    tersor.decompress(tmp_path / "m.tsr", tmp_path / "m.safetensors")
    from safetensors.numpy import load_file

    back = load_file(tmp_path / "m.safetensors")
    assert all(identical(back[n], arrays[n]) for n in names)
    assert sorted(os.listdir(tmp_path)) == ["m.safetensors", "m.tsr"]


def test_nothing_but_small_tensors(tmp_path: Path) -> None:
    arrays = {"b": np.random.default_rng(0).standard_normal(1000).astype(np.float32), "n": np.arange(9)}
    tersor.compress(arrays, tmp_path / "m.tsr", ratio=1.5)
    back = tersor.load(tmp_path / "m.tsr")
    assert identical(back["n"], arrays["n"]) and np.allclose(back["b"], arrays["b"], rtol=2**-8, atol=0)


# -- what cannot be done ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dry_run", [False, True])
def test_unreachable_ratio_says_what_can_be_reached(model: Arrays, tmp_path: Path, dry_run: bool) -> None:
    import re

    with pytest.raises(BudgetError, match="cannot be reached") as caught:
        tersor.compress(model, tmp_path / "m.tsr", ratio=5000, dry_run=dry_run)
    found = re.search(r"([\d,]+) bytes \(([\d.]+)x\)", caught.value.remedy)
    assert found is not None and os.listdir(tmp_path) == []
    smallest, ratio = int(found[1].replace(",", "")), float(found[2])
    assert ratio == pytest.approx(model_bytes(model) / smallest, rel=0.05) and ratio < 5000
    if not dry_run:  # and it can
        assert tersor.compress(model, tmp_path / "m.tsr", size=int(smallest * 1.02)).file_bytes <= smallest * 1.02


def test_lossless_tensors_alone_cannot_be_made_small(tmp_path: Path) -> None:
    arrays = {"n": np.random.default_rng(0).integers(0, 2**62, 10_000)}
    with pytest.raises(BudgetError, match="cannot be reached"):
        tersor.compress(arrays, tmp_path / "m.tsr", ratio=8)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "settings",
    [{}, {"ratio": 4, "size": 100}, {"ratio": 4, "lossless": True}, {"ratio": 0}, {"ratio": -3}, {"bits": float("nan")},
     {"ratio": float("inf")}, {"size": 0}],
    ids=str,
)  # fmt: skip
def test_sizes_that_make_no_sense(model: Arrays, tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(BudgetError):
        tersor.compress(model, tmp_path / "m.tsr", **settings)
    assert os.listdir(tmp_path) == []


def test_flipped_bits_are_found_wherever_they_are(compressed: Compressed) -> None:
    data = compressed[12][0].read_bytes()
    positions = [*range(0, 57), *np.random.default_rng(0).integers(57, len(data), 60).tolist(), len(data) - 1]
    for position in positions:
        damaged = bytearray(data)
        damaged[position] ^= 1 << (position % 8)
        with pytest.raises(FormatError):
            tersor.verify(bytes(damaged))


def test_stopped_work_leaves_only_the_journal(model: Arrays, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def progress(label: str, done: int, total: int) -> None:
        if label == "compressing":
            raise Stop

    with pytest.raises(Stop):
        tersor.compress(model, tmp_path / "m.tsr", ratio=8, progress=progress)
    assert list(hidden(tmp_path)) == os.listdir(tmp_path) == [".m.tsr.journal"]
