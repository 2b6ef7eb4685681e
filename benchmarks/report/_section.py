"""What every section of the page shares: its form, goals, and the tables."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from benchmarks.common import RESULTS, read_results

Records = list[dict[str, Any]]

FIRST = {  # the metrics a table shows, and how
    "cosine": ".4f", "accuracy": ".4f", "pitch_accuracy": ".4f", "equal_error_rate": ".4f", "character_error": ".4f",
    "average_precision": ".4f", "loss": ".3f", "perplexity": ".2f", "auc": ".4f", "kl": ".3g", "agreement": ".4f",
}  # fmt: skip


class Goal(NamedTuple):
    """What was to be reached, what was measured (one line), and whether that meets it: None if incomplete."""

    goal: str
    measured: str
    met: bool | None


@dataclass(frozen=True)
class Section:
    """A section of docs/benchmarks.md. It is shown if its first part, a file benchmarks/results/PART.jsonl, has run.

    Goals are asked for even then: they say "not run".
    """

    title: str
    parts: tuple[str, ...]
    note: str
    render: Callable[[], str]
    goals: Callable[[], Iterable[Goal]] = tuple


def lost(record: dict[str, Any], bound: str = "") -> float:
    """What the output loses: KL divergence, or 1 - cosine; or a bound, "_low" or "_high", of its interval."""
    values = record.get("metrics", record)
    if "kl" in values:
        return values["kl" + bound]
    other = {"": "", "_low": "_high", "_high": "_low"}[bound]
    return 1 - values["cosine" + other]


def networks(part: str) -> list[str]:
    """The networks of which there are results PART-NETWORK.jsonl."""
    return sorted(path.stem.removeprefix(f"{part}-") for path in RESULTS.glob(f"{part}-*.jsonl"))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    marks = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, marks, *rows)) + "\n"


def metrics(values: dict[str, float]) -> str:
    if not values:
        return "not measured"
    known = {key: value for key, value in values.items() if key in FIRST} or values
    return ", ".join(f"{key} {value:{FIRST.get(key, '.4f')}}" for key, value in known.items())


def origin(part: str) -> str:
    """Where and when a part ran, by which commits."""
    head, records = read_results(part)
    commits = ", ".join(dict.fromkeys(r.get("commit", head["commit"]) for r in records))
    versions = ", ".join(f"{n} {v}" for n, v in head["packages"].items())
    note = f" {head['note']}" if "note" in head else ""
    return (
        f"*{head['cpu']}, {head['cores']} cores, Python {head['python']}, {versions}; commit {commits}, "
        f"{head['date']}.{note}*\n"
    )
