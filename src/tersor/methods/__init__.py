"""How the codes are found: one file a method. A method may change freely; it can only emit ops.

A method is a frozen dataclass whose fields are its settings. They become the recipe in the file, `tersor methods`, and
`--set NAME=VALUE`, without being written twice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from tersor.encoded import Encoded
from tersor.errors import SettingError
from tersor.format.dtypes import Bytes
from tersor.methods.nearest import Nearest
from tersor.sources import Unit


class Sample(Protocol):
    """Part of a unit, kept in memory to predict sizes."""

    def nbytes(self, price: float) -> float:
        """Predicted bytes of the unit's streams at a price."""
        ...


class Method(Protocol):
    """A method that works tensor by tensor, driven along one scalar: the price of a bit."""

    name: ClassVar[str]

    def quantizes(self, unit: Unit) -> bool:
        """Whether the unit is for the method; others are kept."""
        ...

    def sample(self, unit: Unit, data: Bytes, budget: int) -> Sample | None:
        """Keep about `budget` weights of the unit to predict sizes from; None if it is not for the method after all."""
        ...

    def encode(self, unit: Unit, data: Bytes, price: float) -> Encoded:
        """Code the unit at a price."""
        ...


METHODS = (Nearest,)


def parse_method(name: str, settings: Sequence[str]) -> Method:
    """The method called `name` with settings of the form NAME=VALUE; raises `SettingError` for what it does
    not have."""
    known = {method.name: method for method in METHODS}
    if name not in known:
        raise SettingError(f"there is no method {name!r}", remedy=f"choose one of {', '.join(known)}")
    fields = {f.name: f for f in dataclasses.fields(known[name])}
    values: dict[str, Any] = {}
    for setting in settings:
        key, _, text = setting.partition("=")
        if key not in fields:
            raise SettingError(f"method {name} has no setting {key!r}", remedy=f"it has {', '.join(fields)}")
        try:
            values[key] = type(fields[key].default)(text)
        except ValueError:
            raise SettingError(
                f"{text!r} does not suit {key}", remedy=f"its default is {fields[key].default}"
            ) from None
    return known[name](**values)


def describe() -> list[dict[str, Any]]:
    """Every method with its settings, from their own definitions."""
    return [
        {
            "name": method.name,
            "summary": (method.__doc__ or "").splitlines()[0],
            "settings": [
                {"name": f.name, "default": f.default, "help": f.metadata["help"]} for f in dataclasses.fields(method)
            ],
        }
        for method in METHODS
    ]
