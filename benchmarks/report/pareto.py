"""Quality against bytes of whole files, beside every peer."""

import math
from collections.abc import Iterable
from functools import partial
from itertools import pairwise
from typing import Any

from benchmarks.common import read_results

from ._section import Goal, Records, Section, networks, table

PART = "pareto"
OURS = "tersor"
NOTE = """Whole files on disk; "coded" is the same numbers behind our lossless coder: a fair baseline for tools that \
do not code. Brackets are 95 % intervals over the evaluated samples. Linear layers only: those tools leave the rest in \
float32."""


def error(record: dict[str, Any], bound: str = "") -> float:
    """What the output loses: KL divergence, or 1 - cosine; or a bound of its interval."""
    values = record["metrics"]
    if "kl" in values:
        return values["kl" + bound]
    other = {"": "", "_low": "_high", "_high": "_low"}[bound]
    return 1 - values["cosine" + other]


def points(name: str) -> Records:
    return [r for r in read_results(f"{PART}-{name}")[1] if "metrics" in r and r["tool"] != "original"]


def frontier(records: Records) -> list[tuple[float, int]]:
    """(error, coded bytes) that no other point of fewer bytes matches, smallest error last."""
    found: list[tuple[float, int]] = []
    for r in sorted(records, key=lambda r: (r["coded_bytes"], error(r))):
        if error(r) > 0 and (not found or error(r) < found[-1][0]):
            found.append((error(r), r["coded_bytes"]))
    return found


def smaller(name: str) -> list[float]:
    """Our smallest file over the peers' at the errors of the peers' best points, interpolated between ours."""
    ours = frontier([r for r in points(name) if r["tool"].startswith(OURS)])
    theirs = frontier([r for r in points(name) if not r["tool"].startswith(OURS)])
    shares = []
    for wanted, size in theirs:
        for (high, small), (low, large) in pairwise(ours):
            if low <= wanted <= high:
                part = math.log(wanted / high) / math.log(low / high)
                shares.append(small * (large / small) ** part / size)
    return shares


def goals() -> Iterable[Goal]:
    known = {name: smaller(name) for name in networks(PART)}
    text = "; ".join(f"{n}: {min(s):.2f} to {max(s):.2f} times the best peer's" for n, s in known.items() if s)
    met = all(max(s) <= 1 for s in known.values() if s) if text else None
    yield Goal("at equal quality the smallest file, every peer coded", text or "not run", met)


def render(name: str) -> str:
    rows = []
    for r in sorted(points(name), key=lambda r: -r["coded_bytes"]):
        interval = f"{error(r):.5f} [{error(r, '_low'):.5f}, {error(r, '_high'):.5f}]"
        write, read = r.get("write", {}), r.get("read", {})
        cells = [
            f"{values[key]:{digits}}" if key in values else ""
            for values in (write, read)
            for key, digits in (("seconds", ".2f"), ("megabytes", ".0f"))
        ]
        label = f"**{r['tool']}**" if r["tool"].startswith(OURS) else r["tool"]
        rows.append((f"{label} {r['setting']}", f"{r['bytes']:,}", f"{r['coded_bytes']:,}", interval, *cells))
    what = "1 - cosine" if "cosine" in points(name)[0]["metrics"] else "KL"
    head = ("tool", "file", "coded", what, "write CPU s", "write MB", "read CPU s", "read MB")
    failed = [
        f"{r['tool']} {r.get('setting', '')}: {r['error']}" for r in read_results(f"{PART}-{name}")[1] if "error" in r
    ]
    picture = f"![{what} against size](images/pareto-{name}.svg)\n\n"
    return picture + table(head, rows) + ("\nDid not run: " + "; ".join(failed) + "\n" if failed else "")


SECTIONS = [
    Section(f"Quality against bytes, every peer: {name}", (f"{PART}-{name}",), NOTE, partial(render, name))
    for name in networks(PART)
]
if SECTIONS:
    SECTIONS[0] = Section(SECTIONS[0].title, SECTIONS[0].parts, NOTE, SECTIONS[0].render, goals)
