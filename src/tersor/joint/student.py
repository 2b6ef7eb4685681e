"""A copy of a model that runs with other weights and shows what its blocks return; the caller's is not touched."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tersor.errors import CalibrationError, SettingError
from tersor.sources.model import Model
from tersor.sources.running import Sample, described, moved, outputs_of

MOST_BLOCKS = 8
NORMS = (nn.modules.batchnorm._BatchNorm,)


def find_blocks(module: nn.Module) -> list[str]:
    """Names of the blocks of a module: the members, with weights, of its outermost lists and sequences.

    Where there is none, its children but the last. At most `MOST_BLOCKS`, evenly spread.
    """

    def heavy(part: nn.Module) -> bool:
        return any(parameter.dim() > 1 for parameter in part.parameters())

    def members(part: nn.Module, prefix: str) -> Iterable[str]:
        for name, child in part.named_children():
            if not heavy(child):
                continue
            path = f"{prefix}{name}"
            if isinstance(part, (nn.Sequential, nn.ModuleList)) and sum(map(heavy, part.children())) > 1:
                yield path
            else:
                yield from members(child, f"{path}.")

    found = list(members(module, "")) or [name for name, child in module.named_children() if heavy(child)][:-1]
    if len(found) <= MOST_BLOCKS:
        return found
    return [found[round((k + 1) * len(found) / MOST_BLOCKS) - 1] for k in range(MOST_BLOCKS)]


class Student:
    """Runs a float32 copy of a model on `device` with given tensors in place of its own."""

    def __init__(self, model: Model, blocks: Sequence[str] | None, device: str | torch.device) -> None:
        self.model = model
        self.device = torch.device(device)
        self.module = copy.deepcopy(model.module).to(self.device).float().eval().requires_grad_(False)
        self.blocks = list(find_blocks(self.module) if blocks is None else blocks)
        self._seen: list[Tensor] = []
        parts = dict(self.module.named_modules())
        for name in self.blocks:
            if name not in parts:
                raise SettingError(
                    f"the model has no part {name!r}", remedy=f"it has {', '.join(list(parts)[1:12])}, ..."
                )
            parts[name].register_forward_hook(self._note)

    def _note(self, module: nn.Module, inputs: Any, result: Any) -> None:
        try:
            self._seen.append(outputs_of(result)[0])
        except CalibrationError:  # a block that returns no tensor says nothing
            return

    def run(self, sample: Sample, tensors: Mapping[str, Tensor]) -> list[Tensor]:
        """The output that distortion is measured on, then those of the blocks in the order in which they ran."""
        self._seen = []
        sample = moved(sample, self.device)
        inputs, keywords = ((), sample) if isinstance(sample, Mapping) else (sample, {})
        inputs = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
        inputs = tuple(_single(value) for value in inputs)
        keywords = {key: _single(value) for key, value in keywords.items()}
        try:
            result = functional_call(self.module, dict(tensors), inputs, keywords)
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as error:
            message = " ".join(str(error).split())[:300]
            raise CalibrationError(
                f"{type(self.module).__name__} fails on {described(sample)}: {message}",
                remedy="give samples of the shape and dtype that the model expects",
            ) from error
        return [self.model.outputs(result, sample)[0], *self._seen]

    def buffers(self) -> dict[str, Tensor]:
        """Copies of the buffers, as a run may update them."""
        return {name: buffer.clone() for name, buffer in self.module.named_buffers()}

    def batch_statistics(self, used: bool) -> None:
        """Whether normalisation layers use (and track) the statistics of each batch."""
        for part in self.module.modules():
            if isinstance(part, NORMS):
                part.train(used)

    @property
    def has_statistics(self) -> bool:
        """Whether there are normalisation layers with running statistics."""
        return any(isinstance(part, NORMS) and part.track_running_stats for part in self.module.modules())

    def estimate_statistics(self, samples: Iterable[Sample], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Buffers with running statistics averaged anew over samples, the other tensors as given."""
        buffers = self.buffers()
        norms = {name: part for name, part in self.module.named_modules() if isinstance(part, NORMS)}
        momenta = {name: part.momentum for name, part in norms.items()}
        for name, part in norms.items():
            part.momentum = None  # a plain average
            buffers[f"{name}.num_batches_tracked"].zero_()
        self.batch_statistics(True)
        try:
            with torch.no_grad():
                for sample in samples:
                    self.run(sample, {**buffers, **tensors})
        finally:
            self.batch_statistics(False)
            for name, part in norms.items():
                part.momentum = momenta[name]
                buffers[f"{name}.num_batches_tracked"].copy_(part.get_buffer("num_batches_tracked"))
        return buffers

    def matched_statistics(self, samples: Iterable[Sample], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Buffers with which normalisation layers give, with other tensors, outputs of the same mean and spread as the
        original's on samples. Where samples differ from what the original's statistics were taken from, that stays."""
        samples, found = list(samples), self.buffers()
        before = self.estimate_statistics(samples, {})
        after = self.estimate_statistics(samples, tensors)
        for name, part in self.module.named_modules():
            if isinstance(part, NORMS) and part.track_running_stats:
                mean, variance = f"{name}.running_mean", f"{name}.running_var"
                grown = (after[variance] + part.eps) / (before[variance] + part.eps)
                found[mean] = after[mean] - (before[mean] - found[mean]) * grown.sqrt()
                found[variance] = ((found[variance] + part.eps) * grown - part.eps).clamp_min(0)
                if not bool(torch.isfinite(found[mean] + found[variance]).all()):
                    raise CalibrationError(
                        "the model's activations are not finite",
                        where=f"layer {name!r}",
                        remedy="check the weights and the samples",
                    )
        return found

    def fold(
        self, tensors: Mapping[str, Tensor], buffers: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Parameters and buffers of the same function with running statistics of mean 0 and variance 1.

        Gain and bias of normalisation layers take the statistics in: two vectors of four then cost nothing to store.
        """
        tensors, buffers = dict(tensors), dict(buffers)
        for name, part in self.module.named_modules():
            keys = [f"{name}.{key}" for key in ("weight", "bias", "running_mean", "running_var")]
            if not isinstance(part, NORMS) or not (part.affine and part.track_running_stats) or keys[0] not in tensors:
                continue
            gain, bias, mean, variance = tensors[keys[0]], tensors[keys[1]], buffers[keys[2]], buffers[keys[3]]
            folded = gain * ((1 + part.eps) / (variance + part.eps)).sqrt()
            tensors[keys[0]], tensors[keys[1]] = folded, bias - gain * mean / (variance + part.eps).sqrt()
            buffers[keys[2]], buffers[keys[3]] = torch.zeros_like(mean), torch.ones_like(variance)
        return tensors, buffers


def _single(value: Any) -> Any:
    """Half and double precision inputs as float32, like the copy's weights."""
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value


def squared_error(outputs: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """Mean squared error, summed over the output and the blocks (equation 6 and section 5.1)."""
    return torch.stack([(a - b).square().mean() for a, b in zip(outputs, wanted, strict=True)]).sum()


def relative_error(outputs: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """Squared error over the variance among samples: of the output, plus the mean of that of the blocks."""
    parts = [_relative(a, b) for a, b in zip(outputs, wanted, strict=True)]
    return parts[0] + (torch.stack(parts[1:]).mean() if len(parts) > 1 else 0)


def _relative(a: Tensor, b: Tensor) -> Tensor:
    spread = (b - b.mean(0)).square().mean() if len(b) > 1 else b.square().mean()
    return (a - b).square().mean() / spread.clamp_min(1e-12)
