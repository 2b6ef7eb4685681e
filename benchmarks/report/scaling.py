"""What a weight costs, by the size of the checkpoint."""

from collections.abc import Iterable

from benchmarks.common import read_results

from . import figures
from ._section import Goal, Records, Section, table

NOTE = """Checkpoints of fp16 shards, recipe fast; each job in a process of its own, memory beyond its imports. CPU \
nanoseconds a weight: the same in every row means linear."""


def of(job: str) -> Records:
    return [r for r in read_results("scaling")[1] if r["job"] == job]


def goals() -> Iterable[Goal]:
    for job in ("compress at 8x", "decompress to a file"):
        cost = [r["seconds"] / r["weights"] for r in of(job)]
        goal = f"time linear in weights: {job}"
        if len(cost) < 2:
            yield Goal(goal, "not run", None)
            continue
        growth = cost[-1] / cost[-2]
        yield Goal(goal, f"{growth:.2f} times the CPU time a weight at ten times the weights", growth < 1.2)
    streamed = [r["megabytes"] for r in read_results("scaling")[1] if not r["job"].startswith("load")]
    most = max(streamed, default=0.0)
    goal = "memory of every job that streams, at every size: under 400 MB"
    yield Goal(goal, f"{most:.0f} MB" if streamed else "not run", most < 400 if streamed else None)


def render() -> str:
    rows = []
    walls = {(r["weights"], r["job"]): r["wall"] for r in read_results("scaling")[1]}
    for r in read_results("scaling")[1]:
        one = walls.get((r["weights"], r["job"].removesuffix(", two workers")))
        speedup = f"{one / r['wall']:.2f}" if one and r["job"].endswith("two workers") else ""
        rows.append(
            (
                r["job"], f"{r['weights'] / 1e6:.0f} M", f"{r['seconds']:.3f}", f"{r['wall']:.3f}",
                f"{1e9 * r['seconds'] / r['weights']:.2f}", speedup, f"{r['megabytes']:.0f}",
            )
        )  # fmt: skip
    rows.sort(key=lambda row: list(dict.fromkeys(r["job"] for r in read_results("scaling")[1])).index(row[0]))
    head = ("job", "weights", "CPU s", "clock s", "CPU ns/weight", "times one worker", "peak MB")
    return "![time against weights](images/scaling.svg)\n\n" + table(head, rows)


def draw() -> None:
    jobs = dict.fromkeys(r["job"] for r in read_results("scaling")[1] if not r["job"].endswith("two workers"))
    if jobs:
        figures.scaling({job: [(r["weights"], r["seconds"]) for r in of(job)] for job in jobs})


SECTIONS = (Section("Scaling", ("scaling",), NOTE, render, goals),)
