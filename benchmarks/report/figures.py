"""The page's pictures, docs/images/NAME.svg, from records of the results. All drawing is here."""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import torch

matplotlib.use("svg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import NullLocator

from benchmarks.common import ROOT
from benchmarks.peers._peer import ONLY
from tersor.rate.counter import density, integral

from ._section import Records, lost

FOLDER = ROOT / "docs" / "images"
GRID, TEXT = "#e5e8eb", "#34495e"
OURS = {"tersor fast": "#f0a26b", "tersor balanced": "#d1351f", "tersor best": "#7b1113", "tersor l2-paper": "#c06c9a"}
TOOLS = {  # tool: colour, marker
    **{tool: (colour, "o") for tool, colour in OURS.items()},
    "NNCodec": ("#2c3e50", "D"),
    "one global step + rANS": ("#5dade2", "s"),
    "per-channel absmax + rANS": ("#a9793c", "P"),
    "GGUF": ("#1e8449", "X"),
    "quanto": ("#2471a3", "^"),
    "HQQ": ("#7d3c98", "v"),
    "torchao": ("#b7950b", "<"),
    "ONNX Runtime": ("#808b96", ">"),
    "llm-compressor": ("#17a2a2", "p"),
}
CODERS = {
    "tersor rans": ("#f0a26b", "o"),
    "tersor fast": ("#d1351f", "o"),
    "tersor adaptive": ("#7b1113", "o"),
    "DeepCABAC": ("#2c3e50", "D"),
    "constriction ANS": ("#7d3c98", "v"),
    "htscodecs rANS 32x16 order 0": ("#1e8449", "X"),
    "htscodecs rANS 32x16 order 1": ("#82c09a", "X"),
    "zstd -1": ("#2471a3", "^"),
    "zstd -9": ("#7fb3d5", "^"),
    "brotli -5": ("#b7950b", "<"),
}
METHODS = {  # of the recipes that learn and what they are compared with
    "nearest": ("#f0a26b", "s"),
    "second order": ("#d1351f", "o"),
    "best": ("#7b1113", "o"),
    "l2-paper": ("#c06c9a", "^"),
    "l2-paper, a tenth": ("#e0b7cf", "^"),
    "adaround": ("#2471a3", "v"),
}
KERNELS = {"cosine": "#d1351f", "linear": "#2471a3", "triangle": "#1e8449"}
PARTS = {"levels": ("#d1351f", "levels"), "steps": ("#5dade2", "steps"), "bytes": ("#aab4bd", "kept as they were")}
WORST = 5.0
"""A divergence beyond which a network is of no use: not shown."""


@contextmanager
def drawing(name: str, title: str, x: str, y: str, size: tuple[float, float] = (8.6, 5.2)) -> Iterator[Axes]:
    """Axes in the page's style; the file appears when all is drawn."""
    style: dict[Any, Any] = {"font.family": "sans-serif", "font.size": 10, "svg.hashsalt": "tersor", "text.color": TEXT,
             "axes.labelcolor": TEXT, "xtick.color": TEXT, "ytick.color": TEXT, "axes.edgecolor": "#aab4bd",
             }  # fmt: skip
    with plt.rc_context(style):
        figure, axes = plt.subplots(figsize=size)
        axes.set_title(title, loc="left", fontsize=12, pad=12)
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.grid(True, which="major", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
        yield axes
        FOLDER.mkdir(parents=True, exist_ok=True)
        figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None}, bbox_inches="tight")
        plt.close(figure)


def plain_numbers(axes: Axes, *ticks: float) -> None:
    """A logarithmic x axis with these numbers."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.set_xticks([t for t in ticks if low <= t <= high], labels=[f"{t:g}" for t in ticks if low <= t <= high])
    axes.xaxis.set_minor_locator(NullLocator())


def beside(axes: Axes) -> None:
    """The legend right of the picture, where it hides nothing."""
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=9, frameon=False, handlelength=1.8)


def label_ends(axes: Axes, ends: list[tuple[float, float, str, str]]) -> None:
    """A label in its colour right of each curve's end (x, y, label, colour), moved apart where they would touch.

    Scales and limits must be final.
    """
    gap, least = 14.0, -math.inf
    for x, y, label, colour in sorted(ends, key=lambda end: end[1]):
        at = axes.transData.transform((x, y))[1]
        least = max(at, least + gap * axes.figure.dpi / 72)
        axes.annotate(label, (x, y), (9, (least - at) * 72 / axes.figure.dpi), textcoords="offset points", color=colour,
                      va="center", fontsize=9)  # fmt: skip


def curve(axes: Axes, points: list[tuple[float, float]], label: str, colour: str, marker: str, *, ours: bool) -> None:
    """Ours are strong and lie above the others."""
    axes.plot(*zip(*points, strict=True), color=colour, linewidth=2.4 if ours else 1.0, zorder=3 + ours, marker=marker,
              markersize=5.5 if ours else 4.5, label=label)  # fmt: skip


def envelope(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points that none of fewer bytes is as good as."""
    found: list[tuple[float, float]] = []
    for x, y in sorted(points):
        if not found or y < found[-1][1]:
            found.append((x, y))
    return found


def pareto(network: str, what: str, records: Records) -> None:
    """What the output loses against bytes, coded where a tool does not code; a line joins a tool's best points."""
    shown = [r for r in records if "metrics" in r and r["tool"] in TOOLS and not r["setting"].endswith(ONLY)]
    title, x = f"{network}: quality against size", "whole file, MB; behind a lossless coder where the tool has none"
    with drawing(f"pareto-{network}", title, x, f"{what} from the original (lower is better)") as axes:
        for tool, (colour, marker) in TOOLS.items():
            points = [(r["coded_bytes"] / 1e6, max(1e-7, lost(r))) for r in shown if r["tool"] == tool]
            points = [(x, y) for x, y in points if y <= WORST]
            if not points:
                continue
            curve(axes, envelope(points), tool, colour, marker, ours=tool in OURS)
            axes.plot(*zip(*points, strict=True), color=colour, linestyle="", marker=marker, markersize=3, alpha=0.5)
        axes.set_yscale("log")
        plain_numbers(axes, *(m * 10.0**e for e in range(-2, 3) for m in (1, 1.5, 2, 3, 5, 7)))
        beside(axes)


def bytes_by_tensor(network: str, recipe: str, rows: Records) -> None:
    """Bytes of every matrix by what they hold, in the network's order; the rest together; bits a weight beside."""
    large = [r for r in rows if "levels" in r["parts"]]
    rest = [r for r in rows if "levels" not in r["parts"]]
    merged = {"tensor": f"{len(rest)} small tensors", "weights": sum(r["weights"] for r in rest),
              "parts": {"bytes": sum(sum(r["parts"].values()) for r in rest)}}  # fmt: skip
    shown = [*large, merged] if rest else large
    title = f"{network}, {recipe}, {rows[0]['ratio']:g}x: where the bytes are"
    with drawing(f"bytes-{network}", title, "KB in the file", "", (8.6, 1.2 + 0.21 * len(shown))) as axes:
        left = [0.0] * len(shown)
        for part, (colour, label) in PARTS.items():
            widths = [r["parts"].get(part, 0) / 1e3 for r in shown]
            axes.barh(range(len(shown)), widths, left=left, color=colour, height=0.72, label=label)
            left = [a + b for a, b in zip(left, widths, strict=True)]
        for k, (r, end) in enumerate(zip(shown, left, strict=True)):
            bits = 8 * sum(r["parts"].values()) / r["weights"]
            axes.annotate(f"{bits:.2f} bits", (end, k), (4, 0), textcoords="offset points", va="center", fontsize=8)
        axes.set_yticks(range(len(shown)), labels=[r["tensor"] for r in shown], fontsize=8)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_xlim(0, 1.1 * max(left))
        axes.grid(False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.legend(fontsize=9, frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))


def bits_by_sensitivity(network: str, rows: Records) -> None:
    """Bits of every matrix against what noise in it costs the output, and the slope that is ideal."""
    x = "what noise of 1 % of a matrix's power costs the output, a weight"
    with drawing(f"sensitivity-{network}", f"{network}: bits follow sensitivity", x, "bits a weight") as axes:
        for recipe in dict.fromkeys(r["recipe"] for r in rows):
            found = [r for r in rows if r["recipe"] == recipe and "levels" in r["parts"]]
            places = [r["sensitivity"] / r["weights"] for r in found]
            bits = [8 * sum(r["parts"].values()) / r["weights"] for r in found]
            colour = OURS[f"tersor {recipe}"]
            largest = max(r["weights"] for r in found)
            areas = [12 + 170 * (r["weights"] / largest) ** 0.5 for r in found]
            axes.scatter(places, bits, areas, color=colour, alpha=0.75, linewidths=0, label=recipe)
            middle = sum(b - math.log2(p) / 2 for b, p in zip(bits, places, strict=True)) / len(bits)
            ends = (min(places), max(places))
            axes.plot(ends, [middle + math.log2(p) / 2 for p in ends], color=colour, linewidth=1, linestyle="--")
        axes.plot([], [], color=TEXT, linewidth=1, linestyle="--", label="half a bit a doubling: the ideal")
        axes.set_xscale("log")
        legend = axes.legend(fontsize=9, frameon=False, loc="upper left")
        for handle in legend.legend_handles[:-1]:
            handle.set_sizes([45])  # pyright: ignore[reportAttributeAccessIssue,reportOptionalMemberAccess]
        axes.annotate(
            "larger dots: matrices of more weights", (1, 0.02), xycoords="axes fraction", ha="right", fontsize=8
        )


def speed(rows: Records) -> None:
    """Decoding speed of entropy coders against coded bits a weight, on levels of a network at several sizes."""
    title = "MiniLM's levels: decoding speed against size, one core"
    y = "million weights a second decoded (higher is better)"
    with drawing("speed", title, "coded bits a weight (further left is better)", y) as axes:
        for coder, (colour, marker) in CODERS.items():
            found = [r for r in rows if r["coder"] == coder]
            points = sorted((r["bits_per_symbol"], r["decode_mega_symbols_per_second"]) for r in found)
            if points:
                curve(axes, points, coder, colour, marker, ours=coder.startswith("tersor"))
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        beside(axes)


def scaling(jobs: dict[str, Sequence[tuple[int, float]]]) -> None:
    """CPU seconds of every job against weights."""
    colours = ("#d1351f", "#f0a26b", "#2471a3", "#1e8449", "#7d3c98", "#808b96")
    with drawing("scaling", "Time against weights", "million weights", "CPU seconds") as axes:
        ends = []
        for (job, points), colour in zip(jobs.items(), colours, strict=False):
            x, y = zip(*((n / 1e6, seconds) for n, seconds in points), strict=True)
            axes.plot(x, y, color=colour, marker="o", markersize=5, linewidth=2)
            ends.append((x[-1], y[-1], job, colour))
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        plain_numbers(axes, 1, 3, 10, 30, 100, 300, 1000)
        label_ends(axes, ends)


def against_ratio(network: str, metric: str, points: dict[str, list[tuple[float, float]]], whole: float | None) -> None:
    """The task's metric against the ratio of the whole file, and that of the original."""
    x = "ratio of the whole file (further right is smaller)"
    with drawing(f"l2-{network}", f"{network}: {metric} against ratio", x, metric) as axes:
        for method, found in points.items():
            colour, marker = METHODS.get(method, (TEXT, "x"))
            curve(axes, found, method, colour, marker, ours=method == "best")
        if whole is not None:
            axes.axhline(whole, color=TEXT, linewidth=1, linestyle="--", label="original")
        beside(axes)


def kernels() -> None:
    """The kernels of the differentiable counter, and relaxed counts of a few codes (figure 4 of the L2 paper)."""
    delta, x = 1.0, torch.linspace(-1.5, 1.5, 601)
    with drawing("l2-kernels", "Kernels of half-width 1", "distance of a code from an edge", "density") as axes:
        for kernel, colour in KERNELS.items():
            axes.plot(x, density(kernel, x, delta), color=colour, linewidth=2, label=kernel)
        beside(axes)
    codes, edges = torch.tensor([-2.2, -0.9, -0.4, 0.1, 0.3, 0.8, 2.4]), torch.linspace(-4, 4, 1601)
    title = "Relaxed counts of seven codes, cosine kernel"
    with drawing("l2-counts", title, "edge", "codes below the edge") as axes:
        axes.step(edges, (codes[:, None] < edges).sum(0), color=TEXT, linewidth=1.2, linestyle="--", label="true count")
        for width, colour in ((0.3, "#f0a26b"), (1.0, "#d1351f"), (2.0, "#7b1113")):
            counts = integral("cosine", edges - codes[:, None], width).sum(0)
            axes.plot(edges, counts, color=colour, linewidth=2, label=f"half-width {width:g}")
        beside(axes)
