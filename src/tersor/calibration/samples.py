"""Samples: whatever the user has, as batches of model inputs, with a slice held out."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tersor.calibration.media import batch_size, image_batches, images_in, text_batches, texts_in
from tersor.errors import CalibrationError
from tersor.sources.files import digest
from tersor.sources.model import Model, current_folder_importable, python_object
from tersor.sources.running import Sample, described

if TYPE_CHECKING:
    import torch

COUNT = 512
"""Inputs (images, texts, rows) that are taken by default."""
HELD_OUT = 8
"""One in this many inputs is held out."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Batches of model inputs: what statistics are made of, and what decides about settings."""

    calibration: list[Sample]
    held_out: list[Sample]
    notes: tuple[str, ...] = ()

    def fingerprint(self) -> str:
        """A hexadecimal text that changes when any input does, for resuming."""
        parts = (digest(*_bytes(sample)) for sample in (*self.calibration, "held out", *self.held_out))
        return digest("samples", *parts)


def load_samples(data: Any, model: Model, *, count: int = COUNT, seed: int = 0) -> Samples:
    """About `count` model inputs from `data` in batches, one in `HELD_OUT` of them held out; `seed` fixes which.

    `data` is a `DataLoader` or another iterable of model inputs, a tensor or array (inputs along its first dimension),
    a folder of images (through the model's own transform), a text file (through its tokenizer), a `datasets`
    dataset, or `python:MODULE:FUNCTION`, which returns one of these. Of batches (inputs, labels) only what the
    model's `forward` takes is kept. Raises `CalibrationError` for data of no such kind, no inputs at all, and inputs
    that are NaN or infinite.
    """
    if count < 1:
        raise CalibrationError(f"{count} samples are not enough", remedy="ask for at least one")
    label = data if isinstance(data, str) else described(data)
    if isinstance(data, str) and data.startswith("python:"):
        function = python_object(data)
        with current_folder_importable():
            data = function() if callable(function) else function
    rng = np.random.default_rng(seed)
    calibration, held_out = _load(data, model, count, rng, label)
    notes = [] if held_out else ["one sample only: nothing is held out to check settings on"]
    if not calibration:
        raise CalibrationError("there are no samples", where=label, remedy="give at least one model input")
    for kind, batches in (("sample", calibration), ("held-out sample", held_out)):
        for number, sample in enumerate(batches):
            _check(sample, f"{label}, {kind} {number}")
    return Samples(calibration, held_out, tuple(notes))


def _load(
    data: Any, model: Model, count: int, rng: np.random.Generator, label: str
) -> tuple[list[Sample], list[Sample]]:
    if isinstance(data, (str, os.PathLike)):
        path = Path(data)
        if path.is_dir():
            return _split(images_in(path), count, rng, lambda part: image_batches(part, model))
        if path.is_file():
            return _split(texts_in(path, model), count, rng, lambda part: text_batches(part, model))
        raise CalibrationError("no such file or folder", where=label, remedy="check the path")
    if hasattr(data, "column_names") and hasattr(data, "__getitem__"):
        return _dataset(data, model, count, rng, label)
    if hasattr(data, "shape") and hasattr(data, "dtype"):
        rows = _tensor(data)
        if rows.dim() == 0:
            raise CalibrationError("a number is no sample", where=label, remedy="give a batch of model inputs")
        return _split(range(len(rows)), count, rng, lambda part: _sliced(rows, part))
    if isinstance(data, Mapping):
        data = [data]
    if isinstance(data, Iterable):
        return _batches(data, model, count, rng)
    raise CalibrationError(
        f"{type(data).__name__} is no source of samples",
        where=label,
        remedy="give an iterable of model inputs, a tensor, a folder of images, a text file or python:MODULE:FUNCTION",
    )


# -- one input after another -------------------------------------------------------------------------------------------


def _split(
    items: Sequence[Any], count: int, rng: np.random.Generator, batches: Callable[[list[Any]], Iterable[Sample]]
) -> tuple[list[Sample], list[Sample]]:
    """Batches of `count` of the items, chosen at random, and of those among them that are held out."""
    chosen = [items[int(k)] for k in rng.permutation(len(items))[:count]]
    apart = max(1, len(chosen) // HELD_OUT) if len(chosen) > 1 else 0
    return list(batches(chosen[apart:])), list(batches(chosen[:apart])) if apart else []


def _sliced(rows: torch.Tensor, part: Sequence[int]) -> Iterator[torch.Tensor]:
    """Rows of a tensor in batches."""
    size = batch_size(rows[:1].numel())
    for k in range(0, len(part), size):
        yield rows[list(part[k : k + size])]


def _dataset(
    data: Any, model: Model, count: int, rng: np.random.Generator, label: str
) -> tuple[list[Sample], list[Sample]]:
    """Rows of a `datasets` dataset: texts, images, or columns that are the model's inputs."""
    if len(data) == 0:
        return [], []
    row: Mapping[str, Any] = data[0]
    wanted = [name for name in data.column_names if name in _parameters(model.module)[1]]
    if wanted:

        def columns(part: list[int]) -> Iterator[Sample]:
            size = batch_size(max(np.size(row[name]) for name in wanted))
            for k in range(0, len(part), size):
                rows = [data[i] for i in part[k : k + size]]
                yield {name: _stacked([r[name] for r in rows], f"{label}, column {name!r}") for name in wanted}

        return _split(range(len(data)), count, rng, columns)
    for name in data.column_names:
        value = row[name]
        if isinstance(value, str):
            make = partial(text_batches, model=model)
        elif hasattr(value, "convert") and hasattr(value, "size"):
            make = partial(image_batches, model=model)
        else:
            continue
        return _split(_Column(data, name), count, rng, make)
    raise CalibrationError(
        f"the dataset's columns ({', '.join(data.column_names)}) are neither texts, images nor model inputs",
        where=label,
        remedy="map it to the names of the model's inputs first",
    )


@dataclass(frozen=True)
class _Column(Sequence[Any]):
    """One column of a dataset, read when it is needed."""

    data: Any
    name: str

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, k: Any) -> Any:
        return self.data[k][self.name]


def _stacked(values: Sequence[Any], where: str) -> torch.Tensor:
    import torch

    try:
        return torch.stack([_tensor(value) for value in values])
    except (RuntimeError, TypeError, ValueError) as error:
        raise CalibrationError(
            f"rows cannot be stacked: {error}", where=where, remedy="bring them to one shape"
        ) from error


# -- batches that exist already ----------------------------------------------------------------------------------------


def _batches(
    data: Iterable[Any], model: Model, count: int, rng: np.random.Generator
) -> tuple[list[Sample], list[Sample]]:
    """The first batches that hold `count` inputs, some of them held out; a single batch is split in two."""
    found, seen = list[Sample](), 0
    limit, _ = _parameters(model.module)
    for batch in islice(data, count):
        if seen >= count:
            break
        sample = _taken(batch, limit)
        found.append(sample)
        seen += batch_length(sample) or 1
    if len(found) == 1 and (length := batch_length(found[0])) > 1:
        apart = max(1, length // HELD_OUT)
        return [part_of(found[0], slice(apart, None))], [part_of(found[0], slice(0, apart))]
    order = rng.permutation(len(found))
    apart = set(order[: max(1, len(found) // HELD_OUT)].tolist()) if len(found) > 1 else set()
    return [s for k, s in enumerate(found) if k not in apart], [found[k] for k in sorted(apart)]


def _parameters(module: torch.nn.Module) -> tuple[int | None, set[str]]:
    """How many positional inputs a module takes (None: any number), and the names of all of them."""
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return None, set()
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None, {p.name for p in positional}
    return len(positional), {p.name for p in parameters if p.kind is not p.VAR_KEYWORD}


def _taken(batch: Any, limit: int | None) -> Sample:
    """A batch as a sample: arrays become tensors, and a tuple is cut to what the module takes."""
    if isinstance(batch, Mapping):
        return {key: _converted(value) for key, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        values = tuple(_converted(value) for value in (batch if limit is None else batch[:limit]))
        return values[0] if len(values) == 1 else values
    return _converted(batch)


def _converted(value: Any) -> Any:
    return _tensor(value) if isinstance(value, np.ndarray) else value


def _tensor(value: Any) -> torch.Tensor:
    import torch

    return value if isinstance(value, torch.Tensor) else torch.from_numpy(np.array(value))


def _tensors(sample: Sample, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of a sample with its place."""
    if isinstance(sample, Mapping):
        for key, value in sample.items():
            yield from _tensors(value, f"{name}[{key!r}]")
    elif isinstance(sample, (tuple, list)):
        for number, value in enumerate(sample):
            yield from _tensors(value, f"{name}[{number}]")
    elif hasattr(sample, "dim") and hasattr(sample, "is_floating_point"):
        yield name, sample


def batch_length(sample: Sample) -> int:
    """Inputs in a batch: the common first dimension of its tensors, 0 if they have none."""
    lengths = {len(tensor) if tensor.dim() else 0 for _, tensor in _tensors(sample)}
    return lengths.pop() if len(lengths) == 1 else 0


def part_of(sample: Sample, rows: slice) -> Sample:
    """Some of the inputs of a batch."""
    return _changed(sample, lambda tensor: tensor[rows])


def mixed(sample: Sample, generator: torch.Generator) -> Sample:
    """A batch, half of its inputs mixed with others of it by at most a half (mixup, Zhang et al. 2018).

    The same as it was if not everything in it is floating: tokens have no mixtures.
    """
    import torch

    count = batch_length(sample)
    if count < 2 or not all(tensor.is_floating_point() for _, tensor in _tensors(sample)):
        return sample
    drawn, others = torch.rand(count, generator=generator), torch.randperm(count, generator=generator)
    share = torch.where(drawn < 0.5, 0.0, 1 - drawn)

    def mix(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.lerp(tensor[others], share.to(tensor).reshape(-1, *[1] * (tensor.dim() - 1)))

    return _changed(sample, mix)


def _changed(sample: Sample, change: Callable[[torch.Tensor], torch.Tensor]) -> Sample:
    if isinstance(sample, Mapping):
        return {key: _changed(value, change) for key, value in sample.items()}
    if isinstance(sample, (tuple, list)):
        return tuple(_changed(value, change) for value in sample)
    return change(sample) if hasattr(sample, "dim") else sample


def _check(sample: Sample, where: str) -> None:
    import torch

    for name, tensor in _tensors(sample):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CalibrationError(
                f"the input{name and ' ' + name} has NaN or infinite values", where=where, remedy="leave it out"
            )


def _bytes(sample: Sample) -> Iterator[str | bytes]:
    """All of a sample, for its fingerprint."""
    import torch

    yield described(sample)
    for name, tensor in _tensors(sample):
        yield name
        yield tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
