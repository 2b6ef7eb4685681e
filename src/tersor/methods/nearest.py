"""Method `nearest`: entropy-constrained rounding to one uniform grid a tensor, without data.

One price of a bit, in squared error per bit, holds for the whole model. Minimising error + price * bits over a step s at high
rate gives s^2 = 6 price / ln 2 (from D = s^2 / 12 and dD/dR = -2 ln 2 D), so every tensor has the same step, up to the weight
its error is given; and a level is worth its bits only if it saves price * bits of squared error, which in units of the step is
ln 2 / 6 a bit (rate-distortion optimised quantization: Sullivan 1996, and the NNC standard's encoder).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from tersor import _core
from tersor.coders import Symbols, integer_type
from tersor.coders.rans import Histogram
from tersor.encoded import Distortion, Encoded, seal
from tersor.format.dtypes import DTYPES, Bytes, widen_bf16
from tersor.methods import keep
from tersor.ops import uniform
from tersor.sources import Unit, role

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]

SMALLEST = 256
"""Tensors with fewer weights are rounded, not quantized: a table and a step would cost more than they save."""
RUN = 4096
"""Weights that stand together in a sample."""
WIDEST_LEVEL = 1023
"""Levels beyond this lose their low bits to a stream of their own: entropy tables stay small."""


@dataclass(frozen=True)
class Nearest:
    """Round every weight to the cheapest good level of one grid; needs no data."""

    name: ClassVar[str] = "nearest"

    embedding_step: float = field(default=2.5, metadata={"help": "how much coarser the step of embeddings is"})
    rounding_price: float = field(
        default=math.log(2) / 6, metadata={"help": "price of a bit in rounding, in squared steps"}
    )
    passes: int = field(default=2, metadata={"help": "how often the prices of levels are learned anew"})
    largest_step: float = field(
        default=1.5, metadata={"help": "no step exceeds this many standard deviations of its tensor"}
    )

    def quantizes(self, unit: Unit) -> bool:
        """Whether the unit is quantized; others are kept or rounded."""
        weighty = role(unit) in ("embedding", "matrix", "convolution")
        return weighty and unit.dtype in uniform.FLOATS and unit.count >= SMALLEST

    def sample(self, unit: Unit, data: Bytes, budget: int) -> NearestSample:
        """Up to `budget` weights in runs spread evenly over the unit."""
        weights = _runs(data, unit, budget)
        rms = math.sqrt(float(np.square(weights, dtype=np.float64).mean()))
        return NearestSample(
            self,
            unit,
            weights,
            rms,
            float(np.quantile(np.abs(weights[:: max(1, weights.size // 2**14)]), 0.999)),
        )

    def encode(self, unit: Unit, data: Bytes, price: float) -> Encoded:
        """Code the unit at a price."""
        plan = self.sample(unit, data, 2**18).plan(price)
        chunk = _chunk(plan.bits_per_weight)

        def weights(k: int) -> Floats:
            width = DTYPES[unit.dtype].width * chunk
            return to_float32(data[k * width : (k + 1) * width], unit.dtype)

        @lru_cache(maxsize=1)
        def levels(k: int) -> Integers:
            return plan.quantize(weights(k))[0]

        count = unit.count
        high = Symbols(count, chunk, lambda k: levels(k) >> plan.low if plan.low else levels(k))
        lows = Symbols(count, chunk, lambda k: levels(k) & ((1 << plan.low) - 1)) if plan.low else None
        extremes = [(int(v.min()), int(v.max())) for v in map(high.values, range(high.chunks))]
        kind = integer_type(min(a for a, _ in extremes), max(b for _, b in extremes))
        grid = uniform.Grid(np.array([plan.step], np.float32), None, plan.offset)
        step, streams = uniform.encode_step(high, kind, plan.low, grid, lows)

        def measure(start: int, out: Bytes) -> Distortion:
            original = to_float32(data[start : start + out.size], unit.dtype)
            return Distortion.between(original, to_float32(out, unit.dtype))

        encoded = seal(unit.name, unit.dtype, unit.shape, step, streams, measure)
        if math.isfinite(encoded.distortion.error):
            return encoded
        return keep.lossless(unit, data)  # rounding left the range of a narrow type


class Plan(NamedTuple):
    """How the weights of one unit become levels."""

    step: float
    offset: float
    prices: Floats  # of levels -limit .. limit, in squared steps
    low: int
    bits_per_weight: float

    def quantize(self, weights: Floats) -> tuple[Integers, float]:
        """Levels of the weights, and the offset that would suit the non-zero ones best: their mean distance from the grid."""
        levels = np.empty(weights.size, np.int32)
        residual, nonzero = _core.quantize(weights, self.step, self.offset, self.prices, levels)
        return levels, float(np.float32(max(-0.5, min(0.5, residual / max(nonzero, 1)))))


@dataclass(frozen=True, eq=False)
class NearestSample:
    """Weights of a unit that stand for all of them."""

    method: Nearest
    unit: Unit
    weights: Floats
    rms: float
    reach: float  # what one weight in a thousand exceeds

    def step(self, price: float) -> float:
        """The unit's step at a price."""
        factor = self.method.embedding_step if role(self.unit) == "embedding" else 1.0
        step = factor * math.sqrt(6 * price / math.log(2))
        if self.rms > 0:
            step = min(step, self.method.largest_step * self.rms)
        return float(np.float32(max(step, 1e-30)))

    def plan(self, price: float) -> Plan:
        """Prices of levels and the offset, from the sample: each pass prices its levels by the frequencies of the last."""
        step, free = self.step(price), np.zeros(1, np.float32)
        plan = Plan(step, 0.0, free, 0, 0.0)
        low = min(uniform.MAX_LOW_BITS, max(0, math.ceil(math.log2(self.reach / step / WIDEST_LEVEL + 1e-9))))
        levels, offset = plan.quantize(self.weights)
        histogram = Histogram.of(levels >> low)
        if low:
            return plan._replace(low=low, bits_per_weight=low + histogram.entropy_bits / levels.size)
        for _ in range(self.method.passes):
            plan = Plan(step, offset, _prices(histogram) * np.float32(self.method.rounding_price), 0, 0.0)
            levels, offset = plan.quantize(self.weights)
            histogram = Histogram.of(levels)
        return plan._replace(bits_per_weight=histogram.entropy_bits / levels.size)

    def nbytes(self, price: float) -> float:
        """Predicted bytes of the unit's streams at a price."""
        return self.plan(price).bits_per_weight * self.unit.count / 8 + 50


def _prices(histogram: Histogram) -> Floats:
    """Bits of the levels -limit .. limit, by their frequency; what never occurred costs as if it had half a time."""
    lowest, counts, total = histogram
    limit = min(max(abs(lowest), abs(lowest + counts.size - 1)) + 1, 4096)
    full = np.zeros(2 * limit + 1)
    first, last = max(lowest, -limit), min(lowest + counts.size, limit + 1)
    full[first + limit : last + limit] = counts[first - lowest : last - lowest]
    return -np.log2(np.maximum(full, 0.5) / total).astype(np.float32)


def _chunk(bits: float) -> int:
    """Chunks of about 128 KiB once coded: small enough to share among threads, large enough that lanes cost nothing."""
    return 2**18 if bits >= 3 else 2**19 if bits >= 1.5 else 2**20


def _runs(data: Bytes, unit: Unit, budget: int) -> Floats:
    """Up to `budget` weights of a unit, in runs spread evenly over it."""
    width = DTYPES[unit.dtype].width
    if unit.count <= budget:
        return to_float32(data, unit.dtype)
    starts = np.linspace(0, unit.count - RUN, max(1, budget // RUN)).astype(np.int64) * width
    return np.concatenate([to_float32(data[s : s + RUN * width], unit.dtype) for s in starts])


def to_float32(data: Bytes, dtype: str) -> Floats:
    """Bytes of F32, F16, BF16 or F64 elements as float32; F64 is rounded."""
    if dtype == "BF16":
        return widen_bf16(data.view("<u2"))
    return data.view(DTYPES[dtype].numpy).astype(np.float32, copy=False)
