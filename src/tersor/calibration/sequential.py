"""Statistics over the compressed prefix: every block sees what the blocks before it, already compressed, give it."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tersor.calibration.blocks import Call, find_blocks, is_plain, run_call, watched, without_values
from tersor.calibration.collect import Collected
from tersor.calibration.recorder import Recorder
from tersor.calibration.samples import batch_length, part_of
from tersor.calibration.shelf import Shelf
from tersor.calibration.statistics import Statistics, Sums
from tersor.errors import CalibrationError
from tersor.memory import trim, trim_after
from tersor.sources.model import Model
from tersor.sources.running import Sample, evaluating, mask_of, moved

DAMPING = 0.1
"""Of what weights make up for: less of it fits the samples and nothing else."""

Quantize = Callable[[Mapping[str, Statistics]], Mapping[str, np.ndarray]]
"""From the statistics of some units to their decoded weights, in the shapes of the units."""


@dataclass(frozen=True, eq=False)
class Sequential:
    """What is left of a sequential pass: the compressed module, the blocks it ran by, and what was not possible."""

    module: nn.Module
    blocks: tuple[str, ...]
    notes: tuple[str, ...]


def collect_sequential(
    model: Model,
    samples: Sequence[Sample],
    quantize: Quantize,
    original: Collected,
    *,
    device: str | None = None,
    seed: int = 0,
    damping: float = DAMPING,
    blocks: Sequence[str] | None = None,
    folder: Path | None = None,
) -> Sequential:
    """Give statistics of one block after the other to `quantize`, and go on with the weights that it returns.

    Covariances are those of the inputs that the compressed blocks before give; `target` is the weights that best make
    up for what is lost there (`damping` in mean diagonals). Fisher information is that of `original`, what `collect`
    found of the whole model. Blocks are found by watching one run, or given as names of modules that are called one
    after another; what comes before the first is compressed first, what comes after the last with the whole model run.
    Memory: a copy of the model and the sums of one block. What flows between two blocks is kept for all samples, in a
    file in `folder` if it is large.
    Raises `CalibrationError` for `blocks` that are not called one after another.
    """
    if not samples:
        raise CalibrationError("there are no samples", remedy="give at least one batch of model inputs")
    module = copy.deepcopy(model.module)
    module = module if device is None else module.to(device)
    where = next(module.parameters()).device
    run = _Run(model, module, [moved(sample, where) for sample in samples], quantize, original, seed, damping, folder)
    with evaluating(module):
        names = run.begin(blocks)
        for name in names:
            run.block(name)
        if names:
            run.end()
    return Sequential(module, tuple(names), tuple(run.notes))


class _Run:
    """The state of one pass: the copy with the weights compressed so far, and what flows into the next block."""

    def __init__(
        self,
        model: Model,
        module: nn.Module,
        samples: list[Sample],
        quantize: Quantize,
        original: Collected,
        seed: int,
        damping: float,
        folder: Path | None,
    ) -> None:
        self.model, self.module, self.samples = model, module, samples
        self.quantize, self.original, self.seed, self.damping = quantize, original, seed, damping
        self.folder = folder
        self.parameters = dict(module.named_parameters())
        self.done: set[str] = set()
        self.notes: list[str] = []
        self.calls: list[dict[str, Call]] = []
        """Of every sample, the calls of the blocks without what flows."""
        self.old = self.new = Shelf(folder)
        """Of every sample, what flows into the next block: of the original model, of the compressed one."""

    # -- the three stages ----------------------------------------------------------------------------------------------

    def begin(self, blocks: Sequence[str] | None) -> list[str]:
        """Run the original model once; compress what comes before the first block, or everything if there is none."""
        names = self._blocks() if blocks is None else list(blocks)
        trim()
        if not names:
            self.notes.append("the model cannot be run block by block: statistics are those of the original model")
            self._compress(self.original)
            return []
        inside = {n for block in names for n, _ in self.module.get_submodule(block).named_parameters(prefix=block)}
        outside = {n: p for n, p in self.parameters.items() if n not in inside}
        recorder, first = self._recorder(outside), self.module.get_submodule(names[0])
        before, stop = self._before(first, outside), False
        for number, sample in enumerate(self.samples):
            self._prepare(recorder, number)
            flows = list[Tensor]()
            entering = _entering(first, flows, stop=stop)
            with watched(self.module, set(names)) as calls, entering, suppress(_Stopped), recorder:
                self.model.run(sample, self.module, f"sample {number}")
            if not flows:
                raise CalibrationError("the block gets no tensor", where=f"block {names[0]!r}")
            trim_after(number)
            self.old.append(flows[0])
            if stop:  # all samples pass as the first one does
                self.calls.append(dict(self.calls[0]))
                continue
            self._check(calls, names)
            self.calls.append({call.name: without_values(call) for call in calls})
            stop = all(is_plain(call) for call in calls)
        trim()
        self._compress({name: self._statistics(name, recorder.sums[name]) for name in before})
        if before:
            self.new = Shelf(self.folder)
            for number in range(len(self.samples)):
                self.new.append(self._first_flow(number, names[0]))
        return names

    def _blocks(self) -> list[str]:
        """Blocks by what one input of the first sample does: everything that modules return is kept meanwhile."""
        sample = self.samples[0]
        one = part_of(sample, slice(0, 1)) if batch_length(sample) > 1 else sample
        with watched(self.module) as calls:
            self.model.run(one, self.module, "sample 0")
        return find_blocks(self.module, calls)

    def _before(self, first: nn.Module, outside: Mapping[str, Tensor]) -> set[str]:
        """Which units come before the first block."""
        recorder = self._recorder(outside)
        self._prepare(recorder, 0)
        with _entering(first, [], stop=True), suppress(_Stopped), recorder:
            self.model.run(self.samples[0], self.module, "sample 0")
        return set(recorder.sums)

    def block(self, name: str) -> None:
        """Compress one block, and let the samples through it."""
        part = self.module.get_submodule(name)
        recorder = self._recorder({f"{name}.{n}": p for n, p in part.named_parameters()})
        old, new = Shelf(self.folder), Shelf(self.folder)
        for number in range(len(self.samples)):
            rows = deque[list[Tensor]]()
            with self._keeping(number, recorder.names, rows):
                old.append(run_call(self.module, self.calls[number][name], self.old[number].clone()))
            self._prepare(recorder, number)
            recorder.partner = rows
            with recorder:
                run_call(self.module, self.calls[number][name], self.new[number].clone())
        self.old = old
        self._compress_all(recorder)
        for number in range(len(self.samples)):
            new.append(run_call(self.module, self.calls[number].pop(name), self.new[number]))
        self.new = new
        trim()

    def end(self) -> None:
        """Compress what comes after the last block."""
        self.old = self.new = Shelf()
        left = {n: p for n, p in self.parameters.items() if n in self.original and n not in self.done}
        if not left:
            return
        recorder = self._recorder(left)
        original = self.model.module
        same = next(original.parameters()).device == next(self.module.parameters()).device
        for number, sample in enumerate(self.samples):
            rows = deque[list[Tensor]]()
            if same:
                names = {id(p): n for n, p in original.named_parameters() if n in left}
                with evaluating(original), self._keeping(number, names, rows):
                    self.model.run(sample, original, f"sample {number}")
            self._prepare(recorder, number)
            recorder.partner = rows if same else None
            with recorder:
                self.model.run(sample, self.module, f"sample {number}")
        self._compress_all(recorder)

    # -- parts of them -------------------------------------------------------------------------------------------------

    def _recorder(self, parameters: Mapping[str, Tensor]) -> Recorder:
        wanted = {n: p for n, p in parameters.items() if n in self.original and n not in self.done}
        return Recorder(wanted, len(self.samples), torch.Generator(), gradients=False)

    def _prepare(self, recorder: Recorder, number: int) -> None:
        """The same positions of a sample are drawn in the original and in the compressed model."""
        recorder.generator.manual_seed(self.seed * 1_000_003 + number)
        recorder.mask = mask_of(self.samples[number])

    def _keeping(self, number: int, names: Mapping[int, str], rows: deque[list[Tensor]]) -> Recorder:
        """A recorder of the original's inputs of one sample, call after call."""
        recorder = Recorder({}, len(self.samples), torch.Generator(), gradients=False)
        recorder.names = dict(names)
        recorder.kept = rows
        self._prepare(recorder, number)
        return recorder

    def _check(self, calls: Sequence[Call], names: Sequence[str]) -> None:
        if [call.name for call in calls] != list(names):
            raise CalibrationError(
                f"the blocks {', '.join(names[:3])}, ... are not called once each, in this order",
                where=self.model.label,
                remedy="leave blocks out: they are found",
            )

    def _first_flow(self, number: int, name: str) -> Tensor:
        """What flows into the first block now that what comes before it is compressed."""
        flows = list[Tensor]()
        with _entering(self.module.get_submodule(name), flows, stop=True), suppress(_Stopped):
            self.model.run(self.samples[number], self.module, f"sample {number}")
        return flows[0]

    def _statistics(self, name: str, sums: Sums) -> Statistics:
        """Statistics of a unit, with the Fisher information of the original; of tied ones all is the original's."""
        original = self.original[name]
        if original.usage is not None:
            return original
        found = sums.finish(1)
        target = sums.target(self.parameters[name], self.damping)
        return replace(
            found,
            fisher=original.fisher,
            coupling=original.coupling,
            coherence=original.coherence,
            target=target,
        )

    def _compress_all(self, recorder: Recorder) -> None:
        """Compress the units that were recorded; their sums are freed one after another."""
        trim()
        self._compress({name: self._statistics(name, recorder.sums.pop(name)) for name in list(recorder.sums)})

    def _compress(self, statistics: Mapping[str, Statistics]) -> None:
        """Have units compressed, and put their weights into the copy."""
        if not statistics:
            return
        self.done |= set(statistics)
        with torch.no_grad():
            for name, weights in self.quantize(statistics).items():
                parameter = self.parameters[name]
                parameter.copy_(torch.from_numpy(np.require(weights, requirements="W")).reshape(parameter.shape))


class _Stopped(BaseException):
    """Ends a run at the first block; no error, so that nothing takes it for one."""


@contextmanager
def _entering(part: nn.Module, flows: list[Tensor], *, stop: bool = False) -> Iterator[None]:
    """Copy what flows into a module when it is called; with `stop`, end the run there."""

    def enter(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        flowing = Call("", args, kwargs, 0).flows_in()
        flows.extend([] if flowing is None else [flowing.clone()])
        if stop:
            raise _Stopped

    hook = part.register_forward_pre_hook(enter, with_kwargs=True)
    try:
        yield
    finally:
        hook.remove()
