"""docs/damage.md, from the results of benchmarks.damage, benchmarks.kills and benchmarks.verification."""

from collections.abc import Iterable, Iterator
from typing import Any

from benchmarks import kills, verification
from benchmarks.common import read_results
from benchmarks.peers import damage_peer


def page(origin: dict[str, Any], records: Iterable[dict[str, Any]]) -> str:
    """docs/damage.md."""
    return "\n".join(_lines(origin, list(records))) + "\n"


def _lines(origin: dict[str, Any], records: list[dict[str, Any]]) -> Iterator[str]:
    yield "# What damage does\n"
    yield "<!-- Written by `python -m benchmarks.damage --page`; do not edit. -->\n"
    yield (
        "A model file is copied, cut off, patched and sometimes forged. What a reader makes of a file that is not\n"
        "what was written decides whether anybody notices. Here is what became of damaged files, first of tersor's\n"
        "own, then of other tools' beside them.\n"
    )
    yield "## tersor\n"
    yield "| files | damage | attempts | found | same weights | silent | other exceptions | crashes | slowest answer |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|---:|"
    for r in records:
        if r["target"] == "peers":
            continue
        if r.get("error"):
            yield f"| {r['target']} | {r['damage']} | the process died: {r['error']} | | | | | {r['crashes']} | |"
            continue
        some = f" (`{r['pattern']}`)" if r.get("pattern", "*") != "*" else ""
        what = f"{r['files']} golden files{some}" if "files" in r else f"{r['file']}, {r['bytes'] / 1e6:.1f} MB"
        found = r["attempts"] - r["silent"] - r["other_exceptions"] - r.get("same_weights", 0)
        yield (
            f"| {what} | {r['damage']} | {r['attempts']:,} | {found:,} | {r.get('same_weights', 0):,} | {r['silent']} "
            f"| {r['other_exceptions']} | {r['crashes']} | {r['slowest_seconds'] * 1e3:.0f} ms |"
        )
    yield (
        "\n*Found* means `FormatError` with one of the codes of the specification. *Silent* would mean that the\n"
        "file was decoded as if nothing had happened. Random damage is flipped bits, replaced bytes, bursts of random\n"
        "ones, zeroed sectors, parts copied over others, lost and added bytes, cut ends. What changed nothing was\n"
        "drawn again. With forged checksums, a flip may also change nothing that counts (a table nobody uses): then\n"
        "the digest vouches that the weights are the same.\n"
    )
    peers = [r for r in records if r["target"] == "peers"]
    if peers:
        yield "## Beside other formats\n"
        yield (
            "The attention of the first layer of all-MiniLM-L6-v2, stored by each tool: tersor at 8x, safetensors\n"
            "plain, ZipNN lossless, NNCodec at qp -32. Each attempt is a process of its own, with a limit of\n"
            f"{damage_peer.TIME_LIMIT} seconds. Slow tools had fewer attempts in the time given.\n"
        )
        yield "| tool | damage | attempts | found | silently wrong weights | same weights | crashes | hangs |"
        yield "|---|---|---:|---:|---:|---:|---:|---:|"
        for r in peers:
            counts = " | ".join(str(r[key]) for key in ("found", "silently wrong", "harmless", "crash", "hang"))
            yield f"| {r['tool']} {r['version']} | {r['damage']} | {r['attempts']:,} | {counts} |"
        yield (
            "\n*Found*: the tool raised an exception. *Same weights*: the damage was not noticed and did not matter.\n"
            "Files of safetensors have no checksums; a checksum kept beside such a file finds what the file itself\n"
            "cannot tell.\n"
        )
    for part, tell in (("kills", kills.lines), ("verification", verification.lines)):
        measured, found = read_results(part)
        if found:
            yield from tell(measured, found)
    yield "## How damage was measured\n"
    packages = ", ".join(f"{name} {version}" for name, version in origin["packages"].items())
    commits = ", ".join(dict.fromkeys(r["commit"] for r in records))
    yield (
        f"`python -m benchmarks.damage` on {origin['cpu']} with {origin['cores']} cores, Python {origin['python']}, "
        f"{packages}; commit {commits}, {origin['date']}. The machine was busy.\n"
        "Raw figures: [benchmarks/results/damage.jsonl](../benchmarks/results/damage.jsonl).\n"
        "Every truncation of the golden files and the flips of the smaller ones are also part of `make test`."
    )
