"""Recipes: how a file is made. Names, TOML files and NAME=VALUE are one schema: the fields of methods and recipes.

A recipe file names what it starts from, `recipe` or `method`, and sets what is to be different:

    recipe = "best"
    rounds = 8
    weight_lr = 2e-3
"""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from tersor.errors import SettingError
from tersor.methods import METHODS, Nearest, SecondOrder

LEARNED = ("best", "l2-paper")
"""Recipes that learn weights and their transformation together (`tersor.joint`)."""
RECIPES = ("fast", "balanced", *LEARNED)
SUFFIX = ".toml"
_KINDS = {float: "a number from 0 on", int: "a whole number from 0 on", bool: "true or false"}


def choose(recipe: str | os.PathLike[str] | None, method: str | None, settings: Sequence[str], calibration: Any) -> Any:
    """The method, or the learned recipe, that is asked for, with settings of the form NAME=VALUE.

    The default depends on whether there is anything to learn from. Raises `SettingError` for what does not exist.
    """
    if method is not None:
        chosen = _method_named(method)
    elif recipe is not None:
        chosen = _from_file(Path(recipe)) if str(recipe).endswith(SUFFIX) else _recipe_named(str(recipe))
    else:
        chosen = _recipe_named("fast" if calibration is None else "balanced")
    return with_settings(chosen, {name: value for name, _, value in (text.partition("=") for text in settings)})


def with_settings(chosen: Any, values: Mapping[str, Any]) -> Any:
    """A method or learned recipe with other values of some settings; texts are parsed."""
    kinds = get_type_hints(type(chosen))
    known = {f.name: kinds[f.name] for f in fields(chosen) if f.name != "name"}
    for key in values:
        if key not in known:
            raise SettingError(f"{_called(chosen)} has no setting {key!r}", remedy=f"it has {', '.join(known)}")
    return replace(chosen, **{key: _value(key, value, known[key]) for key, value in values.items()})


def _recipe_named(name: str) -> Any:
    if name not in RECIPES:
        raise SettingError(
            f"there is no recipe {name!r}",
            remedy=f"choose one of {', '.join(RECIPES)}, or a {SUFFIX} file",
        )
    if name not in LEARNED:
        return Nearest() if name == "fast" else SecondOrder()
    from tersor.joint import BEST, L2_PAPER

    return BEST if name == BEST.name else L2_PAPER


def _method_named(name: str) -> Any:
    known = {method.name: method for method in METHODS}
    if name not in known:
        raise SettingError(f"there is no method {name!r}", remedy=f"choose one of {', '.join(known)}")
    return known[name]()


def _from_file(path: Path) -> Any:
    """What a recipe file says; raises `SettingError` that names the file."""
    try:
        return _from_table(tomllib.loads(path.read_bytes().decode()))
    except OSError as error:
        what = f"the recipe cannot be read: {error.strerror or error}"
        raise SettingError(what, where=str(path), remedy="check the path") from None
    except ValueError as error:  # no UTF-8, no TOML
        raise SettingError(f"the recipe is no TOML: {error}", where=str(path), remedy="mend it") from None
    except SettingError as error:
        error.within(str(path))
        raise


def _from_table(table: dict[str, Any]) -> Any:
    bases = {"recipe": _recipe_named, "method": _method_named}
    found = [key for key in bases if key in table]
    if len(found) != 1:
        raise SettingError(
            "the recipe must name what it starts from", remedy='write recipe = "NAME" or method = "NAME", one of them'
        )
    return with_settings(bases[found[0]](table.pop(found[0])), table)


def _called(chosen: Any) -> str:
    return f"{'recipe' if chosen.name in LEARNED else 'method'} {chosen.name}"


def _value(key: str, value: Any, kind: Any) -> Any:
    """A value of the kind of a setting; raises `SettingError` that says what suits it."""
    choices = get_args(kind) if get_origin(kind) is Literal else ()
    try:
        if choices:
            return choices[choices.index(value)]
        if isinstance(value, str):
            return _parse(value, kind)
        if type(value) is kind or (kind is float and type(value) is int):
            return _number(kind(value))
    except ValueError:
        pass
    suits = f"one of {', '.join(choices)}" if choices else _KINDS.get(kind, "a text")
    raise SettingError(f"{value!r} does not suit {key}", remedy=f"it takes {suits}")


def _parse(text: str, kind: Any) -> Any:
    if kind is not bool:
        return _number(kind(text))
    if text.lower() not in ("true", "false"):
        raise ValueError
    return text.lower() == "true"


def _number(value: Any) -> Any:
    if isinstance(value, (int, float)) and not 0 <= value < math.inf:
        raise ValueError
    return value
