"""How the codes are found: one file a method. A method may change freely; it can only emit ops.

A method is a frozen dataclass whose fields are its settings. They become the recipe in the file, recipe files, `tersor
methods`, and `--set NAME=VALUE`, without being written twice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from tersor.encoded import Encoded
from tersor.format.dtypes import Bytes
from tersor.methods.adaround import AdaRound
from tersor.methods.calibtip import CalibTip
from tersor.methods.gptq import Gptq
from tersor.methods.nearest import Nearest
from tersor.methods.second_order import SecondOrder
from tersor.methods.trellis import Trellis
from tersor.sources import Unit

if TYPE_CHECKING:
    from tersor.calibration.statistics import Statistics


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


@runtime_checkable
class Calibrated(Protocol):
    """The settings of a method that learns from samples: it becomes a `Method` with what was learned."""

    name: ClassVar[str]

    @property
    def alternatives(self) -> Mapping[str, tuple[float, ...]]:
        """Settings that held-out samples choose, with the values to try."""
        ...

    def bind(self, statistics: Mapping[str, Statistics]) -> Any:
        """The method with statistics of the units, by name."""
        ...


@runtime_checkable
class Planned(Protocol):
    """A method that shares bytes out among units itself; its price is the number of bytes that it may share out."""

    def planned(self, units: Sequence[Unit], room: float) -> Any:
        """The method with a plan for so many bytes of all units' streams; None if it needs more."""
        ...


METHODS: tuple[type[Any], ...] = (Nearest, SecondOrder, Gptq, AdaRound, CalibTip, Trellis)


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
