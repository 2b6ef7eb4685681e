"""What calibration learns about a tensor of weights, and the sums it is made of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tersor.calibration.coupling import Outer, together

FEW_ROWS, FEW_WEIGHTS = 16, 8192
"""Of so many rows, or weights if rows are short, gradients are kept."""
DAMPING, FLOOR = 1e-2, 1e-4
"""Added to the covariance's diagonal before it is inverted, in mean diagonals of its group and of all groups."""
AT_ONCE = 2**22
"""Numbers of covariances that are worked on at once in float64."""
PANELS, LEAST_PANEL = 8, 64
"""Panels of columns that a product is computed in, and their least width."""

Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Statistics:
    """What is known of one tensor of weights w, seen as rows (outputs) of `fan_in` inputs each.

    If the weights of row i change by dw_i, the divergence of the model's output grows by about
    sum_ik coupling_ik * (dw_i^T covariance dw_k) / 2, plus sum_v usage_v * |dw_v|^2 / 2 for the rows of an embedding.
    The unit is the same for all layers: mean divergence of an output row (a sample, or a token of a language model).
    Inputs of layers that have very many are taken apart: `fan_in` is the width of a part, each has a covariance of its
    own, and what they have in common is left out.
    """

    covariance: npt.NDArray[np.float32] | None
    """(groups, fan_in, fan_in), mean of x x^T over the inputs x; group g feeds the g-th part of the rows, or of every
    row if that is taken apart. None for embeddings. Its diagonal is damped by far more than float32 rounds, and those
    of all layers are kept."""
    fisher: Float64
    """(rows,), squared output gradients, summed over positions, mean over output rows; `usage` for embeddings. NaN
    nowhere; all zero where no output of the model depends on the layer, or gradients were not asked for."""
    usage: Float64 | None = None
    """(rows,) of a table that is looked up: mean over the width of the squared gradient of a row."""
    target: npt.NDArray[np.float32] | None = None
    """The weights, in the shape of the tensor, that come closest to the original layer's outputs on the inputs that
    the compressed layers before it give; None if statistics are those of the original model."""
    count: int = 0
    """Inputs x that were seen; sampled if there were many."""
    transposed: bool = False
    """The tensor is stored as (fan_in, rows), as transformers' Conv1D does."""
    mean: Float64 | None = None
    """(groups, fan_in), mean of the inputs x."""
    original_mean: Float64 | None = None
    """The same in the original model, where statistics are those of a compressed prefix; else None."""
    parts: int = 1
    """That the inputs are taken apart into."""
    coupling: npt.NDArray[np.float32] | None = None
    """(blocks, n, n), Fisher information between rows that are neighbours, `fisher` on its diagonal; between rows of
    different blocks there is none. None where no more than the diagonal is known."""
    coherence: float = 1.0
    """What `fisher` is to be multiplied with because positions agree: see `Sums.coherence`. Noisy where it is large."""


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over inputs x of a layer: of y x^T (groups, fan_in, fan_in) and of y (groups, fan_in), for y = x or the
    original model's x. Products in float32: a covariance is damped by far more than that rounds."""

    products: torch.Tensor
    totals: torch.Tensor

    @classmethod
    def of(cls, y: torch.Tensor, x: torch.Tensor) -> Moments:
        """Moments of blocks (groups, inputs, fan_in)."""
        return cls(_gram(x) if y is x else y.mT @ x, y.sum(1).to(_double(y)))

    def zeros(self, groups: int) -> Moments:
        """Nothing yet, for so many groups."""
        return Moments(*(t.new_zeros((groups, *t.shape[1:])) for t in (self.products, self.totals)))

    def add(self, other: Moments, group: slice = slice(None)) -> None:
        """Add others to some of the groups."""
        self.products[group] += other.products
        self.totals[group] += other.totals


@dataclass(frozen=True, eq=False)
class Inputs:
    """What one call of a layer adds: moments of its inputs, and with those of the original model if they match."""

    own: Moments
    pairs: Moments | None
    count: int

    @classmethod
    def of(cls, blocks: Iterable[torch.Tensor], originals: Sequence[torch.Tensor] | None) -> Inputs:
        """Sum over blocks (groups, inputs, fan_in) and their originals."""
        own, pairs, count, paired = None, None, 0, originals is not None
        for k, block in enumerate(blocks):
            part = Moments.of(block, block)
            own = own or part.zeros(len(block))
            own.add(part)
            count += block.shape[1]
            paired = paired and originals is not None and k < len(originals) and originals[k].shape == block.shape
            if paired and originals is not None:
                part = Moments.of(originals[k], block)
                pairs = pairs or part.zeros(len(block))
                pairs.add(part)
        if own is None:
            raise ValueError("there are no blocks")
        return cls(own, pairs if paired else None, count)


@dataclass(eq=False)
class Sums:
    """Running sums of one tensor's statistics, on the model's device."""

    rows: int
    parts: int = 1
    """That every row is taken apart into: groups that all rows belong to."""
    own: Moments | None = None
    pairs: Moments | None = None
    """With the original model's x on the left, the compressed prefix's on the right; None if they do not match."""
    seen: list[int] = field(default_factory=list[int])
    """Inputs, by group."""
    fisher: torch.Tensor | None = None
    outer: Outer | None = None
    usage: torch.Tensor | None = None
    transposed: bool = False
    looked_up: bool = False
    calls: int = 0
    weight: torch.Tensor | None = None
    """A leaf that stands for the weights while their own gradient is wanted too."""
    gradients: list[torch.Tensor] = field(default_factory=list["torch.Tensor"])
    """Gradients (groups, rows, fan_in) of a few rows of the weights, one a sample."""
    squares: torch.Tensor | None = None
    """What `fisher` is over those samples alone."""

    def add_inputs(self, inputs: Inputs, group: slice, groups: int) -> None:
        """Add the inputs of one call to some of the groups."""
        if self.own is None:
            self.own = inputs.own.zeros(groups)
            self.pairs = inputs.pairs and inputs.pairs.zeros(groups)
            self.seen = [0] * groups
        self.own.add(inputs.own, group)
        if self.pairs is not None and inputs.pairs is not None:
            self.pairs.add(inputs.pairs, group)
        else:
            self.pairs = None
        for k in range(*group.indices(groups)):
            self.seen[k] += inputs.count

    def add_gradient(self, squares: torch.Tensor, part: slice) -> None:
        """Add squared output gradients, summed over positions, to some of the rows."""
        if self.fisher is None:
            self.fisher = squares.new_zeros(self.rows, dtype=_double(squares))
        self.fisher[part] += squares
        if self.weight is not None:
            if self.squares is None:
                self.squares = torch.zeros_like(self.fisher)
            self.squares[part] += squares

    def add_outer(self, gradient: torch.Tensor, part: slice, half: int, most: int) -> None:
        """Add output gradients (rows, positions) of some of the rows, from one half of the samples, `most` together."""
        if self.outer is None:
            size = together(self.rows * self.parts // max(1, len(self.seen)), most)
            self.outer = Outer(self.rows, size, gradient)
        if self.outer.size > 1:
            self.outer.add(gradient, part.indices(self.rows)[0], half)

    def leaf(self, weight: torch.Tensor) -> torch.Tensor:
        """A stand-in for the weights whose gradient `take_gradient` takes, as soon as it is known: of all layers
        together gradients would be as large as the model."""
        if self.weight is None:
            self.weight = weight.detach().requires_grad_()
            self.weight.register_post_accumulate_grad_hook(lambda _: self.take_gradient())
        return self.weight

    def take_gradient(self) -> None:
        """Keep a few rows of the gradient of the weights over one sample."""
        gradient = None if self.weight is None else self.weight.grad
        if self.weight is not None:
            self.weight.grad = self.weight = None
        if gradient is None or self.own is None:
            return
        groups, fan_in = self.own.totals.shape
        which, rows = self._few(groups, fan_in)
        self.gradients.append(self._grouped(gradient)[np.ix_(which, rows)].float())

    def _few(self, groups: int, fan_in: int) -> tuple[list[int], list[int]]:
        """A few groups, and a few rows of each, spread evenly."""
        each = self.rows * self.parts // groups
        wanted = max(FEW_ROWS, FEW_WEIGHTS // fan_in)
        some = min(each, max(1, wanted // groups))
        which = np.linspace(0, groups - 1, min(groups, wanted)).round().astype(int)
        return which.tolist(), np.linspace(0, each - 1, some).round().astype(int).tolist()

    def _grouped(self, weight: torch.Tensor) -> torch.Tensor:
        """Weights as (groups, rows of a group, fan_in)."""
        rows = weight.T if self.transposed else weight
        fan_in = rows[0].numel() // self.parts
        return rows.reshape(-1, self.parts, fan_in).transpose(0, 1).reshape(len(self.seen), -1, fan_in)

    def coherence(self) -> float:
        """How much more a changed weight does than its effects at single positions would, if they were independent.

        That is so for changes whose effects are white, covariance^-1/2 z as a good quantizer leaves them: the mean
        over rows of |covariance^-1/2 dL/dw_i|^2 over that of the squared output gradients times fan_in.
        """
        if not self.gradients or self.own is None or self.squares is None:
            return 1.0
        groups, fan_in = self.own.totals.shape
        which, rows = self._few(groups, fan_in)
        every = torch.cat(self.gradients, 1).to(_double(self.own.products)).mT
        squares = self.squares.expand(self.parts, -1).reshape(groups, -1)[which][:, rows].sum(1)
        exact = apart = 0.0
        for some in _together(len(which), fan_in):
            sigma, floor = _damped(self._mean(self.own.products, which[some]), DAMPING)
            factor = torch.linalg.cholesky(sigma)
            exact += float(torch.linalg.solve_triangular(factor, every[some], upper=False).square().sum())
            # the trace of covariance^-1/2 sigma covariance^-1/2, the covariance being sigma + floor
            width = fan_in - floor * torch.cholesky_inverse(factor).diagonal(dim1=1, dim2=2).sum(1)
            apart += float((squares[some] * width).sum())
        return exact / apart if apart > 0 else 1.0

    def add_usage(self, rows: torch.Tensor, squares: torch.Tensor) -> None:
        """Add the squared gradients of some rows of a table."""
        if self.usage is None:
            self.usage = squares.new_zeros(self.rows, dtype=_double(squares))
        self.usage.index_add_(0, rows, squares.to(self.usage.dtype))

    def target(self, weight: torch.Tensor, damping: float) -> npt.NDArray[np.float32] | None:
        """The weights W* that give the original's outputs on the compressed prefix's inputs x^ as well as can be.

        W* = W + W (Sigma_{x,x^} - Sigma_x^) (Sigma_x^ + damping)^-1: the damped directions keep their weights. None if
        the inputs of the two models could not be paired.
        """
        if self.own is None or self.pairs is None:
            return None
        best = self._grouped(weight.detach()).to(_double(weight), copy=True)
        for some in _together(len(best), best.shape[2]):
            sigma = self._mean(self.own.products, some)
            pull = best[some] @ self._mean(self.pairs.products, some).sub_(sigma)
            factor = torch.linalg.cholesky(_damped(sigma, damping)[0])
            best[some] += torch.cholesky_solve(pull.mT, factor).mT
        best = best.reshape(self.parts, -1, best.shape[-1]).transpose(0, 1).reshape(self.rows, -1)
        found = (best.T if self.transposed else best).float().cpu().numpy()
        return np.ascontiguousarray(found).reshape(weight.shape)

    def _mean(self, total: torch.Tensor, which: Any = slice(None)) -> torch.Tensor:
        counts = torch.tensor(self.seen, dtype=_double(total), device=total.device).clamp(min=1)[which]
        return total[which] / counts.reshape(-1, *[1] * (total.dim() - 1))

    def _covariance(self, products: torch.Tensor) -> npt.NDArray[np.float32]:
        """The mean of products, symmetric to the last bit."""
        counts = torch.tensor(self.seen, device=products.device).clamp(min=1)
        return (products + products.mT).div_(2 * counts[:, None, None]).cpu().numpy()

    def finish(self, outputs: int) -> Statistics:
        """The statistics, by the number of output rows that gradients were drawn for."""
        usage = np.zeros(self.rows) if self.looked_up else None
        if self.usage is not None:
            usage = _array(self.usage) / max(1, outputs)
        fisher = np.zeros(self.rows)
        if self.fisher is not None:
            fisher = _array(self.fisher) / max(1, outputs)
        elif usage is not None and self.own is None:
            fisher = usage
        if self.own is None:
            return Statistics(None, fisher, usage, count=self.calls, transposed=self.transposed)
        return Statistics(
            self._covariance(self.own.products),
            fisher,
            usage,
            count=min(self.seen),
            transposed=self.transposed,
            parts=self.parts,
            mean=_array(self._mean(self.own.totals)),
            original_mean=None if self.pairs is None else _array(self._mean(self.pairs.totals)),
            coupling=None if self.outer is None else self.outer.finish(fisher),
            coherence=self.coherence(),
        )


def _damped(sigma: torch.Tensor, damping: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Covariances (groups, n, n), to whose diagonals `damping` mean diagonals were added, and a floor for dead groups;
    and what that was, of every group. They are changed themselves: they may be large."""
    level = sigma.diagonal(dim1=1, dim2=2).mean(1)
    floor = damping * level + FLOOR * level.mean() + torch.finfo(sigma.dtype).tiny
    sigma.diagonal(dim1=1, dim2=2).add_(floor[:, None])
    return sigma, floor


def _together(groups: int, fan_in: int) -> Iterator[slice]:
    """Groups whose covariances are worked on at once."""
    each = max(1, AT_ONCE // fan_in**2)
    return (slice(k, k + each) for k in range(0, groups, each))


def _gram(x: torch.Tensor) -> torch.Tensor:
    """x^T x of blocks (groups, inputs, fan_in), by panels: it is symmetric, and most of it is computed once.

    Not by numpy, which would do half the work: its threads and those of torch wait for each other actively, and took
    twice the time of one thread.
    """
    fan_in = x.shape[-1]
    found, width = x.new_empty(len(x), fan_in, fan_in), max(LEAST_PANEL, -(-fan_in // PANELS))
    for first in range(0, fan_in, width):
        panel, behind = slice(first, first + width), slice(first + width, None)
        found[:, first:, panel] = x[:, :, first:].mT @ x[:, :, panel]
        found[:, panel, behind] = found[:, behind, panel].mT
    return found


def _double(tensor: torch.Tensor) -> Any:
    """float64, where the device has it."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def _array(tensor: torch.Tensor) -> Float64:
    return tensor.double().cpu().numpy()
