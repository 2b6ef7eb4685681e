"""docs/benchmarks.md from the result files, and the figure. Nothing is measured here.

python -m benchmarks.report
"""

from collections.abc import Iterable, Iterator, Sequence
from statistics import mean
from typing import Any

from benchmarks.common import ROOT, read_results
from benchmarks.networks import names

Records = list[dict[str, Any]]

QUALITY = ("minilm", "fashion_resnet", "efficientnet_lite0")
LEARNED = ("fashion_resnet", "mobilenet_fashion")
FIRST = {  # the metrics a table shows, and their digits
    "cosine": 4, "accuracy": 4, "pitch_accuracy": 4, "equal_error_rate": 4, "character_error": 4, "loss": 3,
    "perplexity": 2, "auc": 4, "kl": 5, "agreement": 4,
}  # fmt: skip


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; the first column is text, the others are numbers."""
    marks = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, marks, *rows)) + "\n"


def metrics(values: dict[str, float]) -> str:
    if not values:
        return "not measured"
    known = {key: value for key, value in values.items() if key in FIRST} or values
    return ", ".join(f"{key} {value:.{FIRST.get(key, 4)}f}" for key, value in known.items())


def origin(part: str) -> str:
    head, _ = read_results(part)
    versions = ", ".join(f"{n} {v}" for n, v in head["packages"].items())
    return (
        f"*{head['cpu']}, {head['cores']} cores, Python {head['python']}, {versions}; commit {head['commit']}, "
        f"{head['date']}. {head.get('note', '')}*\n"
    )


# -- goals -------------------------------------------------------------------------------------------------------------


def goals() -> Iterator[tuple[str, str, bool | None]]:
    """Every goal: what it is, what was measured, whether it is met (None: not measured, or not completely)."""
    yield from sizes_goals()
    yield from rate_goals()
    yield from quality_goals()
    yield from speed_goals()
    yield from lossless_goals()
    yield from memory_goals()
    yield from coding_goals()


def sizes_goals() -> Iterator[tuple[str, str, bool | None]]:
    records = [*read_results("sizes")[1], *read_results("sizes-only")[1]]
    goal = "file 0 to 0.5 % below the asked size, every network at 4x, 8x, 12x"
    below = [(r["below_percent"], f"{r['network']} at {r['ratio']}x") for r in records if "below_percent" in r]
    if not below:
        yield goal, "not run", None
        return
    failed = [f"{r['network']} at {r['ratio']}x" for r in records if "error" in r]
    missing = f"; not reachable: {', '.join(failed)}" if failed else ""
    absent = sorted(set(names()) - {r["network"] for r in records})
    missing += f"; not run: {', '.join(absent)}" if absent else ""
    text = f"{min(below)[0]:.3f} to {max(below)[0]:.3f} % ({max(below)[1]}) in {len(below)} files"
    held = not failed and min(below)[0] >= 0 and max(below)[0] <= 0.5
    yield goal, text + missing, None if held and absent else held


def rate_goals() -> Iterator[tuple[str, str, bool | None]]:
    goal = "coded size at most 0.3 % above the entropy, tensors over 100 000 weights"
    rows = [r for r in read_results("rate")[1] if "tensor" in r]
    if not rows:
        yield goal, "not run", None
        return
    worst = max(rows, key=lambda r: r["excess_percent"])
    over = sum(r["excess_percent"] > 0.3 for r in rows)
    text = (
        f"mean {mean(r['excess_percent'] for r in rows):+.2f} %, largest {worst['excess_percent']:+.2f} % "
        f"({worst['network']} at {worst['ratio']}x, `{worst['tensor']}`); {over} of {len(rows)} above"
    )
    yield goal, text, over == 0


def quality_goals() -> Iterator[tuple[str, str, bool | None]]:
    for name in QUALITY:
        goal = f"{name}: never worse than the best peer without data at the same size"
        rows = [r for r in read_results(f"quality-{name}")[1] if "rival" in r]
        if not rows:
            yield goal, "not run", None
            continue
        lost = [r for r in rows if r["margin"] < 0]
        worst = ", ".join(_lost(r) for r in lost)
        text = f"better at {len(rows) - len(lost)} of {len(rows)} sizes" + (f"; worse: {worst}" if lost else "")
        partial = "note" in read_results(f"quality-{name}")[0]
        text += " (an incomplete sweep, see there)" if partial else ""
        yield goal, text, False if lost else None if partial else True


def _lost(row: dict[str, Any]) -> str:
    key = row["metric"]
    return f"{row['asked']:,} bytes ({key} {row['metrics'][key]:.5f}, {row['rival']} {row['rival_metrics'][key]:.5f})"


def speed_goals() -> Iterator[tuple[str, str, bool | None]]:
    rows = read_results("speed")[1]
    single = [r for r in rows if r["kind"] == "decode" and r["threads"] == 1]
    for way, what in (("into_buffer", "into a buffer that exists"), ("load", "`tersor.load`, into new arrays")):
        found = [r for r in single if r["way"] == way]
        slowest = min((r["mega_weights_per_cpu_second"] for r in found), default=0.0)
        text = ", ".join(f"{r['what']}: {r['mega_weights_per_cpu_second']:.0f}" for r in found)
        yield (
            f"400 M weights/s decoded on one core, {what} (by CPU time)",
            text or "not run",
            slowest >= 400 if found else None,
        )
    for row in (r for r in rows if r["kind"] == "lossless" and r["threads"] == 1 and r["way"] == "into_buffer"):
        value = row["gigabytes_per_cpu_second"]
        yield f"lossless, {row['what']}: 1 GB/s decoded on one core (by CPU time)", f"{value:.2f} GB/s", value >= 1
    share = [r["share"] for r in rows if r["what"] == "counting beside decoding"]
    if share:
        text = f"a counting thread keeps {share[0]:.0%} of its speed beside a decoding one"
        yield "threads release the interpreter's lock", text, share[0] > 0.5
    start = {r["what"]: r for r in rows if r["kind"] == "start"}
    if start:
        row, base = start["open and decode one tensor"], start["import numpy"]
        text = f"{row['median_seconds']:.3f} s, of which numpy {base['median_seconds']:.3f} s (medians)"
        yield "starts in under 0.3 s, without torch", text, row["median_seconds"] < 0.3 and not row["torch_imported"]


def lossless_goals() -> Iterator[tuple[str, str, bool | None]]:
    rows = [r for r in read_results("lossless")[1] if "bytes" in r]
    for dtype, least in (("F32", 1.22), ("BF16", 1.51)):
        ratios = {r["tool"]: r["ratio"] for r in rows if r["dtype"] == dtype}
        goal = f"lossless MiniLM {dtype}: at least {least}x and the best peer's"
        if not ratios:
            yield goal, "not run", None
            continue
        best = max((v, n) for n, v in ratios.items() if n != "tersor")
        text = f"{ratios['tersor']:.4f}x; best peer {best[1]} {best[0]:.4f}x"
        yield goal, text, ratios["tersor"] >= max(least, best[0])
    every = [r for r in read_results("lossless")[1] if r["tool"] == "tersor"]
    if every:
        same = all(r["identical"] for r in every)
        yield "lossless: every bit back, NaN payloads and -0.0 included", "identical" if same else "different", same


def coding_goals() -> Iterator[tuple[str, str, bool | None]]:
    rows = read_results("coding")[1]
    if not rows:
        return
    totals = {(r["group"], r["coder"]): r["against_deepcabac_percent"] for r in rows if r["kind"] == "total"}
    fast = {g: v for (g, c), v in totals.items() if c == "tersor rans2d" and g not in ("iid", "rows", "levels")}
    worst = max(fast, key=lambda g: fast[g])
    text = f"{sum(v < 0 for v in fast.values())} of {len(fast)}; worst {worst} {fast[worst]:+.1f} %"
    yield "fast coder smaller than DeepCABAC on every network", text, fast[worst] < 0
    slow = totals["levels", "tersor adaptive"]
    yield "slow coder at least 4 % below DeepCABAC, summed over levels", f"{slow:+.2f} %", slow <= -4
    speeds = {(r["kind"], r["stream"], r["coder"]): r["decode_mega_symbols_per_second"] for r in rows if "stream" in r}
    other = "htscodecs rANS 32x16 order 0"
    ratios = [v / speeds["iid", s, other] for (k, s, c), v in speeds.items() if k == "iid" and c == "tersor rans"]
    text = f"{min(ratios):.2f} to {max(ratios):.2f} times"
    yield "decoding as fast as htscodecs' 32-way rANS", text, min(ratios) >= 1


def memory_goals() -> Iterator[tuple[str, str, bool | None]]:
    for row in (r for r in read_results("memory")[1] if "beyond_megabytes" in r):
        value = row["beyond_megabytes"]
        yield f"memory, {row['job']}: under 400 MB beyond the interpreter", f"{value:.0f} MB", value < 400
    if not any("lossless" in r["job"] for r in read_results("memory")[1]):
        yield "memory, lossless both ways", "not run", None


# -- tables ------------------------------------------------------------------------------------------------------------


def sizes() -> str:
    rows = []
    for r in [*read_results("sizes")[1], *read_results("sizes-only")[1]]:
        if r["ratio"] == 1:
            rows.append((r["network"], "original", f"{r['bytes']:,}", "", metrics(r["metrics"]), ""))
        elif "error" in r:
            rows.append(("", f"{r['ratio']}x", r["error"], "", "", ""))
        else:
            below, seconds = f"{r['below_percent']:.3f}", f"{r['seconds']:.1f}"
            name = r["network"] if not r["metrics"] and r["ratio"] == 4 else ""
            rows.append((name, f"{r['ratio']}x", f"{r['bytes']:,}", below, metrics(r["metrics"]), seconds))
    return table(("network", "ratio", "bytes", "% below budget", "metrics of the decoded weights", "seconds"), rows)


def rate() -> str:
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


def quality(name: str) -> str:
    _, records = read_results(f"quality-{name}")
    rows = []
    for r in sorted((r for r in records if "metrics" in r), key=lambda r: -r["bytes"]):
        own = r["method"] == "tersor"
        method = "**tersor**" if own else r["method"] + (f", {r['setting']}" if "setting" in r else "")
        verdict = ""
        if "margin" in r:
            verdict = f"{'better' if r['margin'] >= 0 else '**worse**'} than {r['rival']}"
        rows.append((method, f"{r['bytes']:,}", metrics(r["metrics"]), verdict))
    return table(("method", "bytes", "metrics", "against the best peer of that size"), rows)


def speed() -> str:
    rows = read_results("speed")[1]
    head = (
        "what",
        "way",
        "threads",
        "bits a weight",
        "M weights/s",
        "M weights/CPU s",
        "GB/s",
        "GB/CPU s",
        "times memcpy",
    )
    text = table(
        head,
        (
            (r["what"], r["way"], str(r["threads"]), f"{r['bits_per_weight']:.2f}",
             f"{r['mega_weights_per_second']:.0f}", f"{r['mega_weights_per_cpu_second']:.0f}",
             f"{r['gigabytes_per_second']:.2f}",
             f"{r['gigabytes_per_cpu_second']:.2f}", f"{r['times_memcpy']:.1f}")
            for r in rows if r["kind"] in ("decode", "lossless")
        ),
    )  # fmt: skip
    for r in rows:
        if r["what"] == "two threads against one":
            text += f"\nTwo Python threads decoding at once do {r['speedup']:.2f} times the work of one by the clock.\n"
        if r["what"] == "counting beside decoding":
            text += f"A thread that counts beside a decoding one reaches {r['share']:.2f} of its speed alone.\n"
    start = (
        (r["what"], f"{r['least_seconds']:.3f}", f"{r['median_seconds']:.3f}") for r in rows if r["kind"] == "start"
    )
    return text + "\n" + table(("start, environment without torch", "least s", "median s"), start)


def lossless() -> str:
    rows = []
    for r in read_results("lossless")[1]:
        cells = [f"{r[k]:{f}}" if k in r else "" for k, f in (("ratio", ".4f"), ("encode_mb_per_second", ".0f"),
                 ("decode_mb_per_second", ".0f"), ("decode_mb_per_cpu_second", ".0f"))]  # fmt: skip
        identical = {True: "yes", False: "**no**", None: ""}[r.get("identical")]
        rows.append((r["tool"], r["network"], r["dtype"], *cells, identical))
    return table(
        ("tool", "weights", "dtype", "ratio", "encode MB/s", "decode MB/s", "decode MB/CPU s", "identical"), rows
    )


def memory() -> str:
    rows = (
        (r["job"], f"{r['peak_megabytes']:.0f}", f"{r.get('beyond_megabytes', 0):.0f}", f"{r.get('seconds', 0):.0f}")
        for r in read_results("memory")[1]
    )
    return table(("job, 1.07 GB of fp16", "peak MB", "beyond the import", "seconds"), rows)


def second_order(name: str) -> str:
    rows = (
        (r["method"], f"{r['asked']:g}", f"{r['bytes']:,}", f"{r['seconds']['cpu']:.0f}", metrics(r["metrics"]))
        for r in read_results(f"second_order-{name}")[1]
    )
    return table(("method", "ratio", "bytes", "CPU s", "quality"), rows)


# -- the page ----------------------------------------------------------------------------------------------------------


def coding() -> str:
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


def learned(name: str) -> str:
    rows = (
        (
            r["recipe"], f"{r['target']}", f"{r['file_bytes']:,}", f"{r.get('paper_ratio', 0):.2f}",
            f"{r['accuracy']:.4f}", f"{r['kl']:.5f}", f"{r.get('cpu_seconds', 0):.0f}",
        )
        for r in read_results(f"l2-ratios-{name}")[1]
    )  # fmt: skip
    return table(("recipe", "ratio", "bytes", "by the paper's formula", "accuracy", "kl", "CPU s"), rows)


def page() -> str:
    found = list(goals())
    missed = [f"{goal}: {text}" for goal, text, met in found if met is False]
    open_ = [f"{goal} ({text})" for goal, text, met in found if met is None]
    lead = "Every goal that was measured is met." if not missed else "Goals missed: " + "; ".join(missed) + "."
    lead += f" Not measured, or not completely: {'; '.join(open_)}." if open_ else ""
    words: dict[bool | None, str] = {True: "met", False: "**missed**", None: "not complete"}
    parts = ["# Benchmarks\n", lead + "\n"]
    parts.append(
        "Everything here comes from `benchmarks/results/`, written by `benchmarks/run.sh` (its scripts say what "
        "exactly is measured); `python -m benchmarks.report` renders this page. The machine is a virtual one that "
        "others use at the same time: read ratios and speeds by CPU time, and compare speeds only within a table.\n"
    )
    parts.append(table(("goal", "measured", ""), ((goal, text, words[met]) for goal, text, met in found)))
    sections: list[tuple[str, str, str, Any]] = [
        ("Sizes, and what the weights are worth", "sizes", "Ratio 1 is the original. One thread.", sizes),
        ("Coded size against entropy", "rate", "Below zero: chunks with tables of their own beat one entropy.", rate),
        ("Decoding speed", "speed", "`into_buffer` decodes into memory that exists; `load` makes new arrays.", speed),
        ("Entropy coders", "coding", "One core, coders taking turns; tables and classes counted.", coding),
        ("Lossless", "lossless", "One thread, tools taking turns.", lossless),
        ("Memory", "memory", "A sharded fp16 checkpoint; each job in a process of its own.", memory),
    ]
    for title, part, note, render in sections:
        if read_results(part)[1]:
            parts += [f"## {title}\n", note + "\n", render(), origin(part)]
    for name in QUALITY:
        if read_results(f"quality-{name}")[1]:
            parts.append(f"## Quality at equal bytes, without data: {name}\n")
            if name == "minilm":
                parts.append("![1 - cosine against size](images/quality.svg)\n")
            parts += [quality(name), origin(f"quality-{name}")]
    for name in QUALITY:
        if read_results(f"second_order-{name}")[1]:
            parts.append(f"## Quality with calibration: {name}\n")
            parts += [second_order(name), origin(f"second_order-{name}")]
    for name in LEARNED:
        if read_results(f"l2-ratios-{name}")[1]:
            parts.append(f"## Weights and steps learned together: {name}\n")
            parts += [learned(name), origin(f"l2-ratios-{name}")]
    return "\n".join(parts)


def main() -> None:
    (ROOT / "docs" / "benchmarks.md").write_text(page())
    if read_results("quality-minilm")[1]:
        from benchmarks.figure import draw

        draw()


if __name__ == "__main__":
    main()
