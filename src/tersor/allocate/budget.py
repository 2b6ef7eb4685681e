"""The asked size of a file."""

from __future__ import annotations

from dataclasses import dataclass

from tersor.errors import BudgetError

LARGEST = 2**62
"""Bytes beyond this are nobody's file, and no number of the manifest."""


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
        if not 0 < given[0] < LARGEST:
            raise BudgetError(f"a size of {given[0]} makes no sense", remedy="give a positive number")

    def resolve(self, source_bytes: int, weights: int) -> int:
        """Bytes the file may have, at least one."""
        if self.size is not None:
            return self.size
        wanted = source_bytes / self.ratio if self.ratio is not None else weights * (self.bits or 0) / 8
        return int(min(max(1, wanted), LARGEST))
