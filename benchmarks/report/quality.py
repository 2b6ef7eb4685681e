"""Quality at equal bytes without data, beside the peers."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from benchmarks.common import read_results

from ._section import Goal, Section, metrics, table

NETWORKS = ("minilm", "fashion_resnet", "efficientnet_lite0")


def goals(name: str) -> Iterator[Goal]:
    goal = f"{name}: never worse than the best peer without data at the same size"
    head, records = read_results(f"quality-{name}")
    rows = [r for r in records if "rival" in r]
    if not rows:
        yield Goal(goal, "not run", None)
        return
    lost = [r for r in rows if r["margin"] < 0]
    text = f"better at {len(rows) - len(lost)} of {len(rows)} sizes"
    text += f"; worst: {_lost(max(lost, key=_times_worse))}" if lost else ""
    text += " (an incomplete sweep, see there)" if "note" in head else ""
    yield Goal(goal, text, False if lost else None if "note" in head else True)


def _times_worse(row: dict[str, Any]) -> float:
    """How many times the rival's distance from the original (KL, or one less the cosine) this one's is."""
    own, rival = (
        1 - m["cosine"] if row["metric"] == "cosine" else m["kl"] for m in (row["metrics"], row["rival_metrics"])
    )
    return own / rival


def _lost(row: dict[str, Any]) -> str:
    key = row["metric"]
    return f"{row['asked']:,} bytes ({key} {row['metrics'][key]:.5f}, {row['rival']} {row['rival_metrics'][key]:.5f})"


def render(name: str) -> str:
    _, records = read_results(f"quality-{name}")
    rows = []
    for r in sorted((r for r in records if "metrics" in r), key=lambda r: -r["bytes"]):
        own = r["method"] == "tersor"
        method = "**tersor**" if own else r["method"] + (f", {r['setting']}" if "setting" in r else "")
        verdict = ""
        if "margin" in r:
            verdict = f"{'better' if r['margin'] >= 0 else '**worse**'} than {r['rival']}"
        rows.append((method, f"{r['bytes']:,}", metrics(r["metrics"]), verdict))
    picture = "![1 - cosine against size](images/quality.svg)\n\n" if name == "minilm" else ""
    return picture + table(("method", "bytes", "metrics", "against the best peer of that size"), rows)


SECTIONS = tuple(
    Section(
        f"Quality at equal bytes, without data: {name}",
        (f"quality-{name}",),
        "Largest files first.",
        partial(render, name),
        partial(goals, name),
    )
    for name in NETWORKS
)
