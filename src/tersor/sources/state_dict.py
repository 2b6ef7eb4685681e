"""Finding the weights among the objects of a checkpoint, and naming them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tersor.errors import SourceError
from tersor.sources.pickle_reader import Attributes
from tersor.sources.torch_objects import TensorRecord
from tersor.sources.unit import check_name, listed

STATE_KEYS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "net",
    "network",
    "module",
    "ema",
    "model_ema",
    "state_dict_ema",
    "params",
    "params_ema",
)
"""Where training scripts put the weights inside a checkpoint."""

TRAINING_KEYS = frozenset(
    {"optimizer", "optimizers", "optimizer_state", "optimizer_states", "optimizer_state_dict", "optim"}
    | {"scheduler", "scheduler_state_dict", "lr_scheduler", "lr_schedulers", "scaler", "grad_scaler"}
    | {"rng_state", "cuda_rng_state", "callbacks", "loops"}
)
"""What training scripts put beside the weights, and no weights themselves."""

_BRANCHES = frozenset({TensorRecord, Attributes, dict, list, tuple})
_MAX_LEVELS = 4
_MAX_DEPTH = 64
_MAX_STEPS = 2_000_000
_MAX_NAME = 4096
_MAX_NOTES = 10_000
_EXPORT = "save model.state_dict() alone, best as .safetensors"


@dataclass
class Selection:
    """The weights of a checkpoint in order, and what was found beside them."""

    tensors: list[tuple[str, TensorRecord]] = field(default_factory=list[tuple[str, TensorRecord]])
    metadata: dict[str, str] = field(default_factory=dict[str, str])
    skipped: list[str] = field(default_factory=list[str])


class _Walk:
    """Goes over nested containers. All walks of one checkpoint share one allowance of steps: a small pickle
    can refer to the same container again and again, and unfold into more than any computer can visit."""

    def __init__(self, where: str) -> None:
        self.where = where
        self._left = _MAX_STEPS

    def _spend(self, steps: int) -> None:
        self._left -= steps
        if self._left < 0:
            raise self.refused(f"the checkpoint has more than {_MAX_STEPS} values")

    def refused(self, what: str) -> SourceError:
        return SourceError(what, where=self.where, remedy=_EXPORT)

    def parts(self, value: Any) -> Iterator[tuple[str | None, Any]]:
        """Yield the named parts of a container, nothing for a leaf. A key that can be no name is None."""
        if isinstance(value, Attributes):
            value = value.state
        if type(value) is dict:
            for key, item in value.items():
                self._spend(1)
                yield (str(key) if type(key) in (str, int) else None), item
        elif type(value) in (list, tuple):
            self._spend(len(value) // 8)
            if any(type(item) in _BRANCHES for item in value):
                for position, item in enumerate(value):
                    self._spend(1)
                    yield str(position), item

    def tensors(self, name: str | None, value: Any) -> Iterator[tuple[str, TensorRecord]]:
        """Yield every tensor in `value`, which is called `name`, with its dotted name, in order."""
        stack: list[tuple[str | None, Iterator[tuple[str | None, Any]]]] = [(None, iter([(name, value)]))]
        while stack:
            prefix, parts = stack[-1]
            part = next(parts, None)
            if part is None:
                stack.pop()
                continue
            full = part[0] if len(stack) == 1 else self._joined(prefix, part[0])
            if isinstance(part[1], TensorRecord):
                if full is None:
                    raise self.refused("a tensor's key is neither text nor a number")
                yield full, part[1]
                continue
            if len(stack) > _MAX_DEPTH:
                raise self.refused(f"the checkpoint is nested more than {_MAX_DEPTH} levels deep")
            stack.append((full, self.parts(part[1])))

    def _joined(self, prefix: str | None, key: str | None) -> str | None:
        if prefix is None or key is None:
            return None
        if len(prefix) + len(key) > _MAX_NAME:
            raise self.refused(f"a name is longer than {_MAX_NAME} characters")
        return f"{prefix}.{key}"

    def holds_tensors(self, value: Any) -> bool:
        return next(self.tensors("", value), None) is not None


def select(root: Any, key: str | None, where: str) -> Selection:
    """Return the weights in a checkpoint's objects.

    A table with one of `STATE_KEYS` that holds tensors stands for that entry; `key` names another, or one of
    several. What remains is flattened, and the entries of training state are left out. Raises `SourceError`
    when there are no tensors, several models, no such `key`, unusable names, or nesting without end.
    """
    walk = _Walk(where)
    selection = Selection()
    if isinstance(root, TensorRecord):
        raise walk.refused("the file holds one tensor without a name")
    if type(root) not in (dict, list, tuple) and not isinstance(root, Attributes):
        raise walk.refused("the file holds no table of tensors")
    for _ in range(_MAX_LEVELS):  # weights under a key under a key: {"model": {"state_dict": ...}}
        chosen = _chosen(walk, root, key)
        key = None
        if chosen is None or not isinstance(root, dict):
            break
        _note(walk, selection, ((name, value) for name, value in walk.parts(root) if name != chosen))
        root = root[chosen]
    names: set[str] = set()
    for name, value in walk.parts(root):
        if name in TRAINING_KEYS and not isinstance(value, TensorRecord):
            _note(walk, selection, [(name, value)])
            continue
        found = list(walk.tensors(name, value))
        for full, _ in found:
            check_name(full, where)
            if full in names:
                raise walk.refused(f"two tensors are called {full!r}")
            names.add(full)
        selection.tensors += found
        if not found:
            _note(walk, selection, [(name, value)])
    if not selection.tensors:
        raise walk.refused("the checkpoint holds no tensors")
    return selection


def _chosen(walk: _Walk, table: Any, key: str | None) -> str | None:
    """Return the key under which the weights are, or None when they are `table` itself."""
    if key is not None:
        if type(table) is not dict or key not in table or not walk.holds_tensors(table[key]):
            known = listed([repr(name) for name, _ in walk.parts(table)], 12)
            raise SourceError(
                f"the checkpoint has no tensors under {key!r}",
                where=walk.where,
                remedy=f"its keys are {known}",
            )
        return key
    if type(table) is not dict:
        return None
    found = [
        name
        for name in STATE_KEYS
        if name in table and not isinstance(table[name], TensorRecord) and walk.holds_tensors(table[name])
    ]
    if len(found) > 1:
        raise SourceError(
            f"the checkpoint holds several models, under {', '.join(found)}",
            where=walk.where,
            remedy="say which one with key=..., or save that one alone",
        )
    return found[0] if found else None


def _note(walk: _Walk, selection: Selection, entries: Iterable[tuple[str | None, Any]]) -> None:
    """List what is not taken: numbers and short texts in `metadata`, the rest in `skipped`."""
    for key, value in entries:
        if len(selection.skipped) + len(selection.metadata) >= _MAX_NOTES:
            return
        name = str(key)
        if type(value) in (float, bool, str) or (type(value) is int and abs(value) < 1 << 64):
            selection.metadata[name] = str(value)[:1000].encode("utf-8", "replace").decode()
            continue
        tensors = sum(1 for _ in walk.tensors("", value))
        selection.skipped.append(f"{name} ({tensors} tensors)" if tensors else name)
