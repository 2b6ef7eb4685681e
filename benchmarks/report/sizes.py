"""Does the file have the asked size, and what are its weights worth?"""

from collections.abc import Iterator

from benchmarks.common import read_results
from benchmarks.networks import names

from ._section import Goal, Section, metrics, table


def goals() -> Iterator[Goal]:
    records = [*read_results("sizes")[1], *read_results("sizes-only")[1]]
    goal = "file 0 to 0.5 % below the asked size, every network at 4x, 8x, 12x"
    below = [(r["below_percent"], f"{r['network']} at {r['ratio']}x") for r in records if "below_percent" in r]
    if not below:
        yield Goal(goal, "not run", None)
        return
    failed = [f"{r['network']} at {r['ratio']}x" for r in records if "error" in r]
    missing = f"; not reachable: {', '.join(failed)}" if failed else ""
    absent = sorted(set(names()) - {r["network"] for r in records})
    missing += f"; not run: {', '.join(absent)}" if absent else ""
    text = f"{min(below)[0]:.3f} to {max(below)[0]:.3f} % ({max(below)[1]}) in {len(below)} files"
    held = not failed and min(below)[0] >= 0 and max(below)[0] <= 0.5
    yield Goal(goal, text + missing, None if held and absent else held)


def render() -> str:
    rows = []
    for r in [*read_results("sizes")[1], *read_results("sizes-only")[1]]:
        if r["ratio"] == 1:
            rows.append((r["network"], "original", f"{r['bytes']:,}", "", metrics(r["metrics"]), ""))
        elif "error" in r:
            rows.append(("", f"{r['ratio']}x", r["error"], "", "", ""))
        else:
            below, seconds = f"{r['below_percent']:.3f}", f"{r['seconds']:.1f}"
            name = r["network"] if not r["metrics"] and r["ratio"] == 4 else ""
            rows.append((name, f"{r['ratio']}x", f"{r['bytes']:,}", below, metrics(r["metrics"]), seconds))
    return table(("network", "ratio", "bytes", "% below budget", "metrics of the decoded weights", "seconds"), rows)


SECTIONS = (
    Section(
        "Sizes, and what the weights are worth",
        ("sizes", "sizes-only"),
        "Ratio 1 is the original. One thread.",
        render,
        goals,
    ),
)
