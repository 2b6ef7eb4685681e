"""How the codes are found: one file a method. A method may change freely; it can only emit ops.

A method is a frozen dataclass whose fields are its settings. They become the recipe in the file, `tersor methods`, and
`--set NAME=VALUE`, without being written twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from tersor.encoded import Encoded
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

    def prepare(self, units: Sequence[Unit]) -> Any:
        """What the method knows of all units together before it sees weights."""
        ...

    def quantizes(self, unit: Unit) -> bool:
        """Whether the unit is for the method; others are kept."""
        ...

    def sample(self, unit: Unit, data: Bytes, budget: int) -> Sample:
        """Keep about `budget` weights of the unit to predict sizes from."""
        ...

    def encode(self, unit: Unit, data: Bytes, price: float) -> Encoded:
        """Code the unit at a price."""
        ...


METHODS: tuple[type[Nearest], ...] = (Nearest,)
