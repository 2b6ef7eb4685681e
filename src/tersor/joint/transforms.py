"""The unified weight transformation of L2 (Shi et al. 2023, equations 11 to 13): w^ = T^-1(round(T(w))).

T maps weights to codes, rounded codes are the levels that are coded, T^-1 rebuilds weights from levels. A form has one
or two positive parameters, learned for a whole tensor or for every row (shaped to broadcast). Rounding passes gradients
straight through, so that parameters get step-size gradients through T and T^-1.

| form        | T(w), for w >= 0 (odd functions)                     | level k > 0 is rebuilt at    | learned          |
|-------------|------------------------------------------------------|------------------------------|------------------|
| linear      | w / s                                                | k s                          | s                |
| logarithmic | log(1 + w / i) / s                                   | i (exp(k s) - 1)             | s, i             |
| exponential | (exp(w / i) - 1) / s                                 | i log(1 + k s)               | s, i             |
| pruning     | as joint                                             | e + (k - 1/2) s              | e; s stays fine  |
| joint       | w / (2 e) below e, from there (w - e) / s + 1/2      | e + (k - 1/2) s              | s, e             |

Equation 12 (pruning only) leaves weights beyond the threshold as they are; here they fall on a fixed grid of 4096 steps
over the tensor's range, so that they can be coded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tersor import _core

LEVELS = 256
"""Steps over the range of a tensor at the start (the paper's e = s = (max - min) / 256)."""
KEPT_LEVELS = 4096
TINY = 1e-12
DEAD_ZONE = 0.6
"""Threshold, in steps, where a form with one starts from a given step: near the best for peaked distributions."""


class Quantized(NamedTuple):
    """Weights after the round trip, and codes before rounding, both differentiable."""

    weights: Tensor
    codes: Tensor


@dataclass(frozen=True)
class Form:
    """One form of the transformation: the names of its parameters, T, T^-1, and which parameters are learned."""

    parameters: tuple[str, ...]
    encode: Callable[..., Tensor]
    decode: Callable[..., Tensor]
    learned: tuple[str, ...]

    @property
    def stretched(self) -> tuple[str, ...]:
        """Parameters that grow together where levels are to be coarser: all that are learned but a curve's bend."""
        return tuple(name for name in self.learned if name != "scale")

    def quantize(self, weights: Sequence[Tensor], parameters: Sequence[tuple[Tensor, ...]]) -> list[Quantized]:
        """w^ and the codes of tensors with parameters of their own; rounding is straight through."""
        if self.encode is _encode_linear:  # the joint form with a threshold of half a step
            parameters = [(step, step / 2) for (step,) in parameters]
        if self.encode in (_encode_linear, _encode_joint):
            plain = all(w.device.type == "cpu" and w.dtype == torch.float32 for w in weights)
            if plain and all(value.dim() == 0 for values in parameters for value in values):
                stacked = (torch.stack(values) for values in zip(*parameters, strict=True))
                found = _NativeRoundTrip.apply(*stacked, *weights)
                return list(map(Quantized, found[: len(weights)], found[len(weights) :]))  # pyright: ignore
            pairs = zip(weights, parameters, strict=True)
            return [Quantized(*_JointRoundTrip.apply(w, *values)) for w, values in pairs]  # pyright: ignore
        codes = [self.encode(w, *values) for w, values in zip(weights, parameters, strict=True)]
        return [
            Quantized(self.decode(code + (code.round() - code).detach(), *values), code)
            for code, values in zip(codes, parameters, strict=True)
        ]

    def start(self, weights: Tensor, step: float | None = None) -> tuple[Tensor, ...]:
        """First parameters: the paper's, from the range of the weights, or for a given step near zero."""
        low, high = torch.aminmax(weights.detach().float())
        reach, given = float(torch.maximum(-low, high)) + TINY, step is not None
        step = step if step is not None else (float(high - low) + TINY) / LEVELS
        values: dict[str, float] = {"step": step, "threshold": step * (DEAD_ZONE if given else 1)}
        if self.encode is _encode_logarithmic:  # slope 1 / (scale * step) at zero
            values["scale"] = reach / 4
            values["step"] = step / values["scale"]
        elif self.encode is _encode_exponential:
            values["scale"] = reach
            values["step"] = step / reach
        elif "step" not in self.learned:
            values["step"] = (float(high - low) + TINY) / KEPT_LEVELS
        return tuple(weights.new_tensor(values[name], dtype=torch.float32) for name in self.parameters)

    def rebuilt(self, levels: int, *parameters: float) -> npt.NDArray[np.float32]:
        """What the levels 0 .. `levels` stand for: the list that op `companded` stores."""
        tensors = [torch.tensor(value, dtype=torch.float64) for value in parameters]
        return self.decode(torch.arange(levels + 1, dtype=torch.float64), *tensors).numpy().astype(np.float32)


def _encode_linear(w: Tensor, step: Tensor) -> Tensor:
    return w / step


def _decode_linear(q: Tensor, step: Tensor) -> Tensor:
    return q * step


def _odd(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """The odd function that is `function` for x > 0 (with function(0) = 0), and its slope at 0: levels often are."""
    return function(x.clamp(min=0)) - function((-x).relu())


def _encode_logarithmic(w: Tensor, step: Tensor, scale: Tensor) -> Tensor:
    return _odd(lambda x: (x / scale).log1p() / step, w)


def _decode_logarithmic(q: Tensor, step: Tensor, scale: Tensor) -> Tensor:
    return _odd(lambda x: (x * step).expm1() * scale, q)


def _encode_exponential(w: Tensor, step: Tensor, scale: Tensor) -> Tensor:
    return _odd(lambda x: (x / scale).expm1() / step, w)


def _decode_exponential(q: Tensor, step: Tensor, scale: Tensor) -> Tensor:
    return _odd(lambda x: (x * step).log1p() * scale, q)


def _encode_joint(w: Tensor, step: Tensor, threshold: Tensor) -> Tensor:
    size = w.abs()
    return torch.where(size < threshold, w * (0.5 / threshold), ((size - threshold) / step + 0.5).copysign(w))


def _decode_joint(q: Tensor, step: Tensor, threshold: Tensor) -> Tensor:
    size = q.abs()
    return torch.where(size < 0.5, q * (2 * threshold), ((size - 0.5) * step + threshold).copysign(q))


class _JointRoundTrip(torch.autograd.Function):
    """w^ and codes of the joint form; what automatic differentiation gives, in a third of the time."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, step: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
        codes = _encode_joint(w, step, threshold)
        ctx.save_for_backward(codes, step, threshold)
        return _decode_joint(codes.round(), step, threshold), codes

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        codes, step, threshold = ctx.saved_tensors
        by_weight, by_code = gradients
        inside = codes.abs() < 0.5
        along = by_code * torch.where(inside, 0.5 / threshold, 1 / step)
        # Inside, w^ and the code shrink as the threshold grows; outside, the threshold moves the code alone, and the
        # step moves w^ by its rounding error (LSQ) and the code towards 1/2.
        half = torch.full_like(codes, 0.5).copysign(codes)
        by_threshold = torch.where(inside, (by_weight + along) * (-2 * codes), along * (-2 * half))
        by_step = by_weight * (codes.round() - codes) + along * (half - codes)
        return (
            by_weight + along,
            torch.where(inside, 0.0, by_step).sum_to_size(step.shape),
            by_threshold.sum_to_size(threshold.shape),
        )


class _NativeRoundTrip(torch.autograd.Function):
    """w^ of all tensors, then their codes, as `_JointRoundTrip` gives them, in a tenth of the time: in one call of the
    native core, for float32 on the CPU with one step and threshold a tensor."""

    @staticmethod
    def forward(ctx: Any, steps: Tensor, thresholds: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
        weights = tuple(w.detach().contiguous() for w in weights)
        codes, rebuilt = ([torch.empty_like(w) for w in weights] for _ in range(2))
        _core.joint(_flat(weights), steps.numpy(), thresholds.numpy(), _flat(codes), _flat(rebuilt))
        ctx.save_for_backward(steps, thresholds, *codes)
        return *rebuilt, *codes

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        steps, thresholds, *codes = ctx.saved_tensors
        ways = [g.contiguous() for g in gradients]
        wanted = any(ctx.needs_input_grad[2:])
        found = [torch.empty_like(code) for code in codes] if wanted else []
        by_step, by_threshold = torch.empty_like(steps), torch.empty_like(thresholds)
        _core.joint_gradient(
            _flat(codes),
            steps.numpy(),
            thresholds.numpy(),
            _flat(ways[: len(codes)]),
            _flat(ways[len(codes) :]),
            _flat(found),
            by_step.numpy(),
            by_threshold.numpy(),
        )
        return by_step, by_threshold, *(found or [None] * len(codes))


def _flat(tensors: Sequence[Tensor]) -> list[npt.NDArray[np.float32]]:
    return [x.view(-1).numpy() for x in tensors]


FORMS = {
    "linear": Form(("step",), _encode_linear, _decode_linear, ("step",)),
    "logarithmic": Form(("step", "scale"), _encode_logarithmic, _decode_logarithmic, ("step", "scale")),
    "exponential": Form(("step", "scale"), _encode_exponential, _decode_exponential, ("step", "scale")),
    "pruning": Form(("step", "threshold"), _encode_joint, _decode_joint, ("threshold",)),
    "joint": Form(("step", "threshold"), _encode_joint, _decode_joint, ("step", "threshold")),
}
"""Forms with a dead zone or none become op `uniform` with offset threshold / step - 1/2; the others op `companded`."""
