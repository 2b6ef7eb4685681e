"""The price of a bit at which the decoded weights are just as good as they have to be.

Quality falls as the price rises, more or less: a metric over a few samples falls in steps and may rise again. The
search ends with a price whose *file* was decoded and measured within the bound, beside one outside of it whose file is
hardly smaller.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from tersor.allocate.budget import Budget
from tersor.allocate.price import TOLERANCE
from tersor.errors import BudgetError, CalibrationError, SettingError
from tersor.evaluate.quality import Assessment, Quality

if TYPE_CHECKING:
    from pathlib import Path

    from tersor.calibration.samples import Samples
    from tersor.sources.model import Model

AIM = 0.97
"""The share of the bound that the search aims at."""
SMALLEST_MOVE, LARGEST_MOVE = math.log(4), math.log(64)
"""How far the price moves while it is not yet enclosed: by one to three bits a weight."""
MOST_TRIALS = 24


@dataclass(frozen=True)
class QualityTarget:
    """The loss of quality that is allowed: a mean divergence, or a share of the original's metric; exactly one."""

    max_divergence: float | None = None
    max_drop: float | None = None

    def __post_init__(self) -> None:
        given = [v for v in (self.max_divergence, self.max_drop) if v is not None]
        if len(given) != 1:
            raise BudgetError("the quality is not settled", remedy="give exactly one of max_divergence and max_drop")
        if self.max_divergence is not None and not 0 < self.max_divergence < math.inf:
            raise BudgetError(
                f"a divergence of {self.max_divergence} makes no sense", remedy="give a positive number, or lossless"
            )
        if self.max_drop is not None and not 0 <= self.max_drop < math.inf:
            raise BudgetError(f"a drop of {self.max_drop} makes no sense", remedy="give a share, 0.005 for 0.5 %")

    @property
    def limit(self) -> float:
        """The largest `loss` that is allowed."""
        return self.max_divergence if self.max_divergence is not None else self.max_drop or 0.0

    @property
    def name(self) -> str:
        """Of the argument that was given."""
        return "max_divergence" if self.max_divergence is not None else "max_drop"

    def loss(self, quality: Quality) -> float:
        """What is bounded. Raises `CalibrationError` where a share of the original's metric is no number."""
        if quality.divergence is not None:
            return quality.divergence.mean
        before, after = quality.before or 0.0, quality.after or 0.0
        if before == 0 or not math.isfinite(before):
            raise CalibrationError(
                f"the metric of the original is {before:g}: no drop is a share of that",
                remedy="make it return another number for the original, such as an accuracy",
            )
        return (before - after) / abs(before)


@dataclass(frozen=True, eq=False)
class QualityGoal:
    """A target, and what measures it."""

    target: QualityTarget
    measure: Assessment

    @classmethod
    def of(
        cls, target: QualityTarget, model: Model, evaluation: Assessment | None, samples: Samples | None, **options: Any
    ) -> QualityGoal:
        """Measured by what the user evaluates with, or on what calibration holds out; `options` as of `Assessment`.

        Raises `SettingError` where the target needs something else.
        """
        metric = None if evaluation is None else evaluation.metric
        if target.max_drop is not None and metric is None:
            raise SettingError(
                "max_drop is a share of a metric, and there is none",
                remedy="give one to evaluate by, python:MODULE:FUNCTION whose function takes the module",
            )
        if metric is not None:
            target.loss(Quality(before=metric, after=metric))
        if evaluation is None or (metric is not None and target.max_drop is None):
            if samples is None or not samples.held_out:
                raise SettingError(
                    "there are no samples to measure a divergence on",
                    remedy="give inputs to evaluate on, or at least two to calibrate with",
                )
            evaluation = Assessment(model, samples.held_out, **options)
        return cls(target, evaluation)

    def key(self) -> list[str | float]:
        """Changes with the target and with what it is measured on."""
        return [self.target.name, self.target.limit, self.measure.fingerprint]

    def loss(self, file: Path) -> float:
        """The loss of a file that was written."""
        return self.target.loss(self.measure(file))


class OutOfReach(BudgetError):
    """No file of the method is good enough; only every bit may be."""


class Trial(NamedTuple):
    """A file that was made and measured."""

    size: int
    loss: float


def best(trials: Mapping[float, Trial], limit: float) -> float | None:
    """The price of the smallest file within the limit."""
    within = [(trial.size, -price) for price, trial in trials.items() if trial.loss <= limit]
    return -min(within)[1] if within else None


def search(
    limit: float,
    measure: Callable[[float], Trial],
    start: float,
    known: Mapping[float, Trial] | None = None,
    tolerance: float = TOLERANCE,
) -> dict[float, Trial]:
    """Measure files until the smallest one within `limit` is at most `tolerance` larger than one outside of it.

    It ends as well where a finer price makes no larger file, or a coarser one no smaller. Trials that are `known` from
    an earlier run are not measured again; the path is the same as without them.
    """
    trials, known, price = dict[float, Trial](), known or {}, start
    for number in range(MOST_TRIALS):
        trials[price] = known[price] if price in known else measure(price)
        good = max((p for p, t in trials.items() if t.loss <= limit), default=None)
        bad = min((p for p, t in trials.items() if t.loss > limit and p > (good or 0)), default=None)
        if good is not None and bad is not None:
            if trials[good].size <= trials[bad].size * (1 + tolerance) or bad / good < 1 + 1e-6:
                break
            price = _between(good, trials[good].loss, bad, trials[bad].loss, limit * AIM, halve=number % 3 == 2)
        else:
            others = sorted(trial.size for trial in trials.values())
            if number > 0 and (others[1] == others[0] if bad is None else others[-1] == others[-2]):
                break
            price *= math.exp(_move(trials[price].loss, limit * AIM, finer=good is None))
    return trials


def _move(loss: float, aim: float, *, finer: bool) -> float:
    """By how much the logarithm of the price changes: the loss is about proportional to the price."""
    away = abs(math.log(loss / aim)) if 0 < loss < math.inf and aim > 0 else LARGEST_MOVE
    away = min(LARGEST_MOVE, max(SMALLEST_MOVE, away))
    return -away if finer else away


def _between(good: float, good_loss: float, bad: float, bad_loss: float, aim: float, *, halve: bool) -> float:
    """A price strictly between two: interpolated in logarithms where that means anything, or the middle."""
    share = 0.5
    if not halve and 0 < good_loss < aim < bad_loss < math.inf:
        share = math.log(aim / good_loss) / math.log(bad_loss / good_loss)
        share = min(0.95, max(0.05, share))
    return good * (bad / good) ** share


def asked_for(
    lossless: bool, sizes: Sequence[float | None], qualities: Sequence[float | None]
) -> Budget | QualityTarget | None:
    """What decides about the size of the file: exactly one of all of these; None for every bit."""
    sized, bounded = (any(v is not None for v in values) for values in (sizes, qualities))
    if lossless and (sized or bounded):
        other = "a size" if sized else "a bound on what is lost"
        raise BudgetError(f"lossless and {other} contradict each other", remedy="give one of them")
    if sized and bounded:
        raise BudgetError("a size and a quality contradict each other", remedy="give one of them")
    if bounded:
        return QualityTarget(*qualities)
    return None if lossless else Budget(*sizes)  # type: ignore[arg-type]
