"""Method `calibtip`: a whole number of bits for every layer, by integer programming over measured losses and sizes.

The reference of Hubara et al. 2020 (CalibTIP, arXiv 2006.10518). Every layer is rounded at every width by itself, as
`gptq` does it; its bytes are measured, its loss is that of the statistics. Layers are taken to add up.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np

from tersor.allocate.knapsack import choose
from tersor.format.dtypes import Bytes
from tersor.methods._feedback import Solution
from tersor.methods.gptq import BoundGptq, Gptq
from tersor.sources import Unit

if TYPE_CHECKING:
    from tersor.calibration.statistics import Statistics

WIDTHS = range(2, 9)


class Table(NamedTuple):
    """Of one layer, by width: the loss of the model's output, and bytes."""

    losses: list[float]
    sizes: list[float]


@dataclass(frozen=True)
class CalibTip(Gptq):
    """Choose 2 to 8 bits for every layer, by integer programming; its files may stay further below their budget."""

    name: ClassVar[str] = "calibtip"

    def bind(self, statistics: Mapping[str, Statistics]) -> BoundCalibTip:
        """The method with what calibration learned, by unit name."""
        return BoundCalibTip(self, statistics)


@dataclass(frozen=True, eq=False)
class BoundCalibTip(BoundGptq):
    """`CalibTip` with statistics, and with the widths of a plan: without one a price decides unit by unit."""

    widths: Mapping[str, int] = field(default_factory=dict[str, int])

    def planned(self, units: Sequence[Unit], room: float) -> BoundCalibTip | None:
        """With the widths that lose least within so many bytes of all units' streams; None if there are none."""
        tables = [self.table(unit, unit.load()) for unit in units]
        chosen = choose([t.losses for t in tables], [t.sizes for t in tables], room)
        if chosen is None:
            return None
        found = dataclasses.replace(self, widths={u.name: WIDTHS[k] for u, k in zip(units, chosen, strict=True)})
        found._tables.update(self._tables)
        return found

    def solution(self, unit: Unit, data: Bytes, price: float) -> Solution:
        """Levels and steps at the width of the plan, or at the best one for a price of a bit."""
        width = self.widths.get(unit.name)
        if width is None:
            table = self.table(unit, data)
            width = WIDTHS[int(np.argmin(np.array(table.losses) + 8 * price * np.array(table.sizes)))]
        return super().solution(unit, data, _price(width))

    @cached_property
    def _tables(self) -> dict[str, Table]:
        return {}

    def table(self, unit: Unit, data: Bytes) -> Table:
        """Losses and sizes of a unit at all widths; measured once."""
        if unit.name not in self._tables:
            self._tables[unit.name] = self._measured(unit, data)
        return self._tables[unit.name]

    def _measured(self, unit: Unit, data: Bytes) -> Table:
        alone, table = BoundGptq(self.settings, self.statistics), Table([], [])
        for width in WIDTHS:
            table.losses.append(alone.loss(unit, data, alone.solution(unit, data, _price(width))))
            table.sizes.append(float(alone.encode(unit, data, _price(width)).nbytes))
        return table


def _price(width: int) -> float:
    """The price at which `gptq` has 2^width levels to a row."""
    return (2 / (2**width - 1)) ** 2 * math.log(2) / 12
