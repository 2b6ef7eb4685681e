"""Recipes `best` and `l2-paper`: weights and their transformation, learned together (`tersor.joint`), then coded.

Recipe `best` makes the file of `balanced`, finished (`tersor.joint.finish`), and that of rounding without data. Only
where the latter comes near the former is there something to learn from. Held-out samples choose among the files. What
was learned stays in the journal: a run that resumes does not learn it anew.
"""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from tersor import _core, runtime
from tersor._version import __version__
from tersor.allocate.budget import Budget
from tersor.calibration.samples import Samples
from tersor.evaluate.divergence import UNITS, Evaluator
from tersor.format import cbor
from tersor.format.writer import atomic_file
from tersor.joint.finish import Finished
from tersor.journal import Journal
from tersor.methods import Nearest, SecondOrder
from tersor.sources import MappingSource, Model

if TYPE_CHECKING:
    from tersor.job import Progress
    from tersor.joint import Recipe
    from tersor.report import Report

HOPELESS = 6
"""Where rounding without data loses so many times what the finished file does, nothing is learned from it: of its
loss, learning left a sixth or more wherever it was measured (decision 0025)."""


def compress_learned(
    recipe: Recipe,
    model: Model,
    samples: Samples,
    budget: Budget,
    path: Path,
    *,
    device: str | None,
    seed: int,
    nonfinite: str,
    overwrite: bool,
    resume: bool,
    workers: int,
    progress: Progress | None,
) -> Report:
    """Learn weights and transformation of a model, and write the file: recipes `best` and `l2-paper`."""
    from tersor.job import Job
    from tersor.joint import refine

    settings = dataclasses.asdict(recipe)
    parts = [__version__, model.fingerprint(), settings, budget.ratio, budget.size, budget.bits, nonfinite, seed]
    key = f"{_core.hash(cbor.encode([*parts, samples.fingerprint()])):016x}"
    with Journal(path, key, resume=resume) as journal:
        if not resume:
            (journal.folder / "learning.pt").unlink(missing_ok=True)
        made: dict[Path, Report] = {}
        losses, evaluator = list[float](), None
        if recipe.against_balanced and samples.held_out:
            evaluator = Evaluator(model, samples.held_out, device=device)
            nearest = Job(model, Nearest(), budget, nonfinite, workers, progress)
            job = Job(model, SecondOrder(), budget, nonfinite, workers, progress)
            finished = Finished(job, model, samples, device, seed)
            for name, work, fit in (("finished", job, finished.fit), ("nearest", nearest, nearest.fit)):
                file = journal.folder / f"{name}.tsr"
                with Journal(file, key, resume=resume) as nested:
                    report = work.run(nested, file, fit, overwrite=True)
                made[file] = dataclasses.replace(report, notes=finished.notes)
                losses.append(_loss(evaluator, file))
        if evaluator is None or losses[1] < HOPELESS * losses[0]:
            refined = refine(
                model, samples.calibration, ratio=budget.ratio, size=budget.size, bits=budget.bits, recipe=recipe,
                held_out=samples.held_out or None, device=device or "cpu", folder=journal.folder, seed=seed,
                progress=progress,
            )  # fmt: skip
            source, goal = MappingSource(refined.tensors), Budget(size=refined.budget)
            job = Job(source, refined.method(), goal, nonfinite, workers, progress)
            file = journal.folder / "learned.tsr"
            report = job.run(journal, file, job.fit, overwrite=True)
            formula = "by the L2 paper's formula: 32 bits a weight over the entropy of its levels"
            made[file] = dataclasses.replace(report, notes=(*samples.notes, f"{refined.paper_ratio:.2f}x {formula}"))
            losses.append(_loss(evaluator, file) if evaluator is not None else 0.0)
        chosen = min(zip(losses, made, strict=True), key=lambda pair: pair[0])[1]
        with atomic_file(path, overwrite=overwrite) as out, chosen.open("rb") as found:
            shutil.copyfileobj(found, out)
        journal.remove()
    report = made[chosen]
    if evaluator is not None:
        listed = ", ".join(f"{file.stem} {loss:.3g}" for file, loss in zip(made, losses, strict=True))
        note = f"{chosen.stem} is kept: {UNITS[evaluator.kind]} on held-out samples: {listed}"
        report = dataclasses.replace(report, notes=(*report.notes, note))
    return report


def _loss(evaluator: Evaluator, file: Path) -> float:
    """Of the weights of a file, on held-out samples."""
    names = evaluator.model.module.state_dict()
    return evaluator({name: weights for name, weights in runtime.load(file).items() if name in names}).mean
