"""What a finished file is worth: the weights decoded from it, on samples or by a metric of the user's."""

from __future__ import annotations

import copy
import inspect
import os
from dataclasses import asdict, dataclass
from typing import Any

from tersor.calibration.samples import COUNT, load_samples
from tersor.evaluate.divergence import Divergence, Evaluator, user_metric
from tersor.runtime import load, load_into
from tersor.sources import open_source
from tersor.sources.model import Model, load_units, python_object
from tersor.sources.running import on_device


@dataclass(frozen=True)
class Quality:
    """Quality of decoded weights: a divergence from the original's outputs, or a metric before and after."""

    divergence: Divergence | None = None
    before: float | None = None
    after: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def __str__(self) -> str:
        if self.divergence is not None:
            return f"divergence {self.divergence}"
        return f"metric {self.after:.6g}, of the original {self.before:.6g}"


def is_metric(data: Any) -> bool:
    """Whether what to evaluate by is a metric: `python:MODULE:FUNCTION` whose function takes the module."""
    if not (isinstance(data, str) and data.startswith("python:")):
        return False
    function = python_object(data)
    if not callable(function):
        return False
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


class Assessment:
    """Measures files against the model that they are made from, which is measured first.

    `data` is samples as `load_samples` takes them, or `python:MODULE:FUNCTION` whose function takes a module and
    returns a number. Raises `CalibrationError` for data that cannot be used, and for a metric that is NaN or fails.
    """

    def __init__(
        self, model: Model, data: Any, *, count: int = COUNT, seed: int = 0, device: str | None = None
    ) -> None:
        self.model = model
        self._module = on_device(model.module, device)
        self._metric: str | None = data if is_metric(data) else None
        if self._metric is not None:
            self._before = user_metric(self._metric, self._module)
            self.fingerprint = self._metric
        else:
            samples = load_samples(data, model, count=count, seed=seed)
            self.fingerprint = samples.fingerprint()
            """Changes with what is measured on."""
            self._evaluator = Evaluator(model, [*samples.calibration, *samples.held_out], device=device)

    @property
    def metric(self) -> float | None:
        """The original's, if files are measured by one; None if by a divergence on samples."""
        return None if self._metric is None else self._before

    def __call__(self, file: str | os.PathLike[str]) -> Quality:
        """The quality of the weights that are decoded from a file."""
        decoded = copy.deepcopy(self._module)
        _decode(decoded, self.model, file)
        if self._metric is not None:
            return Quality(before=self._before, after=user_metric(self._metric, decoded))
        return Quality(self._evaluator.of_module(decoded))


def _decode(module: Any, model: Model, file: str | os.PathLike[str]) -> None:
    """Put the weights of a file into a module, which may have tied tensors and buffers that the file does not hold."""
    state = module.state_dict(keep_vars=True)
    if set(state) == {unit.name for unit in model.units()}:
        load_into(module, file)
        return
    decoded = {name: array for name, array in load(file).items() if name in state}
    load_units(module, open_source(decoded).units(), os.fspath(file))
