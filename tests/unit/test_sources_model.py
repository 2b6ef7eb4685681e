"""Sources that can run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import run_python, save_safetensors
from safetensors.torch import save_file
from torch import nn

from tersor.errors import SettingError, SourceError
from tersor.sources import Model, open_model, open_source
from tersor.sources.running import described, outputs_of

FACTORY = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))

class Namespace:
    make = staticmethod(make)

def wrong():
    return {"a": 1}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "factory_of_test.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))


def test_a_module_is_a_model_and_a_model_stays_itself() -> None:
    module = network()
    model = open_model(module)
    assert model.module is module and model.label == "Sequential"
    assert [unit.name for unit in model.units()] == list(module.state_dict())
    assert open_model(model) is model and open_source(model) is model
    assert model.fingerprint() == open_source(module).fingerprint()


def test_a_factory_with_its_own_weights(folder: Path) -> None:
    for reference in ("python:factory_of_test:make", "python:factory_of_test:Namespace.make"):
        model = open_source(reference)
        assert isinstance(model, Model) and not model.module.training
        assert [unit.name for unit in model.units()] == list(network().state_dict())


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_factory_with_weights_of_a_file(folder: Path, prefix: str, suffix: str) -> None:
    state = {prefix + name: value for name, value in network().state_dict().items()}
    path = folder / f"weights{suffix}"
    if suffix == ".pt":
        torch.save(state, path)
    else:
        save_file(state, path)
    model = open_source("python:factory_of_test:make", weights=path)
    assert isinstance(model, Model)
    units = {unit.name: unit for unit in model.units()}
    assert set(units) == set(network().state_dict())
    for name, value in model.module.state_dict().items():
        assert torch.equal(value, state[prefix + name])
    assert units["0.weight"].load().tobytes() == state[prefix + "0.weight"].numpy().tobytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"1.weight": None}, r"missing: 1\.weight"),
        ({"more": torch.zeros(3)}, "unknown: more"),
        ({"0.weight": torch.zeros(4, 3)}, r"another shape: 0\.weight \(4, 3\), the module has \(3, 4\)"),
    ],
)
def test_weights_that_do_not_fit(folder: Path, change: dict[str, Any], message: str) -> None:
    state = {**network().state_dict(), **change}
    path = folder / "w.safetensors"
    save_file({name: value for name, value in state.items() if value is not None}, path)
    with pytest.raises(SourceError, match=message) as caught:
        open_model("python:factory_of_test:make", path)
    assert caught.value.where == str(path) and caught.value.remedy


def test_a_pickle_that_runs_code_is_refused(folder: Path) -> None:
    class Bad:
        def __reduce__(self) -> Any:
            return print, ("never",)

    torch.save({"0.weight": Bad()}, folder / "bad.pt")
    with pytest.raises(SourceError):
        open_model("python:factory_of_test:make", folder / "bad.pt")


def test_tied_weights_may_be_there_once(folder: Path) -> None:
    from tersor.sources.model import load_units

    module = nn.Sequential(nn.Embedding(4, 3), nn.Linear(3, 4, bias=False))
    module[1].weight = module[0].weight
    load_units(module, open_source({"0.weight": np.ones((4, 3), np.float32)}).units(), "here")
    assert bool((module[1].weight == 1).all())


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("python:factory_of_test", SettingError, "is no reference"),
        ("python:no_such_module:make", SettingError, "no_such_module"),
        ("python:factory_of_test:nothing", SettingError, "cannot find nothing"),
        ("python:factory_of_test:wrong", SourceError, "returns dict"),
        ("missing", SourceError, "no such file"),
        ("weights.safetensors", SourceError, "holds weights only"),
        ("timm:resnet18", SourceError, "timm"),
    ],
)
def test_sources_that_cannot_run(folder: Path, source: str, error: type[Exception], message: str) -> None:
    (folder / "weights.safetensors").touch()
    if source.startswith("timm:"):
        try:
            import timm  # noqa: F401
        except (ImportError, RuntimeError):
            pass
        else:
            pytest.skip("timm is installed")
    with pytest.raises(error, match=message):
        open_model(source)


def test_weights_are_for_factories(folder: Path) -> None:
    with pytest.raises(SourceError, match="only python: and timm:"):
        open_source(folder, weights=folder / "w.safetensors")


def bert(folder: Path) -> nn.Module:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=16,
    )  # fmt: skip
    module = transformers.BertModel(config).eval()
    module.save_pretrained(folder)
    return module


def test_a_transformers_folder(tmp_path: Path) -> None:
    module = bert(tmp_path)
    model = open_model(tmp_path)
    assert {u.name for u in model.units()} == set(module.state_dict()) and model.pooling is None
    sample = {"input_ids": torch.tensor([[1, 2, 3], [4, 5, 0]]), "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]])}
    result = model.run(sample)
    assert torch.equal(outputs_of(result)[0], module(**sample).last_hidden_state)
    assert [tuple(o.shape) for o in model.outputs(result, sample)] == [(5, 8), (2, 8)]
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    model = open_model(tmp_path)
    pooled = model.outputs(result, sample)[0]
    torch.testing.assert_close(pooled[1], outputs_of(result)[0][1, :2].mean(0))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "cannot be read"),
        ("{}", "no architecture"),
        ('{"architectures": ["NoSuchModel"]}', "no architecture 'NoSuchModel'"),
        ('{"architectures": ["BertModel"]}', "no weights"),
    ],
)
def test_transformers_folders_that_are_refused(tmp_path: Path, config: str, message: str) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(SourceError, match=message):
        open_model(tmp_path)


def test_a_folder_with_other_names_is_refused(tmp_path: Path) -> None:
    bert(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    save_safetensors(tmp_path / "model.safetensors", {"other": np.zeros((3, 3), np.float32)})
    with pytest.raises(SourceError, match=r"none of the folder's tensors \(other\)"):
        open_model(tmp_path)


def test_samples_are_described() -> None:
    sample = {"a": torch.ones(2, 3), "b": (torch.ones(1, dtype=torch.int64), 3)}
    assert described(sample) == "{a: float32 (2, 3), b: (int64 (1,), int)}"


def test_opening_files_needs_no_torch(tmp_path: Path) -> None:
    path = save_safetensors(tmp_path / "a.safetensors", {"a": np.ones(3, np.float32)})
    code = "import sys, tersor.sources as s; s.open_source(sys.argv[1]); print('torch' in sys.modules)"
    assert run_python(code, str(path)).stdout.strip() == "False"
