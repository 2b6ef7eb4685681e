"""Weights and steps learned together."""

from functools import partial

from benchmarks.common import read_results

from ._section import Section, networks, table


def render(name: str) -> str:
    rows = (
        (
            r["recipe"], f"{r['target']}", f"{r['file_bytes']:,}", f"{r.get('paper_ratio', 0):.2f}",
            f"{r['accuracy']:.4f}", f"{r['kl']:.5f}", f"{r.get('cpu_seconds', 0):.0f}",
        )
        for r in read_results(f"l2-ratios-{name}")[1]
    )  # fmt: skip
    return table(("recipe", "ratio", "bytes", "by the paper's formula", "accuracy", "kl", "CPU s"), rows)


SECTIONS = tuple(
    Section(
        f"Weights and steps learned together: {name}",
        (f"l2-ratios-{name}",),
        "From 1024 unlabelled images.",
        partial(render, name),
    )
    for name in networks("l2-ratios")
)
