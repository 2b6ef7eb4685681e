"""Entropy coders beside their peers on the same levels."""

from collections.abc import Iterator
from typing import Any

from benchmarks.common import read_results

from . import figures
from ._section import Goal, Section, table

FAST, SPEED = "tersor rans2d", "decode_mega_symbols_per_second"


def goals() -> Iterator[Goal]:
    rows = read_results("coding")[1]
    if not rows:
        return
    totals = {(r["group"], r["coder"]): r["against_deepcabac_percent"] for r in rows if r["kind"] == "total"}
    fast = {g: v for (g, c), v in totals.items() if c == FAST and g not in ("iid", "rows", "levels")}
    worst = max(fast, key=lambda g: fast[g])
    text = f"{sum(v < 0 for v in fast.values())} of {len(fast)}; worst {worst} {fast[worst]:+.1f} %"
    yield Goal("fast coder smaller than DeepCABAC on every network", text, fast[worst] < 0)
    slow = totals["levels", "tersor adaptive"]
    yield Goal("slow coder at least 4 % below DeepCABAC, summed over levels", f"{slow:+.2f} %", slow <= -4)
    speeds = {(r["kind"], r["stream"], r["coder"]): r[SPEED] for r in rows if "stream" in r}
    other = "htscodecs rANS 32x16 order 0"
    ratios = [v / speeds["iid", s, other] for (k, s, c), v in speeds.items() if k == "iid" and c == "tersor rans"]
    text = f"{min(ratios):.2f} to {max(ratios):.2f} times"
    yield Goal("decoding as fast as htscodecs' 32-way rANS", text, min(ratios) >= 1)


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
    totals = [r for r in rows if r["kind"] == "total" and r["coder"].startswith("tersor")]
    groups = list(dict.fromkeys(r["group"] for r in totals))
    coders = list(dict.fromkeys(r["coder"] for r in totals))
    against = {(r["group"], r["coder"]): f"{r['against_deepcabac_percent']:+.2f} %" for r in totals}
    sizes = table(("levels", *coders), ((g, *(against[g, c] for c in coders)) for g in groups))
    shown = ("tersor rans", "tersor rans2d", "tersor adaptive", "DeepCABAC", "htscodecs rANS 32x16 order 0")
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
    return f"{picture}Bytes against DeepCABAC on the same levels:\n\n{sizes}\n{speeds}"


def draw() -> None:
    """Speed against size of all coders, on one network's levels at several sizes."""
    rows = [r for r in read_results("coding")[1] if r["kind"] == "levels" and r["stream"].startswith("minilm, nearest")]
    if rows:
        figures.speed(rows)


SECTIONS = (
    Section(
        "Entropy coders",
        ("coding",),
        "One core, coders taking turns; tables and classes counted.",
        render,
        goals,
    ),
)
