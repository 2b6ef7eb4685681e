"""Repair of what rounding shifts on average: per-output offsets into biases or batch norms, gains into batch norms.

Both follow from the statistics of a layer's inputs x alone. Of an output i the mean error is w_i E[x] - w^_i E[x^],
with x^ the inputs that the compressed layers before give, and the gain that brings its outputs closest to the
original's is w_i S w^_i / w^_i S w^_i, with S the covariance of x^ about its mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from tersor.calibration.recorder import Recorder
from tersor.calibration.statistics import Float64, Statistics
from tersor.sources.model import Model
from tersor.sources.running import Sample, evaluating

Arrays = dict[str, npt.NDArray[Any]]

SMALLEST_GAIN, LARGEST_GAIN = 0.5, 2.0
"""Gains beyond these speak of outputs that are lost, and are left alone."""


@dataclass(frozen=True)
class Absorber:
    """Where changes of a layer's outputs can go: its bias, or the batch norm that follows it directly."""

    bias: str | None
    norm: str | None
    """Name of the batch norm module; its parameters and buffers follow after a dot."""


def mean_outputs(weights: npt.ArrayLike, decoded: npt.ArrayLike, statistics: Statistics) -> tuple[Float64, Float64]:
    """Mean outputs (rows,) of a layer without its bias: in the original model, and with decoded weights."""
    if statistics.mean is None:
        raise ValueError("there are no inputs")
    before = statistics.mean if statistics.original_mean is None else statistics.original_mean
    pairs = ((_rows(weights, statistics), before), (_rows(decoded, statistics), statistics.mean))
    first, second = (_by_row(np.einsum("gij,gj->gi", w, x), statistics) for w, x in pairs)
    return first, second


def gains(weights: npt.ArrayLike, decoded: npt.ArrayLike, statistics: Statistics) -> Float64:
    """Factors (rows,) that bring the varying part of the outputs closest to the original's; 1 where there is none."""
    if statistics.covariance is None or statistics.mean is None:
        raise ValueError("there are no inputs")
    target = weights if statistics.target is None else statistics.target
    w, v = _rows(target, statistics), _rows(decoded, statistics)
    sigma = statistics.covariance - statistics.mean[:, :, None] * statistics.mean[:, None, :]
    products = (np.einsum("gij,gjk,gik->gi", a, sigma, v, optimize=True) for a in (w, v))
    cross, own = (_by_row(product, statistics) for product in products)
    found = np.divide(cross, own, out=np.ones_like(own), where=own > 0)
    return np.where((found >= SMALLEST_GAIN) & (found <= LARGEST_GAIN), found, 1.0)


def _rows(weights: npt.ArrayLike, statistics: Statistics) -> Float64:
    """Weights as (groups, rows, fan_in)."""
    array = np.asarray(weights, np.float64)
    array = array.T if statistics.transposed else array
    groups, fan_in = statistics.covariance.shape[:2] if statistics.covariance is not None else (1, array.shape[-1])
    return array.reshape(-1, statistics.parts, fan_in).swapaxes(0, 1).reshape(groups, -1, fan_in)


def _by_row(values: Float64, statistics: Statistics) -> Float64:
    """Values (groups, rows of a group) as (rows,): the sums over parts of rows that are taken apart."""
    return values.sum(0) if statistics.parts > 1 else values.reshape(-1)


def repaired(
    state: Mapping[str, npt.NDArray[Any]],
    decoded: Mapping[str, npt.NDArray[Any]],
    statistics: Mapping[str, Statistics],
    absorbers: Mapping[str, Absorber],
    *,
    with_gains: bool = False,
) -> Arrays:
    """The biases and batch-norm tensors of `state` that change when weights are replaced by the `decoded` ones.

    Offsets go into the bias, or else into the running mean; gains, with `with_gains`, into the batch norm's weight.
    Dtypes and shapes are those of `state`, which stays as it is. Layers that nothing follows are left alone.
    """
    changed: Arrays = {}

    def current(name: str) -> Float64:
        return np.asarray(changed.get(name, state[name]), np.float64)

    def change(name: str, values: Float64) -> None:
        changed[name] = values.reshape(state[name].shape).astype(state[name].dtype)

    for name, found in statistics.items():
        absorber = absorbers.get(name)
        if name not in decoded or absorber is None or found.covariance is None or found.mean is None:
            continue
        before, after = mean_outputs(state[name], decoded[name], found)
        bias = np.zeros_like(before) if absorber.bias is None else current(absorber.bias)
        if absorber.norm is None:
            if absorber.bias is not None:
                change(absorber.bias, bias + before - after)
            continue
        running, weight = f"{absorber.norm}.running_mean", f"{absorber.norm}.weight"
        factor = np.ones_like(before)
        if with_gains and weight in state:
            factor = gains(state[name], decoded[name], found)
            change(weight, current(weight) * factor)
        # the norm shall see factor * (y - after) + before + bias for an output y of the decoded layer without its bias
        change(running, bias + after + (current(running) - bias - before) / factor)
    return changed


def find_absorbers(model: Model, sample: Sample) -> dict[str, Absorber]:
    """What follows each layer, by watching one run: its bias, by name, and the batch norm that gets its outputs.

    A layer that several batch norms follow has none.
    """
    module = model.module
    tracer = _Tracer(dict(module.named_parameters()), {id(b): name for name, b in module.named_buffers()})
    with evaluating(module), tracer:
        model.run(sample, module)
    parameters = dict(module.named_parameters())
    found: dict[str, Absorber] = {}
    for name, norms in tracer.norms.items():
        head, _, tail = name.rpartition(".")
        bias = f"{head}." * bool(head) + tail.replace("weight", "bias")
        norm = norms[0] if len(norms) == 1 else None
        absorber = Absorber(bias if bias in parameters and bias != name else None, norm)
        if absorber.bias or absorber.norm:
            found[name] = absorber
    return found


class _Tracer(Recorder):
    """Records no sums, but which batch norm gets the outputs of which layer."""

    def __init__(self, parameters: Mapping[str, Tensor], buffers: Mapping[int, str]) -> None:
        super().__init__(parameters, 1, torch.Generator(), gradients=False)
        self.norms: dict[str, list[str]] = {}
        self._buffers = buffers
        self._produced: dict[int, tuple[str, Tensor]] = {}
        self._handlers[functional.batch_norm] = _Tracer._batch_norm

    def _inputs(self, *args: Any, **options: Any) -> None:
        pass

    def _watch(self, weight: Any, output: Tensor, channel: int, part: slice = slice(None)) -> None:
        name = self.names[id(weight)]
        self.norms.setdefault(name, [])
        self._produced[id(output)] = name, output

    def _batch_norm(self, input: Tensor, running_mean: Any, *args: Any, **options: Any) -> Tensor:
        name, _ = self._produced.get(id(input), ("", None))
        running = self._buffers.get(id(running_mean), "")
        if name and running.endswith(".running_mean"):
            self.norms[name].append(running.removesuffix(".running_mean"))
        return functional.batch_norm(input, running_mean, *args, **options)


@dataclass(frozen=True)
class Repair:
    """The best of several repairs: what it changes, and the divergences with each of them on held-out samples."""

    tensors: Arrays
    chosen: str
    divergences: Mapping[str, float]


def repair(
    model: Model,
    decoded: Mapping[str, npt.NDArray[Any]],
    statistics: Mapping[str, Statistics],
    held_out: Sequence[Sample],
    measure: Callable[[Mapping[str, npt.NDArray[Any]]], float],
) -> Repair:
    """Try no repair, offsets, and offsets with gains; return the one with the lowest `measure` of all its weights.

    `measure` gets the decoded tensors with the repaired ones and returns a divergence on held-out samples, of which
    the first also shows what follows what.
    """
    state = {name: _array(tensor) for name, tensor in model.module.state_dict().items()}
    absorbers = find_absorbers(model, held_out[0])
    choices: dict[str, Arrays] = {
        "none": {},
        "offsets": repaired(state, decoded, statistics, absorbers),
        "offsets and gains": repaired(state, decoded, statistics, absorbers, with_gains=True),
    }
    divergences = {name: measure({**decoded, **tensors}) for name, tensors in choices.items()}
    chosen = min(divergences, key=lambda name: divergences[name])
    return Repair(choices[chosen], chosen, divergences)


def _array(tensor: Tensor) -> npt.NDArray[Any]:
    """As numpy has it: bfloat16 is widened."""
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().cpu().numpy()
