"""Entropy coders beside their peers on the same levels."""

from collections.abc import Iterator
from typing import Any

from benchmarks.common import read_results

from . import figures
from ._section import Goal, Records, Section, table

FAST, SPEED = "tersor fast", "decode_mega_symbols_per_second"
OWN = ("tersor rans", FAST, "tersor adaptive")
REFERENCE, RIVAL = "DeepCABAC", "htscodecs rANS 32x16 order 0"


def goals() -> Iterator[Goal]:
    rows = read_results("coding")[1]
    if not rows:
        return
    totals = _against_deepcabac(rows)
    fast = {g: v for (g, c), v in totals.items() if c == FAST and g not in ("iid", "rows", "levels")}
    worst = max(fast, key=lambda g: fast[g])
    text = f"{sum(v < 0 for v in fast.values())} of {len(fast)}; worst {worst} {fast[worst]:+.1f} %"
    yield Goal("fast coder smaller than DeepCABAC on every network", text, fast[worst] < 0)
    slow = totals["levels", OWN[-1]]
    yield Goal("slow coder at least 4 % below DeepCABAC, summed over levels", f"{slow:+.2f} %", slow <= -4)
    speeds = {(r["kind"], r["stream"], r["coder"]): r[SPEED] for r in rows if "stream" in r}
    ratios = {s: v / speeds["iid", s, RIVAL] for (k, s, c), v in speeds.items() if k == "iid" and c == OWN[0]}
    text = f"{min(ratios.values()):.2f} ({min(ratios, key=lambda s: ratios[s])}) to {max(ratios.values()):.2f} times"
    yield Goal("decoding as fast as htscodecs' 32-way rANS", text, min(ratios.values()) >= 1)
    excess = {r["stream"]: r["excess_percent"] for r in rows if r["kind"] == "iid" and r["coder"] == OWN[0]}
    widest = max(excess, key=lambda s: excess[s])
    text = f"largest {excess[widest]:+.3f} % ({widest})"
    yield Goal(
        "coded levels within 0.15 % of the entropy where they are identically distributed", text, excess[widest] <= 0.15
    )
    over = {
        r["stream"]: r["excess_over_rows_percent"]
        for r in rows
        if r["kind"] == "rows" and r["coder"] == FAST and not r["stream"].startswith("0.")
    }
    widest = max(over, key=lambda s: over[s])
    text = f"largest {over[widest]:+.2f} % ({widest})"
    yield Goal("within 1.5 % of what knowing every row's scale gives, from 1.5 bits on", text, over[widest] <= 1.5)
    for what, coder, kind, least in (("no", OWN[0], "iid", 800), ("several", FAST, "rows", 300)):
        own, other = (
            {r["stream"]: r["encode_mega_symbols_per_second"] for r in rows if (r["kind"], r.get("coder")) == (kind, c)}
            for c in (coder, RIVAL)
        )
        slowest = min(own, key=lambda s: own[s])
        text = f"{own[slowest]:.0f} ({slowest}) to {max(own.values()):.0f}; htscodecs to {max(other.values()):.0f}"
        yield Goal(f"{least} M symbols a second coded with {what} contexts", text, own[slowest] >= least)


def _against_deepcabac(rows: Records) -> dict[tuple[str, str], float]:
    """Percent that a coder's bytes are above DeepCABAC's, for every group of streams and coder of ours."""
    sums: dict[tuple[str, str], int] = {}
    for r in rows:
        for group in {r["kind"], r.get("stream", "").partition(",")[0]} - {"", "memcpy"} if "coder" in r else ():
            if r["kind"] != "levels" and group != r["kind"]:
                continue
            sums[group, r["coder"]] = sums.get((group, r["coder"]), 0) + r["bytes"]
    return {(g, c): 100 * (n / sums[g, REFERENCE] - 1) for (g, c), n in sums.items() if c in OWN}


def fastest() -> str:
    """For the page's first paragraph: is the fast coder the fastest of those whose streams are no larger?"""
    streams: dict[str, dict[str, dict[str, Any]]] = {}
    for r in read_results("coding")[1]:
        if r["kind"] == "levels":
            streams.setdefault(r["stream"], {})[r["coder"]] = r
    if not streams:
        return ""
    beaten: dict[str, set[str]] = {}
    for stream, coders in streams.items():
        own = coders[FAST]
        for coder, r in coders.items():
            ahead = r[SPEED] > own[SPEED] and r["bytes"] <= own["bytes"]
            if ahead and not coder.startswith("tersor"):
                beaten.setdefault(stream, set()).add(coder)
    text = (
        f" Of coders of levels, its fast one is the fastest of those that make no larger streams on "
        f"{len(streams) - len(beaten)} of {len(streams)}"
    )
    where = sorted({stream.partition(",")[0] for stream in beaten})
    who = sorted(set().union(*beaten.values()))
    return text + (f"; on others, of {', '.join(where)}, {' or '.join(who)} is faster." if beaten else ".")


def render() -> str:
    """Coded bytes beside DeepCABAC, and speeds on the synthetic streams."""
    rows = read_results("coding")[1]
    against = _against_deepcabac(rows)
    dates: dict[str, str] = {}
    for r in rows:
        if r.get("coder") in OWN:
            dates[r["kind"]] = dates[r["stream"].partition(",")[0]] = r["date"][:10]
    groups = dict.fromkeys(group for group, _ in against)
    sizes = table(
        ("levels", *OWN, "run of"), ((g, *(f"{against[g, c]:+.2f} %" for c in OWN), dates[g]) for g in groups)
    )
    shown = (*OWN, REFERENCE, RIVAL)
    speeds = table(
        ("stream", "coder", "over the ideal", "M symbols/s coded", "M symbols/s decoded"),
        (
            (
                f"{r['kind']}, {r['stream']}", r["coder"], f"{r['excess_over_rows_percent']:+.2f} %",
                f"{r['encode_mega_symbols_per_second']:.0f}", f"{r[SPEED]:.0f}",
            )
            for r in rows
            if r["kind"] in ("iid", "rows") and r["coder"] in shown
        ),
    )  # fmt: skip
    picture = "![decoding speed against size](images/speed.svg)\n\n"
    folded = f"<details><summary>Speeds on synthetic streams</summary>\n\n{speeds}\n</details>\n"
    return f"{picture}Bytes against DeepCABAC on the same levels:\n\n{sizes}\n{folded}"


def draw() -> None:
    """Speed against size of all coders, on one network's levels at several sizes."""
    rows = [r for r in read_results("coding")[1] if r["kind"] == "levels" and r["stream"].startswith("minilm, nearest")]
    if rows:
        figures.speed(rows)


SECTIONS = (
    Section(
        "Entropy coders",
        ("coding",),
        "One core, coders taking turns; tables and classes counted. `tersor rans` has one table for a chunk (with "
        "coder `runs` where nearly all levels are zero), `tersor fast` those that files have: by row and column, or by "
        "the level before (not in runs before 25 November).",
        render,
        goals,
    ),
)
