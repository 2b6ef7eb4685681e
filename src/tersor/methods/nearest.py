"""Method `nearest`: entropy-constrained rounding to one uniform grid a tensor, without data.

One price of a bit holds for the whole model. It buys *mean* squared error: the error of a tensor of n weights counts
1/n, because tensors turn out to be about equally sensitive as wholes, whatever their size (docs/decisions/0003).
Minimising error / n + price * bits over a step s at high rate (error = n s^2 / 12, d error / d bits = -2 ln 2 error)
gives s^2 = 6 n price / ln 2.

A level is worth its bits only if it saves their price in squared error (rate-distortion optimised quantization, as
in the encoders of the NNC standard). Rounding towards zero to save bits shrinks the weights, and shrinkage adds up
over layers, so that each tensor's step is stretched by the gain that undoes it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt

from tersor import _core
from tersor.coders import EncodedStream, Symbols, integer_type
from tersor.coders.rans import MANY, MAX_ALPHABET, PRECISIONS, Histogram, fit, merge
from tersor.coders.rans2d import WIDEST
from tersor.encoded import Distortion, Encoded, seal
from tersor.errors import SettingError
from tersor.format.dtypes import DTYPES, Bytes, view_floats, widen_bf16
from tersor.format.layout import MAX_CHUNK
from tersor.format.manifest import Step
from tersor.methods import keep
from tersor.ops import uniform
from tersor.sources import Unit, role

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int32]

SMALLEST = 256
"""Tensors with fewer weights are rounded, not quantized: a table and a step would cost more than they save."""
LARGEST = 1e37
"""Weights beyond this leave no room for float32 arithmetic."""
FARTHEST_LEVEL = 2.0**23
"""Levels stay below this, so that float32 holds them exactly."""
TABLE_BITS = 8.0
"""Rough price of a level in a frequency table, and of learning its frequency."""
RUN = 4096
"""Weights that stand together in a sample."""
WIDEST_LEVEL = 63
"""If one level in a thousand exceeds this, low bits go to a stream of their own: entropy tables stay small, and low
bits of such wide distributions are uniform to a thousandth of a bit."""
PASSES = 2
"""How often the prices of levels are learned anew from the levels they lead to."""
QUERY_KEY = frozenset({"query", "key", "q_proj", "k_proj"})
"""Parts of names that mark projections whose errors the softmax of attention forgives."""

RECURRENT = "weight_hh"
"""Part of the name of recurrent weights, whose errors add up over time."""


@dataclass(frozen=True)
class Nearest:
    """Round every weight to the cheapest good level of one grid a tensor; needs no data."""

    name: ClassVar[str] = "nearest"

    rounding_price: float = field(default=0.04, metadata={"help": "price of a bit in rounding, in squared steps"})
    query_key_step: float = field(default=1.5, metadata={"help": "how much coarser query and key projections are"})
    recurrent_step: float = field(default=0.5, metadata={"help": "how much finer recurrent weights are"})
    head_step: float = field(
        default=0.25, metadata={"help": "how much finer embeddings are that are the output matrix too"}
    )
    adaptive: bool = field(
        default=False,
        metadata={"help": "use the slow coder: smaller files that decode a hundred times slower"},
    )
    knee: float = field(
        default=0.5, metadata={"help": "steps beyond this many standard deviations grow as the square root only"}
    )

    def __post_init__(self) -> None:
        if self.knee <= 0:
            raise SettingError(f"a knee of {self.knee} makes no sense", remedy="give a number above 0")

    def quantizes(self, unit: Unit) -> bool:
        """Whether the unit is quantized; others are kept or rounded."""
        weighty = role(unit) in ("embedding", "matrix", "convolution")
        return weighty and unit.dtype in uniform.FLOATS and unit.count >= SMALLEST

    def sample(self, unit: Unit, data: Bytes, budget: int) -> NearestSample | None:
        """Up to `budget` weights in runs spread evenly over the unit; None if float32 cannot hold the weights."""
        if unit.dtype == "F64" and float(np.abs(view_floats(data, unit.dtype)).max()) > LARGEST:
            return None
        return self._sample(unit, data, budget)

    def _sample(self, unit: Unit, data: Bytes, budget: int) -> NearestSample:
        weights = _runs(data, unit, budget)
        rms = math.sqrt(float(np.square(weights, dtype=np.float64).mean()))
        thinned = np.abs(weights[:: max(1, weights.size // 2**14)])
        return NearestSample(self, unit, weights, rms, float(np.quantile(thinned, 0.999)))

    def encode(self, unit: Unit, data: Bytes, price: float) -> Encoded:
        """Code the unit at a price."""
        plan = self._sample(unit, data, 2**18).plan(price)
        if _largest(data, unit) / plan.step >= FARTHEST_LEVEL:
            return keep.rounded(unit, data)  # a few weights so large that no grid serves both them and the rest
        chunk = MAX_CHUNK if self.adaptive else _chunk(plan.bits_per_weight)
        width = DTYPES[unit.dtype].width * chunk

        @lru_cache(maxsize=1)
        def levels(k: int) -> Integers:
            return plan.quantize(to_float32(data[k * width : (k + 1) * width], unit.dtype))

        def measure(start: int, out: Bytes) -> Distortion:
            original = to_float32(data[start : start + out.size], unit.dtype)
            return Distortion.between(original, to_float32(out, unit.dtype))

        whole = Symbols(unit.count, chunk, levels, row_length(unit.shape), kernel_size(unit.shape), self.adaptive)
        spans = [(int(part.min()), int(part.max()), Histogram.of(part)) for part in whole]
        lowest, highest = min(span[0] for span in spans), max(span[1] for span in spans)
        grid = uniform.Grid(np.array([plan.step * plan.gain], np.float32))

        def coded(low: int) -> tuple[Step, list[EncodedStream]]:
            kind = integer_type(lowest >> low, highest >> low)
            if low == 0:
                return uniform.encode_step(whole, kind, 0, grid)
            high = replace(whole, values=lambda k: levels(k) >> low)
            rest = Symbols(unit.count, chunk, lambda k: levels(k) & ((1 << low) - 1), fast=unit.count >= MANY)
            return uniform.encode_step(high, kind, low, grid, rest)

        splits = _splits(merge([histogram for *_, histogram in spans]), plan.low)
        step, streams = min(map(coded, splits), key=lambda found: sum(s.stream.nbytes for s in found[1]))
        encoded = seal(unit.name, unit.dtype, unit.shape, step, streams, measure)
        if math.isfinite(encoded.distortion.error):
            return encoded
        return keep.lossless(unit, data)  # rounding left the range of a narrow type


class Plan(NamedTuple):
    """How the weights of one unit become levels."""

    step: float  # weights are divided by it
    gain: float  # levels are rebuilt as multiples of step * gain
    prices: Floats  # of levels -limit .. limit, in squared steps
    low: int  # the most low bits that may be coded apart
    bits_per_weight: float

    def quantize(self, weights: Floats) -> Integers:
        """Levels of the weights."""
        levels = np.empty(weights.size, np.int32)
        _core.quantize(weights, self.step, self.prices, levels)
        return levels


@dataclass(frozen=True, eq=False)
class NearestSample:
    """Weights of a unit that stand for all of them."""

    method: Nearest
    unit: Unit
    weights: Floats
    rms: float
    reach: float  # what one weight in a thousand exceeds

    def step(self, price: float) -> float:
        """The unit's step at a price of a bit in mean squared error.

        Where the step exceeds `knee` standard deviations the high-rate formula fails (there is little left to lose),
        so it grows as the square root from there on; embeddings, whose rows are used one at a time, follow the formula.
        """
        step = math.sqrt(6 * price * self.unit.count / math.log(2))
        if QUERY_KEY & set(self.unit.name.split(".")):
            step *= self.method.query_key_step
        if RECURRENT in self.unit.name:
            step *= self.method.recurrent_step
        if self.unit.head:
            step *= self.method.head_step
        if role(self.unit) != "embedding" and self.rms > 0:
            step /= (1 + (step / (self.method.knee * self.rms)) ** 2) ** 0.25
        return float(np.float32(max(step, 1e-30)))

    def plan(self, price: float) -> Plan:
        """Price the levels by their frequencies in the sample, and find the gain."""
        step = self.step(price)
        low = min(uniform.MAX_LOW_BITS, max(0, math.ceil(math.log2(self.reach / step / WIDEST_LEVEL + 1e-9))))
        plan = Plan(step, 1.0, np.zeros(1, np.float32), low, 0.0)
        levels = plan.quantize(self.weights)
        apart = self._bits_apart(levels, low)
        if apart is not None:  # fine grids: a level is worth its bits, and nothing shrinks
            return plan._replace(bits_per_weight=apart)
        for _ in range(PASSES if self.method.rounding_price > 0 else 0):
            prices = _prices(Histogram.of(levels)) * np.float32(self.method.rounding_price)
            plan = plan._replace(prices=prices)
            levels = plan.quantize(self.weights)
        entropy = Histogram.of(levels).entropy_bits / levels.size
        return plan._replace(gain=_gain(self.weights, levels, step), bits_per_weight=entropy)

    def _bits_apart(self, levels: Integers, low: int) -> float | None:
        """Bits a weight with low bits coded apart, about; None where one stream is smaller.

        That is so where levels do not fill their range: zeros among large ones have low bits that are far from uniform.
        """
        if low == 0:
            return None
        together, high, rest = map(Histogram.of, (levels, levels >> low, levels & ((1 << low) - 1)))
        joint = together.entropy_bits / levels.size + TABLE_BITS * np.count_nonzero(together.counts) / self.unit.count
        apart = (high.entropy_bits + rest.entropy_bits) / levels.size
        apart += TABLE_BITS * np.count_nonzero(high.counts) / self.unit.count
        fits = together.total == together.counts.sum() and together.counts.size <= MAX_ALPHABET
        return None if fits and joint < apart else apart

    def nbytes(self, price: float) -> float:
        """Predicted bytes of the unit's streams at a price."""
        return self.plan(price).bits_per_weight * self.unit.count / 8 + 50


def _splits(levels: Histogram, most: int) -> list[int]:
    """How many low bits, at most `most`, to code apart: as many as give the smallest streams, tables in. Where those
    leave too many levels for classes of rows and columns, the first number that does not is worth a try as well."""
    if most == 0 or levels.total > levels.counts.sum():
        return [most]
    parts = [levels.split(low) for low in range(most + 1)]
    tables = [fit(high, (PRECISIONS[1], PRECISIONS[1])) for high, _ in parts]
    sizes = [
        table.payload_bits(high) + 8 * table.side_bytes + rest.entropy_bits
        for table, (high, rest) in zip(tables, parts, strict=True)
    ]
    best = int(np.argmin(sizes))
    classed = next((low for low, (high, _) in enumerate(parts) if high.counts.size <= WIDEST), best)
    return sorted({best, max(best, classed)})


def _gain(weights: Floats, levels: Integers, step: float) -> float:
    """The factor after which the decoded weights project onto the original ones with their full length: <w, w>
    / <w, w^>."""
    wide = weights.astype(np.float64)
    projection = float((wide * levels).sum()) * step  # not BLAS: its sums depend on the number of its threads
    if projection <= 0:
        return 1.0
    return min(2.0, max(0.5, float(np.square(wide).sum()) / projection))


def _prices(histogram: Histogram) -> Floats:
    """Bits of the levels -limit .. limit, by their frequency; what never occurred costs as if it had half a time."""
    lowest, counts, total = histogram
    limit = min(max(abs(lowest), abs(lowest + counts.size - 1)) + 1, 4096)
    full = np.zeros(2 * limit + 1)
    first, last = max(lowest, -limit), min(lowest + counts.size, limit + 1)
    full[first + limit : last + limit] = counts[first - lowest : last - lowest]
    return -np.log2(np.maximum(full, 0.5) / total).astype(np.float32)


def _largest(data: Bytes, unit: Unit) -> float:
    """Largest magnitude of the weights, a stretch at a time."""
    stretch = DTYPES[unit.dtype].width * 2**16
    parts = (to_float32(data[k : k + stretch], unit.dtype) for k in range(0, data.size, stretch))
    return max(float(np.abs(part).max()) for part in parts)


def _chunk(bits: float) -> int:
    """Chunks of about 128 KiB once coded: small enough to share among threads, large enough that lanes cost nothing."""
    return 2**18 if bits >= 3 else 2**19 if bits >= 1.5 else 2**20


def row_length(shape: tuple[int, ...]) -> int:
    """Weights in a row, an index of the first dimension; 0 for tensors that are no matrices."""
    return math.prod(shape[1:]) if len(shape) > 1 else 0


def kernel_size(shape: tuple[int, ...]) -> int:
    """Positions of a convolution's kernel; 0 for other tensors."""
    return math.prod(shape[2:]) if len(shape) > 2 else 0


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
    return view_floats(data, dtype).astype(np.float32, copy=False)
