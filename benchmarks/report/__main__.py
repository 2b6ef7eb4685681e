"""Write docs/benchmarks.md, its pictures and the tables of README: `python -m benchmarks.report`."""

import re

from benchmarks.common import ROOT, read_results

from . import (
    anatomy,
    coding,
    learned,
    lossless,
    memory,
    pareto,
    rate,
    readme,
    roofline,
    scaling,
    second_order,
    sizes,
    speed,
)
from ._section import Section, origin, table

MODULES = (  # in the order of the page
    pareto,
    second_order,
    learned,
    sizes,
    anatomy,
    lossless,
    speed,
    memory,
    scaling,
    coding,
    rate,
    roofline,
)
DRAWING = (pareto, anatomy, learned, coding, scaling)
ABOUT = """Everything here comes from `benchmarks/results/`, written by `benchmarks/run.sh` (its scripts say what \
exactly is measured); `python -m benchmarks.report` renders this page. The machine is a virtual one that others use \
at the same time: read ratios and speeds by CPU time, and compare speeds only within a table.
"""
WORDS: dict[bool | None, str] = {True: "met", False: "**missed**", None: "not complete"}


def page(sections: list[Section]) -> str:
    """What is missed, every section that has run, then all goals."""
    goals = [goal for section in sections for goal in section.goals()]
    missed = [f"- {goal}: {measured}" for goal, measured, met in goals if met is False]
    incomplete = [f"- {goal}: {measured}" for goal, measured, met in goals if met is None]
    parts = ["# Benchmarks\n", pareto.summary()]
    if missed:
        parts.append(
            "Where tersor is **not** the smallest, the fastest or as good as its goal:\n\n" + "\n".join(missed) + "\n"
        )
    if incomplete:
        parts.append("Not measured, or not completely:\n\n" + "\n".join(incomplete) + "\n")
    shown = [section for section in sections if read_results(section.parts[0])[1]]
    titles = [*(section.title for section in shown), "Goals"]
    parts += [ABOUT, contents(titles)]
    for section in shown:
        parts += [f"## {section.title}\n", section.note + "\n", section.render()]
        parts += [origin(part) for part in section.parts if read_results(part)[1]]
    parts += ["## Goals\n", table(("goal", "measured", ""), ((g, m, WORDS[met]) for g, m, met in goals))]
    return "\n".join(parts)


def contents(titles: list[str]) -> str:
    """Links to sections; those of one kind, "KIND: NETWORK", in a line."""
    kinds: dict[str, list[str]] = {}
    for title in titles:
        kind, _, network = title.partition(": ")
        anchor = re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
        kinds.setdefault(kind, []).append(f"[{network or kind}](#{anchor})")
    return "".join(f"- {kind}: {', '.join(n)}\n" if kind not in titles else f"- {n[0]}\n" for kind, n in kinds.items())


def main() -> None:
    readme.README.write_text(readme.updated(readme.README.read_text()))
    sections = [section for module in MODULES for section in module.SECTIONS]
    (ROOT / "docs" / "benchmarks.md").write_text(page(sections))
    for module in DRAWING:
        module.draw()


if __name__ == "__main__":
    main()
