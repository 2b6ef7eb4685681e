"""Reports as text for people: plain lines where nobody watches, colours and a progress bar on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from tersor.comparison import Comparison
from tersor.job import Progress as Callback
from tersor.report import Report, TensorRow

LARGEST = 8
"""Tensors a summary names."""
NOTES = 4
"""Notes it shows."""


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=160)


@contextmanager
def progress(*, quiet: bool = False) -> Generator[Callback | None]:
    """A callback that shows a bar on a terminal (standard error), a line for every phase elsewhere, nothing if
    `quiet`. Phases count different things, bytes or iterations: what is shown is the share that is done."""
    if quiet:
        yield None
    elif sys.stderr.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
            task = bars.add_task("starting", total=None)
            yield lambda label, done, total: bars.update(task, description=label, completed=done, total=total)
    else:
        seen: set[str] = set()

        def line(label: str, done: int, total: int) -> None:
            if label not in seen:
                seen.add(label)
                print(f"{label} ...", file=sys.stderr)

        yield line


def summary(report: Report, path: Path | None) -> None:
    """What a compression gave."""
    console = _console()
    name = "would be about" if path is None else f"{_shown(str(path))}:"
    console.print(f"{name} [bold]{report.file_bytes:,} bytes[/], {_ratios(report)}")
    if report.snr_db is not None:
        console.print(f"signal-to-noise ratio of the quantized weights: {report.snr_db:.1f} dB")
    if report.quality is not None:
        console.print(_shown(str(report.quality)))
    if report.kept_whole:
        names = ", ".join(report.kept_whole[:3]) + (" ..." if len(report.kept_whole) > 3 else "")
        console.print(f"kept bit for bit, since they hold NaN or infinite weights: {_shown(names)}")
    if report.skipped:
        console.print(f"not weights, left out: {_shown(', '.join(report.skipped))}")
    for note in report.notes[:NOTES]:
        console.print(f"calibration: {_shown(note)}")
    if len(report.notes) > NOTES:
        console.print(f"calibration: {len(report.notes) - NOTES} more notes, see --json")


def inspection(report: Report, path: Path, *, tensors: bool) -> None:
    """What a file holds."""
    console = _console()
    console.print(f"{_shown(str(path))}: [bold]{report.file_bytes:,} bytes[/], {_ratios(report)}")
    recipe = ", ".join(f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in report.recipe.items())
    console.print(f"made by tersor {_shown(str(report.meta.get('tersor', '?')))}: {_shown(recipe)}")
    if report.snr_db is not None:
        console.print(f"signal-to-noise ratio of the quantized weights: {report.snr_db:.1f} dB")
    console.print(f"{len(report.tensors):,} tensors; header and manifest {report.overhead_bytes:,} bytes")
    rows = report.tensors if tensors else sorted(report.tensors, key=lambda t: -t.nbytes)[:LARGEST]
    console.print(_tensor_table(rows))
    if not tensors and len(report.tensors) > LARGEST:
        console.print(f"... and {len(report.tensors) - LARGEST:,} smaller ones (--tensors lists all)")


def comparison(result: Comparison) -> None:
    """Two models side by side."""
    table = Table(box=None, pad_edge=False)
    for title in ("tensor", "shape", "dtype", "result"):
        table.add_column(title)
    for title in ("SNR dB", "largest difference"):
        table.add_column(title, justify="right")
    for row in result.tensors:
        if row.status != "identical":
            figures = ["" if v is None else f"{v:.4g}" for v in (row.snr_db, row.largest)]
            table.add_row(_shown(row.name), _shape(row.shape), row.dtype, row.status, *figures)
    same = sum(row.status == "identical" for row in result.tensors)
    console = _console()
    if table.row_count:
        console.print(table)
    overall = "" if result.snr_db is None else f"; overall signal-to-noise ratio {result.snr_db:.2f} dB"
    console.print(f"{same:,} of {len(result.tensors):,} tensors are identical{overall}")


def methods(descriptions: list[dict[str, Any]]) -> None:
    """Every method with its settings."""
    console = _console()
    for method in descriptions:
        console.print(f"[bold]{method['name']}[/]  {_shown(method['summary'])}")
        for setting in method["settings"]:
            console.print(f"    {setting['name']} = {setting['default']}  [dim]{_shown(setting['help'])}[/]")


def _ratios(report: Report) -> str:
    bits = f", {report.bits_per_weight:.2f} bits per weight" if report.weights else ""
    wide = "" if report.float32_bytes == report.source_bytes else f" ({report.ratio_float32:.2f}x of float32)"
    return f"{report.ratio:.2f}x smaller than the {report.source_bytes:,} bytes of its tensors{wide}{bits}"


def _tensor_table(rows: Any) -> Table:
    table = Table(box=None, pad_edge=False)
    for title, justify in (("tensor", "left"), ("shape", "left"), ("dtype", "left"), ("op", "left"), ("coders", "left"),
                           ("bytes", "right"), ("bits/weight", "right")):  # fmt: skip
        table.add_column(title, justify=justify)  # type: ignore[arg-type]
    row: TensorRow
    for row in rows:
        coders = " ".join(f"{c}:{n:,}" for c, n in zip(row.coders, row.streams, strict=True))
        table.add_row(
            _shown(row.name),
            _shape(row.shape),
            row.dtype,
            row.op,
            coders,
            f"{row.nbytes:,}",
            f"{row.bits_per_weight:.2f}",
        )
    return table


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"


def _shown(text: str) -> str:
    """Text of unknown origin as it may stand on a terminal: neither markup nor control characters act."""
    return escape("".join(c if c.isprintable() else ascii(c)[1:-1] for c in text))
