"""compress = source -> method at a price -> journal -> file of the asked size."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tersor.allocate.budget import Budget
from tersor.allocate.quality import QualityGoal, QualityTarget, asked_for
from tersor.calibration.samples import COUNT, load_samples
from tersor.errors import BudgetError, CalibrationError
from tersor.evaluate.quality import Assessment
from tersor.format.writer import check_output
from tersor.job import Job, Progress
from tersor.journal import Journal
from tersor.methods import Calibrated, Method
from tersor.recipe import LEARNED, choose
from tersor.report import Report
from tersor.sources import Model, open_model, open_source
from tersor.sources.running import check_device

if TYPE_CHECKING:
    from tersor.joint import Recipe


def compress(
    source: Any,
    output: str | os.PathLike[str],
    *,
    ratio: float | None = None,
    size: int | None = None,
    bits: float | None = None,
    lossless: bool = False,
    max_divergence: float | None = None,
    max_drop: float | None = None,
    method: Method | Calibrated | Recipe | None = None,
    recipe: str | os.PathLike[str] | None = None,
    calibration: Any = None,
    weights: str | os.PathLike[str] | None = None,
    calibration_count: int = COUNT,
    device: str | None = None,
    seed: int = 0,
    evaluation: Any = None,
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
    `lossless` keeps every bit instead. Or it is the smallest at which the decoded weights are good enough:
    `max_divergence` bounds the mean divergence from the original's outputs, on `evaluation` or else on what is held out
    of `calibration`; `max_drop` what the metric `evaluation` loses, as a share of the original's (0.005 is 0.5 %).

    `recipe` is "fast" (method `nearest`, no data), "balanced" (method `second_order`, learns from `calibration`),
    "best" (weights and steps learned together by gradients), "l2-paper" (the same as the L2 paper has it), or a file
    that ends in `.toml` (see `tersor.recipe`); `method` is a method, or one of `tersor.joint`'s recipes, with other
    settings. The default is balanced where there is calibration: unlabelled inputs as `load_samples` takes them, for
    a source that can run (`open_model`). `weights` is the state dict of sources that need one; `calibration_count`
    inputs are used, on `device`; `seed` fixes which are held out. `evaluation` is samples, or `python:MODULE:FUNCTION`
    that returns a number for a module: the weights decoded from the file are measured by it, and the result is the
    report's `quality`.

    Tensors with NaN or infinite weights are kept bit for bit and named in the report, or refused
    (`nonfinite="fail"`).

    A run that is killed, or fails for another reason than its budget, leaves its work in a hidden folder beside
    `output`, `.NAME.journal`; with `resume` it goes on from there, without it begins anew. `dry_run` plans and predicts
    but writes nothing. `workers` is threads, one a core up to 8 by default; `progress` is called with what is being
    done, how much of it is done, and how much there is. Raises `SourceError`, `SettingError`, `BudgetError` (with what
    can be reached), `OutputError`, or `CalibrationError`.
    """
    path = Path(output)
    if not dry_run:
        check_output(path, overwrite=overwrite)
    asked = asked_for(lossless, (ratio, size, bits), (max_divergence, max_drop))
    if dry_run and isinstance(asked, QualityTarget):
        raise BudgetError("a dry run measures no quality", remedy="predict the file of a ratio, a size or bits")
    chosen: Any = choose(recipe, None, (), calibration) if method is None else method
    learns = chosen.name in LEARNED
    if learns and (not isinstance(asked, Budget) or calibration is None or dry_run):
        raise CalibrationError(
            f"recipe {chosen.name} learns for a size, from samples",
            remedy="give a size and calibration data, and no dry run",
        )
    workers = workers or min(os.cpu_count() or 1, 8)
    if device is not None:
        check_device(device)
    opened, samples = open_source(source, weights=weights), None
    if asked is not None and (learns or isinstance(chosen, Calibrated) or isinstance(asked, QualityTarget)):
        if calibration is None and isinstance(chosen, Calibrated):
            raise CalibrationError(f"method {chosen.name} needs samples", remedy="give calibration data")
        opened = opened if isinstance(opened, Model) else open_model(source)
        if calibration is not None:
            samples = load_samples(calibration, opened, count=calibration_count, seed=seed)
    assess, options = None, {"count": calibration_count, "seed": seed, "device": device}
    if evaluation is not None and not dry_run:
        opened = opened if isinstance(opened, Model) else open_model(source)
        assess = Assessment(opened, evaluation, **options)
    if learns:
        from tersor.learned import compress_learned

        report = compress_learned(
            chosen, opened, samples, asked, path,  # type: ignore[arg-type]
            device=device, seed=seed, nonfinite=nonfinite, overwrite=overwrite, resume=resume, workers=workers,
            progress=progress,
        )  # fmt: skip
        return replace(report, quality=assess and assess(path))
    goal = asked
    if isinstance(goal, QualityTarget):
        goal = QualityGoal.of(goal, opened, assess, samples, **options)  # type: ignore[arg-type]
        assess = assess or goal.measure
    job = Job(opened, chosen, goal, nonfinite, workers, progress)
    if samples is not None and isinstance(chosen, Calibrated):
        from tersor.balanced import Balanced

        balanced = Balanced(job, opened, samples, device, seed)  # type: ignore[arg-type]
        if dry_run:
            job.method = balanced.first_method()
            return job.forecast()
        key, fit, learned = job.key(samples.fingerprint(), seed), balanced.fit, balanced
    else:
        if dry_run:
            return job.forecast()
        key, fit, learned = job.key(), job.fit, None
    with Journal(path, key, resume=resume) as journal:
        report = job.run(journal, path, fit, overwrite=overwrite)
        journal.remove()
    return replace(report, notes=learned.notes if learned else (), quality=assess and assess(path))
