"""One pass over the samples: statistics of every layer of the original model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING

from tersor.calibration.statistics import Statistics
from tersor.errors import CalibrationError
from tersor.evaluate.measures import Kind, draw, kind_of
from tersor.memory import trim, trim_after
from tersor.sources.running import Sample, evaluating, mask_of, moved, on_device

if TYPE_CHECKING:
    import torch

    from tersor.calibration.recorder import Recorder
    from tersor.sources.model import Model


CLOSELY = 16
"""Samples of which gradients of weights are looked at."""


class Collected(Mapping[str, Statistics]):
    """Statistics by unit name; `notes` says what could not be learned, `kind` what the model's output was taken for."""

    def __init__(self, statistics: Mapping[str, Statistics], notes: Sequence[str], kind: Kind | None) -> None:
        self.statistics = statistics
        self.notes = tuple(notes)
        self.kind = kind

    def __getitem__(self, name: str) -> Statistics:
        return self.statistics[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.statistics)

    def __len__(self) -> int:
        return len(self.statistics)

    def __contains__(self, name: object) -> bool:
        return name in self.statistics


def collect(
    model: Model,
    samples: Sequence[Sample],
    *,
    device: str | None = None,
    seed: int = 0,
    kind: Kind | None = None,
    gradients: bool = True,
    into: MutableMapping[str, Statistics] | None = None,
) -> Collected:
    """Run the original model on the samples, forwards and once backwards, and return the statistics of its layers.

    Layers that are never called, or in ways that are not linear in a parameter, have none; `notes` names them.
    `kind` says how outputs diverge (guessed by default), `gradients=False` leaves Fisher information out (zeros).
    `into` takes the statistics one after another, a dictionary by default. Memory: sums, and what one sample takes.
    Raises `CalibrationError` for no samples, samples that the model fails on, and NaN or infinite activations, with the
    name of the layer.
    """
    import torch

    from tersor.calibration.recorder import Recorder

    if not samples:
        raise CalibrationError("there are no samples", remedy="give at least one batch of model inputs")
    trim()
    module = on_device(model.module, device)
    parameters = dict(module.named_parameters())
    generator = torch.Generator().manual_seed(seed)
    recorder = Recorder(parameters, len(samples), generator, gradients=gradients)
    recorder.remember = None  # all of them, until it is known what the first output depends on
    outputs, spread = 0, -(-len(samples) // CLOSELY)
    with evaluating(module, gradients=gradients):
        for number, sample in enumerate(samples):
            where = f"sample {number}"
            inputs = moved(sample, next(iter(parameters.values())).device) if parameters else sample
            recorder.mask = mask_of(inputs)
            recorder.closely = number % spread == 0
            recorder.half = number % 2
            with recorder:
                result = model.run(inputs, module, where)
            results = model.outputs(result, inputs)
            kind = kind or kind_of(result, results[0])
            del result
            outputs += _backward(recorder, results, kind, generator, where) if gradients else 1
            del results
            trim_after(number)
    notes = _notes(recorder, parameters, gradients)
    found = dict[str, Statistics]() if into is None else into
    for name in list(recorder.sums):
        found[name] = recorder.sums.pop(name).finish(outputs)
    trim()
    return Collected(found, notes, kind)


def _backward(recorder: Recorder, found: list[torch.Tensor], kind: Kind, generator: torch.Generator, where: str) -> int:
    """Send a random draw back through the sample's graph; returns the number of output rows.

    Layers that the first output does not depend on get their gradients from the other outputs, taken as vectors.
    """
    import torch

    try:
        rows, gradient = draw(kind, found[0], generator)
    except CalibrationError as error:
        raise CalibrationError(error.what, where=where, remedy=error.remedy) from None
    if not rows.requires_grad:
        raise CalibrationError(
            "the output does not depend on any layer by differentiable steps",
            where=where,
            remedy="do not run the model under no_grad, or collect without gradients",
        )
    others = [output for output in found[1:] if output.requires_grad and output.dim() >= 2]
    torch.autograd.backward(rows, gradient, retain_graph=bool(others))
    if recorder.remember is None:
        recorder.remember = {name for name, sums in recorder.sums.items() if sums.fisher is None and not sums.looked_up}
    watched = [(name, output) for name, output in recorder.outputs if name in recorder.remember]
    recorder.outputs.clear()
    if watched and others:
        drawn = [draw("vectors", output, generator) for output in others]
        torch.autograd.grad(
            [rows for rows, _ in drawn],
            [output for _, output in watched],
            [gradient for _, gradient in drawn],
            allow_unused=True,
        )
    for sums in recorder.sums.values():
        sums.take_gradient()
    return len(rows)


def _notes(recorder: Recorder, parameters: Mapping[str, torch.Tensor], gradients: bool) -> list[str]:
    """What could not be learned, a line each."""
    notes = list[str]()
    for name, parameter in parameters.items():
        sums = recorder.sums.get(name)
        if sums is None or sums.calls == 0:
            if parameter.dim() >= 2:
                notes.append(f"{name}: never called on the samples, or not as a linear map: no statistics")
            continue
        if gradients and not sums.looked_up and (sums.fisher is None or not bool(sums.fisher.any())):
            notes.append(f"{name}: no output of the model depends on it")
        dead = 0 if sums.own is None else int((sums.own.products.diagonal(dim1=-2, dim2=-1) == 0).sum())
        if dead:
            notes.append(f"{name}: {dead} of its inputs are always zero")
    few = {
        name: (min(sums.seen), sums.own.totals.shape[1])
        for name, sums in recorder.sums.items()
        if sums.own is not None and min(sums.seen) < sums.own.totals.shape[1]
    }
    if few:
        worst = min(few, key=lambda name: few[name][0] / few[name][1])
        seen, width = few[worst]
        others = f" (and {len(few) - 1} more)" if len(few) > 1 else ""
        notes.append(
            f"{worst}{others}: fewer inputs ({seen}) than they are wide ({width}): more samples, of all kinds that the "
            "model will meet, make a better file"
        )
    return notes
