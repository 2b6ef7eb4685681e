"""Entropy coders beside their peers on the same levels."""

from collections.abc import Iterator

from benchmarks.common import read_results

from ._section import Goal, Section, table


def goals() -> Iterator[Goal]:
    rows = read_results("coding")[1]
    if not rows:
        return
    totals = {(r["group"], r["coder"]): r["against_deepcabac_percent"] for r in rows if r["kind"] == "total"}
    fast = {g: v for (g, c), v in totals.items() if c == "tersor rans2d" and g not in ("iid", "rows", "levels")}
    worst = max(fast, key=lambda g: fast[g])
    text = f"{sum(v < 0 for v in fast.values())} of {len(fast)}; worst {worst} {fast[worst]:+.1f} %"
    yield Goal("fast coder smaller than DeepCABAC on every network", text, fast[worst] < 0)
    slow = totals["levels", "tersor adaptive"]
    yield Goal("slow coder at least 4 % below DeepCABAC, summed over levels", f"{slow:+.2f} %", slow <= -4)
    speeds = {(r["kind"], r["stream"], r["coder"]): r["decode_mega_symbols_per_second"] for r in rows if "stream" in r}
    other = "htscodecs rANS 32x16 order 0"
    ratios = [v / speeds["iid", s, other] for (k, s, c), v in speeds.items() if k == "iid" and c == "tersor rans"]
    text = f"{min(ratios):.2f} to {max(ratios):.2f} times"
    yield Goal("decoding as fast as htscodecs' 32-way rANS", text, min(ratios) >= 1)


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
                f"{r['encode_mega_symbols_per_second']:.0f}", f"{r['decode_mega_symbols_per_second']:.0f}",
            )
            for r in rows
            if r["kind"] in ("iid", "rows") and r["coder"] in shown
        ),
    )  # fmt: skip
    return f"Bytes against DeepCABAC on the same levels:\n\n{sizes}\n{speeds}"


SECTIONS = (
    Section(
        "Entropy coders",
        ("coding",),
        "One core, coders taking turns; tables and classes counted.",
        render,
        goals,
    ),
)
