"""Where a file's bytes are, and bits against sensitivity."""

from functools import partial

from benchmarks.common import read_results

from . import figures
from ._section import Records, Section, table

PART = "anatomy"
NOTE = """Sensitivity is what the output loses when noise of 1 % of its power is added to one matrix alone. If noise \
cost the same everywhere, a weight that it costs twice as much would get half a bit more."""


def of(network: str) -> dict[str, Records]:
    """Tensors by recipe."""
    found: dict[str, Records] = {}
    for r in read_results(PART)[1]:
        if r["network"] == network:
            found.setdefault(r["recipe"], []).append(r)
    return found


def networks() -> list[str]:
    return list(dict.fromkeys(r["network"] for r in read_results(PART)[1]))


def render(network: str) -> str:
    rows = []
    for recipe, tensors in of(network).items():
        sizes = [sum(t["parts"].get(part, 0) for t in tensors) for part in figures.PARTS]
        rows.append((recipe, f"{tensors[0]['ratio']:g}x", *(f"{size:,}" for size in sizes)))
    pictures = (("where the bytes are", f"bytes-{network}"), ("bits against sensitivity", f"sensitivity-{network}"))
    text = "".join(f"![{what}](images/{name}.svg)\n\n" for what, name in pictures)
    return text + table(("recipe", "ratio", *(label for _, label in figures.PARTS.values())), rows)


def draw() -> None:
    for network in networks():
        recipes = of(network)
        recipe, tensors = list(recipes.items())[-1]
        figures.bytes_by_tensor(network, recipe, tensors)
        figures.bits_by_sensitivity(network, [r for rows in recipes.values() for r in rows])


SECTIONS = tuple(
    Section(f"Bytes and bits by tensor: {name}", (PART,), NOTE, partial(render, name)) for name in networks()
)
