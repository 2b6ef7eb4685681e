from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from test_sources_builder import T, write_zip

from tersor.errors import SourceError
from tersor.sources import FolderSource, open_source

A = np.arange(6, dtype=np.float32).reshape(2, 3)


def index(folder: Path, weight_map: Any, name: str = "model.safetensors.index.json") -> None:
    (folder / name).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))


def sharded(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    save_file({"a": A, "b": -A}, folder / "model-1.safetensors", metadata={"format": "pt"})
    save_file({"c": 2 * A}, folder / "model-2.safetensors")
    index(folder, {"c": "model-2.safetensors", "a": "model-1.safetensors", "b": "model-1.safetensors"})
    return folder


def test_shards_in_the_order_of_the_index(tmp_path: Path) -> None:
    source = open_source(sharded(tmp_path))
    assert [unit.name for unit in source.units()] == ["c", "a", "b"]
    assert [unit.load().tobytes() for unit in source.units()] == [
        (2 * A).tobytes(),
        A.tobytes(),
        (-A).tobytes(),
    ]
    assert dict(source.metadata) == {"format": "pt"}
    by_index = open_source(tmp_path / "model.safetensors.index.json")
    assert by_index.fingerprint() == source.fingerprint()
    os.utime(tmp_path / "model-2.safetensors", ns=(1, 1))
    assert open_source(tmp_path).fingerprint() != source.fingerprint()


def test_checkpoint_shards_keep_their_ties(tmp_path: Path) -> None:
    tensors = {"a": T("0", (2, 3)), "tied": T("0", (2, 3))}
    write_zip(tmp_path / "pytorch_model-1.bin", tensors, {"0": A})
    write_zip(tmp_path / "pytorch_model-2.bin", {"c": T("0", (2, 3))}, {"0": A})
    shards = {"a": "pytorch_model-1.bin", "tied": "pytorch_model-1.bin", "c": "pytorch_model-2.bin"}
    index(tmp_path, shards, "pytorch_model.bin.index.json")
    assert [(unit.name, unit.tied_to) for unit in open_source(tmp_path).units()] == [
        ("a", None),
        ("tied", "a"),
        ("c", None),
    ]


@pytest.mark.parametrize(
    ("present", "chosen"),
    [
        (["model.safetensors", "pytorch_model.bin", "other.safetensors"], "model.safetensors"),
        (["diffusion_pytorch_model.safetensors", "x.safetensors"], "diffusion_pytorch_model.safetensors"),
        (["whatever.safetensors", "pytorch_model.bin", "notes.txt"], "whatever.safetensors"),
        (["pytorch_model.bin", "other.bin", "training_args.bin"], "pytorch_model.bin"),
        (["net.pth", "optimizer.pt", "training_args.bin"], "net.pth"),
    ],
)
def test_which_file_is_the_model(tmp_path: Path, present: list[str], chosen: str) -> None:
    for position, name in enumerate(present):
        if name.endswith(".safetensors"):
            save_file({name: A}, tmp_path / name)
        else:
            write_zip(tmp_path / name, {name: T("0", (2, 3))}, {"0": A + position})
    assert [unit.name for unit in FolderSource(tmp_path).units()] == [chosen]


def test_folders_without_one_model(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no weights .*model\.safetensors"):
        open_source(tmp_path)
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(SourceError, match="pipeline of several models"):
        open_source(tmp_path)
    for name in ("b.safetensors", "a.safetensors"):
        save_file({"a": A}, tmp_path / name)
    with pytest.raises(SourceError, match=r"several files could be the model: a\.safetensors, b\.safetensors"):
        open_source(tmp_path)
    (tmp_path / "folder.pt").mkdir()
    with pytest.raises(SourceError, match="no weights"):
        open_source(tmp_path / "folder.pt")
    (tmp_path / "folder.pt" / "model.safetensors").mkdir()
    with pytest.raises(SourceError, match="no weights"):
        open_source(tmp_path / "folder.pt")


@pytest.mark.parametrize(
    "shard",
    [
        "../model-1.safetensors",
        "x/../../model-1.safetensors",
        "/etc/passwd.safetensors",
        "C:model-1.safetensors",
        "..\\model-1.safetensors",
        "\\\\host\\share\\m.safetensors",
    ],
)
def test_an_index_cannot_leave_its_folder(tmp_path: Path, shard: str) -> None:
    sharded(tmp_path / "m")
    sharded(tmp_path)
    index(tmp_path / "m", {"a": shard})
    with pytest.raises(SourceError, match="outside the folder"):
        open_source(tmp_path / "m")


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        (None, "no weight_map"),
        ({}, "no weight_map"),
        ([], "no weight_map"),
        ({"a": 3}, "no file name"),
        ({"a": ""}, "no file name"),
        ({"a": "config.json"}, "no file of weights"),
        ({"": "model-1.safetensors"}, "empty name"),
        ({"a": "model-1.safetensors", "c": "model-3.safetensors"}, r"1 of 2 shards are missing: model-3"),
        ({"a": "model-1.safetensors"}, "'b' is in model-1.safetensors, but the index does not mention it"),
        ({"a": "model-1.safetensors", "b": "model-2.safetensors"}, "but the index says model-2"),
        (
            dict.fromkeys("abd", "model-1.safetensors") | {"c": "model-2.safetensors"},
            "1 tensors are missing from their shards, for instance 'd' from model-1",
        ),
    ],
)
def test_broken_indices(tmp_path: Path, weight_map: Any, message: str) -> None:
    sharded(tmp_path)
    index(tmp_path, weight_map)
    with pytest.raises(SourceError, match=message):
        open_source(tmp_path)


def test_a_tensor_in_two_shards(tmp_path: Path) -> None:
    sharded(tmp_path)
    save_file({"c": A, "a": A}, tmp_path / "model-2.safetensors")
    with pytest.raises(SourceError, match=r"'a' is in model-2\.safetensors, but the index says model-1"):
        open_source(tmp_path)


def test_index_that_is_no_json(tmp_path: Path) -> None:
    sharded(tmp_path)
    for text in ("", "[", "[1]", '{"weight_map": {"a": "x", "a": "y"}}'):
        (tmp_path / "model.safetensors.index.json").write_text(text)
        with pytest.raises(SourceError):
            open_source(tmp_path)


def test_links_may_leave_the_folder_as_in_the_hub_cache(tmp_path: Path) -> None:
    blobs = sharded(tmp_path / "blobs")
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(file)
    assert len(open_source(snapshot).units()) == 3
