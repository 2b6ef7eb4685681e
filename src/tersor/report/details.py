"""What a report on a file shows beside its manifest: decoded weights, tensor by tensor."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tersor.format.dtypes import DTYPES, Bytes, DType
from tersor.format.reader import TensorFile
from tersor.report import Report, TensorRow

PARTS = {
    "raw": ("bytes",),
    "uniform": ("levels", "steps"),
    "uniform2d": ("levels", "steps", "steps"),
    "companded": ("levels", "steps", "steps"),
    "trellis": ("levels", "steps", "steps"),
}
"""What the streams of an op hold."""


@dataclass(frozen=True)
class Details:
    """One tensor: its row of the report, the share of its weights that are zero, and bytes by what they hold."""

    row: TensorRow
    zeros: float
    parts: dict[str, int]

    @property
    def quantized(self) -> bool:
        """Whether its weights are levels, not their own bytes."""
        return "levels" in self.parts

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return asdict(self.row) | {"zeros": self.zeros, "parts": self.parts}


def measure(file: TensorFile) -> tuple[Report, tuple[Details, ...]]:
    """The report of a file and the details of its tensors but tied ones; decodes them, a chunk at a time."""
    report = Report.of(file.manifest, file.nbytes)
    return report, tuple(_details(file, row) for row in report.tensors if row.op != "tie")


def _details(file: TensorFile, row: TensorRow) -> Details:
    names, parts = PARTS.get(row.op, ()), dict[str, int]()
    for number, size in enumerate(row.streams):
        name = names[min(number, len(names) - 1)] if names else "bytes"
        parts[name] = parts.get(name, 0) + size
    entry = file.entry(row.name)
    dtype = DTYPES[entry.dtype]
    nonzero = sum(_nonzero(chunk, dtype) for chunk in file.chunks(row.name)) if entry.count else 0
    return Details(row, 1 - nonzero / entry.count if entry.count else 0.0, parts)


def _nonzero(chunk: Bytes, dtype: DType) -> int:
    """Elements, little endian, that are neither 0 nor -0."""
    words = chunk.reshape(-1, dtype.words, dtype.width)
    top = words[..., -1] & (0x7F if dtype.signed_float else 0xFF)
    return int((words[..., :-1].any(2) | (top != 0)).any(1).sum())
