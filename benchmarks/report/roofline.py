"""Distance of decoding from the machine's limits; threads; the estimator; what tables take."""

from collections.abc import Iterator

from benchmarks.common import read_results

from ._section import Goal, Section, table

INSTRUCTIONS = """\
The loop over 32 lanes has 158 instructions with one table, 168 with tables by row and column, 169 with tables by the \
level before, and 13 more to put 32 of those in order (GCC 12, AVX-512, counted in the disassembly): 4.9, 5.3 and 5.7 \
a weight. Most of them look up slots, one load each: a step waits for the loads before it, and that, not memory, is \
the limit.
"""


def goals() -> Iterator[Goal]:
    rows = read_results("roofline")[1]
    if not rows:
        return
    fused = {
        f"{r['coder']}, {r['rate']}": r["mega_weights_per_second"]
        for r in rows
        if r["kind"] == "mode" and r["output"] == "float32" and r["coder"] != "rans"
    }
    text = f"{min(fused.values()):.0f} ({min(fused, key=lambda m: fused[m])}) to {max(fused.values()):.0f}"
    yield Goal("1000 M float32 weights a second decoded with contexts", text, min(fused.values()) >= 1000)
    nncodec = {
        f"{float(r['stream'].split()[0]):g} bits": r["decode_mega_symbols_per_second"]
        for r in read_results("coding")[1]
        if (r["kind"], r.get("coder")) == ("rows", "DeepCABAC")
    }
    times = {m: v / nncodec[m.partition(", ")[2]] for m, v in fused.items() if m.partition(", ")[2] in nncodec}
    if times:
        text = f"{min(times.values()):.0f} ({min(times, key=lambda m: times[m])}) to {max(times.values()):.0f} times"
        yield Goal(
            "decoding to float32 with contexts at least 30 times as fast as NNCodec's", text, min(times.values()) >= 30
        )
    estimates = [r for r in rows if r["kind"] == "estimate"]
    worst = max(abs(r["error_percent"]) for r in estimates)
    yield Goal("estimate of coded bytes within 0.5 %", f"largest error {worst:.2f} %", worst <= 0.5)


def render() -> str:
    """Modes beside a copy; threads; estimates; tables."""
    rows = read_results("roofline")[1]
    kinds = {
        kind: [r for r in rows if r["kind"] == kind] for kind in ("memory", "mode", "threads", "estimate", "tables")
    }
    memory = ", ".join(f"{r['what']} {r['gigabytes_per_second']:.1f}" for r in kinds["memory"])
    modes = table(
        ("coder, rate", "output", "bytes read", "bytes written", "M weights/s", "GB/s", "times a copy"),
        (
            (
                f"{r['coder']}, {r['rate']}", r["output"], f"{r['bytes_read']:.2f}", str(r["bytes_written"]),
                f"{r['mega_weights_per_second']:.0f}", f"{r['gigabytes_per_second']:.2f}", f"{r['times_copy']:.1f}",
            )
            for r in kinds["mode"]
        ),
    )  # fmt: skip
    threads = table(("two threads", "times one"), ((r["what"], f"{r['speedup']:.2f}") for r in kinds["threads"]))
    estimates = table(
        ("levels", "rows given", "M weights/s", "error"),
        (
            (
                r["levels"],
                "yes" if r["rows"] else "no",
                f"{r['mega_weights_per_second']:.0f}",
                f"{r['error_percent']:+.3f} %",
            )
            for r in kinds["estimate"]
        ),
    )
    tables = table(
        ("network", "file", "tables and classes", "of small tensors", "share"),
        (
            (
                f"{r['network']}, {r['ratio']}x", f"{r['file_bytes']:,}", f"{r['table_bytes']:,}",
                f"{r['of_small_tensors']:,}", f"{r['share_percent']:.2f} %",
            )
            for r in kinds["tables"]
        ),
    )  # fmt: skip
    return (
        f"Memory, GB/s of one thread (bytes written): {memory}.\n\n{modes}\n{INSTRUCTIONS}\n{threads}\n"
        f"Estimates of coded bytes:\n\n{estimates}\nTables in files:\n\n{tables}"
    )


SECTIONS = (
    Section(
        "Limits of decoding",
        ("roofline",),
        "By CPU time, threads by the clock: others use the machine, two threads of anything may be no faster than one.",
        render,
        goals,
    ),
)
