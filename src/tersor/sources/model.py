"""Sources that can run: a transformers folder, a timm model, a factory of the user's own, a module."""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from tersor.errors import SettingError, SourceError
from tersor.sources.folder import FolderSource
from tersor.sources.module import ModuleSource, is_module
from tersor.sources.running import Sample, mask_of, outputs_of, run
from tersor.sources.unit import Unit, listed

if TYPE_CHECKING:
    import torch

_RUNNABLE = (
    "what can run is a transformers folder, timm:NAME, a module, or python:MODULE:FACTORY with the file as weights"
)
_PARALLEL = "module."
"""What DataParallel puts before every name."""


class Weights(Protocol):
    """What `Model` needs of the source of its weights."""

    label: str
    metadata: Mapping[str, str]
    skipped: tuple[str, ...]

    def units(self) -> Sequence[Unit]:
        """The tensors."""
        ...

    def fingerprint(self) -> str:
        """A text that changes with them."""
        ...


class Model:
    """A source that can run: `module` in evaluation mode, and the units that its weights are stored as.

    `folder` is where a tokenizer or image processor may be found, `transform` the model's own image transform (a
    function from a PIL image to a tensor without batch dimension), `pooling` how a sentence encoder turns token
    vectors (sequences, positions, width) into one vector: "mean" or "cls". Nothing here changes the module.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        weights: Weights,
        *,
        folder: Path | None = None,
        transform: Callable[[Any], torch.Tensor] | None = None,
        pooling: str | None = None,
    ) -> None:
        self.module = module
        self.folder = folder
        self.transform = transform
        self.pooling = pooling
        self._weights = weights
        self.label = weights.label
        self.metadata: Mapping[str, str] = weights.metadata
        self.skipped = weights.skipped

    def units(self) -> Sequence[Unit]:
        """The tensors, under the names of the module's state dict."""
        return self._weights.units()

    def fingerprint(self) -> str:
        """A hexadecimal text that changes when the weights do."""
        return self._weights.fingerprint()

    def run(self, sample: Sample, module: torch.nn.Module | None = None, where: str = "a sample") -> Any:
        """The result of the module (or of `module`, a copy with other weights) on one sample."""
        return run(module or self.module, sample, where)

    def outputs(self, result: Any, sample: Sample) -> list[torch.Tensor]:
        """The floating outputs, first the one that distortion is measured on; of texts, padding is left out.

        Token outputs (sequences, positions, ...) become (tokens, ...), or (sequences, width) with `pooling`.
        """
        mask = mask_of(sample)
        found = outputs_of(result)
        if mask is None or found[0].shape[:2] != mask.shape or found[0].dim() < 3:
            return found
        mask = mask.to(found[0].device)
        if self.pooling is None:
            return [found[0][mask], *found[1:]]
        if self.pooling == "cls":
            return [found[0][:, 0], *found[1:]]
        weight = mask.to(found[0].dtype)[..., None]
        return [(found[0] * weight).sum(1) / weight.sum(1).clamp(min=1), *found[1:]]


def open_model(
    source: str | os.PathLike[str] | torch.nn.Module | Model,
    weights: str | os.PathLike[str] | None = None,
    *,
    key: str | None = None,
) -> Model:
    """Open a source that can run; see the module's docstring for the kinds.

    `weights` is a file with the state dict for `python:` and `timm:` sources, read without executing anything in
    it; `key` chooses within a checkpoint. Raises `SourceError` when the source cannot run, when a package it
    needs is missing, or when weights and module do not fit together.
    """
    if isinstance(source, Model):
        return source
    if is_module(source):
        module: torch.nn.Module = source  # type: ignore[assignment]
        return Model(module, ModuleSource(module)) if weights is None else _loaded(module, weights, key)
    text = os.fspath(source)  # type: ignore[arg-type]
    if text.startswith("python:"):
        module = _from_factory(text)
        return Model(module, ModuleSource(module)) if weights is None else _loaded(module, weights, key)
    if text.startswith("timm:"):
        return _from_timm(text, weights, key)
    folder = Path(text)
    if weights is not None:
        raise SourceError("only python: and timm: sources take weights", where=text, remedy="leave the weights out")
    if (folder / "config.json").is_file():
        return _from_transformers(folder)
    if not folder.exists():
        raise SourceError("no such file or folder", where=text, remedy="check the path")
    raise SourceError("the source holds weights only and cannot run", where=text, remedy=_RUNNABLE)


# -- where modules come from -------------------------------------------------------------------------------------------


def python_object(reference: str) -> Any:
    """What `python:MODULE:NAME` refers to; modules are also found in the current folder.

    Raises `SettingError` when the reference has another form or there is no such thing.
    """
    parts = reference.split(":")
    if len(parts) != 3 or not all(parts):
        raise SettingError(f"{reference!r} is no reference", remedy="write python:MODULE:NAME")
    _, module_name, name = parts
    try:
        with current_folder_importable():
            found: Any = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise SettingError(
            f"cannot find {name} in {module_name}: {error}", where=reference, remedy="check the names and the folder"
        ) from error
    return found


@contextmanager
def current_folder_importable() -> Iterator[None]:
    """Modules of the current folder can be imported, as with `python -m`."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _from_factory(reference: str) -> torch.nn.Module:
    factory = python_object(reference)
    with current_folder_importable():
        module: Any = factory() if callable(factory) and not is_module(factory) else factory
    if not is_module(module):
        raise SourceError(
            f"the factory returns {type(module).__name__}, not a torch.nn.Module",
            where=reference,
            remedy="return the module",
        )
    return module.eval()


def _from_timm(text: str, weights: str | os.PathLike[str] | None, key: str | None) -> Model:
    try:
        import timm  # type: ignore[import-not-found]
        from timm.data import create_transform, resolve_model_data_config  # type: ignore[import-not-found]
    except ImportError as error:
        raise SourceError(
            f"timm cannot be imported: {error}", where=text, remedy="pip install timm and a torchvision that fits torch"
        ) from error
    name = text.removeprefix("timm:")
    try:
        module = timm.create_model(name, pretrained=weights is None).eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise SourceError(
            f"timm cannot create {name!r}: {error}", where=text, remedy="see timm.list_models()"
        ) from error
    transform = create_transform(**resolve_model_data_config(module), is_training=False)
    if weights is None:
        return Model(module, ModuleSource(module), transform=transform)
    return _loaded(module, weights, key, transform=transform)


def _from_transformers(folder: Path) -> Model:
    where = str(folder)
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        name = (config.get("architectures") or [None])[0]
    except (OSError, ValueError, AttributeError, IndexError) as error:
        raise SourceError(f"config.json cannot be read: {error}", where=where, remedy="get the folder again") from error
    if not isinstance(name, str):
        raise SourceError("config.json names no architecture", where=where, remedy="add architectures to it")
    try:
        import torch
        import transformers
    except ImportError as error:
        raise SourceError(
            f"transformers cannot be imported: {error}", where=where, remedy="pip install 'tersor[text]'"
        ) from error
    architecture = getattr(transformers, name, None)
    if architecture is None:
        raise SourceError(
            f"transformers {transformers.__version__} has no architecture {name!r}",
            where=where,
            remedy="update transformers, or use python:MODULE:FACTORY; code in the folder is never run",
        )
    units = FolderSource(folder)
    try:
        module = architecture.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise SourceError(
            f"transformers cannot load it: {error}", where=where, remedy="get the folder again"
        ) from error
    known = set(module.state_dict())
    if not any(unit.name in known for unit in units.units()):
        names = listed([unit.name for unit in units.units()], 3)
        raise SourceError(
            f"none of the folder's tensors ({names}) is one of {name}'s",
            where=where,
            remedy="save the model again with save_pretrained",
        )
    return Model(module.eval(), units, folder=folder, pooling=_pooling(folder))


def _pooling(folder: Path) -> str | None:
    """How the sentence encoder in a folder pools, by the file in which sentence-transformers keeps it."""
    try:
        modes = json.loads((folder / "1_Pooling" / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if modes.get("pooling_mode_cls_token"):
        return "cls"
    return "mean" if modes.get("pooling_mode_mean_tokens") else None


# -- weights from a file -----------------------------------------------------------------------------------------------


class _Renamed:
    """A source without the prefix that DataParallel puts before every name."""

    def __init__(self, source: Weights) -> None:
        self.label, self.metadata, self.skipped = source.label, source.metadata, source.skipped
        self.fingerprint = source.fingerprint
        self._units = tuple(
            replace(
                unit,
                name=unit.name.removeprefix(_PARALLEL),
                tied_to=unit.tied_to and unit.tied_to.removeprefix(_PARALLEL),
            )
            for unit in source.units()
        )

    def units(self) -> Sequence[Unit]:
        return self._units


def _loaded(module: torch.nn.Module, weights: str | os.PathLike[str], key: str | None, **hints: Any) -> Model:
    """The module with the weights of a file, whose tensors are the units."""
    from tersor.sources import open_source

    source: Weights = open_source(weights, key=key)
    state = module.state_dict(keep_vars=True)
    if all(unit.name.startswith(_PARALLEL) for unit in source.units()) and not any(
        name.startswith(_PARALLEL) for name in state
    ):
        source = _Renamed(source)
    load_units(module, source.units(), source.label)
    return Model(module.eval(), source, **hints)


def load_units(module: torch.nn.Module, units: Sequence[Unit], where: str) -> None:
    """Copy units into a module; raises `SourceError`, before anything is changed, unless names and shapes agree.

    A tensor of the module may be missing if it is tied to one that is there.
    """
    import torch

    state = module.state_dict(keep_vars=True)
    given = {unit.name for unit in units}
    there = {state[name].data_ptr() for name in given & state.keys()}
    problems = [
        f"{title}: {listed(names, 3)}"
        for title, names in (
            ("missing", [n for n, t in state.items() if n not in given and t.data_ptr() not in there]),
            ("unknown", [u.name for u in units if u.name not in state]),
            (
                "of another shape",
                [
                    f"{u.name} {u.shape}, the module has {tuple(state[u.name].shape)}"
                    for u in units
                    if u.name in state and tuple(state[u.name].shape) != u.shape
                ],
            ),
        )
        if names
    ]
    if problems:
        raise SourceError(
            f"the weights do not fit {type(module).__name__}; {'; '.join(problems)}",
            where=where,
            remedy="give the factory and the file of one model",
        )
    with torch.no_grad():
        for unit in units:
            state[unit.name].copy_(as_tensor(unit))


def as_tensor(unit: Unit) -> torch.Tensor:
    """The unit's elements as a tensor of its own dtype."""
    import torch

    from tersor.runtime import TORCH_DTYPES

    dtype = getattr(torch, TORCH_DTYPES[unit.dtype])
    if unit.count == 0:
        return torch.empty(unit.shape, dtype=dtype)
    return torch.from_numpy(np.ascontiguousarray(unit.load())).view(dtype).reshape(unit.shape)
