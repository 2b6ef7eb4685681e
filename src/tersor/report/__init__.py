"""What a file holds and what it cost, as data first; text is a view of it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from tersor.format.dtypes import DTYPES
from tersor.format.manifest import Entry, Manifest
from tersor.sources import Unit

if TYPE_CHECKING:
    from tersor.evaluate.quality import Quality


@dataclass(frozen=True)
class TensorRow:
    """One tensor of a report."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    op: str  # "tie" for a tensor that shares another's weights
    coders: tuple[str, ...]
    nbytes: int  # of its streams in the file
    streams: tuple[int, ...]
    bits_per_weight: float

    @classmethod
    def of(cls, entry: Entry) -> TensorRow:
        """The row of a file's entry."""
        streams = [s for step in entry.chain for s in step.streams]
        return cls(
            entry.name,
            entry.dtype,
            entry.shape,
            entry.chain[0].op if entry.chain else "tie",
            tuple(s.coder for s in streams),
            entry.stored,
            tuple(s.nbytes for s in streams),
            8 * entry.stored / entry.count if entry.count else 0.0,
        )


@dataclass(frozen=True)
class Report:
    """Everything measured about a compressed model. Sizes are exact bytes; `predicted` ones come from samples."""

    file_bytes: int
    source_bytes: int  # of the source's tensors in their own dtypes, tied ones once
    float32_bytes: int  # of the same weights in float32
    weights: int  # floating-point elements
    overhead_bytes: int  # header and manifest
    tensors: tuple[TensorRow, ...]
    meta: dict[str, Any]
    predicted: bool = False
    skipped: tuple[str, ...] = ()  # what the source holds beside weights
    kept_whole: tuple[str, ...] = ()  # tensors with NaN or infinite weights
    notes: tuple[str, ...] = ()  # what calibration could not learn
    quality: Quality | None = None  # of the weights decoded from the file, if it was asked for

    @classmethod
    def of(cls, manifest: Manifest, file_bytes: int) -> Report:
        """The report of a manifest and the size of its file."""
        own = [e for e in manifest.entries if e.tie is None]
        floats = [e for e in own if DTYPES[e.dtype].signed_float]
        other = sum(e.nbytes for e in own) - sum(e.nbytes for e in floats)
        return cls(
            file_bytes,
            sum(e.nbytes for e in own),
            sum(4 * e.words for e in floats) + other,
            sum(e.count for e in floats),
            file_bytes - manifest.data_size,
            tuple(TensorRow.of(e) for e in manifest.entries),
            dict(manifest.meta),
        )

    @classmethod
    def predict(cls, units: Sequence[Unit], sizes: Mapping[str, int], quantized: Collection[str], total: int) -> Report:
        """The report of a file that was not written: `sizes` are predicted bytes of the streams of every unit."""
        own = [u for u in units if u.tied_to is None]
        floats = [u for u in own if DTYPES[u.dtype].signed_float]
        other = sum(u.nbytes for u in own) - sum(u.nbytes for u in floats)
        rows = [
            TensorRow(
                u.name, u.dtype, u.shape, "tie" if u.tied_to else "uniform" if u.name in quantized else "raw", (),
                sizes.get(u.name, 0), (), 8 * sizes.get(u.name, 0) / u.count if u.count else 0.0,
            )
            for u in units
        ]  # fmt: skip
        return cls(
            total, sum(u.nbytes for u in own), sum(4 * DTYPES[u.dtype].words * u.count for u in floats) + other,
            sum(u.count for u in floats), total - sum(sizes.values()), tuple(rows), {}, predicted=True,
        )  # fmt: skip

    @property
    def ratio(self) -> float:
        """Source bytes in their own dtypes over file bytes."""
        return self.source_bytes / self.file_bytes

    @property
    def ratio_float32(self) -> float:
        """The same against float32."""
        return self.float32_bytes / self.file_bytes

    @property
    def bits_per_weight(self) -> float:
        """Bits of the whole file per floating-point weight."""
        return 8 * self.file_bytes / self.weights if self.weights else math.nan

    @property
    def recipe(self) -> dict[str, Any]:
        """The method and settings that made the file, as it notes them; empty if it does not."""
        noted = self.meta.get("recipe")
        return dict(noted) if isinstance(noted, dict) else {}  # pyright: ignore[reportUnknownArgumentType]

    @property
    def snr_db(self) -> float | None:
        """Signal-to-noise ratio of the decoded weights in decibels; None if nothing was lost or it was not measured."""
        noted = self.meta.get("snr_db")
        return noted if isinstance(noted, float) else None

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        derived = {
            "ratio": self.ratio,
            "ratio_float32": self.ratio_float32,
            "bits_per_weight": None if math.isnan(self.bits_per_weight) else self.bits_per_weight,
        }
        return asdict(self) | derived
