"""One tensor to store, and the small facts about tensors that every source needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tersor.errors import SourceError
from tersor.format.dtypes import DTYPES, Bytes
from tersor.format.manifest import MAX_RANK

ITEMSIZE: dict[str, int] = {name: dtype.itemsize for name, dtype in DTYPES.items()}
"""Bytes of one element, by safetensors dtype name."""


@dataclass(frozen=True)
class Unit:
    """One tensor to store.

    `load()` returns the elements as a contiguous 1-D uint8 array of `nbytes` bytes, little endian, in C
    order. It reads from disk only when called and returns a buffer of its own, never a live memory map:
    mapped pages would count as memory of ours. It raises `SourceError` when the file has gone or changed.

    `tied_to` names the earlier unit whose storage this one shares entirely (same dtype, shape, strides and
    offset). Such a tensor is stored once. `head` says that an embedding is the output matrix of a language model too
    (`roles.with_heads`).
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    load: Callable[[], Bytes] = field(repr=False, compare=False)
    tied_to: str | None = None
    head: bool = False

    @property
    def count(self) -> int:
        """Number of elements; 1 for a tensor without dimensions."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that `load()` returns."""
        return self.count * ITEMSIZE[self.dtype]


def check_name(name: Any, where: str) -> str:
    """Return `name` unchanged, or raise `SourceError`: names are non-empty valid Unicode without NUL."""
    if not isinstance(name, str):
        raise SourceError(
            f"a tensor's name is {type(name).__name__}, not text", where=where, remedy="rename it to a string"
        )
    if not name:
        raise SourceError("a tensor has an empty name", where=where, remedy="give it a name")
    if "\0" in name:
        raise SourceError(f"the tensor name {name!r} holds a NUL character", where=where, remedy="rename it")
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        raise SourceError(
            f"the tensor name {name!r} is not valid Unicode (a lone surrogate)",
            where=where,
            remedy="rename it",
        ) from None
    return name


def check_shape(shape: Any, where: str) -> tuple[int, ...]:
    """Return `shape` as a tuple, or raise `SourceError`: at most `MAX_RANK` whole numbers of 0 or more."""
    if not isinstance(shape, (list, tuple)):
        raise SourceError("the shape is not a list of numbers", where=where, remedy="the file is damaged: get it again")
    entries: list[Any] = list(shape)  # pyright: ignore[reportUnknownArgumentType]
    if len(entries) > MAX_RANK:
        raise SourceError(
            f"the tensor has {len(entries)} dimensions, more than {MAX_RANK}",
            where=where,
            remedy="reshape it before saving",
        )
    if any(type(entry) is not int or entry < 0 for entry in entries):
        raise SourceError(
            "the shape holds something other than whole numbers of 0 or more",
            where=where,
            remedy="the file is damaged: get it again",
        )
    return tuple(entries)


def unsupported_dtype(dtype: str, where: str) -> SourceError:
    """The error for an element type that a tersor file cannot hold."""
    return SourceError(
        f"the element type {dtype} is not supported",
        where=where,
        remedy=f"convert the tensor to one of {', '.join(ITEMSIZE)} and save again",
    )


def listed(names: Sequence[str], most: int) -> str:
    """Return the first `most` names, joined for a message."""
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


class Ties:
    """Finds tensors that share their storage entirely: the first of them owns it, the others are tied."""

    def __init__(self) -> None:
        self._owners: dict[tuple[Any, ...], str] = {}

    def owner(self, name: str, count: int, *identity: Any) -> str | None:
        """Return the name of the earlier tensor with the same `identity`, or None and remember this one.

        Tensors without elements (`count` 0) are never tied: allocators give them all the same address.
        """
        if count == 0:
            return None
        owner = self._owners.setdefault(identity, name)
        return None if owner == name else owner
