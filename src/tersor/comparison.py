"""Two models, tensor by tensor: tersor files or anything `open_source` takes, in any combination."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tersor.format.dtypes import DTYPES, Bytes, to_numpy
from tersor.format.reader import TensorFile
from tersor.sources import open_source

MAGIC_SUFFIX = ".tsr"


@dataclass(frozen=True)
class TensorDifference:
    """How one tensor differs; `None` figures where they make no sense."""

    name: str
    status: str  # "identical", "close", "shape", "dtype", "only in A", "only in B"
    shape: tuple[int, ...]
    dtype: str
    snr_db: float | None = None  # of B as a copy of A
    largest: float | None = None  # largest absolute difference, if it is finite


@dataclass(frozen=True)
class Comparison:
    """All tensors of two models side by side."""

    tensors: tuple[TensorDifference, ...]
    snr_db: float | None  # over all floating-point tensors that both have

    @property
    def identical(self) -> bool:
        """Whether every tensor is in both, bit for bit."""
        return all(t.status == "identical" for t in self.tensors)

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return asdict(self) | {"identical": self.identical}


@dataclass(frozen=True)
class _Tensor:
    dtype: str
    shape: tuple[int, ...]
    load: Callable[[], Bytes]


def compare(a: Any, b: Any) -> Comparison:
    """Compare two models; one tensor of each is in memory at a time. The SNR is the sum of squares of A over that of
    A - B."""
    rows: list[TensorDifference] = []
    energy = error = 0.0
    with ExitStack() as files:
        left, right = _tensors(a, files), _tensors(b, files)
        for name in [*left, *(n for n in right if n not in left)]:
            if name not in left or name not in right:
                only = left.get(name) or right[name]
                rows.append(TensorDifference(name, f"only in {'A' if name in left else 'B'}", only.shape, only.dtype))
                continue
            row, tensor_energy, tensor_error = _difference(name, left[name], right[name])
            rows.append(row)
            if DTYPES[left[name].dtype].signed_float:
                energy += tensor_energy
                error += tensor_error
    return Comparison(tuple(rows), _decibels(energy, error))


def _tensors(model: Any, files: ExitStack) -> dict[str, _Tensor]:
    if isinstance(model, (str, os.PathLike)) and Path(model).suffix == MAGIC_SUFFIX:
        file = files.enter_context(TensorFile(model))
        return {e.name: _Tensor(e.dtype, e.shape, lambda n=e.name: file.stored(n)) for e in file.entries}
    return {u.name: _Tensor(u.dtype, u.shape, u.load) for u in open_source(model).units()}


def _difference(name: str, a: _Tensor, b: _Tensor) -> tuple[TensorDifference, float, float]:
    if a.shape != b.shape:
        return TensorDifference(name, "shape", b.shape, b.dtype), 0.0, 0.0
    first, second = a.load(), b.load()
    if a.dtype == b.dtype and np.array_equal(first, second):
        return TensorDifference(name, "identical", a.shape, a.dtype), _energy(first, a), 0.0
    x, y = _wide(first, a), _wide(second, b)
    with np.errstate(invalid="ignore"):
        difference = np.abs(x - y)
    energy, error = float(np.square(np.abs(x)).sum()), float(np.square(difference).sum())
    status = "close" if a.dtype == b.dtype else "dtype"
    largest = float(difference.max()) if difference.size else 0.0
    figure = largest if math.isfinite(largest) else None
    row = TensorDifference(name, status, b.shape, b.dtype, _decibels(energy, error), figure)
    return row, energy if math.isfinite(error) else 0.0, error if math.isfinite(error) else 0.0


def _energy(data: Bytes, tensor: _Tensor) -> float:
    values = _wide(data, tensor)
    return float(np.square(np.abs(values)).sum()) if np.isfinite(values).all() else 0.0


def _wide(data: Bytes, tensor: _Tensor) -> npt.NDArray[Any]:
    values = to_numpy(data, tensor.dtype, tensor.shape)
    return values.astype(np.complex128 if tensor.dtype == "C64" else np.float64)


def _decibels(energy: float, error: float) -> float | None:
    if not (energy > 0 and error > 0 and math.isfinite(energy) and math.isfinite(error)):
        return None
    return 10 * math.log10(energy / error)
