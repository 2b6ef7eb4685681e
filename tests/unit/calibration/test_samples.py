"""Samples of every kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tersor.calibration.collect import collect
from tersor.calibration.samples import Samples, load_samples, mixed
from tersor.errors import CalibrationError, SettingError
from tersor.sources import Model, open_model
from tersor.sources.module import ModuleSource

X = torch.arange(160, dtype=torch.float32).reshape(40, 4)


def linear() -> Model:
    return open_model(nn.Sequential(nn.Linear(4, 2)))


def rows(samples: Samples) -> tuple[list[float], list[float]]:
    """First numbers of all inputs, to tell which ones are there."""
    return tuple([float(r) for s in part for r in s[:, 0]] for part in (samples.calibration, samples.held_out))


@pytest.mark.parametrize("data", [X, X.numpy()], ids=["tensor", "array"])
def test_a_tensor_is_cut_into_batches(data: Any) -> None:
    samples = load_samples(data, linear(), count=24, seed=1)
    calibration, held_out = rows(samples)
    assert len(calibration) == 21 and len(held_out) == 3 and len({*calibration, *held_out}) == 24
    assert [len(s) for s in samples.calibration] == [21] and samples.notes == ()
    again, other = (load_samples(data, linear(), count=24, seed=s) for s in (1, 2))
    assert rows(again) == (calibration, held_out) and rows(other) != (calibration, held_out)
    assert again.fingerprint() == samples.fingerprint() != other.fingerprint()


def test_batches_have_bounded_room() -> None:
    large = torch.ones(9, 3, 300, 300)
    samples = load_samples(large, linear(), count=9)
    assert [len(s) for s in (*samples.calibration, *samples.held_out)] == [3, 3, 2, 1]


def test_loaders_and_iterables_keep_their_batches() -> None:
    loader = DataLoader(TensorDataset(X, torch.zeros(40)), batch_size=4)
    samples = load_samples(loader, linear(), count=16)
    assert [tuple(s.shape) for s in (*samples.calibration, *samples.held_out)] == [(4, 4)] * 4
    assert len(samples.held_out) == 1  # and the labels are gone

    def endless() -> Any:
        while True:
            yield {"input": np.ones((2, 4), np.float32)}

    samples = load_samples(endless(), linear(), count=32)
    assert len(samples.calibration) == 14 and len(samples.held_out) == 2
    assert isinstance(samples.calibration[0]["input"], Tensor)


def test_a_tuple_keeps_what_the_module_takes() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bilinear = nn.Bilinear(4, 4, 1)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.bilinear(a, b)

    samples = load_samples([(X, X, X), (X, X, X)], open_model(Two()))
    assert [len(s) for s in samples.calibration] == [2]


def test_one_batch_is_split_and_one_input_is_enough() -> None:
    samples = load_samples([X], linear())
    assert len(samples.calibration[0]) == 35 and len(samples.held_out[0]) == 5
    single = load_samples(X[:1], linear())
    assert single.held_out == [] and "nothing is held out" in single.notes[0]
    assert collect(linear(), single.calibration)["0.weight"].count == 1


def test_functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import torch\n\ndef batches():\n    return [torch.ones(2, 4)] * 3\n\nnothing = []\n"
    (tmp_path / "samples_of_test.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    assert len(load_samples("python:samples_of_test:batches", linear()).calibration) == 2
    with pytest.raises(CalibrationError, match=r"no samples \(python:samples_of_test:nothing\)"):
        load_samples("python:samples_of_test:nothing", linear())
    with pytest.raises(SettingError, match="cannot find other"):
        load_samples("python:samples_of_test:other", linear())


def picture_model(size: int = 4) -> Model:
    def transform(image: Any) -> Tensor:
        return torch.from_numpy(np.asarray(image.resize((size, size)), np.float32) / 255).permute(2, 0, 1)

    module = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten())
    return Model(module, ModuleSource(module), transform=transform)


def test_a_folder_of_images(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for k in range(9):
        (tmp_path / "below").mkdir(exist_ok=True)
        image.new("L" if k else "RGBA", (8, 6), 20 * k).save(tmp_path / "below" / f"{k}.png")
    (tmp_path / "notes.txt").write_text("no image")
    samples = load_samples(tmp_path, picture_model())
    assert [tuple(s.shape) for s in samples.calibration] == [(8, 3, 4, 4)] and len(samples.held_out[0]) == 1
    with pytest.raises(CalibrationError, match="does not say how images"):
        load_samples(tmp_path, linear())
    (tmp_path / "broken.png").write_bytes(b"no image")
    with pytest.raises(CalibrationError, match=r"cannot be read.*broken\.png"):
        load_samples(tmp_path, picture_model())


def test_a_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="no images"):
        load_samples(tmp_path, picture_model())


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "one", "two", "three", "four"]


def bert(folder: Path) -> Model:
    transformers = pytest.importorskip("transformers")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(WORDS), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    transformers.BertModel(config).save_pretrained(folder)
    return open_model(folder)


def test_a_text_file(tmp_path: Path) -> None:
    model = bert(tmp_path)
    path = tmp_path / "lines.txt"
    path.write_text("\n\n".join(f"one two {'three ' * k}" for k in range(40)))
    samples = load_samples(str(path), model)
    assert [len(s["input_ids"]) for s in samples.calibration] == [16, 16, 3] and len(
        samples.held_out[0]["input_ids"]
    ) == 5
    lengths = [int(n) for s in samples.calibration for n in s["attention_mask"].sum(1)]
    assert lengths == sorted(lengths)
    found = collect(model, samples.calibration)
    assert found["encoder.layer.0.intermediate.dense.weight"].count == sum(lengths)
    with pytest.raises(CalibrationError, match="no tokenizer"):
        load_samples(path, linear())
    path.write_text(" \n")
    with pytest.raises(CalibrationError, match="no text"):
        load_samples(path, model)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CalibrationError, match="UTF-8"):
        load_samples(path, model)


def test_language_models_read_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tersor.calibration import media

    class TinyForCausalLM(nn.Module):
        pass

    monkeypatch.setattr(media, "BLOCK", 8)
    folder = bert(tmp_path).folder
    model = Model(TinyForCausalLM(), ModuleSource(nn.Linear(1, 1)), folder=folder)
    path = tmp_path / "text.txt"
    path.write_text("one two three four\n" * 25)
    samples = load_samples(path, model)
    shapes = [tuple(s["input_ids"].shape) for s in (*samples.calibration, *samples.held_out)]
    assert shapes == [(1, 8)] * 12


class Dataset:
    """What `datasets.Dataset` looks like."""

    def __init__(self, **columns: list[Any]) -> None:
        self._columns = columns
        self.column_names = list(columns)

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def __getitem__(self, k: int) -> dict[str, Any]:
        return {name: values[k] for name, values in self._columns.items()}


def test_datasets(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    texts = Dataset(label=[0, 1] * 4, sentence=["one", "two three"] * 4)
    assert "input_ids" in load_samples(texts, bert(tmp_path)).calibration[0]
    images = Dataset(image=[image.new("RGB", (5, 5))] * 8)
    assert tuple(load_samples(images, picture_model()).calibration[0].shape) == (7, 3, 4, 4)
    inputs = Dataset(input=X.tolist(), label=[0] * 40)
    samples = load_samples(inputs, linear())
    assert set(samples.calibration[0]) == {"input"} and samples.calibration[0]["input"].shape == (32, 4)
    with pytest.raises(CalibrationError, match=r"columns \(label\)"):
        load_samples(Dataset(label=[1, 2]), linear())
    with pytest.raises(CalibrationError, match="no samples"):
        load_samples(Dataset(label=[]), linear())
    with pytest.raises(CalibrationError, match=r"column 'input'.*one shape"):
        load_samples(Dataset(input=[[1.0], [1.0, 2.0], [1.0]]), linear())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "no samples"),
        (X[:0], "no samples"),
        (torch.tensor(1.0), "a number"),
        (7, "int is no source of samples"),
        ("nowhere", "no such file or folder"),
        ([X, X * float("nan")], "the input has NaN"),
        ([{"a": X, "b": (X, X * float("inf"))}] * 2, r"the input \['b'\]\[1\] has NaN or infinite"),
    ],
)
def test_data_that_is_refused(data: Any, message: str) -> None:
    with pytest.raises(CalibrationError, match=message) as caught:
        load_samples(data, linear())
    assert caught.value.remedy


def test_a_count_below_one_is_refused() -> None:
    with pytest.raises(CalibrationError, match="0 samples"):
        load_samples(X, linear(), count=0)


def test_image_processors(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    transformers = pytest.importorskip("transformers")
    try:
        processor = transformers.ViTImageProcessor(size={"height": 4, "width": 4})
    except ImportError:
        pytest.skip("image processors need torchvision here")
    processor.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "preprocessor_config.json").read_text())
    module = nn.Linear(1, 1)
    images = tmp_path / "images"
    images.mkdir()
    for k in range(2):
        image.new("RGB", (6, 6), (k, k, k)).save(images / f"{k}.png")
    samples = load_samples(images, Model(module, ModuleSource(module), folder=tmp_path))
    assert tuple(samples.calibration[0]["pixel_values"].shape) == (1, 3, 4, 4)


def test_mixtures() -> None:
    """Half of the inputs stay, others get at most half of another one; the same for the same generator."""
    batch = torch.eye(400)
    found = mixed(batch, torch.Generator().manual_seed(1))
    assert torch.equal(found, mixed(batch, torch.Generator().manual_seed(1)))
    torch.testing.assert_close(found.sum(1), torch.ones(400))
    assert 150 < int((found == batch).all(1).sum()) < 250
    assert float(found.diagonal().min()) >= 0.5 and int((found > 0).sum(1).max()) == 2
    pair = mixed({"a": batch, "b": (batch, 3)}, torch.Generator().manual_seed(1))
    assert torch.equal(pair["a"], found) and torch.equal(pair["b"][0], found) and pair["b"][1] == 3


@pytest.mark.parametrize(
    "sample",
    [torch.arange(6).reshape(3, 2), torch.ones(1, 4), {"x": torch.ones(2, 3), "mask": torch.ones(2, 3).bool()}],
)
def test_what_has_no_mixtures(sample: Any) -> None:
    """Tokens, single inputs, and whatever comes with them."""
    assert mixed(sample, torch.Generator()) is sample
