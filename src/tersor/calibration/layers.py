"""Inputs of linear maps as rows: what each output of a layer is a scalar product of weights with."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

CHUNK = 2**23
"""Numbers that are gathered at once."""
ROWS_PER_INPUT = 4
MOST_NUMBERS = 2**24
"""In the covariances of a layer: they would take memory by the square of its inputs, and time by the cube."""
FEWEST_ROWS, MOST_SHARES = 2**15, 8
"""Inputs that a covariance is made of: `ROWS_PER_INPUT` times its width, and at least `FEWEST_ROWS`, which the groups
of a convolution share, down to a part in `MOST_SHARES`. More would not make it better: neighbouring positions of an
image say the same."""


def parts_of(fan_in: int) -> int:
    """Into how many parts, of one width, the inputs of a layer are taken apart, each with a covariance of its own."""
    return next(k for k in range(-(-(fan_in**2) // MOST_NUMBERS), fan_in + 1) if fan_in % k == 0)


def enough_rows(fan_in: int, groups: int = 1) -> int:
    """How many inputs to look at for covariances of this width."""
    return max(ROWS_PER_INPUT * fan_in, FEWEST_ROWS // min(groups, MOST_SHARES))


def linear_rows(
    x: torch.Tensor, mask: torch.Tensor | None, most: int, generator: torch.Generator
) -> Iterator[torch.Tensor]:
    """Inputs (..., fan_in) of a linear layer as one block (1, rows, fan_in), at most about `most` rows of them.

    Positions that `mask` (sequences, positions) leaves out are dropped where x has these leading dimensions, flattened
    or not.
    """
    import torch

    x = _visible(x, mask).reshape(-1, x.shape[-1])
    if len(x) > most:
        x = x[torch.randperm(len(x), generator=generator)[:most].to(x.device)]
    yield x[None]


def _visible(x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    if mask is None:
        return x
    if x.dim() >= 3 and x.shape[:2] == mask.shape:
        return x[mask.to(x.device)]
    if x.dim() == 2 and len(x) == mask.numel():
        return x[mask.reshape(-1).to(x.device)]
    return x


def convolution_rows(
    x: torch.Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int] | str,
    dilation: Sequence[int],
    groups: int,
    most: int,
    generator: torch.Generator,
) -> Iterator[torch.Tensor]:
    """Patches of x (batch, channels, *spatial) in blocks (groups, rows, channels / groups * taps).

    If there are more than `most` patches, positions are drawn at random, the same in all images of the batch.
    """

    index, inside = _taps(x.shape[2:], kernel, stride, padding, dilation, -(-most // len(x)), generator)
    taps, flat, complete = len(index), x.flatten(2), bool(inside.all())
    index, inside = index.reshape(-1).to(x.device), inside.reshape(-1).to(x.device)
    fan_in = x.shape[1] // groups * taps
    for part in flat.split(max(1, CHUNK // max(1, x.shape[1] * len(index)))):
        block = part.gather(2, index.expand(*part.shape[:2], -1))
        block = block if complete else block * inside
        yield block.reshape(len(part), groups, fan_in, -1).permute(1, 2, 0, 3).reshape(groups, fan_in, -1).mT


def _taps(
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int] | str,
    dilation: Sequence[int],
    most: int,
    generator: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of every tap at `most` output positions, (taps, positions): its place in the flat image, and if it is in it."""
    import torch

    spans = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    if padding == "same":
        edges = [(span // 2, span - span // 2) for span in spans]
    else:
        edges = [(0, 0)] * len(kernel) if isinstance(padding, str) else [(int(p), int(p)) for p in padding]
    extents = zip(sizes, edges, spans, stride, strict=True)
    outputs = torch.Size((size + sum(edge) - span - 1) // step + 1 for size, edge, span, step in extents)
    chosen = torch.arange(outputs.numel())
    if len(chosen) > most:
        chosen = torch.randperm(len(chosen), generator=generator)[:most].sort().values
    places = torch.unravel_index(chosen, outputs)
    offsets = torch.unravel_index(torch.arange(math.prod(kernel)), torch.Size(kernel))
    index, inside = torch.zeros((), dtype=torch.long), torch.ones((), dtype=torch.bool)
    for d, size in enumerate(sizes):
        along = places[d] * stride[d] - edges[d][0] + (offsets[d] * dilation[d])[:, None]
        inside = inside & (along >= 0) & (along < size)
        index = index * size + along.clamp(0, size - 1)
    return index, inside
