"""How fast weights come back."""

from collections.abc import Iterator

from benchmarks.common import read_results

from ._section import Goal, Section, table


def goals() -> Iterator[Goal]:
    rows = read_results("speed")[1]
    single = [r for r in rows if r["kind"] == "decode" and r["threads"] == 1]
    for way, what in (("into_buffer", "into a buffer that exists"), ("load", "`tersor.load`, into new arrays")):
        found = [r for r in single if r["way"] == way]
        slowest = min((r["mega_weights_per_cpu_second"] for r in found), default=0.0)
        text = ", ".join(f"{r['what']}: {r['mega_weights_per_cpu_second']:.0f}" for r in found)
        yield Goal(
            f"400 M weights/s decoded on one core, {what} (by CPU time)",
            text or "not run",
            slowest >= 400 if found else None,
        )
    for row in (r for r in rows if r["kind"] == "lossless" and r["threads"] == 1 and r["way"] == "into_buffer"):
        value = row["gigabytes_per_cpu_second"]
        yield Goal(
            f"lossless, {row['what']}: 1 GB/s decoded on one core (by CPU time)", f"{value:.2f} GB/s", value >= 1
        )
    share = [r["share"] for r in rows if r["what"] == "counting beside decoding"]
    if share:
        text = f"a counting thread keeps {share[0]:.0%} of its speed beside a decoding one"
        yield Goal("threads release the interpreter's lock", text, share[0] > 0.5)
    start = {r["what"]: r for r in rows if r["kind"] == "start"}
    if start:
        row, base = start["open and decode one tensor"], start["import numpy"]
        text = f"{row['median_seconds']:.3f} s, of which numpy {base['median_seconds']:.3f} s (medians)"
        yield Goal(
            "starts in under 0.3 s, without torch", text, row["median_seconds"] < 0.3 and not row["torch_imported"]
        )


def render() -> str:
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


SECTIONS = (
    Section(
        "Decoding speed",
        ("speed",),
        "`into_buffer` decodes into memory that exists; `load` makes new arrays.",
        render,
        goals,
    ),
)
