"""How far the outputs of a compressed model are from the original's, on samples."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tersor.errors import CalibrationError, MismatchError, SettingError
from tersor.evaluate.measures import Kind, divergence, kind_of, rows
from tersor.memory import trim_after
from tersor.sources.model import Model, current_folder_importable, python_object
from tersor.sources.running import Sample, evaluating, moved, on_device

if TYPE_CHECKING:
    import torch

UNITS: Mapping[Kind, str] = {
    "logits": "KL divergence in nats",
    "probabilities": "KL divergence in nats",
    "bernoulli": "KL divergence in nats, summed over outputs",
    "vectors": "1 - cosine",
    "values": "relative squared error",
}
"""What the numbers are."""


@dataclass(frozen=True)
class Divergence:
    """Mean divergence over output rows, what was measured, and over how many rows."""

    mean: float
    kind: Kind
    rows: int

    def __str__(self) -> str:
        return f"{self.mean:.3g} ({UNITS[self.kind]} over {self.rows} outputs)"


KEPT = 2**25
"""Numbers of the original's outputs that are kept. Of wider ones, as those of language models are, not all rows are."""


class Evaluator:
    """The divergence of other weights from the original's outputs, which are computed once and kept.

    Outputs are compared on `samples`, padding left out; `kind` is guessed by default. While a divergence is measured,
    the model's own module holds the other weights. Raises `CalibrationError` when there are no samples, when the model
    fails on them, and when its own outputs are not finite.
    """

    def __init__(
        self, model: Model, samples: Sequence[Sample], *, kind: Kind | None = None, device: str | None = None
    ) -> None:
        import torch

        if not samples:
            raise CalibrationError("there are no samples to evaluate on", remedy="give at least two model inputs")
        self.model = model
        self._module = on_device(model.module, device)
        tensors = [*self._module.parameters(), *self._module.buffers()]
        self._samples = [moved(s, tensors[0].device) if tensors else s for s in samples]
        self._outputs = list[torch.Tensor]()
        for number in range(len(self._samples)):
            result, output = self._run(self._module, number)
            kind = kind or kind_of(result, output)
            if not bool(torch.isfinite(output).all()):
                raise CalibrationError(
                    "the model's output is NaN or infinite",
                    where=f"sample {number}",
                    remedy="look for samples that the model cannot take",
                )
            if not number:
                self._every = -(-output.numel() * len(self._samples) // KEPT)
            self._outputs.append(rows(kind, output)[:: self._every].clone())
        self._kind: Kind = kind or "values"

    @property
    def kind(self) -> Kind:
        """What the outputs are taken for."""
        return self._kind

    def _run(self, module: torch.nn.Module, number: int) -> tuple[Any, torch.Tensor]:
        sample = self._samples[number]
        trim_after(number)
        with evaluating(module):
            result = self.model.run(sample, module, f"sample {number}")
            return result, self.model.outputs(result, sample)[0]

    def of_module(self, module: torch.nn.Module) -> Divergence:
        """The divergence of another module of the same architecture, on the same device."""
        import torch

        parts = list[torch.Tensor]()
        for number, before in enumerate(self._outputs):
            after = rows(self._kind, self._run(module, number)[1])[:: self._every]
            parts.append(divergence(self._kind, before, after))
            del after
        every = torch.cat(parts)
        mean = float(every.mean())
        return Divergence(max(mean, 0.0) if math.isfinite(mean) else math.inf, self._kind, len(every))

    def __call__(self, tensors: Mapping[str, npt.NDArray[Any]]) -> Divergence:
        """The divergence with these weights in place of the original's; the others stay the original's.

        Outputs that are NaN count as infinitely far. Raises `MismatchError` for unknown names and other shapes.
        """
        import torch

        state = self._module.state_dict(keep_vars=True)
        originals = {name: state[name].data for name in tensors if name in state}
        try:
            for name, array in tensors.items():
                if name not in state or tuple(state[name].shape) != np.shape(array):
                    raise MismatchError(f"the model has no tensor {name} of shape {np.shape(array)}")
                state[name].data = torch.from_numpy(np.asarray(array)).to(state[name])
            return self.of_module(self._module)
        finally:
            for name, original in originals.items():
                state[name].data = original


def user_metric(reference: str, module: torch.nn.Module) -> float:
    """The number that `python:MODULE:FUNCTION` returns for a module, larger is better.

    Raises `SettingError` when there is no such function, and `CalibrationError` when it fails or returns no number.
    """
    function = python_object(reference)
    if not callable(function):
        raise SettingError("the metric is no function", where=reference, remedy="write def metric(module) -> float")
    with evaluating(module), current_folder_importable():
        try:
            value = float(function(module))  # type: ignore[arg-type]
        except (TypeError, ValueError, RuntimeError, LookupError, AttributeError, OSError) as error:
            raise CalibrationError(
                f"the metric fails: {type(error).__name__}: {error}", where=reference, remedy="try it on the module"
            ) from error
    if math.isnan(value):
        raise CalibrationError(
            "the metric is NaN", where=reference, remedy="make it return a number for every module it is given"
        )
    return value
