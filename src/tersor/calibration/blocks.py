"""Chains: modules of which each is called with just what the one before it returned.

Along a chain a network can be run module by module, so that only one of them and the tensors between two of them are
needed at a time. A chain is found by watching one run, not by names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Place = tuple[str | int, ...]
"""Where the tensor that flows is within (args, kwargs) or within a result."""


@dataclass(eq=False)
class Call:
    """One call of a module: its arguments, and its result once there is one."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    depth: int
    result: Any = None

    def flows_in(self) -> Tensor | None:
        """The first tensor among the arguments."""
        return first_tensor((self.args, self.kwargs))

    def others(self) -> Iterator[Tensor]:
        """The other tensors among the arguments."""
        flowing = self.flows_in()
        return (tensor for tensor in tensors((self.args, self.kwargs)) if tensor is not flowing)


def tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested tuples, lists and mappings, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors(part)
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from tensors(part)


def first_tensor(value: Any) -> Tensor | None:
    """The first tensor in nested tuples, lists and mappings."""
    return next(tensors(value), None)


def replaced(value: Any, old: Tensor, new: Tensor) -> Any:
    """`value` with one tensor in it replaced by another."""
    if value is old:
        return new
    if isinstance(value, Mapping):
        return {key: replaced(part, old, new) for key, part in value.items()}
    if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
        return type(value)(replaced(part, old, new) for part in value)
    return value


@contextmanager
def watched(module: nn.Module, names: set[str] | None = None) -> Iterator[list[Call]]:
    """The calls of submodules (those in `names`, or all), in the order in which they begin."""
    calls, stack, hooks = list[Call](), list[Call](), []

    def begin(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        stack.append(Call(name, args, kwargs, len(stack)))
        calls.append(stack[-1])

    def end(result: Any) -> None:
        stack.pop().result = result

    for name, part in module.named_modules():
        if name and (names is None or name in names):
            hooks.append(part.register_forward_pre_hook(lambda _, a, k, n=name: begin(n, a, k), with_kwargs=True))
            hooks.append(part.register_forward_hook(lambda _, a, result: end(result)))
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()


def find_blocks(module: nn.Module, calls: Sequence[Call]) -> list[str]:
    """Names of the modules of the best chain, in order; empty if there is none of two with weights.

    `calls` are those of one run. The best chain holds the most parameters; its modules are replaced by chains within
    them that lead from their input to their output. A module that is called more than once, and one that gets what an
    earlier one returned other than as what flows, ends a chain.
    """
    counts: dict[str, int] = {}
    for call in calls:
        counts[call.name] = counts.get(call.name, 0) + 1
    weights = {name: sum(p.numel() for p in part.parameters()) for name, part in module.named_modules()}

    def chains(inside: list[Call]) -> Iterator[list[Call]]:
        chain = list[Call]()
        for call in inside:
            fits = chain and call.flows_in() is first_tensor(chain[-1].result) is not None
            stale = {id(t) for earlier in chain for t in tensors(earlier.result)}
            if any(id(tensor) in stale for tensor in call.others()):
                fits = False
            if not fits:
                yield chain
                chain = []
            if counts[call.name] == 1 and call.flows_in() is not None:
                chain = [*chain, call]
            else:
                yield chain
                chain = []
        yield chain

    def children(parent: Call | None) -> list[Call]:
        if parent is None:
            return [call for call in calls if call.depth == 0]
        start = next(k for k, call in enumerate(calls) if call is parent)
        found = list[Call]()
        for call in calls[start + 1 :]:
            if call.depth <= parent.depth:
                break
            if call.depth == parent.depth + 1:
                found.append(call)
        return found

    def expanded(call: Call) -> list[Call]:
        inside = children(call)
        for chain in chains(inside):
            if len(chain) == len(inside) > 1 and (
                chain[0].flows_in() is call.flows_in()
                and first_tensor(chain[-1].result) is first_tensor(call.result)
                and sum(weights[c.name] for c in chain) == weights[call.name]
            ):
                return [part for c in chain for part in expanded(c)]
        return [call]

    parents: list[Call | None] = [None, *(call for call in calls if counts[call.name] == 1)]
    found = ([part.name for c in chain for part in expanded(c)] for p in parents for chain in chains(children(p)))
    several = [names for names in found if sum(weights[name] > 0 for name in names) > 1]
    return max(several, key=lambda names: sum(weights[name] for name in names), default=[])


def run_call(module: nn.Module, call: Call, flowing: Tensor) -> Tensor:
    """Call a module again as in `call`, with another tensor in place of the one that flows."""
    old = call.flows_in()
    if old is None:
        raise ValueError(f"{call.name}: the call has no tensor")
    args, kwargs = replaced(call.args, old, flowing), replaced(call.kwargs, old, flowing)
    result = first_tensor(module.get_submodule(call.name)(*args, **kwargs))
    if result is None:
        raise ValueError(f"{call.name}: the call returns no tensor")
    return result


def is_plain(call: Call) -> bool:
    """Whether nothing that may differ from sample to sample is among the arguments, beside what flows."""
    flowing = call.flows_in()
    values = (*call.args, *call.kwargs.values())
    return all(value is flowing or isinstance(value, (bool, float, str, type(None))) for value in values)


def without_values(call: Call) -> Call:
    """The call, with an empty tensor where the flowing one was and without its result: what has to be kept."""
    old = call.flows_in()
    if old is None:
        return call
    mark = torch.empty(0, dtype=old.dtype, device=old.device)
    return Call(call.name, replaced(call.args, old, mark), replaced(call.kwargs, old, mark), call.depth)
