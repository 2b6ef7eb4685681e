"""docs/images/quality.svg: quality against size of MiniLM without data, tersor beside its peers."""

from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt

from benchmarks.common import ROOT, read_results
from benchmarks.peers._peer import ONLY

# method: (colour, marker, label, where the label stands relative to a point: its number, dx, dy in points)
LOOK: dict[str, tuple[str, str, str, tuple[int, float, float]]] = {
    "tersor": ("#c0392b", "o", "tersor", (-2, -8, -14)),
    "NNCodec": ("#8e9aa6", "v", "NNCodec", (-1, -8, -9)),
    "NNCodec, trellis": ("#5b7083", "^", "NNCodec, trellis", (-1, 8, 4)),
    "NNCodec, trellis, opt_qp": ("#2c3e50", "D", "NNCodec, trellis, opt_qp", (-1, 8, 4)),
    "one global step": ("#2e86c1", "s", "one global step + rANS", (0, -8, 5)),
    "per-channel absmax": ("#b9770e", "P", "per-channel absmax + rANS", (0, 8, 2)),
    "GGUF": ("#1e8449", "X", "GGUF Q8_0, Q5_1, Q4_1, Q4_0", (1, 8, 2)),
}
LARGEST = 26e6


def draw(name: str = "minilm") -> None:
    """One curve a method, labelled beside it; lower is better."""
    _, records = read_results(f"quality-{name}")
    plt.rcParams.update({"font.family": "sans-serif", "font.size": 10, "svg.hashsalt": "tersor"})
    figure, axes = plt.subplots(figsize=(8.6, 5.2))
    for method, (colour, marker, label, (number, dx, dy)) in LOOK.items():
        points = sorted(_point(r) for r in records if r["method"] == method and "error" not in r)
        points = [p for p in points if p[0] < LARGEST / 1e6]
        if not points:
            continue
        strong = method == "tersor"
        x, y = zip(*points, strict=True)
        axes.plot(x, y, color=colour, marker=marker, markersize=5 if strong else 4.5, linewidth=2.4 if strong else 1.1,
                  alpha=1 if strong else 0.9, zorder=3 if strong else 2)  # fmt: skip
        at = points[max(-len(points), min(number, len(points) - 1))]
        axes.annotate(label, at, (dx, dy), textcoords="offset points", color=colour, va="center",
                      ha="left" if dx > 0 else "right", fontsize=11 if strong else 9,
                      fontweight="bold" if strong else "normal")  # fmt: skip
    axes.set_yscale("log")
    axes.set_ylim(8e-5, 0.25)
    axes.set_xlim(5.2, LARGEST / 1e6)
    axes.set_xlabel("size of the whole file, MB (original: 90.9 MB)")
    axes.set_ylabel("1 - cosine to the original embeddings (lower is better)")
    axes.grid(True, which="major", color="#e5e8eb", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title("all-MiniLM-L6-v2 without any data: quality at every size", loc="left", fontsize=12)
    folder = ROOT / "docs" / "images"
    folder.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(folder / "quality.svg", metadata={"Date": None})
    plt.close(figure)


def _point(record: dict[str, Any]) -> tuple[float, float]:
    return record["bytes"] / 1e6, max(1e-9, 1 - record["metrics"]["cosine"])


if __name__ == "__main__":
    draw()


PARETO: dict[str, tuple[str, str]] = {  # tool: colour, marker
    "tersor fast": ("#e59866", "o"), "tersor balanced": ("#c0392b", "o"), "tersor best": ("#7b241c", "*"),
    "NNCodec": ("#2c3e50", "D"), "GGUF": ("#1e8449", "X"), "quanto": ("#2e86c1", "s"), "HQQ": ("#7d3c98", "P"),
    "torchao": ("#b7950b", "v"), "ONNX Runtime": ("#808b96", "^"), "one global step + rANS": ("#5dade2", "x"),
    "per-channel absmax + rANS": ("#af601a", "+"),
}  # fmt: skip


def pareto(name: str, records: list[dict[str, Any]]) -> None:
    """docs/images/pareto-NAME.svg: what the output loses against bytes, coded where a tool does not code."""
    plt.rcParams.update({"font.family": "sans-serif", "font.size": 10, "svg.hashsalt": "tersor"})
    figure, axes = plt.subplots(figsize=(8.6, 5.2))
    shown = [r for r in records if "metrics" in r and r["tool"] in PARETO and not r["setting"].endswith(ONLY)]
    for tool, (colour, marker) in PARETO.items():
        found = sorted((r["coded_bytes"] / 1e6, max(1e-7, _lost(r))) for r in shown if r["tool"] == tool)
        if not found:
            continue
        own = tool.startswith("tersor")
        x, y = zip(*found, strict=True)
        style = "-" if own or tool != "NNCodec" else "none"  # its three ways of coding make no one curve
        axes.plot(x, y, color=colour, marker=marker, markersize=5, linestyle=style, label=tool,
                  linewidth=2.2 if own else 0.9, zorder=3 if own else 2)  # fmt: skip
    axes.set_yscale("log")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.tick_params(axis="x", which="minor", labelsize=8)
    axes.set_xlabel("bytes of the whole file, MB, behind a lossless coder")
    cosine = any("cosine" in r["metrics"] for r in shown)
    axes.set_ylabel(f"{'1 - cosine' if cosine else 'KL divergence'} from the original (lower is better)")
    axes.grid(True, which="major", color="#e5e8eb", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False)
    axes.set_title(f"{name}: quality against size", loc="left", fontsize=12)
    figure.tight_layout()
    figure.savefig(ROOT / "docs" / "images" / f"pareto-{name}.svg", metadata={"Date": None})
    plt.close(figure)


def _lost(record: dict[str, Any]) -> float:
    values = record["metrics"]
    return values["kl"] if "kl" in values else 1 - values["cosine"]
