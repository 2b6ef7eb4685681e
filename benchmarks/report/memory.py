"""Peak memory."""

from collections.abc import Iterator

from benchmarks.common import read_results

from ._section import Goal, Section, table


def goals() -> Iterator[Goal]:
    for row in (r for r in read_results("memory")[1] if "beyond_megabytes" in r):
        value = row["beyond_megabytes"]
        yield Goal(f"memory, {row['job']}: under 400 MB beyond the interpreter", f"{value:.0f} MB", value < 400)
    if not any("lossless" in r["job"] for r in read_results("memory")[1]):
        yield Goal("memory, lossless both ways", "not run", None)


def render() -> str:
    rows = (
        (r["job"], f"{r['peak_megabytes']:.0f}", f"{r.get('beyond_megabytes', 0):.0f}", f"{r.get('seconds', 0):.0f}")
        for r in read_results("memory")[1]
    )
    return table(("job, 1.07 GB of fp16", "peak MB", "beyond the import", "seconds"), rows)


SECTIONS = (
    Section(
        "Memory",
        ("memory",),
        "A sharded fp16 checkpoint; each job in a process of its own.",
        render,
        goals,
    ),
)
