"""Quality with calibration."""

from functools import partial

from benchmarks.common import read_results

from ._section import Section, metrics, networks, table


def render(name: str) -> str:
    rows = (
        (r["method"], f"{r['asked']:g}", f"{r['bytes']:,}", f"{r['seconds']['cpu']:.0f}", metrics(r["metrics"]))
        for r in read_results(f"second_order-{name}")[1]
    )
    return table(("method", "ratio", "bytes", "CPU s", "quality"), rows)


SECTIONS = tuple(
    Section(
        f"Quality with calibration: {name}",
        (f"second_order-{name}",),
        "From 1024 unlabelled samples, evaluated on others.",
        partial(render, name),
    )
    for name in networks("second_order")
)
