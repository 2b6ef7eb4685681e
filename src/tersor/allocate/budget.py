"""The asked size of a file."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tersor.errors import BudgetError


@dataclass(frozen=True)
class Budget:
    """The size of the whole file: exactly one of a ratio to the source's tensors, bytes, or bits per weight."""

    ratio: float | None = None
    size: int | None = None
    bits: float | None = None

    def __post_init__(self) -> None:
        given = [v for v in (self.ratio, self.size, self.bits) if v is not None]
        if len(given) != 1:
            raise BudgetError("the size is not settled", remedy="give exactly one of ratio, size and bits, or lossless")
        if not (given[0] > 0 and math.isfinite(given[0])):
            raise BudgetError(f"a size of {given[0]} makes no sense", remedy="give a positive number")

    def resolve(self, source_bytes: int, weights: int) -> int:
        """Bytes the file may have."""
        if self.size is not None:
            return self.size
        return int(source_bytes / self.ratio) if self.ratio is not None else int(weights * (self.bits or 0) / 8)
