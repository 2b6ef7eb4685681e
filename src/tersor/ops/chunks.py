"""What an op gets and gives: pieces of streams in, decoded chunks and the digests of their leaves out."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from tersor import _core
from tersor.coders import CORE_TYPES
from tersor.errors import FormatError
from tersor.format.layout import chunk_counts
from tersor.format.manifest import Step, Stream

Bytes = npt.NDArray[np.uint8]
Leaves = npt.NDArray[np.uint64]


class Chunk(NamedTuple):
    """One chunk of a stream, ready for the native core."""

    prelude: _core.Prelude | None
    data: Bytes


class Inputs(Protocol):
    """Where an op finds the streams of its step; every piece was checked against its checksum."""

    where: str

    def chunk(self, stream: int, chunk: int) -> Chunk:
        """Chunk number `chunk` of stream number `stream`."""
        ...

    def keep(self, nbytes: int) -> None:
        """Raise `LimitError` before memory is taken, until the tensor is decoded, that may not be taken."""
        ...


@dataclass(frozen=True)
class ChunkDecoder:
    """Decodes a tensor piece by piece, in any order and from any thread."""

    counts: list[int]  # symbols of the main stream in every chunk
    width: int  # bytes of the tensor each of them gives
    decode: Callable[[int, Bytes], Leaves]  # fills the bytes of a chunk, returns the digests of its leaves


def check_streams(step: Step, expected: list[int], where: str) -> None:
    """Raise unless the step has one stream for every expected count of symbols."""
    counts = [stream.count for stream in step.streams]
    if counts != expected:
        raise FormatError(
            "bad_streams",
            f"op {step.op} has streams of {counts} symbols where {expected} are due",
            where=where,
        )


def check_parameters(step: Step, types: Mapping[str, type], where: str) -> list[Any]:
    """The parameters of a step in the order of `types`; raise unless exactly these are there."""
    if set(step.parameters) != set(types) or any(type(step.parameters[k]) is not t for k, t in types.items()):
        raise FormatError(
            "bad_parameters", f"op {step.op} needs exactly the parameters {', '.join(types)}", where=where
        )
    return [step.parameters[name] for name in types]


def same_chunks(streams: list[Stream], where: str) -> list[int]:
    """Words in every chunk of streams that are decoded side by side."""
    if len({stream.chunk for stream in streams}) != 1:
        raise FormatError("bad_chunk", "streams that are decoded together have different chunks", where=where)
    return chunk_counts(streams[0].count, streams[0].chunk)


def read_all(inputs: Inputs, number: int, stream: Stream) -> Bytes:
    """All symbols of a side stream of type u8."""
    inputs.keep(stream.count)
    out = np.empty(stream.count, np.uint8)
    for k, count in enumerate(chunk_counts(stream.count, stream.chunk)):
        prelude, data = inputs.chunk(number, k)
        with stream_errors(f"{inputs.where}, stream {number}, chunk {k}"):
            start = k * stream.chunk
            _core.decode_bytes(out[start : start + count], prelude, CORE_TYPES[stream.type], data, start)
    return out


_MEANING = {
    "table": "a frequency table breaks the rules",
    "truncated": "a chunk ends before its symbols do",
    "trailing": "a chunk does not end where its symbols do",
    "patch": "a patch list breaks the rules",
    "range": "a value lies outside its range",
}


@contextmanager
def stream_errors(where: str) -> Generator[None]:
    """Turn what the native core finds wrong with a stream into a `FormatError` that says where."""
    try:
        yield
    except _core.StreamError as error:
        if str(error) not in _MEANING:
            raise
        raise FormatError(f"stream_{error}", _MEANING[str(error)], where=where) from None
