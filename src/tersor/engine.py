"""compress = source -> method at a price -> journal -> file of the asked size."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import reduce
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tersor import _core
from tersor._version import __version__
from tersor.allocate.price import AIM, Trials, predict, search
from tersor.encoded import Distortion, Encoded
from tersor.errors import BudgetError, SourceError
from tersor.format import cbor
from tersor.format.layout import HEADER_SIZE
from tersor.format.manifest import Entry, Manifest
from tersor.format.writer import file_size, refuse_existing, write
from tersor.journal import Journal, StoredUnit
from tersor.methods import Method, Nearest, Sample, keep
from tersor.ops.uniform import FLOATS
from tersor.parallel import for_each
from tersor.report import Report
from tersor.sources import ITEMSIZE, Source, Unit, open_source

SAMPLES = 2**22
"""Weights of all units together that are kept in memory to predict sizes."""
LOWEST_PRICE, HIGHEST_PRICE = 1e-30, 1e12
LOSSLESS_SHARE = 0.5
"""A budget above this share of the source may have room for every bit: that is tried first."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many bytes of the source are done, and how many there are."""


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


def compress(
    source: Any,
    output: str | os.PathLike[str],
    *,
    ratio: float | None = None,
    size: int | None = None,
    bits: float | None = None,
    lossless: bool = False,
    method: Method | None = None,
    nonfinite: Literal["keep", "fail"] = "keep",
    overwrite: bool = False,
    resume: bool = False,
    dry_run: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Compress a model into one file of the asked size.

    `source` is what `open_source` takes: a path, a `torch.nn.Module`, a mapping of arrays. The size is that of the
    whole file: at most `source bytes / ratio`, `size` bytes, or `bits` per weight, and at most 0.5 % below;
    `lossless` keeps every bit instead. Tensors with NaN or infinite weights are kept bit for bit and named in the
    report, or refused (`nonfinite="fail"`).

    A run that is killed leaves its work in a hidden folder beside `output`; with `resume` it goes on from there.
    `dry_run` plans and predicts but writes nothing. Raises `SourceError`, `BudgetError` (with what can be reached)
    or `OutputError`.
    """
    path = Path(output)
    if not overwrite and not dry_run:
        refuse_existing(path)
    if lossless and any(v is not None for v in (ratio, size, bits)):
        raise BudgetError("lossless and a size contradict each other", remedy="give one of them")
    budget = None if lossless else Budget(ratio, size, bits)
    job = _Job(
        open_source(source),
        method or Nearest(),
        budget,
        nonfinite,
        workers or min(os.cpu_count() or 1, 8),
        progress,
    )
    if dry_run:
        return job.forecast()
    journal = Journal(path, job.key(), resume=resume)
    report = job.run(journal, path, overwrite=overwrite)
    journal.remove()
    return report


def recipe_of(method: Method) -> dict[str, Any]:
    """A method and its settings, as they stand in the file."""
    return {"method": method.name, **{f.name: getattr(method, f.name) for f in fields(method)}}  # type: ignore[arg-type]


def _refused(name: str) -> SourceError:
    return SourceError(
        "a tensor has NaN or infinite weights",
        where=f"tensor {name!r}",
        remedy="repair it, or let it be kept bit for bit (--nonfinite keep)",
    )


class _Job:
    """One compression. Units are read from the source whenever they are needed and never kept."""

    def __init__(
        self,
        source: Source,
        method: Method,
        budget: Budget | None,
        nonfinite: str,
        workers: int,
        progress: Progress | None,
    ) -> None:
        self.source = source
        self.method = method
        self.nonfinite = nonfinite
        self.workers = workers
        self.progress = progress or (lambda *_: None)
        self.units = list(source.units())
        self.own = [u for u in self.units if u.tied_to is None]
        self.numbers = {u.name: k for k, u in enumerate(self.units)}
        self.source_bytes = sum(u.nbytes for u in self.own)
        self.budget = (
            budget.resolve(self.source_bytes, sum(u.count for u in self.own if u.dtype in FLOATS)) if budget else None
        )
        self.done: dict[str, StoredUnit] = {}

    def key(self) -> str:
        """Identifies the job: another source, method, budget or version is another job."""
        settings = [
            __version__,
            self.source.fingerprint(),
            recipe_of(self.method),
            self.budget,
            self.nonfinite,
        ]
        return f"{_core.hash(cbor.encode(settings)):016x}"

    def run(self, journal: Journal, path: Path, *, overwrite: bool) -> Report:
        """Encode, at the right price if there is a budget, and write the file."""
        price = None
        if self.budget is None or not self._fits_whole(journal, self.budget):
            if self.budget is None:
                self._encode(
                    journal,
                    "whole",
                    self.own,
                    lambda u: keep.lossless(u, u.load()),
                    "compressing without loss",
                )
            else:
                price = self._fit(journal, self.budget)
        manifest = self._manifest(price)
        pieces = (piece for unit in self.own for piece in self.done[unit.name].pieces())
        written = write(path, manifest, pieces, overwrite=overwrite)
        kept_whole = tuple(u.name for u in self.own if not self.done[u.name].finite)
        return replace(Report.of(manifest, written), skipped=tuple(self.source.skipped), kept_whole=kept_whole)

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
        finish = keep.lossless if self.budget is None else keep.rounded
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

    def _fits_whole(self, journal: Journal, budget: int) -> bool:
        """Whether the budget has room for every bit; if so, that is what `done` holds."""
        if budget < LOSSLESS_SHARE * self.source_bytes:
            return False
        self._encode(journal, "whole", self.own, lambda u: keep.lossless(u, u.load()), "compressing without loss")
        if file_size(self._manifest(None)) <= budget:
            return True
        self.done.clear()
        return False

    def _fit(self, journal: Journal, budget: int) -> float:
        """Encode everything at the price at which the file just fits; returns the price."""
        candidates = [u for u in self.own if self.method.quantizes(u)]
        samples = self._samples(candidates)
        lossy = [u for u in candidates if u.name in samples]
        kept = [u for u in self.own if u.name not in samples]
        self._encode(journal, "kept", kept, lambda u: keep.rounded(u, u.load()), "keeping small tensors")
        fixed = HEADER_SIZE + 40 * len(self.units) + sum(s.nbytes for s in self.done.values())
        start, slope = self._guess(samples, fixed, budget)

        def encode(price: float) -> None:
            self._encode(journal, price.hex(), lossy, lambda u: self.method.encode(u, u.load(), price), "compressing")

        known = Trials(journal.sizes())

        def size(price: float) -> int:
            encode(price)
            measured = known.sizes[price] = file_size(self._manifest(price))
            journal.note_size(price, measured)
            best = known.best(budget)
            journal.discard(keep={"kept", "whole", price.hex()} | ({best.hex()} if best else set()))
            return measured

        if lossy:
            trials = search(budget, size, start, slope, known)
            best, smallest = trials.best(budget), min(trials.sizes.values())
        else:
            best, smallest = start, file_size(self._manifest(None))
        if best is None or smallest > budget:
            raise self._too_small(budget, smallest)
        encode(best)
        return best

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
        reachable = f"the smallest file that method {self.method.name} makes of it has about {smallest:,} bytes"
        return BudgetError(
            f"{budget:,} bytes cannot be reached",
            where=self.source.label,
            remedy=f"{reachable} ({self.source_bytes / smallest:.1f}x)",
        )

    # -- the file ----------------------------------------------------------------------------------------------------

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
        quantized = (s.distortion for s in self.done.values() if s.entry.chain[0].op == "uniform")
        total = reduce(lambda a, b: a + b, quantized, Distortion())
        meta: dict[str, Any] = {
            "tersor": __version__,
            "recipe": {"method": "lossless"},
            "budget": self.budget,
        }
        if price is not None:
            meta["recipe"] = recipe_of(self.method) | {"price": price}
            if total.error > 0 and total.energy > 0:
                meta["snr_db"] = float(np.round(10 * math.log10(total.energy / total.error), 3))
        return Manifest(tuple(entries), meta)
