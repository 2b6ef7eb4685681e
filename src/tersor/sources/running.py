"""Running a module on samples: how a batch of inputs is passed, and which of its outputs counts.

A *sample* is one batch of model inputs: a tensor for `module(x)`, a tuple for `module(*x)`, a mapping for
`module(**x)`. torch is imported lazily.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tersor.errors import CalibrationError, SettingError

if TYPE_CHECKING:
    import torch

Sample = Any
"""A tensor, a tuple or a mapping: one batch of model inputs."""

PREFERRED_OUTPUTS = ("logits", "last_hidden_state")


def run(module: torch.nn.Module, sample: Sample, where: str = "a sample") -> Any:
    """Call the module on one sample; raises `CalibrationError`, with what was given, where the module fails."""
    try:
        if isinstance(sample, Mapping):
            return module(**sample)
        return module(*sample) if isinstance(sample, (tuple, list)) else module(sample)
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
        message = " ".join(str(error).split())[:300]
        raise CalibrationError(
            f"{type(module).__name__} fails on {described(sample)}: {message}",
            where=where,
            remedy="give samples of the shape and dtype that the model expects",
        ) from error


def outputs_of(result: Any) -> list[torch.Tensor]:
    """The floating tensors of a module's result, the one that distortion is measured on first.

    That is `logits`, else `last_hidden_state`, else the first one. Raises `CalibrationError` if there is none.
    """
    import torch

    if isinstance(result, Mapping):
        first = [key for key in PREFERRED_OUTPUTS if isinstance(result.get(key), torch.Tensor)][:1]
        values = [result[key] for key in [*first, *(key for key in result if key not in first)]]
    else:
        values = list(result) if isinstance(result, (tuple, list)) else [result]
        values = [part for value in values for part in (value if isinstance(value, (tuple, list)) else [value])]
    found = [value for value in values if isinstance(value, torch.Tensor) and value.is_floating_point()]
    if not found:
        raise CalibrationError(
            f"the model returns {described(result)}, no floating tensor",
            remedy="wrap it in a module that returns what counts",
        )
    return found


def moved(sample: Sample, device: str | torch.device) -> Sample:
    """The sample with its tensors on a device; mappings become dicts."""
    if isinstance(sample, Mapping):
        return {key: moved(value, device) for key, value in sample.items()}
    if isinstance(sample, (tuple, list)):
        return tuple(moved(value, device) for value in sample)
    return sample.to(device) if hasattr(sample, "to") else sample


def mask_of(sample: Sample) -> torch.Tensor | None:
    """The attention mask (sequences, positions) of a sample of texts, as booleans; None for other samples."""
    mask = sample.get("attention_mask") if isinstance(sample, Mapping) else None
    return mask.bool() if mask is not None and mask.dim() == 2 else None


def described(value: Any) -> str:
    """A short description of a sample for messages: dtypes and shapes."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {described(part)}" for key, part in value.items()) + "}"
    if isinstance(value, (tuple, list)):
        return "(" + ", ".join(described(part) for part in value[:8]) + (", ..." if len(value) > 8 else "") + ")"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return type(value).__name__


@contextmanager
def evaluating(module: torch.nn.Module, *, gradients: bool = False) -> Iterator[torch.nn.Module]:
    """The module in evaluation mode with frozen parameters; its modes and flags are restored afterwards.

    Language models of transformers keep no keys and values meanwhile: a block that is called again would attend to
    those of the call before.
    """
    import torch

    modes = [(part, part.training) for part in module.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    parts: list[Any] = list(module.modules())
    configs = [part.config for part in parts if getattr(getattr(part, "config", None), "use_cache", False)]
    module.eval().requires_grad_(False)
    for config in configs:
        config.use_cache = False
    try:
        with torch.enable_grad() if gradients else torch.no_grad():
            yield module
    finally:
        for part, training in modes:
            part.training = training
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
        for config in configs:
            config.use_cache = True


def check_device(device: str) -> None:
    """Raise `SettingError` unless torch can put tensors on a device."""
    try:
        import torch

        torch.empty(0, device=device)
    except (ImportError, RuntimeError, AssertionError, NotImplementedError) as error:
        raise SettingError(
            f"device {device!r} cannot be used: {str(error).splitlines()[0]}", remedy="name one that torch finds here"
        ) from error


def on_device(module: torch.nn.Module, device: str | torch.device | None) -> torch.nn.Module:
    """The module itself if all of it is on the device already (or none is given), else a copy that is there.

    A device without a number, such as cuda, is any of its kind.
    """
    import copy

    import torch

    if device is None:
        return module
    wanted = torch.device(device)
    there = {tensor.device for tensor in (*module.parameters(), *module.buffers())}
    if all(at.type == wanted.type and wanted.index in (None, at.index) for at in there):
        return module
    return copy.deepcopy(module).to(wanted)
