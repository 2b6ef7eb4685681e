"""How much a file may ask for before it is refused."""

from __future__ import annotations

from dataclasses import dataclass

from tersor.errors import LimitError


@dataclass(frozen=True)
class Limits:
    """What a reader accepts. The defaults fit every published model and stop files that claim absurd sizes.

    All sizes are bytes. A decoded model may be `base_bytes` plus `expansion` times its file: honest files expand
    4 to 100 times, a bomb a million times.
    """

    manifest_bytes: int = 256 * 2**20
    tensors: int = 1_000_000
    tensor_bytes: int = 64 * 2**30
    base_bytes: int = 256 * 2**20
    expansion: int = 1024

    def check(self, what: str, asked: int, allowed: int, setting: str, where: str = "") -> None:
        """Raise `LimitError` if `asked` exceeds `allowed`."""
        if asked > allowed:
            raise LimitError(
                "limit",
                f"{what} is {asked:,}, the limit is {allowed:,}",
                where=where,
                remedy=f"if you trust the file, raise Limits.{setting} (--limit-{setting.replace('_', '-')})",
            )
