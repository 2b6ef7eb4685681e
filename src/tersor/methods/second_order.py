"""Method `second_order`: water-filled steps and rounding with error feedback, from statistics of calibration samples.

One price of a bit, in the divergence of the model's output, holds for the whole model: at high rate a weight whose
steps are water-filled costs theta / 2, and one bit more a quarter of that, so that theta = price / ln 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from tersor import _core
from tersor.coders import Symbols, integer_type
from tersor.coders.rans import Histogram
from tersor.encoded import Distortion, Encoded, seal
from tersor.format.dtypes import Bytes
from tersor.methods import keep
from tersor.methods._feedback import (
    ROW_FLOOR,
    Doubles,
    Floats,
    Rounding,
    Solution,
    apart,
    by_parts,
    cost,
    damped,
    factored,
    joined,
    solve,
    strengths,
    white,
)
from tersor.methods.nearest import LARGEST, Nearest, kernel_size, to_float32
from tersor.ops.uniform2d import Scales, encode_step
from tersor.sources import Unit

if TYPE_CHECKING:
    from tersor.calibration.statistics import Statistics

CHUNK = 2**18
FINEST = 2.0**12
"""Levels to a side that predictions count one by one."""
ALTERNATIVES = {"coherence": (1.0,), "embedding": (0.1,)}
LEAST_GAIN = 0.02
"""Bits a weight that feedback between rows has to save at high rate: it takes time."""
LEVELS = 1 << 15
"""More levels than this to a side, and a tensor is rounded like a small one."""


@dataclass(frozen=True)
class SecondOrder:
    """Round columns one after another and make up for their errors in those that follow; needs samples."""

    name: ClassVar[str] = "second_order"

    damping: float = field(default=0.1, metadata={"help": "added to covariances and Fisher information, in means"})
    rate: float = field(default=0.5, metadata={"help": "weight of the price of a level when it is chosen"})
    quadratic: float = field(default=1.0, metadata={"help": "share of that price that is foreseen as a quadratic one"})
    coupling: float = field(default=1.0, metadata={"help": "how much of what outputs have in common is used; 0: none"})
    classes: int = field(default=2, metadata={"help": "classes of spread to an octave, each with prices of its own"})
    passes: int = field(default=3, metadata={"help": "how often prices are learned anew from the levels"})
    column_steps: float = field(default=4.0, metadata={"help": "steps to an octave between columns; 0: one step"})
    row_steps: float = field(default=2.0, metadata={"help": "steps to an octave between rows; 0: one step"})
    rare: float = field(
        default=0.15, metadata={"help": "least importance of a row of an embedding, in mean rows that samples met"}
    )
    embedding: float = field(default=0.25, metadata={"help": "importance of embeddings, of what samples say"})
    coherence: float = field(
        default=0.0, metadata={"help": "exponent of how much more weights count that act on many positions alike"}
    )
    tune: bool = field(
        default=True, metadata={"help": "let held-out samples choose coherence and embedding, from these on"}
    )

    @property
    def alternatives(self) -> Mapping[str, tuple[float, ...]]:
        """Settings that no rule foretells, with values worth trying."""
        return ALTERNATIVES if self.tune else {}

    def bind(self, statistics: Mapping[str, Statistics]) -> Bound:
        """The method with what calibration learned, by unit name."""
        return Bound(self, statistics)

    @property
    def rounding(self) -> Rounding:
        """What decides about levels."""
        return Rounding(self.rate, self.quadratic, self.classes, self.passes, self.column_steps, self.row_steps)


class Problem(NamedTuple):
    """What a change of a unit's weights costs."""

    covariance: Floats  # (groups, n, n), damped; see `by_parts`
    fisher: Doubles  # (rows,), damped; what `row_factor` leaves of it
    row_factor: Floats  # (rows, n), see `factored`
    transposed: bool

    @property
    def precision(self) -> float:
        """Mean over weights of the logarithm of what a squared change costs, given the best feedback."""
        logs = np.log(np.maximum(strengths(self.covariance), 1e-150))
        fisher = np.maximum(self.fisher, max(self.fisher.mean() * ROW_FLOOR, 1e-300))
        return float(2 * logs.mean() + np.log(fisher).mean())


@dataclass(frozen=True, eq=False)
class Bound:
    """`SecondOrder` with statistics: a method like any other.

    Units without statistics, or that no output depends on, are taken to be as sensitive as wholes as the median
    unit is. `coarser` multiplies the steps of some units.
    """

    settings: Any
    statistics: Mapping[str, Statistics]
    coarser: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def name(self) -> str:
        """Of the method."""
        return self.settings.name

    @cached_property
    def fingerprint(self) -> str:
        """Changes with the statistics and the settings of single units."""
        total = _core.hash(repr(self.settings).encode(), 0)
        for name, s in sorted(self.statistics.items()):
            parts = [a for a in (s.covariance, s.fisher, s.coupling, s.usage, s.target) if a is not None]
            for part in parts:
                total = _core.hash(np.ascontiguousarray(part).reshape(-1).view(np.uint8), total)
            total = _core.hash(f"{name} {s.coherence!r} {self.coarser.get(name, 1.0)!r}".encode(), total)
        return f"{total:016x}"

    @cached_property
    def typical(self) -> float:
        """Logarithm of the median unit's sensitivity: its weights' number times their typical precision."""
        known: list[float] = []
        for s in self.statistics.values():
            if s.covariance is not None and s.covariance.any() and s.fisher.any():
                problem = self._known(s, s.covariance.shape[1])
                count = problem.fisher.size * problem.covariance.shape[1] * s.parts
                known.append(math.log(count) + problem.precision)
        return float(np.median(known)) if known else 0.0

    def quantizes(self, unit: Unit) -> bool:
        """Whether the unit is quantized; others are kept or rounded."""
        return Nearest().quantizes(unit)

    def sample(self, unit: Unit, data: Bytes, budget: int) -> FeedbackSample | None:
        """Some rows of the unit in steps of one water level; None if float32 cannot hold the weights."""
        if float(np.abs(to_float32(data, unit.dtype)).max()) > LARGEST:
            return None
        problem = self._problem(unit)
        matrix = matrix_of(unit, data, problem.transposed)
        chosen = np.unique(np.linspace(0, len(matrix) - 1, max(1, budget // matrix.shape[1])).astype(np.int64))
        strong = strengths(problem.covariance).reshape(-1, matrix.shape[1])
        group = chosen // (len(matrix) // len(strong))
        scaled = matrix[chosen] * np.sqrt(problem.fisher[chosen])[:, None] * strong[group]
        scaled /= self.coarser.get(unit.name, 1.0)
        return FeedbackSample(scaled.astype(np.float32), unit.count)

    def encode(self, unit: Unit, data: Bytes, price: float) -> Encoded:
        """Code the unit at a price."""
        solution = self.solution(unit, data, price)
        if np.abs(solution.levels).max() >= LEVELS:
            return keep.rounded(unit, data)
        levels, scales = solution.levels, Scales.of(solution.row_steps, solution.column_steps)
        if self._transposed(unit):
            levels, scales = levels.T, Scales.of(solution.column_steps, solution.row_steps)

        def measure(start: int, out: Bytes) -> Distortion:
            original = to_float32(data[start : start + out.size], unit.dtype)
            return Distortion.between(original, to_float32(out, unit.dtype))

        kind = integer_type(int(levels.min()), int(levels.max()))
        symbols = Symbols.of(np.ascontiguousarray(levels), CHUNK, levels.shape[1], kernel_size(unit.shape))
        step, streams = encode_step(symbols, kind, scales, trellis=solution.values is not None)
        encoded = seal(unit.name, unit.dtype, unit.shape, step, streams, measure)
        return encoded if math.isfinite(encoded.distortion.error) else keep.lossless(unit, data)

    def solution(self, unit: Unit, data: Bytes, price: float) -> Solution:
        """Levels and steps at a price."""
        problem, statistics = self._problem(unit), self.statistics.get(unit.name)
        theta = price / math.log(2) * self.coarser.get(unit.name, 1.0) ** 2
        matrix = matrix_of(unit, data, problem.transposed)
        if statistics is not None and statistics.target is not None:
            target = statistics.target.astype(np.float32, copy=False).reshape(unit.shape[0], -1)
            matrix = np.ascontiguousarray(target.T) if problem.transposed else target
        return self.round(matrix, problem, theta)

    def round(self, matrix: Floats, problem: Problem, theta: float) -> Solution:
        """Levels and steps of a matrix at a water level."""
        fisher, row_factor, how = problem.fisher, problem.row_factor, self.settings.rounding
        parts = by_parts(matrix, problem.covariance)
        return joined([solve(part, own, fisher, theta, how, row_factor) for part, own in parts])

    def rebuilt(self, unit: Unit, data: Bytes, price: float) -> Floats:
        """The weights that a file would give at a price, in the unit's shape, as float32."""
        return self.restored(unit, self.solution(unit, data, price))

    def restored(self, unit: Unit, solution: Solution) -> Floats:
        """The weights that levels and steps stand for, in the unit's shape."""
        weights = solution.weights()
        return (weights.T if self._transposed(unit) else weights).reshape(unit.shape)

    def loss(self, unit: Unit, data: Bytes, solution: Solution) -> float:
        """What levels cost in the divergence of the output, by the statistics."""
        problem = self._problem(unit)
        change = solution.weights()
        change -= matrix_of(unit, data, problem.transposed)
        return cost(change, problem.covariance, problem.fisher, problem.row_factor)

    def _transposed(self, unit: Unit) -> bool:
        return unit.name in self.statistics and self.statistics[unit.name].transposed

    # -- what weights are worth --------------------------------------------------------------------------------------

    def _problem(self, unit: Unit) -> Problem:
        """What a change of the unit's weights costs; units that no output depends on are taken for typical ones."""
        s = self.statistics.get(unit.name)
        if s is not None and _says_something(s):
            return self._known(s, unit.count // unit.shape[0])
        rows, width = unit.shape[0], unit.count // unit.shape[0]
        if s is not None and s.covariance is not None and s.covariance.any():
            covariance, rows = damped(s.covariance, self.settings.damping), s.fisher.size
            problem = Problem(covariance, np.ones(rows), apart(rows), s.transposed)
        else:
            problem = Problem(white(width), np.ones(rows), apart(rows), False)
        level = math.exp(self.typical - math.log(unit.count) - problem.precision)
        return problem._replace(fisher=problem.fisher * level)

    def _known(self, s: Statistics, width: int) -> Problem:
        usage = np.zeros(s.fisher.size)
        if s.usage is not None and s.usage.any():
            usage = self.settings.embedding * (s.usage + self.settings.rare * s.usage[s.usage > 0].mean())
        if s.covariance is None:
            return Problem(white(width), usage, apart(usage.size), False)
        level = np.trace(s.covariance, axis1=1, axis2=2).mean() / s.covariance.shape[1]
        # a table may be looked up and multiplied by as well
        scale = s.coherence**self.settings.coherence
        fisher = scale * (s.fisher + self.settings.damping * s.fisher.mean()) + usage / max(level, 1e-300)
        row_factor = apart(fisher.size)
        if s.coupling is not None and self.settings.coupling > 0:
            left, factor = factored(scale * self.settings.coupling * s.coupling, fisher)
            useful = fisher > 0
            if np.log2(fisher[useful] / left[useful]).mean() / 2 >= LEAST_GAIN:
                fisher, row_factor = left, factor
        return Problem(damped(s.covariance, self.settings.damping), fisher, row_factor, s.transposed)


@dataclass(frozen=True, eq=False)
class FeedbackSample:
    """Weights of a unit, in units in which its steps are sqrt(12 theta)."""

    scaled: Floats
    count: int

    def nbytes(self, price: float) -> float:
        """Predicted bytes of the unit's streams at a price: an entropy of plain rounding.

        Steps so fine that the largest level is out of reach take a bit more whenever they are halved.
        """
        step = math.sqrt(12 * price / math.log(2))
        finest = float(np.abs(self.scaled).max()) / FINEST
        levels = np.rint(self.scaled / max(step, finest, 1e-37)).astype(np.int32)
        bits = Histogram.of(levels.reshape(-1)).entropy_bits / levels.size
        if 0 < step < finest:
            bits += math.log2(finest / step)
        return bits * self.count / 8 + 50


def _says_something(s: Statistics) -> bool:
    """Whether samples met the unit, and an output depends on it."""
    met = s.covariance is None or s.covariance.any()
    return bool(met and s.fisher.any()) or (s.usage is not None and bool(s.usage.any()))


def matrix_of(unit: Unit, data: Bytes, transposed: bool) -> Floats:
    """The weights as (rows, fan_in)."""
    matrix = to_float32(data, unit.dtype).reshape(unit.shape[0], -1)
    return np.ascontiguousarray(matrix.T) if transposed else matrix
