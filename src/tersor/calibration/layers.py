"""Inputs of linear maps as rows: what each output of a layer is a scalar product of weights with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

CHUNK = 2**23
"""Numbers that are gathered at once."""
ROWS_PER_INPUT = 16
FEWEST_ROWS = 2**15
"""Inputs that a covariance is made of: this many times its width, and at least so many. More would not make it
better: neighbouring positions of an image say the same."""


def enough_rows(fan_in: int) -> int:
    """How many inputs to look at for a covariance of this width."""
    return max(ROWS_PER_INPUT * fan_in, FEWEST_ROWS)


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
    import torch

    patches = _patches(x, kernel, stride, padding, dilation)
    dimensions = len(kernel)
    sizes = patches.shape[2 : 2 + dimensions]
    total = sizes.numel()
    wanted = max(1, -(-most // len(x)))
    if total > wanted:
        chosen = torch.randperm(total, generator=generator)[:wanted].to(x.device)
        patches = patches[(slice(None), slice(None), *torch.unravel_index(chosen, sizes))]
    else:
        patches = patches.flatten(2, 1 + dimensions) if dimensions == 1 else patches
        wanted = total
    taps = torch.Size(kernel).numel()
    width = x.shape[1] * taps
    for part in patches.split(max(1, CHUNK // max(1, wanted * width))):
        block = part.reshape(len(part), groups, x.shape[1] // groups, -1, taps)
        yield block.permute(1, 0, 3, 2, 4).reshape(groups, -1, width // groups)


def _patches(
    x: torch.Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int] | str,
    dilation: Sequence[int],
) -> torch.Tensor:
    """A view (batch, channels, *positions, *taps) of the padded x."""
    import torch

    spans = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
    if padding == "same":
        pairs = [(span // 2, span - span // 2) for span in spans]
    else:
        pairs = [(0, 0) if padding == "valid" else (int(p), int(p)) for p in _each(padding, len(kernel))]
    if any(a or b for a, b in pairs):
        x = torch.nn.functional.pad(x, [edge for pair in reversed(pairs) for edge in pair])
    for k, (span, step, gap) in enumerate(zip(spans, stride, dilation, strict=True)):
        x = x.unfold(2 + k, span + 1, step)[..., ::gap]
    return x


def _each(padding: Sequence[int] | str, dimensions: int) -> Sequence[int]:
    return [0] * dimensions if isinstance(padding, str) else padding
