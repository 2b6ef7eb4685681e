"""Bar charts as SVG, by hand: a few rectangles and lines need no library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT = 720, 190
LEFT, TOP, BOTTOM = 64, 12, 24
ROW, NAMES, FIGURES = 26, 260, 100
"""Of horizontal bars: their distance, and the room for names and figures beside them."""
LONGEST_NAME = 28


def columns(values: Sequence[tuple[str, float]], colour: str, tip: str, *, share: bool = False) -> str:
    """Upright bars in a row, numbered from 1; names and values (as `tip` writes them) show under the pointer."""
    top, step = (1.0, 0.25) if share else _axis(max((value for _, value in values), default=0.0) or 1.0)
    inner, depth = WIDTH - LEFT - 8, HEIGHT - TOP - BOTTOM
    pitch, parts = inner / max(1, len(values)), list[str]()
    for number in range(round(top / step) + 1):
        value = number * step
        y = TOP + depth * (1 - value / top)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - 8}" y1="{y:.1f}" y2="{y:.1f}"/>')
        if not share or number % 2 == 0:
            label = f"{value:.0%}" if share else f"{value:g}"
            parts.append(f'<text x="{LEFT - 6}" y="{y + 5:.1f}" text-anchor="end">{label}</text>')
    for number, (name, value) in enumerate(values):
        high = depth * value / top
        x, width = LEFT + pitch * number + 0.1 * pitch, 0.8 * pitch
        parts.append(
            f'<rect x="{x:.2f}" y="{TOP + depth - high:.2f}" width="{width:.2f}" height="{high:.2f}" '
            f'fill="var(--{colour})"><title>{number + 1}: {escape(name)}\n{tip.format(value)}</title></rect>'
        )
    for number in _ticks(len(values)):
        x = LEFT + pitch * (number - 0.5)
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 6}" text-anchor="middle">{number}</text>')
    return _svg(HEIGHT, parts, tip.split(" ", 1)[1] + " by layer")


def bars(rows: Sequence[tuple[str, Mapping[str, int]]]) -> str:
    """Lying bars with names and totals, each in the parts it is made of."""
    most = max((sum(parts.values()) for _, parts in rows), default=1) or 1
    inner, found = WIDTH - NAMES - FIGURES, list[str]()
    for number, (name, parts) in enumerate(rows):
        y, x = ROW * number, float(NAMES)
        short = name if len(name) <= LONGEST_NAME else f"...{name[3 - LONGEST_NAME :]}"
        found.append(f'<text class="name" x="{NAMES - 8}" y="{y + 17}" text-anchor="end">{escape(short)}</text>')
        for part, size in parts.items():
            width = inner * size / most
            found.append(
                f'<rect x="{x:.2f}" y="{y + 4}" width="{width:.2f}" height="{ROW - 8}" fill="var(--{part})">'
                f"<title>{escape(name)}\n{part}: {size:,} bytes</title></rect>"
            )
            x += width
        found.append(f'<text x="{x + 6:.1f}" y="{y + 17}">{sum(parts.values()):,}</text>')
    return _svg(ROW * len(rows) + 4, found, "bytes by tensor")


def _svg(height: int, parts: Sequence[str], label: str) -> str:
    inside = "\n".join(parts)
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">\n{inside}\n</svg>'


def _axis(most: float) -> tuple[float, float]:
    """The end of an axis and the distance of its lines, for values up to `most`: 4 to 8 of them."""
    rough = most / 4
    scale = 10 ** math.floor(math.log10(rough))
    step = next(scale * nice for nice in (1, 2, 2.5, 5, 10) if scale * nice >= rough * 0.999)
    return step * max(1, math.ceil(most / step * 0.999)), step


def _ticks(count: int) -> list[int]:
    """Numbers to write under a row of bars: the first, and every so many."""
    if count == 0:
        return []
    every = next(step for step in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, count) if count / step <= 12)
    return [1, *(n for n in range(every, count + 1, every) if n > 1)]
