"""Decoder primitives: integers and side information -> the elements of a tensor. One file an op, frozen by golden
files.

Adding one means a section in spec/FORMAT.md, a version bump, golden files, and an entry in `OPS`; a new *method*
needs none of this (docs/decisions/0001).
"""

from __future__ import annotations

from tersor.format.manifest import Entry
from tersor.ops import raw, uniform, uniform2d
from tersor.ops.chunks import ChunkDecoder, Inputs

OPS = {
    "raw": raw.open_chunks,
    "uniform": uniform.open_chunks,
    "uniform2d": uniform2d.open_chunks,
    "companded": uniform2d.open_chunks,
    "trellis": uniform2d.open_chunks,
}
"""Opens the chain of an entry: checks its parameters, reads its side streams, returns what decodes chunk by chunk."""


def open_entry(entry: Entry, inputs: Inputs) -> ChunkDecoder:
    """The decoder of `entry`, whose op is checked against its dtype and shape."""
    (step,) = entry.chain
    return OPS[step.op](entry, step, inputs)
