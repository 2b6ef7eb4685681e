"""Fisher information between the outputs of a layer: which errors of rows do the same to the model, and can cancel."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch

MOST_TOGETHER, MOST_OUTPUTS = 512, 4096
"""Neighbouring outputs of a layer that are looked at together, and outputs of a layer of which any are: of more, as of
a vocabulary, single ones have little to do with each other."""
ROOM, SHARE = 2**26, 3
"""Bytes that sums of all layers may take, or this part of what the weights take."""


def most_together(parameters: Iterable[torch.Tensor]) -> int:
    """How many outputs are looked at together at most, so that sums of all layers have room."""
    shapes = [(len(p), p.numel()) for p in parameters if p.dim() > 1]
    room = max(ROOM, 4 * sum(count for _, count in shapes) // SHARE)
    rows = sum(outputs for outputs, _ in shapes if outputs <= MOST_OUTPUTS)
    return min(MOST_TOGETHER, max(1, room // (2 * 4 * max(1, rows))))


def together(outputs: int, most: int) -> int:
    """How many neighbouring outputs are looked at together: a divisor of their number, at most `most`."""
    if outputs > MOST_OUTPUTS:
        return 1
    return next(k for k in range(min(outputs, most), 0, -1) if outputs % k == 0)


def some_of(gradient: torch.Tensor, most: int, generator: torch.Generator) -> torch.Tensor:
    """Gradients (rows, positions) at `most` positions, drawn at random if there are more."""
    if gradient.shape[1] <= most:
        return gradient
    return gradient[:, torch.randperm(gradient.shape[1], generator=generator)[:most].to(gradient.device)]


class Outer:
    """Sums of outer products of output gradients, of two halves of the samples apart."""

    def __init__(self, rows: int, size: int, like: torch.Tensor) -> None:
        self.size = size
        self.halves = like.new_zeros((2, rows // size, size, size))

    def add(self, gradient: torch.Tensor, first: int, half: int) -> None:
        """Add gradients (rows, positions) of rows from `first` on."""
        blocks = gradient.reshape(-1, self.size, gradient.shape[1])
        start = first // self.size
        self.halves[half, start : start + len(blocks)].baddbmm_(blocks, blocks.mT)

    def finish(self, fisher: npt.NDArray[np.float64]) -> npt.NDArray[np.float32] | None:
        """Fisher information (blocks, size, size) between rows, with `fisher` (rows,) as its diagonal; None if one half
        has no gradients.

        Few gradients have far too much in common in some directions and too little in others. Directions are those of
        one half, what lies in them is counted in the other, and the other way round (NERCOME: Lam 2016; Joachimi 2017).
        """
        halves = self.halves.double() if self.halves.device.type != "mps" else self.halves.cpu().double()
        if not bool(halves.flatten(1).any(1).all()):
            return None
        spread = halves.sum(0).diagonal(dim1=1, dim2=2).sqrt()
        scale = torch.where(spread > 0, 1 / spread, 0)
        halves *= scale[:, :, None] * scale[:, None]
        found = torch.zeros_like(halves[0])
        for one, other in (halves, halves.flip(0)):
            directions = torch.linalg.eigh(one)[1]
            strength = (directions.mT @ other * directions.mT).sum(2)
            found += directions * strength[:, None] @ directions.mT
        wanted = torch.from_numpy(np.sqrt(fisher)).to(found).view_as(spread)
        own = found.diagonal(dim1=1, dim2=2).sqrt()
        scale = torch.where(own > 0, wanted / own, 0)
        return (found * scale[:, :, None] * scale[:, None]).float().cpu().numpy()
