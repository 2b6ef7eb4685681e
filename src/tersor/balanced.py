"""Recipe `balanced`: statistics, a price, statistics again over what that price leaves, and the price again.

What was learned stays in the journal: a run that resumes does not learn it anew.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections import ChainMap
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tersor import runtime
from tersor.allocate.exchange import SHARES, exchanged, sensitivities
from tersor.allocate.price import TOLERANCE
from tersor.calibration.batches import within_memory
from tersor.calibration.collect import Collected, collect
from tersor.calibration.repair import repair
from tersor.calibration.samples import Samples
from tersor.calibration.sequential import collect_sequential
from tersor.calibration.statistics import Statistics
from tersor.calibration.stored import Stored
from tersor.evaluate.divergence import Evaluator
from tersor.evaluate.measures import check_kind
from tersor.journal import Journal
from tersor.methods.second_order import Bound
from tersor.sources import Model, Unit

if TYPE_CHECKING:
    from tersor.job import Goal, Job

ROUGHLY = 0.02
"""How closely the price is found at which inputs of the compressed prefix are looked at."""

CLOSELY = TOLERANCE - 0.001
"""How closely the price of the file is found: repaired biases and norms may take a few bytes less."""

CLEARLY = 0.9
"""What is learned from few samples must lower the held-out divergence to this share: on other inputs it may do harm."""

INDEX = "index.json"
"""The file of what was learned beside statistics, written last."""

Learned = tuple[Stored, float, dict[str, float], dict[str, float]]
"""Statistics, the price they were found at, settings that were chosen, and factors of units' steps."""


class Balanced:
    """One job of a calibrated method."""

    def __init__(self, job: Job, model: Model, samples: Samples, device: str | None, seed: int) -> None:
        self.job, self.model, self.samples = job, model, within_memory(model, samples, device)
        self.device, self.seed = device, seed
        self.settings: Any = job.method
        self.notes: tuple[str, ...] = samples.notes
        self.evaluator: Evaluator | None = None
        self.coarser: dict[str, float] = {}

    def first_method(self) -> Bound:
        """The method with statistics of the original model."""
        return self.settings.bind(self._collect({}))

    def fit(self, journal: Journal, goal: Goal) -> float:
        """Settings and a price by statistics of the original, statistics over what that leaves, the price again."""
        learned = load(journal.learned)
        if learned is None:
            learned = self._learn(journal, goal)
            save(journal.learned, *learned)
        statistics, price, chosen, self.coarser = learned
        self.settings = dataclasses.replace(self.settings, **chosen)
        self.job.method = self._bound(statistics)
        return self.fitted(journal, goal, price)

    def fitted(self, journal: Journal, goal: Goal, start: float) -> float:
        """Encode everything for the goal, and repair; returns the price."""
        price = self._fit(journal, goal, start, CLOSELY)
        self._repair(journal, goal, price, self.job.method.statistics)
        return price

    def _bound(self, statistics: Mapping[str, Statistics]) -> Bound:
        """The method with statistics, and with what was moved between units."""
        bound = self.settings.bind(statistics)
        return dataclasses.replace(bound, coarser=self.coarser) if self.coarser else bound

    def _learn(self, journal: Journal, goal: Goal) -> Learned:
        """Statistics over the compressed prefix, the price at which it was compressed, settings, and factors of
        steps."""
        shutil.rmtree(journal.learned, ignore_errors=True)
        stored = Stored(journal.learned)
        original = self._collect(stored)
        if self.samples.held_out and original.kind is not None:
            self.evaluator = Evaluator(
                self.model, self.samples.held_out, kind=check_kind(original.kind), device=self.device
            )
        chosen, best = self._choose(journal, goal, original)
        self.settings = dataclasses.replace(self.settings, **chosen)
        self._exchange(journal, goal, original, best)
        self.job.method = self._bound(original)
        price = self._fit(journal, goal, None, ROUGHLY)
        return self._sequential(original, stored, price), price, chosen, self.coarser

    def _exchange(self, journal: Journal, goal: Goal, original: Collected, best: float) -> None:
        """Move precision between units as far as that lowers the true divergence on held-out samples.

        What a unit does alone is measured on a few calibration samples: about as many runs as there are of these.
        """
        if self.evaluator is None or not self.settings.alternatives:
            return
        bound = self.job.method = self.settings.bind(original)
        units, price = self.job.guess(journal, self.job.nominal(goal))
        wanted = min(len(self.samples.calibration), -(-len(self.samples.calibration) // len(units)))
        places = np.linspace(0, len(self.samples.calibration) - 1, 2 * wanted + 1)[1::2].astype(int)
        few = [self.samples.calibration[k] for k in places]
        evaluator = Evaluator(self.model, few, kind=self.evaluator.kind, device=self.device)
        ratios = sensitivities(bound, units, price, lambda weights: evaluator(weights).mean)
        if len(ratios) < 2:
            return
        for share in SHARES:
            coarser = exchanged(ratios, units, share)
            found = self._trial(journal, goal, original, {}, coarser)
            if found >= best * CLEARLY:
                break
            best, self.coarser = found, coarser

    def _choose(self, journal: Journal, goal: Goal, original: Collected) -> tuple[dict[str, float], float]:
        """Settings that held-out samples prefer, one after another; of each, values until one is no better.

        And their divergence there."""
        chosen: dict[str, float] = {}
        if self.evaluator is None or not self.settings.alternatives:
            return chosen, math.inf
        best = self._trial(journal, goal, original, {})
        for name, values in self.settings.alternatives.items():
            if name == "embedding" and all(s.usage is None for s in original.values()):
                continue
            for value in values:
                found = self._trial(journal, goal, original, {**chosen, name: value})
                if found < best * CLEARLY:
                    best, chosen = found, {**chosen, name: value}
                    break
        return chosen, best

    def _trial(
        self,
        journal: Journal,
        goal: Goal,
        statistics: Collected,
        settings: Mapping[str, float],
        coarser: Mapping[str, float] | None = None,
    ) -> float:
        """Held-out divergence with other settings at about the budget, as if errors shrank by 6 dB a bit there."""
        bound = dataclasses.replace(self.settings, **settings).bind(statistics)
        self.job.method = dataclasses.replace(bound, coarser=coarser) if coarser else bound
        budget = self.job.nominal(goal)
        size = self.job.trial(journal, budget, f"{self.job.method.fingerprint}-")
        weights = sum(u.count for u in self.job.own if self.job.method.quantizes(u))
        found = self.measure(self.decoded(journal))
        journal.discard(keep={"kept", "whole"})
        return found * 4 ** (8 * (size - budget) / weights)

    def decoded(self, journal: Journal) -> dict[str, np.ndarray]:
        """What a file of what is done gives back."""
        path = journal.folder / "trial.tsr"
        self.job.put(path, None, overwrite=True)
        decoded = runtime.load(path, workers=self.job.workers)
        path.unlink()
        return decoded

    def measure(self, tensors: Mapping[str, np.ndarray]) -> float:
        """Divergence on held-out samples."""
        if self.evaluator is None:
            return 0.0
        names = self.model.module.state_dict()
        return self.evaluator({name: array for name, array in tensors.items() if name in names}).mean

    def _repair(self, journal: Journal, goal: Goal, price: float, statistics: Mapping[str, Statistics]) -> None:
        """Let biases and batch norms make up for what rounding shifts, where held-out samples confirm it."""
        if not self.samples.held_out:
            return
        if self.evaluator is None:
            self.evaluator = Evaluator(self.model, self.samples.held_out, device=self.device)
        decoded = self.decoded(journal)
        tensors = {name: decoded[name] for name in self.model.module.state_dict() if name in decoded}
        found = repair(self.model, tensors, statistics, self.samples.held_out, self.measure)
        if found.tensors:
            self.job.replace(journal, goal if isinstance(goal, int) else self.job.source_bytes, price, found.tensors)

    def _fit(self, journal: Journal, goal: Goal, start: float | None, tolerance: float) -> float:
        stage = f"{self.job.method.fingerprint}-{self.job.nominal(goal)}-"
        return self.job.fit(journal, goal, stage, start, tolerance)

    def _collect(self, into: MutableMapping[str, Statistics]) -> Collected:
        self.job.progress("learning from samples", 0, len(self.samples.calibration))
        found = collect(self.model, self.samples.calibration, device=self.device, seed=self.seed, into=into)
        self.notes += found.notes
        return found

    def _sequential(self, original: Collected, stored: Stored, price: float) -> Stored:
        """Statistics over the compressed prefix, with those of the original where there are no others.

        Only if held-out samples confirm that they are better than those of the original alone: few samples may mislead.
        """
        units = {u.name: u for u in self.job.own}
        found = stored.copy()

        def rebuilt(statistics: Mapping[str, Statistics]) -> Iterator[tuple[str, np.ndarray]]:
            bound = dataclasses.replace(self.job.method, statistics=ChainMap(statistics, original))  # type: ignore[arg-type]
            return ((n, bound.rebuilt(u, u.load(), price)) for n in statistics if (u := self._lossy(units, n)))

        def quantize(statistics: Mapping[str, Statistics]) -> dict[str, np.ndarray]:
            found.update(statistics)
            return dict(rebuilt(statistics))

        result = collect_sequential(
            self.model, self.samples.calibration, quantize, original, device=self.device, seed=self.seed,
            folder=stored.folder,
        )  # fmt: skip
        self.notes += result.notes
        if self.evaluator is None:
            return found
        after = self.evaluator.of_module(result.module).mean
        with torch.no_grad():
            parameters = dict(result.module.named_parameters())
            for name, weights in rebuilt(original):
                parameters[name].copy_(torch.from_numpy(weights))
        return found if after <= CLEARLY * self.evaluator.of_module(result.module).mean else stored

    def _lossy(self, units: Mapping[str, Unit], name: str) -> Unit | None:
        unit = units.get(name)
        return unit if unit is not None and self.job.method.quantizes(unit) else None


def save(
    folder: Path, statistics: Stored, price: float, chosen: Mapping[str, float], coarser: Mapping[str, float]
) -> None:
    """Keep what was learned beside the statistics."""
    known = {"units": statistics.files, "price": price, "chosen": dict(chosen), "coarser": dict(coarser)}
    folder.mkdir(exist_ok=True)
    temporary = folder / f"{INDEX}.part"
    temporary.write_text(json.dumps(known))
    temporary.replace(folder / INDEX)


def load(folder: Path) -> Learned | None:
    """What `save` kept, or None."""
    try:
        known = json.loads((folder / INDEX).read_text())
    except (OSError, ValueError):
        return None
    return Stored(folder, known["units"]), known["price"], known["chosen"], known["coarser"]
