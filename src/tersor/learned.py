"""Recipes `best` and `l2-paper`: weights and their transformation, learned together (`tersor.joint`), then coded.

What was learned stays in the journal: a run that resumes does not learn it anew.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from tersor import _core
from tersor._version import __version__
from tersor.allocate.budget import Budget
from tersor.calibration.samples import Samples
from tersor.format import cbor
from tersor.journal import Journal
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
        refined = refine(
            model, samples.calibration, ratio=budget.ratio, size=budget.size, bits=budget.bits, recipe=recipe,
            held_out=samples.held_out or None, device=device or "cpu", folder=journal.folder, seed=seed,
            progress=progress,
        )  # fmt: skip
        source = MappingSource(refined.tensors)
        job = Job(source, refined.method(), Budget(size=refined.budget), nonfinite, workers, progress)
        report = job.run(journal, path, job.fit, overwrite=overwrite)
        journal.remove()
    ratio = f"{refined.paper_ratio:.2f}x by the L2 paper's formula: 32 bits a weight over the entropy of its levels"
    return dataclasses.replace(report, notes=(*samples.notes, ratio))
