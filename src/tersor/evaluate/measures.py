"""Divergences between outputs, and random gradients whose covariance is the divergence's second derivative.

To second order every divergence here is d(y, y + e) = e^T F(y) e / 2, with F the Fisher matrix of the output. A random
gradient g with E[g g^T] = F(y), sent backwards, gives the Fisher information of everything before: E[(g^T e)^2] = 2 d.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from tersor.errors import CalibrationError, SettingError

if TYPE_CHECKING:
    import torch

Kind = Literal["logits", "probabilities", "bernoulli", "vectors", "values"]
"""What an output is, and so how it diverges:

- logits: KL(before || after) of their softmax, in nats; classes are the last dimension (of images, the second);
- probabilities: the same of distributions over the last dimension;
- bernoulli: KL of probabilities that stand each for themselves, summed over the last dimension;
- vectors: 1 - cosine over the last dimension;
- values: squared error over mean squared norm, a sample at a time.
"""

CHUNK = 2**20
"""Numbers that are worked on at once."""
SMALLEST = 1e-9
"""Probabilities below this count as this."""


def check_kind(kind: str) -> Kind:
    """Return `kind`, or raise `SettingError` with those there are."""
    if kind not in get_args(Kind):
        raise SettingError(f"there is no kind of output {kind!r}", remedy=f"choose one of {', '.join(get_args(Kind))}")
    return kind  # type: ignore[return-value]


def kind_of(result: object, output: torch.Tensor) -> Kind:
    """Guess what an output is, from where it stands in the module's result and from its values."""
    from collections.abc import Mapping

    if isinstance(result, Mapping):
        if "logits" in result:
            return "logits" if output.shape[-1] > 1 else "values"
        if "last_hidden_state" in result:
            return "vectors"
    if output.dim() not in (2, 3) or output.shape[-1] < 2:
        return "values"
    wide = output.detach().double()
    if bool(((wide >= 0) & (wide <= 1)).all()):
        if bool(((wide.sum(-1) - 1).abs() < 1e-3).all()):
            return "probabilities"
        if bool(((wide.square().sum(-1) - 1).abs() > 1e-3).any()):
            return "bernoulli"
    return "vectors" if bool(((wide.square().sum(-1) - 1).abs() < 1e-3).all()) else "logits"


def rows(kind: Kind, output: torch.Tensor) -> torch.Tensor:
    """The output as (rows, width): each row is one distribution, vector or sample."""
    if kind == "values":
        return output.reshape(len(output), -1) if output.dim() > 1 else output.reshape(-1, 1)
    if kind == "logits" and output.dim() >= 4:
        output = output.movedim(1, -1)
    return output.reshape(-1, output.shape[-1])


def divergence(kind: Kind, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
    """Divergences of two outputs of one shape, (rows,) in float64; their mean is what is reported."""
    import torch

    p, q = rows(kind, before), rows(kind, after)
    if kind == "values":
        p, q = p.double(), q.double()
        return (p - q).square().sum(1) / p.square().sum(1).mean().clamp(min=torch.finfo(torch.float64).tiny)
    some = max(1, CHUNK // max(1, p.shape[1]))
    pairs = zip(p.split(some), q.split(some), strict=True)
    return torch.cat([_between(kind, p.double(), q.double()) for p, q in pairs])


def _between(kind: Kind, p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    """Divergences of rows (rows, width), (rows,)."""
    import torch

    if kind == "vectors":
        return 1 - torch.nn.functional.cosine_similarity(p, q, dim=1)
    if kind == "logits":
        p, q = p.log_softmax(1), q.log_softmax(1)
        return (p.exp() * (p - q)).sum(1)
    p, q = p.clamp(SMALLEST, 1), q.clamp(SMALLEST, 1)
    if kind == "probabilities":  # sums that float32 has left beside 1 would count to first order
        p, q = p / p.sum(1, keepdim=True), q / q.sum(1, keepdim=True)
    total = p * (p / q).log()
    if kind == "bernoulli":
        other = (1 - p).clamp(SMALLEST, 1)
        total = total + other * (other / (1 - q).clamp(SMALLEST, 1)).log()
    return total.sum(1)


def draw(kind: Kind, output: torch.Tensor, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """The output's rows and a random gradient of the same shape for them, independent from row to row.

    Its covariance is the Fisher matrix of the rows under the divergence of `kind`. The generator is on the CPU, so
    that devices draw alike. Raises `CalibrationError` where the output is not finite.
    """
    import torch

    flat = rows(kind, output)
    if not bool(torch.isfinite(flat).all()):
        raise CalibrationError(
            "the model's output is NaN or infinite", remedy="look for samples that the model cannot take"
        )
    if kind == "values":
        noise = torch.randn(flat.shape, generator=generator).to(flat.device)
        power = flat.detach().double().square().sum(1).mean()
        return flat, (noise * (2 / power.clamp(min=1e-30)).sqrt().float()).to(flat.dtype)
    parts = flat.detach().split(max(1, CHUNK // max(1, flat.shape[1])))
    return flat, torch.cat([_drawn(kind, part.float(), generator).to(flat.dtype) for part in parts])


def _drawn(kind: Kind, y: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A random gradient for rows (rows, width)."""
    import torch

    noise = torch.randn(y.shape, generator=generator).to(y.device)
    if kind == "logits":
        p = y.softmax(1)
        gradient = p.sqrt() * noise
        return gradient - p * gradient.sum(1, keepdim=True)
    if kind == "probabilities":
        return noise / y.clamp(min=SMALLEST).sqrt()
    if kind == "bernoulli":
        return noise / (y * (1 - y)).clamp(min=SMALLEST).sqrt()
    norm = y.norm(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)  # vectors
    return (noise - y / norm * (noise * y / norm).sum(1, keepdim=True)) / norm
