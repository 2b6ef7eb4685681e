"""Weights and steps learned together: recipes `best` and `l2-paper`, and the tables of the L2 paper, in shape."""

import math
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import pairwise

from benchmarks.common import read_results

from . import figures
from ._section import FIRST, Goal, Records, Section, lost, networks, table

RATIOS, COST = "l2-ratios", "joint_cost"
HALF, SMALLER, LEAST = 0.5, 0.4, 4
BELOW, ABOVE, TIMES = 0.005, 0.003, 1.5
ORIGINAL, RIVAL = "original", "NNCodec"
PAPERS = ("l2-paper", "l2-paper, a tenth")
NOTE = """Whole files from 512 unlabelled inputs or fewer, the same for all methods; quality on others. "By the paper" \
is its formula: 32 bits a weight over the entropy of its levels, all else uncounted. `l2-paper` runs its 6500 \
iterations, of a transformer 3900; "a tenth" runs 650 at ten times the learning rates, about as long as `best`. \
DeepCABAC is NNCodec without its trellis, from the runs of "Quality against bytes"."""
SHORT = """Recipe `l2-paper`, {iterations} iterations (in full: 6500) on batches of {batch}, learning rates raised in \
proportion, one run a row. So short, it goes past its target: what is close together here is not told apart \
(docs/decisions/0022)."""


def of(network: str, method: str | None = None) -> Records:
    """Rows of a network, of a method if it is given."""
    return [r for r in read_results(f"{RATIOS}-{network}")[1] if method in (None, r["method"])]


def quality(record: dict[str, object]) -> str:
    """The task's metric of a network."""
    return next(key for key in FIRST if key in record and key != "agreement")


def source_bytes(network: str) -> float:
    first = next(r for r in of(network) if "ratio" in r)
    return first["ratio"] * first["file_bytes"]


def codec(network: str) -> list[tuple[str, int, float]]:
    """NNCodec's settings, bytes and divergences."""
    found = {
        r["setting"]: (r["bytes"], lost(r))
        for r in read_results("pareto")[1]
        if (r["network"], r["tool"]) == (network, RIVAL) and "metrics" in r
    }
    for r in read_results(f"second_order-{network}")[1]:
        if r["method"] == RIVAL:
            found.setdefault(f"{r['asked']}, trellis, opt_qp", (r["bytes"], lost(r)))
    return [(setting, *values) for setting, values in found.items()]


# -- goals -------------------------------------------------------------------------------------------------------------


def halves(network: str, paper: str) -> list[tuple[float, float]]:
    """What `best` loses over what the paper's recipe loses, and its time over that one's, at every ratio."""
    rival = {r["target"]: r for r in of(network, paper)}
    return [
        (lost(r) / lost(rival[r["target"]]), r["cpu_seconds"] / rival[r["target"]]["cpu_seconds"])
        for r in of(network, "best")
        if r["target"] in rival
    ]


def smaller(network: str) -> float | None:
    """By which share `best` is smaller than NNCodec at the same divergence, interpolated: the worst of its ratios."""
    points = figures.envelope((nbytes, kl) for _, nbytes, kl in codec(network))
    shares = list[float]()
    for r in of(network, "best"):
        for (small, high), (large, low) in pairwise(points):
            if low <= lost(r) <= high:
                part = math.log(lost(r) / high) / math.log(low / high)
                shares.append(1 - r["file_bytes"] / (small * (large / small) ** part))
    return min(shares, default=None)


def goals() -> Iterator[Goal]:
    for paper in PAPERS:
        found = {n: values for n in networks(RATIOS) if (values := halves(n, paper))}
        text = "; ".join(
            f"{n} {max(v[0] for v in values):.2f} of its loss in {max(v[1] for v in values):.1f} times its seconds"
            for n, values in found.items()
        )
        good = sum(all(loss <= HALF and time <= 1 for loss, time in values) for values in found.values())
        met = (good >= LEAST) if len(found) >= LEAST else None
        goal = f"`best` loses at most half of what `{paper}` loses, at no more time, on {LEAST} networks"
        yield Goal(goal, text or "not run", met)
    shares = {n: s for n in networks(RATIOS) if (s := smaller(n)) is not None}
    text = ", ".join(f"{n} {share:.0%}" for n, share in shares.items())
    met = all(share >= SMALLER for share in shares.values()) if shares else None
    yield Goal(
        f"`best`: files at least {SMALLER:.0%} smaller than NNCodec's best at equal quality", text or "not run", met
    )
    rows = [r for n in networks(RATIOS) for r in of(n) if r["target"] is not None and r["method"] != "nearest"]
    over = [r["ratio"] / r["target"] - 1 for r in rows]
    text = f"{min(over):.3%} to {max(over):.3%} below, {len(over)} files" if over else "not run"
    met = min(over) >= 0 and max(over) <= BELOW / (1 - BELOW) if over else None
    yield Goal("recipes that learn: files within 0.5 % below their budget, always", text, met)
    coded = [r["priced_coded"] / r["priced_entropy"] - 1 for n in networks("l2-coding") for r in coding_rows(n)]
    text = f"{min(coded):+.2%} to {max(coded):+.2%}" if coded else "not run"
    yield Goal(
        "coded weights within 0.3 % of the entropy loss at every ratio", text, max(coded) <= ABOVE if coded else None
    )
    cost = [r for r in read_results(COST)[1] if "transformation" in r["iteration"]]
    if cost:
        worst = max(cost, key=lambda r: r["times_plain"])
        least, most = min(r["times_plain"] for r in cost), worst["times_plain"]
        text = f"{least:.2f} to {most:.2f} times ({worst['network']}, {worst['iteration']})"
        yield Goal("an iteration on the transformation at most 1.5 times one of training", text, most <= TIMES)


# -- tables ------------------------------------------------------------------------------------------------------------


def render(network: str) -> str:
    rows, original, source = of(network), next(iter(of(network, ORIGINAL)), {}), source_bytes(network)
    metric = quality(rows[0])
    shown = [
        (
            r["method"], f"{r['ratio']:.2f}x", f"{r['paper_ratio']:.2f}x" if "paper_ratio" in r else "",
            f"{r['file_bytes']:,}", f"{r[metric]:.4f}", f"{lost(r):.5f}",
            f"{r['cpu_seconds']:.0f}" if "cpu_seconds" in r else "", r["ratio"],
        )
        for r in rows
        if r["method"] != ORIGINAL
    ]  # fmt: skip
    shown += [
        (f"DeepCABAC, {setting}", f"{source / nbytes:.2f}x", "", f"{nbytes:,}", "", f"{kl:.5f}", "", source / nbytes)
        for setting, nbytes, kl in codec(network)
        if "," not in setting
    ]
    lines = [(ORIGINAL, "1.00x", "", f"{source:,.0f}", f"{original[metric]:.4f}", "", "")] if original else []
    lines += [row[:-1] for row in sorted(shown, key=lambda row: row[-1])]
    picture = f"![{metric} against ratio](images/l2-{network}.svg)\n\n"
    loss = "KL" if "kl" in rows[0] else "1 - cosine"
    return picture + table(("method", "ratio", "by the paper", "bytes", metric.replace("_", " "), loss, "CPU s"), lines)


def ablation(part: str, keys: tuple[str, ...], network: str) -> str:
    """Rows of one ablation, by what was varied."""
    rows = sorted(read_results(f"{part}-{network}")[1], key=lambda r: r["target"])
    return table(
        (*keys, "ratio", "by the paper", "accuracy", "KL", "agreement", "CPU s"),
        (
            (*(str(r[key]) for key in keys), f"{r['ratio']:.2f}x", f"{r['paper_ratio']:.2f}x", f"{r['accuracy']:.4f}",
             f"{r['kl']:.5f}", f"{r['agreement']:.4f}", f"{r['cpu_seconds']:.0f}")
            for r in rows
        ),
    )  # fmt: skip


def coding_rows(network: str) -> Records:
    return read_results(f"l2-coding-{network}")[1]


def coding(network: str) -> str:
    """Table 4: bytes of what the entropy loss counts, of Huffman codes, and of the file's streams."""

    def over(r: dict[str, float], what: str) -> str:
        return f"{r[what]:,.0f} ({r[what] / r['priced_entropy' if 'priced' in what else 'entropy'] - 1:+.2%})"

    return table(
        ("ratio", "entropy of weights", "Huffman", "coded", "coded, with vectors"),
        (
            (f"{r['target']}x", f"{r['priced_entropy']:,.0f}", over(r, "priced_huffman"), over(r, "priced_coded"),
             over(r, "coded"))
            for r in coding_rows(network)
        ),
    )  # fmt: skip


def cost() -> str:
    return table(
        ("network", "batch", "iteration", "ms of CPU", "times plain"),
        (
            (r["network"], str(r["batch"]), r["iteration"], f"{1e3 * r['seconds']:.0f}", f"{r['times_plain']:.2f}")
            for r in read_results(COST)[1]
        ),
    )


def short(part: str, network: str) -> str:
    """How a part's schedule was shortened."""
    rows = [r for r in read_results(f"{part}-{network}")[1] if "batch" in r]
    return SHORT.format(**rows[0]) if rows else ""


ABLATIONS = {  # part: its title, and what was varied
    "l2-forms": ("forms of the transformation (table 2)", ("form",)),
    "l2-kernels": ("kernels and resolutions of the counter (table 3)", ("kernel", "resolution")),
    "l2-calibration": ("number of images (table 5)", ("images",)),
    "l2-weights": ("transformations alone, weights as they were (table 6)", ("recipe",)),
}


def sections() -> Iterable[Section]:
    for number, name in enumerate(networks(RATIOS)):
        title = f"Recipes that learn, and the L2 paper's baselines: {name}"
        yield Section(title, (f"{RATIOS}-{name}",), NOTE, partial(render, name), goals if number == 0 else tuple)
    for part, (title, keys) in ABLATIONS.items():
        for name in networks(part):
            run = partial(ablation, part, keys, name)
            yield Section(f"The L2 paper's {title}: {name}", (f"{part}-{name}",), short(part, name), run)
    for name in networks("l2-coding"):
        note = "Bytes; what the entropy loss counts are weights, vectors have 8 bits. The counter and its kernels:\n\n"
        note += "![kernels](images/l2-kernels.svg)\n\n![counts](images/l2-counts.svg)"
        title = f"The L2 paper's entropy, Huffman and range coding (table 4): {name}"
        yield Section(title, (f"l2-coding-{name}",), note, partial(coding, name))
    note = "CPU time, medians of iterations that take turns; a plain one is forward, backward and Adam on all weights."
    yield Section("What an iteration of learning costs", (COST,), note, cost)


SECTIONS = tuple(sections())


def draw() -> None:
    """Figures 4, 5 and 7."""
    figures.kernels()
    for name in networks(RATIOS):
        metric = quality(of(name)[0])
        methods = {r["method"]: None for r in of(name) if r["target"] is not None}
        points = {m: sorted((r["ratio"], r[metric]) for r in of(name, m)) for m in methods}
        whole = next(iter(of(name, ORIGINAL)), {}).get(metric)
        figures.against_ratio(name, metric.replace("_", " "), points, whole)
