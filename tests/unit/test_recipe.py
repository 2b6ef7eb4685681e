"""Recipes by name, from TOML files and from NAME=VALUE."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import weights

import tersor
from tersor.cli import main
from tersor.errors import SettingError
from tersor.joint import BEST, L2_PAPER
from tersor.joint.recipe import Recipe
from tersor.methods import METHODS, Nearest, SecondOrder, describe
from tersor.recipe import choose


def file(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_names() -> None:
    assert choose("fast", None, (), None) == choose(None, None, (), None) == Nearest()
    assert choose("balanced", None, (), None) == choose(None, None, (), "images") == SecondOrder()
    assert (choose("best", None, (), 1), choose("l2-paper", None, (), 1)) == (BEST, L2_PAPER)
    assert [choose(None, method.name, (), None) for method in METHODS] == [method() for method in METHODS]


def test_settings_are_the_fields() -> None:
    for method in METHODS:
        assert dataclasses.is_dataclass(method) and method.__dataclass_params__.frozen  # type: ignore[attr-defined]
        (found,) = [d for d in describe() if d["name"] == method.name]
        assert [s["name"] for s in found["settings"]] == [f.name for f in dataclasses.fields(method)]
        assert found["summary"] and all(len(s["help"]) > 5 for s in found["settings"])
        settings = [f"{s['name']}={s['default']}" for s in found["settings"]]
        assert choose(None, method.name, settings, None) == method()


@pytest.mark.parametrize("recipe", [BEST, L2_PAPER], ids=lambda recipe: recipe.name)
def test_every_setting_of_a_learned_recipe(recipe: Recipe, tmp_path: Path) -> None:
    values = {k: v for k, v in dataclasses.asdict(recipe).items() if k != "name"}
    assert choose(recipe.name, None, [f"{k}={v}" for k, v in values.items()], 1) == recipe
    text = f'recipe = "{recipe.name}"\n' + "".join(f"{k} = {json.dumps(v)}\n" for k, v in values.items())
    assert choose(file(tmp_path, text), None, (), 1) == recipe


def test_a_file_and_settings_on_top(tmp_path: Path) -> None:
    path = file(
        tmp_path, 'recipe = "best"\nrounds = 8\nweight_lr = 2e-3\nresolution = 32\nrows = true\nform = "linear"'
    )
    expected = dataclasses.replace(BEST, rounds=8, weight_lr=2e-3, resolution=32.0, rows=True, form="linear")
    assert choose(path, None, (), 1) == expected
    assert choose(str(path), None, ["rounds=2"], 1) == dataclasses.replace(expected, rounds=2)
    method = file(tmp_path, 'method = "nearest"\nadaptive = true\nknee = 1')
    assert choose(method, None, (), None) == Nearest(adaptive=True, knee=1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must name what it starts from.*recipe ="),
        ('recipe = "fast"\nmethod = "nearest"', "one of them"),
        ('recipe = "slow"', "no recipe 'slow'.*balanced"),
        ('method = "magic"', "no method 'magic'.*nearest"),
        ("recipe = 3", "no recipe 3"),
        ('recipe = ["best"]', "no recipe"),
        ('recipe = "best"\nround = 3', "recipe best has no setting 'round'.*rounds"),
        ('recipe = "best"\nname = "mine"', "no setting 'name'"),
        ('recipe = "best"\nrounds = 3.5', "3.5 does not suit rounds.*whole number"),
        ('recipe = "best"\nrounds = true', "True does not suit rounds.*whole number"),
        ('recipe = "best"\nrounds = 0', "rounds are at least 1"),
        ('recipe = "best"\nprice = "cheap"', "'cheap' does not suit price.*switched, dual"),
        ('recipe = "best"\nform = "cubic"', "no form 'cubic'.*linear"),
        ('recipe = "best"\nform = 3', "3 does not suit form.*a text"),
        ('method = "nearest"\nknee = nan', "nan does not suit knee.*a number"),
        ('method = "nearest"\nadaptive = 1', "1 does not suit adaptive.*true or false"),
        ('method = "nearest"\n[knee]\nx = 1', "does not suit knee"),
        ("recipe = best", "no TOML.*line 1"),
        ("recipe = '\udcff'", "no TOML"),
    ],
)
def test_files_that_are_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(SettingError, match=f"(?s){message}") as error:
        choose(path, None, (), 1)
    assert str(path) in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="cannot be read: No such file"):
        choose(tmp_path / "none.toml", None, (), None)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("magic", [], "there is no method 'magic'.*nearest"),
        ("nearest", ["nonsense=1"], "no setting 'nonsense'.*rounding_price"),
        ("nearest", ["rounding_price=much"], "'much' does not suit rounding_price"),
        ("nearest", ["knee=0"], "a knee of 0.0 makes no sense"),
        ("nearest", ["rounding_price=-1"], "'-1' does not suit rounding_price.*from 0 on"),
        ("nearest", ["rounding_price=inf"], "'inf' does not suit rounding_price"),
        ("nearest", ["rounding_price"], "'' does not suit rounding_price"),
    ],
)
def test_settings_that_do_not_exist(name: str, settings: list[str], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        choose(None, name, settings, None)


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.numpy import save_file

    monkeypatch.chdir(tmp_path)
    save_file({"w.weight": weights(np.random.default_rng(0), (64, 64), 0.1)}, "m.safetensors")
    file(tmp_path, 'recipe = "fast"\nrounding_price = 0.1\nknee = 2')
    arguments = ["compress", "m.safetensors", "-o", "m.tsr", "--ratio", "6", "--recipe", "mine.toml"]
    main([*arguments, "--set", "knee=3"])
    with tersor.open("m.tsr") as opened:
        noted: dict[str, Any] = opened.manifest.meta["recipe"]
    assert (noted["method"], noted["rounding_price"], noted["knee"]) == ("nearest", 0.1, 3.0)
    report = tersor.compress({"w.weight": np.ones((64, 64), np.float32)}, "x.tsr", ratio=4, recipe="mine.toml")
    assert report.file_bytes <= 4096
    capsys.readouterr()
    file(tmp_path, 'recipe = "fast"\nrounding = 0.1')
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--force"])
    assert str(end.value).startswith("tersor: method nearest has no setting 'rounding' (mine.toml): it has")
