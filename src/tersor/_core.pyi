"""Types of the native core; see core/tersor.h for what its functions promise."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Bytes: TypeAlias = bytes | npt.NDArray[np.uint8]

LEAF: int
PATCH_BITS: float
MANY: int

class StreamError(ValueError): ...

def hash(data: Bytes, seed: int = 0) -> int: ...

class Prelude:
    def __init__(self, data: Bytes, coder: int = 0, count: int = 0) -> None: ...
    @property
    def lanes(self) -> int: ...

def decode_integers(
    prelude: Prelude | None, type: int, data: Bytes, count: int, first: int = 0, simd: int = 2
) -> npt.NDArray[np.int32]: ...
def decode_bytes(
    out: npt.NDArray[np.uint8], prelude: Prelude | None, type: int, data: Bytes, first: int = 0
) -> None: ...
def decode_uniform(
    out: npt.NDArray[np.uint8],
    type: int,
    prelude: Prelude | None,
    level_type: int,
    data: Bytes,
    count: int,
    steps: npt.NDArray[np.float32],
    row_steps: npt.NDArray[np.uint8] | None,
    row_length: int,
    first: int,
    offset: float,
    low_bits: int = 0,
    low_prelude: Prelude | None = None,
    low_data: Bytes | None = None,
    column_steps: npt.NDArray[np.float32] | None = None,
    values: npt.NDArray[np.float32] | None = None,
    trellis: bool = False,
    rows: int = 0,
) -> npt.NDArray[np.uint64]: ...
def decode_planes(
    out: npt.NDArray[np.uint8],
    preludes: Sequence[Prelude | None],
    data: Sequence[Bytes],
    first: int,
    count: int,
    width: int,
    rotate: bool,
) -> npt.NDArray[np.uint64]: ...
def histogram(values: npt.NDArray[np.int32]) -> tuple[int, npt.NDArray[np.uint64]]: ...
def round_table(counts: npt.NDArray[np.uint64], precision: int) -> npt.NDArray[np.uint16] | None: ...
def write_tables(head: Bytes, tables: Sequence[tuple[int, int, npt.NDArray[np.uint16]]]) -> bytes: ...
def fit_table(
    lowest: int, counts: npt.NDArray[np.uint64], total: int, first: int, last: int
) -> tuple[int, int, npt.NDArray[np.uint16]]: ...
def payload_bits(
    precision: int,
    table_lowest: int,
    frequencies: npt.NDArray[np.uint16],
    lowest: int,
    counts: npt.NDArray[np.uint64],
    total: int,
) -> float: ...
def entropies(counts: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.uint64]]: ...
def encode_chunk(values: npt.NDArray[np.int32], prelude: Prelude, table: int = 0, first: int = 0) -> bytes: ...
def context_histogram(
    values: npt.NDArray[np.int32], lanes: int, reach: int, counts: npt.NDArray[np.uint64]
) -> None: ...
def magnitudes(
    values: npt.NDArray[np.int32], first: int, rows: npt.NDArray[np.float64], columns: npt.NDArray[np.float64]
) -> None: ...
def class_histogram(
    values: npt.NDArray[np.int32],
    first: int,
    rows: npt.NDArray[np.uint8],
    columns: npt.NDArray[np.uint8],
    lowest: int,
    span: int,
    counts: npt.NDArray[np.uint64],
) -> int: ...
def side_histogram(
    values: npt.NDArray[np.int32],
    first: int,
    other: npt.NDArray[np.uint8],
    by_row: bool,
    lowest: int,
    span: int,
    counts: npt.NDArray[np.float32],
) -> None: ...
def add_by_class(
    counts: npt.NDArray[np.float32], classes: npt.NDArray[np.uint8], sums: npt.NDArray[np.uint64]
) -> None: ...
def class_costs(
    values: npt.NDArray[np.int32],
    first: int,
    side: int,
    other: npt.NDArray[np.uint8],
    by_row: bool,
    lowest: int,
    bits: npt.NDArray[np.float32],
    tables: int,
    costs: npt.NDArray[np.float32],
) -> None: ...
def split_planes(data: Bytes, stored: int, width: int, rotate: bool) -> npt.NDArray[np.uint8]: ...
def quantize(
    weights: npt.NDArray[np.float32], step: float, bits: npt.NDArray[np.float32], levels: npt.NDArray[np.int32]
) -> None: ...

# coder adaptive
def count_runs(values: npt.NDArray[np.int32], skips: npt.NDArray[np.uint64]) -> None: ...
def encode_runs(values: npt.NDArray[np.int32], prelude: Prelude) -> bytes: ...
def encode_adaptive(values: npt.NDArray[np.int32], prelude: Bytes, first: int) -> bytes: ...

# feedback.h
def feedback_round(
    residual: npt.NDArray[np.float32],
    factor: npt.NDArray[np.float32],
    row_step: npt.NDArray[np.float32],
    column_step: npt.NDArray[np.float32],
    row_weight: npt.NDArray[np.float32],
    row_class: npt.NDArray[np.uint8],
    column_class: npt.NDArray[np.uint8],
    bits: npt.NDArray[np.float32],
    quadratic: float,
    row_factor: npt.NDArray[np.float32],
    spared: npt.NDArray[np.float32],
    errors: npt.NDArray[np.float32],
    levels: npt.NDArray[np.int32],
) -> None: ...
def feedback_count(
    levels: npt.NDArray[np.int32],
    row_class: npt.NDArray[np.uint8],
    column_class: npt.NDArray[np.uint8],
    counts: npt.NDArray[np.uint64],
) -> None: ...
def soft_bits(
    codes: list[npt.NDArray[np.float32]],
    kernel: int,
    resolution: float,
    most: int,
    gradients: list[npt.NDArray[np.float32]],
) -> list[float]: ...
def joint(
    weights: list[npt.NDArray[np.float32]],
    steps: npt.NDArray[np.float32],
    thresholds: npt.NDArray[np.float32],
    codes: list[npt.NDArray[np.float32]],
    rebuilt: list[npt.NDArray[np.float32]],
) -> None: ...
def joint_gradient(
    codes: list[npt.NDArray[np.float32]],
    steps: npt.NDArray[np.float32],
    thresholds: npt.NDArray[np.float32],
    by_rebuilt: list[npt.NDArray[np.float32]],
    by_code: list[npt.NDArray[np.float32]],
    gradients: list[npt.NDArray[np.float32]],
    step_gradients: npt.NDArray[np.float32],
    threshold_gradients: npt.NDArray[np.float32],
) -> None: ...

# trellis.h
def trellis_round(
    target: npt.NDArray[np.float32],
    weight: npt.NDArray[np.float32],
    fold: npt.NDArray[np.float32],
    row_class: npt.NDArray[np.uint8],
    column_class: int,
    bits: npt.NDArray[np.float32],
    first: int,
    row_length: int,
    chunk: int,
    levels: npt.NDArray[np.int32],
    values: npt.NDArray[np.int32],
) -> None: ...
