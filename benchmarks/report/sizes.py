"""Does the file have the asked size, and what are its weights worth?"""

from collections.abc import Iterator

from benchmarks.common import read_results
from benchmarks.networks import names

from ._section import Goal, Section, metrics, table


def goals() -> Iterator[Goal]:
    records = read_results("sizes")[1]
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
    records = read_results("sizes")[1]
    rows = []
    for name in names():
        for k, r in enumerate(sorted((r for r in records if r["network"] == name), key=lambda r: r["ratio"])):
            first = name if k == 0 else ""
            if "error" in r:
                rows.append((first, f"{r['ratio']}x", r["error"], "", "", "", r["commit"]))
                continue
            ratio = "original" if r["ratio"] == 1 else f"{r['ratio']}x"
            below = "" if r["ratio"] == 1 else f"{r['below_percent']:.3f}"
            seconds = "" if r["ratio"] == 1 else f"{r['seconds']:.1f}"
            rows.append((first, ratio, f"{r['bytes']:,}", below, metrics(r["metrics"]), seconds, r["commit"]))
    head = ("network", "ratio", "bytes", "% below budget", "metrics of the decoded weights", "seconds", "commit")
    return table(head, rows)


NOTE = """Recipe `fast`, without any data; ratio 1 is the original. CPU seconds to compress, one thread; those of \
rows up to commit 5af0e54 are by the clock of a busy machine."""
SECTIONS = (Section("Sizes, and what the weights are worth", ("sizes",), NOTE, render, goals),)
