"""Batches so small that what a model keeps of one, for the way back, takes no more memory than half of its weights."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.autograd.graph import saved_tensors_hooks

from tersor.calibration.recorder import Recorder
from tersor.calibration.samples import Samples, batch_length, part_of
from tersor.sources.model import Model
from tersor.sources.running import Sample, evaluating, mask_of, moved, on_device

ROOM = 2**28
"""Bytes that a batch may always take."""
OUTPUTS = 6
"""How often an output is held while it is drawn from and sent back."""


def within_memory(model: Model, samples: Samples, device: str | None = None) -> Samples:
    """The samples, in batches of fewer inputs where those at hand would take more than half of the weights, and `ROOM`.

    What an input takes is measured on the first one. Batches whose tensors have no common first dimension stay whole.
    """
    first = samples.calibration[0]
    if batch_length(first) < 2:
        return samples
    module = on_device(model.module, device)
    weights = sum(p.numel() * p.element_size() for p in module.parameters())
    inputs = moved(part_of(first, slice(0, 1)), next(module.parameters()).device)
    most = max(1, max(ROOM, weights // 2) // max(1, _kept(model, module, inputs)))

    def divided(batches: list[Sample]) -> list[Sample]:
        return [
            part_of(batch, slice(k, k + most)) if most < batch_length(batch) else batch
            for batch in batches
            for k in range(0, max(1, batch_length(batch)), most)
        ]

    return replace(samples, calibration=divided(samples.calibration), held_out=divided(samples.held_out))


def _kept(model: Model, module: torch.nn.Module, inputs: Sample) -> int:
    """Bytes that stay until gradients were sent back through one run, weights aside."""
    known = {p.untyped_storage().data_ptr() for p in module.parameters()}
    found = dict[int, int]()

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # one that an operation gave back and kept would keep the operation, and so itself

    recorder = Recorder(dict(module.named_parameters()), 1, torch.Generator())
    recorder.mask, recorder.closely = mask_of(inputs), True
    with evaluating(module, gradients=True), recorder, saved_tensors_hooks(pack, lambda tensor: tensor):
        result = model.run(inputs, module, "sample 0")
        outputs = model.outputs(result, inputs)
    for sums in recorder.sums.values():
        sums.take_gradient()  # there is none; what stands for the weights holds the sums, which are large
    return sum(found.values()) + OUTPUTS * sum(o.numel() * o.element_size() for o in outputs)
