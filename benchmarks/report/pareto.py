"""Quality against bytes of whole files, beside every peer."""

import math
from collections.abc import Callable, Iterable
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

from benchmarks.common import read_results
from benchmarks.pareto import settings

from . import coding, figures
from ._section import FIRST, Goal, Records, Section, lost, table

PART = "pareto"
OURS = "tersor"
NEAR = 1.2
"""Files of one size class differ by at most this factor."""
CODING = "NNCodec"
"""The peer whose file is entropy-coded: like ours, its weights are float32 while the network runs. The other tools pack
integers and compute with those."""
NOTE = """Whole files; "coded" is the same numbers behind our lossless coder: a fair baseline for tools that do not \
code. Brackets are 95 % intervals over the evaluated samples. Read: from the file to float32 weights; one tensor: the \
largest; MB: peak beyond what was held before. Running: what the weights occupy while the network runs. Linear layers \
only: what such tools do by themselves; the rest stays in float32."""


class Rival(NamedTuple):
    """A point of a peer that no other peer's beats, and our bytes over its coded ones at its error."""

    share: float
    record: dict[str, Any]


def of(network: str) -> Records:
    return [r for r in read_results(PART)[1] if r["network"] == network]


def networks() -> list[str]:
    """Those where tersor and peers have run."""
    return [n for n in dict.fromkeys(r["network"] for r in read_results(PART)[1]) if split(n)[0] and split(n)[1]]


def split(network: str) -> tuple[Records, Records]:
    """Our points and the peers'."""
    points = [r for r in of(network) if "metrics" in r and r["tool"] != "original"]
    ours = [r for r in points if r["tool"].startswith(OURS)]
    return ours, [r for r in points if r not in ours]


def absent(network: str) -> list[str]:
    """Peers that have not run on it, of those that can."""
    run = {r["tool"] for r in of(network)}
    return [tool for tool in settings(network) if not tool.startswith(OURS) and tool not in run]


def measure(network: str) -> str:
    """What the error of this network is."""
    return "1 - cosine" if any("cosine" in r["metrics"] for r in of(network) if "metrics" in r) else "KL"


def frontier(records: Records) -> Records:
    """Points that no other of fewer coded bytes matches, smallest files first."""
    found: Records = []
    for r in sorted(records, key=lambda r: (r["coded_bytes"], lost(r))):
        if lost(r) > 0 and (not found or lost(r) < lost(found[-1])):
            found.append(r)
    return found


def rivals(network: str) -> list[Rival]:
    """The peers' best points of useful errors, against our bytes, interpolated between ours."""
    ours, theirs = map(frontier, split(network))
    found = []
    for record in theirs:
        for small, large in pairwise(ours):
            low, high = lost(large), lost(small)
            if low <= lost(record) <= high:
                part = math.log(lost(record) / high) / math.log(low / high)
                nbytes = small["coded_bytes"] * (large["coded_bytes"] / small["coded_bytes"]) ** part
                found.append(Rival(nbytes / record["coded_bytes"], record))
    return found


def speeds(network: str, *, coding: bool) -> list[Rival]:
    """How many times our CPU seconds peers take from file to float32 weights, at files of about our size: those that
    entropy-code, or those that only pack."""
    ours, theirs = split(network)
    return [
        Rival(r["read"]["seconds"] / own["read"]["seconds"], r)
        for own in ours
        for r in theirs
        if "read" in r
        and "read" in own
        and (r["tool"] == CODING) == coding
        and 1 / NEAR <= r["bytes"] / own["bytes"] <= NEAR
    ]


def extreme(pick: Callable[..., Rival], found: list[Rival]) -> Rival:
    return pick(found, key=lambda rival: rival.share)


def goals() -> Iterable[Goal]:
    size = {n: extreme(max, found) for n in networks() if (found := rivals(n))}
    text = "; ".join(f"{n} at most {worst.share:.2f} times the best peer's" for n, worst in size.items())
    met = all(worst.share <= 1 for worst in size.values()) if size else None
    if met and any(map(absent, size)):
        met, text = None, text + "; not all peers have run on all of them"
    yield Goal("at equal quality the smallest file, every peer coded", text or "not run", met)
    speed = {n: extreme(min, found) for n in networks() if (found := speeds(n, coding=True))}
    text = "; ".join(f"{n} at least {worst.share:.0f} times {CODING}'s speed" for n, worst in speed.items())
    met = all(worst.share >= 1 for worst in speed.values()) if speed else None
    yield Goal("the fastest decoding among coded files of about the same size", text or "not run", met)


def summary() -> str:
    """The page's first paragraph: where our files are smallest and decode fastest, and where not."""
    known = networks()
    if not known:
        return ""
    worst = {n: extreme(max, found) for n in known if (found := rivals(n))}
    larger = [r for r in worst.values() if r.share > 1]
    text = f"At equal quality tersor's file is the smallest on {len(worst) - len(larger)} of {len(worst)} networks"
    if larger:
        text += f", but not on {'; '.join(map(closest, larger))}."
    else:
        text += f". The closest a peer comes is on {closest(extreme(max, list(worst.values())))}."
    incomplete = [f"{n} (not {', '.join(tools)})" for n in known if (tools := absent(n))]
    text += f" Not every peer has run on {'; '.join(incomplete)}." if incomplete else ""
    coded = [r for n in known for r in speeds(n, coding=True)]
    if coded:
        low, high = (extreme(pick, coded).share for pick in (min, max))
        text += f" It decodes {low:.0f} to {high:.0f} times as fast as {CODING}, the other tool that codes, files of "
        text += "about the same size."
    ahead = [r for n in known if (found := speeds(n, coding=False)) and (r := extreme(min, found)).share < 1]
    if ahead:
        each = (
            f"{r.record['network']} (up to {1 / r.share:.1f} times, {r.record['tool']} {r.record['setting']})"
            for r in ahead
        )
        text += f" Tools that only pack integers decode files of about the same size faster on {', '.join(each)}."
    return text + coding.fastest() + "\n"


def closest(rival: Rival) -> str:
    """Where a peer does well."""
    r = rival.record
    where = f"{measure(r['network'])} {lost(r):.2g}"
    return f"{r['network']} (ours has {rival.share:.2f} times the bytes of {r['tool']} {r['setting']}, at {where})"


def overview() -> str:
    """A line a network: our bytes over the best peers' at equal quality, and decoding speed."""
    rows = []
    for network in networks():
        found = rivals(network)
        worst = extreme(max, found) if found else None
        cells = (f"{extreme(min, found).share:.2f}", f"{worst.share:.2f}", f"{worst.record['tool']} "
                 f"{worst.record['setting']}") if worst else ("", "", "")  # fmt: skip
        times = (
            f"{extreme(min, fast).share:.1f} to {extreme(max, fast).share:.1f}"
            if (fast := speeds(network, coding=kind))
            else ""
            for kind in (True, False)
        )
        theirs = split(network)[1]
        rows.append((network, str(len(theirs)), f"{len(found)} of {len(frontier(theirs))}", *cells, *times))
    head = ("network", "peers' points", "compared", "bytes, best", "bytes, worst", "there the best peer is",
            f"speed, {CODING}", "speed, packed")  # fmt: skip
    return table(head, rows)


def render(network: str) -> str:
    records = of(network)
    original = next(r for r in records if r["tool"] == "original")
    judged = next((key for key in original["metrics"] if not key.startswith(("kl", "cosine", "pooler"))), "")
    rows = []
    for r in sorted((r for points in split(network) for r in points), key=lambda r: -r["coded_bytes"]):
        interval = f"{lost(r):.5f}"
        if "kl_low" in r["metrics"] or "cosine_low" in r["metrics"]:
            interval += f" [{lost(r, '_low'):.5f}, {lost(r, '_high'):.5f}]"
        running = 4 * original["weights"] if r["coded_bytes"] == r["bytes"] else r["bytes"]
        label = f"**{r['tool']}**" if r["tool"].startswith(OURS) else r["tool"]
        cells = [
            f"{r[job][key]:{digits}}" if job in r else ""
            for job in ("write", "read", "largest_tensor")
            for key, digits in (("seconds", ".3f"), ("megabytes", ".0f"))
        ]
        rows.append(
            (
                f"{label} {r['setting']}",
                f"{r['bytes']:,}",
                f"{r['coded_bytes']:,}",
                interval,
                *([f"{r['metrics'][judged]:{FIRST.get(judged, '.4f')}}"] if judged else ()),
                *cells,
                f"{running / 1e6:.1f}",
            )
        )
    jobs = [f"{job} {unit}" for job in ("write", "read", "one tensor") for unit in ("CPU s", "MB")]
    text = f"![{measure(network)} against size](images/pareto-{network}.svg)\n\n"
    text += f"<details><summary>All {len(rows)} points; the original has {original['bytes']:,} bytes</summary>\n\n"
    task = [judged.replace("_", " ")] if judged else []
    text += table(("tool", "file", "coded", measure(network), *task, *jobs, "running MB"), rows) + "\n</details>\n"
    commits = {f"{r['tool']} by {r['commit']}": None for r in split(network)[0]}
    text += f"\nCommits whose code ran: {', '.join(commits)}.\n"
    failed = [f"{r['tool']} {r['setting']}: {r['error']}" for r in records if "error" in r]
    return text + ("\nDid not run: " + "; ".join(failed) + "\n" if failed else "")


def draw() -> None:
    for network in networks():
        figures.pareto(network, "1 - cosine" if measure(network) != "KL" else "KL divergence", of(network))


OVERVIEW = """Our bytes over those of the best peer, with our lossless coder behind every peer that does not code, at \
the errors of the peers' best points, those that no other peer's beats, as far as our points go ("compared"): below 1 \
is smaller. Speed: CPU seconds of a peer over ours from file to float32, files within 20 % of each other: above 1 \
tersor is faster. Pictures and points of every network follow. llm-compressor needs a network of transformers that \
runs."""
SECTIONS = (
    Section("Quality against bytes, every peer", (PART,), OVERVIEW, overview, goals),
    *(Section(f"Quality against bytes: {name}", (PART,), NOTE, partial(render, name)) for name in networks()),
)
