"""tersor: zstd for trained neural networks.

A trained model and a size in, one small file out, and the same weights back, fast and bit for bit the ones that were
measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tersor._version import __version__
from tersor.errors import TersorError
from tersor.format.limits import Limits
from tersor.format.reader import TensorFile
from tersor.runtime import decompress, load, load_into, open, verify

if TYPE_CHECKING:
    from tersor.comparison import compare as compare
    from tersor.engine import compress as compress

__all__ = [
    "Limits",
    "TensorFile",
    "TersorError",
    "__version__",
    "compare",
    "compress",
    "decompress",
    "load",
    "load_into",
    "open",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Import the compressing half only when it is used: decoding starts faster without it."""
    if name == "compress":
        from tersor.engine import compress

        return compress
    if name == "compare":
        from tersor.comparison import compare

        return compare
    raise AttributeError(f"module 'tersor' has no attribute {name!r}")
