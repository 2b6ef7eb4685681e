"""Coded bytes against the entropy of the levels."""

from collections.abc import Iterator
from statistics import mean

from benchmarks.common import read_results

from ._section import Goal, Records, Section, table


def goals() -> Iterator[Goal]:
    goal = "coded size at most 0.3 % above the entropy, tensors over 100 000 weights"
    rows = [r for r in read_results("rate")[1] if "tensor" in r]
    if not rows:
        yield Goal(goal, "not run", None)
        return
    worst = max(rows, key=lambda r: r["excess_percent"])
    over = sum(r["excess_percent"] > 0.3 for r in rows)
    text = (
        f"mean {mean(r['excess_percent'] for r in rows):+.2f} %, largest {worst['excess_percent']:+.2f} % "
        f"({worst['network']} at {worst['ratio']}x, `{worst['tensor']}`); {over} of {len(rows)} above"
    )
    yield Goal(goal, text, over == 0)


def render() -> str:
    records = read_results("rate")[1]
    groups: dict[tuple[str, int], Records] = {}
    for r in records:
        if "tensor" in r:
            groups.setdefault((r["network"], r["ratio"]), []).append(r)
    rows = []
    for (network, ratio), found in groups.items():
        excess = [r["excess_percent"] for r in found]
        total = 100 * (sum(r["coded"] for r in found) / sum(r["entropy"] for r in found) - 1)
        over = sum(e > 0.3 for e in excess)
        cells = (len(found), f"{max(excess):+.3f}", f"{mean(excess):+.3f}", f"{total:+.3f}", over)
        rows.append((network, f"{ratio}x", *map(str, cells)))
    text = table(("network", "ratio", "tensors", "largest %", "mean %", "all together %", "above 0.3 %"), rows)
    over = [r for r in records if r.get("excess_percent", 0) > 0.3]
    if over:
        text += "\nTensors above:\n\n" + table(
            ("tensor", "ratio", "weights", "bits a weight", "excess %", "bytes", "of them tables", "levels"),
            (
                (f"{r['network']} `{r['tensor']}`", f"{r['ratio']}x", f"{r['weights']:,}",
                 f"{r['entropy_bits_per_weight']:.2f}", f"{r['excess_percent']:+.2f}",
                 f"{r['coded'] - r['entropy']:,.0f}",
                 str(r["tables"]), str(r["present"]))
                for r in over
            ),
        )  # fmt: skip
    return text


SECTIONS = (
    Section(
        "Coded size against entropy",
        ("rate",),
        "Below zero: chunks with tables of their own beat one entropy.",
        render,
        goals,
    ),
)
