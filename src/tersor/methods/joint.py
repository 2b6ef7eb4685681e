"""Method `joint`: codes of weights that were learned together with their transformation (L2, Shi et al. 2023).

Learning (`tersor.joint`) leaves tuned weights and the parameters of a transformation for every tensor. Here these
become levels, op by op. The price of a bit only stretches all steps of weights a little, so that the file meets its
size exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import InitVar, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from tersor.coders import EncodedStream, Symbols, coded_bytes, integer_type
from tersor.encoded import Distortion, Encoded, seal
from tersor.errors import SettingError
from tersor.format.dtypes import Bytes
from tersor.format.manifest import Step
from tersor.methods.nearest import Floats, Integers, kernel_size, row_length, to_float32
from tersor.ops import uniform, uniform2d
from tersor.sources import Unit

if TYPE_CHECKING:
    from tersor.joint.transforms import Form

CHUNK = 2**19
FINEST = 1 / 16
"""Sizes at finer steps than this share of the learned ones are extrapolated: every halving takes one more bit."""
STRAIGHT = ("linear", "pruning", "joint")
"""Forms whose levels are equally spaced but for a dead zone: op `uniform` rebuilds them."""


class Transformation(NamedTuple):
    """The learned transformation of one tensor: form, parameters (numbers, or one for each row), and whether its steps
    stretch with the price."""

    form: str
    parameters: tuple[npt.NDArray[np.float32], ...]
    stretches: bool

    @property
    def definition(self) -> Form:
        """T and T^-1."""
        from tersor.joint.transforms import FORMS

        return FORMS[self.form]

    def at(self, scale: float) -> tuple[npt.NDArray[np.float32], ...]:
        """The parameters with all steps times `scale`."""
        form = self.definition
        stretched = form.stretched if self.stretches else ()
        return tuple(
            palette_of((value * np.float32(scale)).astype(np.float32)) if name in stretched else value
            for value, name in zip(self.parameters, form.parameters, strict=True)
        )

    def levels(self, weights: Floats, scale: float) -> Integers:
        """Levels of weights, in their shape."""
        import torch

        parameters = [torch.from_numpy(np.asarray(value)) for value in self.at(scale)]
        return self.definition.encode(torch.from_numpy(weights), *parameters).round().to(torch.int32).numpy()


@dataclass(frozen=True, eq=False)
class Joint:
    """Weights and transformation as learned; made by `tersor.joint.refine`, for the tensors that it returns."""

    name: ClassVar[str] = "joint"

    settings: Mapping[str, Any]
    """How it was learned, as files note it."""
    transformations: InitVar[Mapping[str, Transformation]]

    def __post_init__(self, transformations: Mapping[str, Transformation]) -> None:
        object.__setattr__(self, "_known", dict(transformations))

    def _of(self, unit: Unit) -> Transformation | None:
        known: dict[str, Transformation] = self._known  # type: ignore[attr-defined]
        return known.get(unit.name)

    def quantizes(self, unit: Unit) -> bool:
        """Whether the unit was learned as levels."""
        return self._of(unit) is not None

    def sample(self, unit: Unit, data: Bytes, budget: int) -> JointSample:
        """All weights of the unit: their levels are quickly counted."""
        del budget
        return JointSample(self._required(unit), to_float32(data, unit.dtype).reshape(unit.shape))

    def encode(self, unit: Unit, data: Bytes, price: float) -> Encoded:
        """Code the unit; steps grow with the square root of the price, from 1 on."""
        known, scale = self._required(unit), math.sqrt(price)
        levels = known.levels(to_float32(data, unit.dtype).reshape(unit.shape), scale).reshape(-1)
        kind = integer_type(int(levels.min()), int(levels.max()))

        def measure(start: int, out: Bytes) -> Distortion:
            original = to_float32(data[start : start + out.size], unit.dtype)
            return Distortion.between(original, to_float32(out, unit.dtype))

        symbols = Symbols.of(levels, CHUNK, row_length(unit.shape), kernel_size(unit.shape))
        step, streams = _encode_step(known, scale, symbols, kind, int(np.abs(levels).max()))
        return seal(unit.name, unit.dtype, unit.shape, step, streams, measure)

    def _required(self, unit: Unit) -> Transformation:
        known = self._of(unit)
        if known is None:
            raise SettingError(
                "the tensor was not learned", where=f"tensor {unit.name!r}", remedy="refine this model first"
            )
        return known


def _encode_step(
    known: Transformation, scale: float, symbols: Symbols, kind: str, highest: int
) -> tuple[Step, list[EncodedStream]]:
    """Code levels with the op that rebuilds them: `companded` for curved forms, `uniform` for the others."""
    values = known.at(scale)
    steps = values[0].reshape(-1)
    if known.form not in STRAIGHT:
        heights = known.definition.rebuilt(max(1, highest), *(float(v) for v in values))[1:]
        one = np.ones(1, np.float32)
        return uniform2d.encode_step(symbols, kind, uniform2d.Scales(one, one), values=heights)
    palette, index = np.unique(steps, return_inverse=True)
    offset = float(values[1] / steps[0]) - 0.5 if len(values) > 1 else 0.0
    rows = index.astype(np.uint8) if palette.size > 1 else None
    return uniform.encode_step(symbols, kind, 0, uniform.Grid(palette, rows, offset))


def palette_of(steps: Floats) -> Floats:
    """Steps, rounded in the logarithm to at most 256 different ones if there are more."""
    if np.unique(steps).size <= uniform.MAX_STEPS:
        return steps
    logs = np.log(steps.astype(np.float64))
    width = (logs.max() - logs.min()) / (uniform.MAX_STEPS - 1)
    return np.exp(np.rint((logs - logs.min()) / width) * width + logs.min()).astype(np.float32)


class JointSample(NamedTuple):
    """The weights of a unit and their transformation."""

    transformation: Transformation
    weights: Floats

    def nbytes(self, price: float) -> float:
        """Predicted bytes of the unit's streams at a price."""
        scale = math.sqrt(price)
        finest = max(scale, FINEST)
        levels, shape = self.transformation.levels(self.weights, finest), self.weights.shape
        further = self.weights.size * math.log2(finest / scale) if self.transformation.stretches else 0.0
        return coded_bytes(Symbols.of(levels, CHUNK, row_length(shape), kernel_size(shape))) + further / 8
