"""Types of the native core; see core/tersor.h for what its functions promise."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Bytes: TypeAlias = bytes | npt.NDArray[np.uint8]

LEAF: int

class StreamError(ValueError): ...

def hash(data: Bytes, seed: int = 0) -> int: ...
def check_prelude(data: Bytes) -> None: ...
def decode_integers(prelude: Bytes | None, type: int, data: Bytes, count: int) -> npt.NDArray[np.int32]: ...
def decode_uniform(
    out: npt.NDArray[np.uint8],
    type: int,
    prelude: Bytes | None,
    level_type: int,
    data: Bytes,
    count: int,
    steps: npt.NDArray[np.float32],
    row_steps: npt.NDArray[np.uint8] | None,
    row_length: int,
    first: int,
    offset: float,
    low_bits: int = 0,
    low_prelude: Bytes | None = None,
    low_data: Bytes | None = None,
) -> npt.NDArray[np.uint64]: ...
def decode_planes(
    out: npt.NDArray[np.uint8],
    preludes: Sequence[Bytes | None],
    data: Sequence[Bytes],
    count: int,
    width: int,
    rotate: bool,
) -> npt.NDArray[np.uint64]: ...
def histogram(values: npt.NDArray[np.int32]) -> tuple[int, npt.NDArray[np.uint64]]: ...
def round_table(counts: npt.NDArray[np.uint64], precision: int) -> npt.NDArray[np.uint16] | None: ...
def write_prelude(lanes_log2: int, tables: Sequence[tuple[int, int, npt.NDArray[np.uint16]]]) -> bytes: ...
def encode_chunk(values: npt.NDArray[np.int32], prelude: Bytes, table_index: int) -> bytes: ...
def split_planes(data: Bytes, stored: int, width: int, rotate: bool) -> npt.NDArray[np.uint8]: ...
def quantize(
    weights: npt.NDArray[np.float32], step: float, bits: npt.NDArray[np.float32], levels: npt.NDArray[np.int32]
) -> None: ...
