"""Recipes `best` and `l2-paper`: weights and their transformation, learned together (`tersor.joint`), then coded.

Of what `best` learns and the file of `balanced`, finished (`tersor.joint.finish`), held-out samples choose: neither
wins everywhere. What was learned stays in the journal: a run that resumes does not learn it anew.
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
from tersor.methods import SecondOrder
from tersor.sources import MappingSource, Model

if TYPE_CHECKING:
    from tersor.job import Progress
    from tersor.joint import Recipe
    from tersor.report import Report


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
        if recipe.against_balanced and samples.held_out:
            job = Job(model, SecondOrder(), budget, nonfinite, workers, progress)
            finished = Finished(job, model, samples, device, seed)
            file = journal.folder / "finished.tsr"
            with Journal(file, key, resume=resume) as nested:
                report = job.run(nested, file, finished.fit, overwrite=True)
            made[file] = dataclasses.replace(report, notes=finished.notes)
        refined = refine(
            model, samples.calibration, ratio=budget.ratio, size=budget.size, bits=budget.bits, recipe=recipe,
            held_out=samples.held_out or None, device=device or "cpu", folder=journal.folder, seed=seed,
            progress=progress,
        )  # fmt: skip
        job = Job(
            MappingSource(refined.tensors), refined.method(), Budget(size=refined.budget), nonfinite, workers, progress
        )
        file = journal.folder / "learned.tsr"
        report = job.run(journal, file, job.fit, overwrite=True)
        ratio = f"{refined.paper_ratio:.2f}x by the L2 paper's formula: 32 bits a weight over the entropy of its levels"
        made[file] = dataclasses.replace(report, notes=(*samples.notes, ratio))
        chosen, note = _better(model, samples, list(made), device)
        with atomic_file(path, overwrite=overwrite) as out, chosen.open("rb") as found:
            shutil.copyfileobj(found, out)
        journal.remove()
    return dataclasses.replace(made[chosen], notes=(*made[chosen].notes, *note))


def _better(model: Model, samples: Samples, files: list[Path], device: str | None) -> tuple[Path, tuple[str, ...]]:
    """The file whose weights lose least on held-out samples, and what all of them lose."""
    if len(files) == 1:
        return files[0], ()
    evaluator, names = Evaluator(model, samples.held_out, device=device), model.module.state_dict()
    found = {f: evaluator({n: w for n, w in runtime.load(f).items() if n in names}) for f in files}
    losses = ", ".join(f"{file.stem} {loss.mean:.3g}" for file, loss in found.items())
    best = min(files, key=lambda file: found[file].mean)
    return best, (f"{best.stem} is kept: {UNITS[evaluator.kind]} on held-out samples: {losses}",)
