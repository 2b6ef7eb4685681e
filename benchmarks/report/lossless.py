"""Lossless coding beside its peers."""

from collections.abc import Iterator

from benchmarks.common import read_results

from ._section import Goal, Section, table


def goals() -> Iterator[Goal]:
    rows = [r for r in read_results("lossless")[1] if "bytes" in r]
    for dtype, least in (("F32", 1.22), ("BF16", 1.51)):
        ratios = {r["tool"]: r["ratio"] for r in rows if r["dtype"] == dtype}
        goal = f"lossless MiniLM {dtype}: at least {least}x and the best peer's"
        if not ratios:
            yield Goal(goal, "not run", None)
            continue
        best = max((v, n) for n, v in ratios.items() if n != "tersor")
        text = f"{ratios['tersor']:.4f}x; best peer {best[1]} {best[0]:.4f}x"
        yield Goal(goal, text, ratios["tersor"] >= max(least, best[0]))
    every = [r for r in read_results("lossless")[1] if r["tool"] == "tersor"]
    if every:
        same = all(r["identical"] for r in every)
        yield Goal(
            "lossless: every bit back, NaN payloads and -0.0 included", "identical" if same else "different", same
        )


def render() -> str:
    rows = []
    for r in read_results("lossless")[1]:
        cells = [f"{r[k]:{f}}" if k in r else "" for k, f in (("ratio", ".4f"), ("encode_mb_per_second", ".0f"),
                 ("decode_mb_per_second", ".0f"), ("decode_mb_per_cpu_second", ".0f"))]  # fmt: skip
        identical = {True: "yes", False: "**no**", None: ""}[r.get("identical")]
        rows.append((r["tool"], r["network"], r["dtype"], *cells, identical))
    return table(
        ("tool", "weights", "dtype", "ratio", "encode MB/s", "decode MB/s", "decode MB/CPU s", "identical"), rows
    )


SECTIONS = (
    Section(
        "Lossless",
        ("lossless",),
        "One thread, tools taking turns.",
        render,
        goals,
    ),
)
