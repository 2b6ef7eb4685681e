"""What part a tensor plays in its model, guessed from its rank, dtype and name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from tersor.sources.unit import Unit

Role = Literal["embedding", "matrix", "convolution", "vector", "buffer"]

_FLOATING = frozenset({"F8_E4M3", "F8_E5M2", "F8_E8M0", "F16", "BF16", "F32", "F64"})
_BUFFER_NAMES = frozenset({"running_mean", "running_var", "num_batches_tracked"})
_EMBEDDING_HINTS = ("embed", "wte", "wpe", "tok_")
_DECODER_HINTS = frozenset({"embed_tokens", "wte", "tok_embeddings", "token_embd"})
_TABLE_ROWS = 4096
_TABLE_ASPECT = 8


def role(unit: Unit) -> Role:
    """Return the role of `unit`. It steers the choice of method: a wrong guess costs bytes, not correctness.

    The first rule that fits decides:

    - buffer: integer or boolean elements, or a last name of running_mean, running_var or num_batches_tracked;
    - vector: no more than one dimension longer than 1 (biases, scales, norms, single numbers);
    - embedding: floating, two dimensions, and "embed", "wte", "wpe" or "tok_" in the name, or the shape of a
      table: at least 4096 rows, and 8 times as many rows as columns (so an untied output head counts too);
    - convolution: floating, three to five dimensions;
    - matrix: everything else.
    """
    name = unit.name.lower()
    if (unit.dtype not in _FLOATING and unit.dtype != "C64") or name.rsplit(".", 1)[-1] in _BUFFER_NAMES:
        return "buffer"
    if sum(length != 1 for length in unit.shape) <= 1:
        return "vector"
    if unit.dtype in _FLOATING and len(unit.shape) == 2:
        rows, columns = unit.shape
        if any(hint in name for hint in _EMBEDDING_HINTS) or rows >= max(_TABLE_ROWS, _TABLE_ASPECT * columns):
            return "embedding"
    if unit.dtype in _FLOATING and 3 <= len(unit.shape) <= 5:
        return "convolution"
    return "matrix"


def with_heads(units: Iterable[Unit]) -> list[Unit]:
    """The units; those embeddings are marked that are the output matrix of a language model too.

    That is one which another tensor is tied to, or which has the name of a decoder's and no other table beside it has
    as many rows. A wrong guess costs bytes, not correctness.
    """
    units = list(units)
    owners = {unit.tied_to for unit in units}
    tables = [unit for unit in units if role(unit) in ("embedding", "matrix") and unit.tied_to is None]

    def head(unit: Unit) -> bool:
        if role(unit) != "embedding" or unit.tied_to is not None:
            return False
        alone = not any(other.shape[0] == unit.shape[0] for other in tables if other is not unit)
        return unit.name in owners or (alone and bool(_DECODER_HINTS & set(unit.name.split("."))))

    return [replace(unit, head=True) if head(unit) else unit for unit in units]
