"""The price at which a whole file meets a goal, by making files; the journal remembers what was measured of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tersor.allocate import price as sizes
from tersor.allocate import quality
from tersor.allocate.quality import OutOfReach, QualityGoal, Trial
from tersor.journal import Journal


@dataclass(frozen=True)
class Stage:
    """Work at one state of what is known: another stage has other statistics, and so other files at a price."""

    journal: Journal
    name: str
    encode: Callable[[float], int]
    """Encodes everything at a price, or finds it in the journal; bytes of the file."""
    write: Callable[[Path, float], object]
    """Writes the file of what was encoded last."""

    def key(self, price: float) -> str:
        """Of units in the journal."""
        return self.name + price.hex()

    def discard(self, *prices: float | None) -> None:
        """Delete units of all prices but these."""
        self.journal.discard({"kept", "whole", *(self.key(p) for p in prices if p is not None)})


def by_size(stage: Stage, budget: int, start: float, slope: float, tolerance: float) -> tuple[float | None, int]:
    """The price of the largest file within the budget, if there is one, and the bytes of the smallest that was made."""
    known = sizes.Trials(stage.journal.sizes(stage.name))

    def size(price: float) -> int:
        measured = known.sizes[price] = stage.encode(price)
        stage.journal.note_size(price, measured, stage.name)
        stage.discard(price, known.best(budget))
        return measured

    trials = sizes.search(budget, size, start, slope, known, tolerance)
    return trials.best(budget), min(trials.sizes.values())


def by_plan(stage: Stage, budget: int, room: float, plan: Callable[[float], bool]) -> float | None:
    """The bytes for streams with which a planned file fits the budget, near `room`; None if no plan does.

    `plan` makes the plan for so many bytes, if there is one. What the manifest takes shows when the file is made.
    """
    while plan(room):
        size = stage.encode(room)
        if size <= budget:
            return room
        room -= size - budget
    return None


def by_quality(stage: Stage, goal: QualityGoal, start: float, tolerance: float) -> float:
    """The price of the smallest file that is good enough; raises `OutOfReach` if there is none."""
    limit, losses = goal.target.limit, stage.journal.losses(stage.name)
    known = {price: Trial(n, losses[price]) for price, n in stage.journal.sizes(stage.name).items() if price in losses}
    file = stage.journal.folder / "measured.tsr"

    def measure(price: float) -> Trial:
        size = stage.encode(price)
        stage.write(file, price)
        trial = known[price] = Trial(size, goal.loss(file))
        file.unlink()
        stage.journal.note_size(price, size, stage.name, trial.loss)
        stage.discard(price, quality.best(known, limit))
        return trial

    trials = quality.search(limit, measure, start, known, tolerance)
    best = quality.best(trials, limit)
    if best is None:
        raise OutOfReach(f"no price of a bit meets {goal.target.name} {limit:g}", remedy="keep every bit")
    return best
