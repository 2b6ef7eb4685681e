"""One compression: units of a source, encoded at a price until the file meets its goal."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np

from tersor import _core
from tersor._version import __version__
from tersor.allocate.budget import Budget
from tersor.allocate.price import AIM, TOLERANCE, predict
from tersor.allocate.quality import OutOfReach, QualityGoal
from tersor.encoded import Distortion, Encoded
from tersor.errors import BudgetError, SourceError
from tersor.fit import Stage, by_plan, by_quality, by_size
from tersor.format import cbor
from tersor.format.dtypes import Bytes
from tersor.format.layout import HEADER_SIZE
from tersor.format.manifest import Entry, Manifest
from tersor.format.writer import file_size, write
from tersor.journal import Journal, StoredUnit
from tersor.methods import Calibrated, Method, Nearest, Planned, Sample, keep
from tersor.ops.uniform import FLOATS
from tersor.parallel import for_each
from tersor.report import Report
from tersor.sources import ITEMSIZE, Source, Unit, with_heads
from tersor.sources.unit import listed

SAMPLES = 2**22
"""Weights of all units together that are kept in memory to predict sizes."""
LOWEST_PRICE, HIGHEST_PRICE = 1e-30, 1e12
LOSSLESS_SHARE = 0.5
"""A budget above this share of the source may have room for every bit: that is tried first."""

USUAL_RATIO = 8
"""Where the search for a quality starts."""

Goal = int | QualityGoal
"""What a file must meet: bytes that it may have, or the quality of its weights."""
Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is: bytes of the source, or iterations."""


def recipe_of(method: Method) -> dict[str, Any]:
    """A method and its settings, as they stand in the file."""
    settings: Any = getattr(method, "settings", method)
    known = settings if isinstance(settings, Mapping) else {f.name: getattr(settings, f.name) for f in fields(settings)}
    return {"method": method.name, **known}


def _refused(name: str) -> SourceError:
    return SourceError(
        "a tensor has NaN or infinite weights",
        where=f"tensor {name!r}",
        remedy="repair it, or let it be kept bit for bit (--nonfinite keep)",
    )


class Job:
    """One compression. Units are read from the source whenever they are needed and never kept."""

    def __init__(
        self,
        source: Source,
        method: Method | Calibrated,
        goal: Budget | QualityGoal | None,
        nonfinite: str,
        workers: int,
        progress: Progress | None,
    ) -> None:
        self.source = source
        self.method: Any = method
        self.nonfinite = nonfinite
        self.workers = workers
        self.progress = progress or (lambda *_: None)
        self.units = with_heads(source.units())
        self.own = [u for u in self.units if u.tied_to is None]
        self.numbers = {u.name: k for k, u in enumerate(self.units)}
        self.source_bytes = sum(u.nbytes for u in self.own)
        floats = [u for u in self.own if u.dtype in FLOATS]
        weights, small = sum(u.count for u in floats), sum(u.count for u in floats if not Nearest().quantizes(u))
        self.budget = goal.resolve(self.source_bytes, weights) if isinstance(goal, Budget) else None
        self.goal: Goal | None = goal if isinstance(goal, QualityGoal) else self.budget
        self.finer = 0 if self.goal is None else keep.finer(self.nominal(self.goal), weights, small)
        self.done: dict[str, StoredUnit] = {}

    def key(self, *data: str | int) -> str:
        """Identifies the job: another source, method, goal, version or other data is another job."""
        settings = [
            __version__,
            self.source.fingerprint(),
            recipe_of(self.method),
            self.goal.key() if isinstance(self.goal, QualityGoal) else self.goal,
            self.nonfinite,
            *data,
        ]
        return f"{_core.hash(cbor.encode(settings)):016x}"

    def run(self, journal: Journal, path: Path, fit: Callable[[Journal, Goal], float], *, overwrite: bool) -> Report:
        """Encode, at the price that `fit` finds if there is a goal, and write the file."""
        price = None
        if self.goal is None:
            self._encode_whole(journal)
        elif not (isinstance(self.goal, int) and self._fits_whole(journal, self.goal)):
            try:
                price = fit(journal, self.goal)
            except OutOfReach:
                self._check_whole(journal)
        manifest, written = self.put(path, price, overwrite=overwrite)
        kept_whole = tuple(u.name for u in self.own if not self.done[u.name].finite)
        return replace(Report.of(manifest, written), skipped=tuple(self.source.skipped), kept_whole=kept_whole)

    def put(self, path: Path, price: float | None, *, overwrite: bool) -> tuple[Manifest, int]:
        """Write what is done; the manifest and the bytes of the file."""
        manifest = self._manifest(price)
        pieces = (piece for unit in self.own for piece in self.done[unit.name].pieces())
        return manifest, write(path, manifest, pieces, overwrite=overwrite)

    def forecast(self) -> Report:
        """Predict the file from samples: nothing is written, and of large tensors only a part is read closely."""
        samples = self._samples([u for u in self.own if self.budget is not None and self.method.quantizes(u)])
        kept = [u for u in self.own if u.name not in samples]
        parts = for_each(self._kept_part, kept, self.workers, self._reporter("reading", kept))
        sizes = {u.name: int(part.nbytes * scale) for u, (part, scale) in zip(kept, parts, strict=True)}
        overhead = HEADER_SIZE + 40 * len(self.units)
        if self.budget is not None and samples:
            price, _ = self._guess(samples, overhead + sum(sizes.values()), self.budget)
            sizes |= {name: int(sample.nbytes(price)) for name, sample in samples.items()}
        total = overhead + sum(sizes.values())
        if self.budget is not None and total > self.budget:
            raise self._too_small(self.budget, total)
        kept_whole = tuple(part.entry.name for part, _ in parts if not part.finite)
        report = Report.predict(self.units, sizes, samples, total)
        return replace(report, skipped=tuple(self.source.skipped), kept_whole=kept_whole)

    def _kept_part(self, unit: Unit) -> tuple[Encoded, float]:
        """A unit that is kept, or the middle of a large one, coded; and how many times larger the whole is."""
        finish = keep.lossless if self.budget is None else self.rounded
        data, part = unit.load(), 2**22
        if data.size <= 2 * part:
            return self._checked(finish(unit, data)), 1.0
        start = (data.size - part) // 2 // 16 * 16
        piece = replace(unit, shape=(part // ITEMSIZE[unit.dtype],))
        return self._checked(finish(piece, data[start : start + part])), data.size / part

    def _reporter(self, label: str, units: Sequence[Unit]) -> Callable[[int], None]:
        """Tells the caller how many bytes of the units are done."""
        total = sum(u.nbytes for u in units)
        return lambda done: self.progress(label, done, total)

    # -- encoding ----------------------------------------------------------------------------------------------------

    def _encode(
        self, journal: Journal, key: str, units: Sequence[Unit], encode: Callable[[Unit], Encoded], label: str
    ) -> None:
        """Encode units into the journal, or find them there."""

        def work(unit: Unit) -> StoredUnit:
            name = f"{self.numbers[unit.name]:06d}-{key}"
            return journal.get(name) or journal.put(name, self._checked(encode(unit)))

        results = for_each(work, units, self.workers, self._reporter(label, units))
        self.done |= {unit.name: stored for unit, stored in zip(units, results, strict=True)}

    def _checked(self, encoded: Encoded) -> Encoded:
        """The unit, unless it has weights that the caller wants refused."""
        if not encoded.finite and self.nonfinite == "fail":
            raise _refused(encoded.entry.name)
        return encoded

    def _encode_whole(self, journal: Journal) -> None:
        self._encode(journal, "whole", self.own, lambda u: keep.lossless(u, u.load()), "compressing without loss")

    def _check_whole(self, journal: Journal) -> None:
        """Keep every bit where nothing less is good enough, and see that this is."""
        assert isinstance(self.goal, QualityGoal)
        self._encode_whole(journal)
        file = journal.folder / "measured.tsr"
        self.put(file, None, overwrite=True)
        loss, target = self.goal.loss(file), self.goal.target
        if loss > target.limit:
            raise BudgetError(
                f"{target.name} {target.limit:g} cannot be met: measured again, the original itself loses {loss:.3g}",
                where=self.source.label,
                remedy="make the measurement give the same every time, or allow more",
            )

    def _fits_whole(self, journal: Journal, budget: int) -> bool:
        """Whether the budget has room for every bit; if so, that is what `done` holds."""
        if budget < LOSSLESS_SHARE * self.source_bytes:
            return False
        self._encode_whole(journal)
        if self.size(None) <= budget:
            return True
        self.done.clear()
        return False

    def fit(
        self, journal: Journal, goal: Goal, stage: str = "", start: float | None = None, tolerance: float = TOLERANCE
    ) -> float:
        """Encode everything at the price at which the file just meets the goal; returns the price.

        A `stage` is told apart in the journal: another one has other statistics, and so other sizes.
        """
        lossy, guess, slope = self._begin(journal, self.nominal(goal))

        def encode(price: float) -> int:
            self._at(journal, work.key(price), lossy, price)
            return self.size(price)

        work = Stage(journal, stage, encode, lambda path, price: self.put(path, price, overwrite=True))
        if isinstance(goal, QualityGoal):
            best = by_quality(work, goal, start or guess or 1.0, tolerance)
        elif lossy and isinstance(self.method, Planned):

            def plan(room: float) -> bool:
                found = self.method.planned(lossy, room)
                self.method = found or self.method
                return found is not None

            best = by_plan(work, goal, float(goal - self._fixed(lossy)), plan)
            if best is None:
                raise self._too_small(goal, encode(HIGHEST_PRICE))
        else:
            best, smallest = by_size(work, goal, start or guess, slope, tolerance) if lossy else (guess, encode(guess))
            if best is None or smallest > goal:
                raise self._too_small(goal, smallest)
        encode(best)
        return best

    def nominal(self, goal: Goal) -> int:
        """Bytes of the file that is asked for; where a quality is, of what is usual."""
        return goal if isinstance(goal, int) else self.source_bytes // USUAL_RATIO

    def trial(self, journal: Journal, budget: int, stage: str) -> int:
        """Encode everything once, at the price that predictions give for the budget; returns the file's bytes."""
        lossy, price, _ = self._begin(journal, budget)
        self._at(journal, stage + price.hex(), lossy, price)
        return self.size(price)

    def guess(self, journal: Journal, budget: int) -> tuple[list[Unit], float]:
        """The units that are quantized, and the price that predictions give for the budget."""
        return self._begin(journal, budget)[:2]

    def rounded(self, unit: Unit, data: Bytes) -> Encoded:
        """A small tensor, as precise as the size of the file deserves."""
        return keep.rounded(unit, data, self.finer)

    def replace(self, journal: Journal, budget: int, price: float, tensors: Mapping[str, np.ndarray]) -> bool:
        """Keep other values of some small tensors, rounded as they would be; not if the file became too large."""
        units = [u for u in self.own if u.name in tensors and self.done[u.name].entry.chain[0].op == "raw"]

        def encode(unit: Unit) -> Encoded:
            return self.rounded(unit, keep.elements(tensors[unit.name], unit.dtype))

        return self.substitute(journal, f"repaired-{price.hex()}", units, encode, budget, price)

    def substitute(
        self,
        journal: Journal,
        key: str,
        units: Sequence[Unit],
        encode: Callable[[Unit], Encoded],
        budget: int,
        price: float,
    ) -> bool:
        """Encode some units that are done in another way; not if the file became too large."""
        before = dict(self.done)
        self._encode(journal, key, units, encode, "repairing")
        if self.size(price) <= budget:
            return True
        self.done = before
        return False

    def _begin(self, journal: Journal, budget: int) -> tuple[list[Unit], float, float]:
        """Encode what is not quantized; returns the other units, a price for the budget, and the slope there."""
        candidates = [u for u in self.own if self.method.quantizes(u)]
        samples = self._samples(candidates)
        kept = [u for u in self.own if u.name not in samples]
        self._encode(journal, "kept", kept, lambda u: self.rounded(u, u.load()), "keeping small tensors")
        lossy = [u for u in candidates if u.name in samples]
        return lossy, *self._guess(samples, self._fixed(lossy), budget)

    def _fixed(self, lossy: Sequence[Unit]) -> int:
        """Bytes of the file, about, beside the units that are quantized."""
        quantized = {u.name for u in lossy}
        kept = sum(self.done[u.name].nbytes for u in self.own if u.name not in quantized)
        return HEADER_SIZE + 40 * len(self.units) + kept

    def _at(self, journal: Journal, key: str, lossy: Sequence[Unit], price: float) -> None:
        self._encode(journal, key, lossy, lambda u: self.method.encode(u, u.load(), price), "compressing")

    def _samples(self, units: Sequence[Unit]) -> dict[str, Sample]:
        """Samples of the units whose weights are all finite; the others are kept bit for bit, or refused."""
        share = max(2**14, SAMPLES // max(1, len(units)))

        def sample(unit: Unit) -> Sample | None:
            data = unit.load()
            if keep.all_finite(data, unit.dtype):
                return self.method.sample(unit, data, share)
            if self.nonfinite == "fail":
                raise _refused(unit.name)
            return None

        found = for_each(sample, units, self.workers, self._reporter("reading", units))
        return {u.name: s for u, s in zip(units, found, strict=True) if s is not None}

    def _guess(self, samples: dict[str, Sample], fixed: int, budget: int) -> tuple[float, float]:
        """A price whose predicted size is about the budget, and d log(size) / d log(price) there."""

        def predicted(price: float) -> float:
            return fixed + sum(s.nbytes(price) for s in samples.values())

        if not samples:
            return 0.0, -1.0
        start = predict(predicted, budget * (1 - AIM), LOWEST_PRICE, HIGHEST_PRICE)
        slope = math.log(predicted(start * 1.1) / predicted(start / 1.1)) / math.log(1.21)
        return start, min(slope, -0.01)

    def _too_small(self, budget: int, smallest: int) -> BudgetError:
        remedy = (
            f"the smallest file that method {self.method.name} makes of it has about {smallest:,} bytes "
            f"({self.source_bytes / smallest:.1f}x)"
        )
        whole = [name for name, unit in self.done.items() if not unit.finite]
        if whole:
            remedy += f"; kept bit for bit for NaN or infinite weights: {listed([repr(name) for name in whole], 3)}"
        return BudgetError(f"{budget:,} bytes cannot be reached", where=self.source.label, remedy=remedy)

    # -- the file ----------------------------------------------------------------------------------------------------

    def size(self, price: float | None) -> int:
        """Bytes of the file of what is done."""
        return file_size(self._manifest(price))

    def _manifest(self, price: float | None) -> Manifest:
        """The manifest of what is done."""
        places: dict[str, int] = {}
        entries: list[Entry] = []
        for index, unit in enumerate(self.units):
            places[unit.name] = index
            if unit.tied_to is None:
                entries.append(self.done[unit.name].entry)
            else:
                same = self.done[unit.tied_to].entry
                entries.append(Entry(unit.name, same.dtype, same.shape, same.digest, (), places[unit.tied_to]))
        quantized = (s.distortion for s in self.done.values() if s.entry.chain[0].op != "raw")
        total = reduce(lambda a, b: a + b, quantized, Distortion())
        meta: dict[str, Any] = {
            "tersor": __version__,
            "recipe": {"method": "lossless"},
            "budget": self.budget,
        }
        if isinstance(self.goal, QualityGoal):
            meta["target"] = {self.goal.target.name: self.goal.target.limit}
        if price is not None:
            meta["recipe"] = recipe_of(self.method) | {"price": price}
            if total.error > 0 and total.energy > 0:
                meta["snr_db"] = float(np.round(10 * math.log10(total.energy / total.error), 3))
        return Manifest(tuple(entries), meta)
