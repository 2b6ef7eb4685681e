"""What is learned: latent weights, and the parameters of the transformation of each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tersor.errors import SettingError, SourceError
from tersor.joint.recipe import Recipe
from tersor.joint.transforms import FORMS, Form
from tersor.rate import entropy, total_bits
from tersor.sources import Unit, role

SMALLEST_WEIGHT = 256
SMALLEST_VECTOR = 32
"""Vectors below this are learned, but stored as they are: tables would cost more than they save."""
VECTOR_LEVELS = 127
SMALLEST_SHARE = 1 / 16
"""Of its start, that a parameter keeps."""


class Shadow(NamedTuple):
    """Tensors as the model sees them, and the codes of those that are priced, before rounding."""

    tensors: dict[str, Tensor]
    codes: dict[str, Tensor]


class LearnedTensors:
    """Latent weights of a model and their transformations, by unit name; differentiable in all of them.

    `kinds` is "weight" (transformed by the recipe's form), "vector" (linear) or "kept" (learned, not quantized).
    """

    def __init__(
        self, units: list[Unit], tensors: Mapping[str, Tensor], recipe: Recipe, steps: Mapping[str, Any] | None
    ) -> None:
        self.recipe = recipe
        self.kinds: dict[str, str] = {}
        self.latents: dict[str, Tensor] = {}
        self.parameters: dict[str, list[Tensor]] = {}
        for unit in units:
            if unit.tied_to is not None or unit.name not in tensors:
                continue
            self._add(unit, tensors[unit.name].detach().float().clone(), (steps or {}).get(unit.name))
        self.starts = {name: [p.clone() for p in parameters] for name, parameters in self.parameters.items()}
        if "weight" not in self.kinds.values():
            raise SettingError(
                "the model has no weights to compress", remedy="give one with linear layers or convolutions"
            )

    def _add(self, unit: Unit, latent: Tensor, step: Any) -> None:
        if not bool(torch.isfinite(latent).all()):
            raise SourceError("a tensor has NaN or infinite weights", where=f"tensor {unit.name!r}", remedy="repair it")
        weighty = role(unit) in ("embedding", "matrix", "convolution") and unit.count >= SMALLEST_WEIGHT
        kind = "weight" if weighty else "vector" if unit.count >= SMALLEST_VECTOR else "kept"
        self.kinds[unit.name] = kind
        self.latents[unit.name] = latent
        if kind == "kept":
            return
        fixed_step = float(latent.abs().max()) / VECTOR_LEVELS or 1.0
        if kind == "vector" and not self.recipe.learn_vector_steps:
            self.parameters[unit.name] = [self._stored(latent.new_tensor(fixed_step))]
            return
        if kind == "vector" and float(latent.max()) == float(latent.min()):
            step = fixed_step
        rows = self.recipe.rows and kind == "weight"
        if step is not None and torch.as_tensor(step).numel() > 1:
            rows, starts = True, [self._form(kind).start(row, float(s)) for row, s in zip(latent, step, strict=True)]
        elif rows:
            starts = [self._form(kind).start(row, None if step is None else float(step)) for row in latent]
        else:
            starts = [self._form(kind).start(latent, None if step is None else float(step))]
        shape = (len(starts),) + (1,) * (latent.dim() - 1) if rows else ()
        stacked = [torch.stack(values).reshape(shape) for values in zip(*starts, strict=True)]
        self.parameters[unit.name] = [self._stored(value) for value in stacked]

    def _form(self, kind: str) -> Form:
        return FORMS[self.recipe.form if kind == "weight" else "linear"]

    def form(self, name: str) -> Form:
        """The form of a tensor's transformation."""
        return self._form(self.kinds[name])

    def _stored(self, value: Tensor) -> Tensor:
        return value.log() if self.recipe.relative else value.clone()

    def values(self, name: str) -> tuple[Tensor, ...]:
        """The positive parameters of a tensor's transformation."""
        return tuple(p.exp() if self.recipe.relative else p for p in self.parameters[name])

    def learned(self, name: str) -> list[Tensor]:
        """The parameters of a tensor that learning may change."""
        if self.kinds[name] == "vector" and not self.recipe.learn_vector_steps:
            return []
        form = self.form(name)
        return [p for p, kind in zip(self.parameters[name], form.parameters, strict=True) if kind in form.learned]

    def priced(self, name: str) -> bool:
        """Whether the tensor's bits are counted while learning; others take a fixed number."""
        return self.kinds[name] == "weight" or (self.kinds[name] == "vector" and self.recipe.learn_vector_steps)

    def shadow(self, scale: float = 1.0) -> Shadow:
        """Weights after the round trip, with the steps of weights times `scale`, and codes."""
        kinds = self.kinds
        tensors, codes = {n: latent for n, latent in self.latents.items() if kinds[n] == "kept"}, dict[str, Tensor]()
        for kind in ("weight", "vector"):
            form, names = self._form(kind), [name for name in self.latents if kinds[name] == kind]
            factor = scale if kind == "weight" else 1.0
            values = [scaled(form, self.values(name), factor) for name in names]
            found = form.quantize([self.latents[name] for name in names], values) if names else []
            tensors |= {name: quantized.weights for name, quantized in zip(names, found, strict=True)}
            codes |= {name: q.codes for name, q in zip(names, found, strict=True) if self.priced(name)}
        return Shadow(tensors, codes)

    def bits(self, codes: Mapping[str, Tensor]) -> Tensor:
        """Relaxed bits of all codes together."""
        return total_bits(codes, kernel=self.recipe.kernel, resolution=self.recipe.resolution)

    def entropy(self, scale: float = 1.0) -> float:
        """Bits of the levels by their own frequencies, steps of weights times `scale`."""
        with torch.no_grad():
            return sum(entropy(code.round()) for code in self.shadow(scale).codes.values())

    def scale_for(self, target: float) -> float:
        """The factor on all steps of weights at which the entropy is `target` bits."""
        low, high = -2.0, 2.0
        for _ in range(14):
            middle = (low + high) / 2
            low, high = (middle, high) if self.entropy(math.exp(middle)) > target else (low, middle)
        return math.exp((low + high) / 2)

    @torch.no_grad()
    def stretch(self, scale: float) -> None:
        """Multiply the steps of weights."""
        for name, kind in self.kinds.items():
            if kind == "weight":
                new = scaled(self.form(name), self.values(name), scale)
                for mine, value in zip(self.parameters[name], new, strict=True):
                    mine.copy_(self._stored(value))

    def repair(self) -> None:
        """Keep parameters that are learned as they are (not as logarithms) above zero: absolute rates overshoot."""
        if not self.recipe.relative:
            for name, parameters in self.parameters.items():
                for p, start in zip(parameters, self.starts[name], strict=True):
                    torch.maximum(p.detach(), start * SMALLEST_SHARE, out=p.detach())

    def state(self) -> dict[str, Any]:
        """Copies of everything that is learned."""
        return {
            "latents": {k: v.detach().clone() for k, v in self.latents.items()},
            "parameters": {k: [p.detach().clone() for p in v] for k, v in self.parameters.items()},
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go back to a copy."""
        with torch.no_grad():
            for name, latent in state["latents"].items():
                self.latents[name].copy_(latent)
            for name, parameters in state["parameters"].items():
                for mine, value in zip(self.parameters[name], parameters, strict=True):
                    mine.copy_(value)


def scaled(form: Form, values: tuple[Tensor, ...], scale: float) -> tuple[Tensor, ...]:
    """Parameters with those that make levels coarser times `scale`."""
    if scale == 1:
        return values
    return tuple(v * scale if name in form.stretched else v for v, name in zip(values, form.parameters, strict=True))
