"""How much a file may ask for before it is refused."""

from __future__ import annotations

from dataclasses import dataclass

from tersor.errors import LimitError

MANIFEST_BASE = 2**16
"""A small manifest of nothing but zeros may deflate a thousandfold, and inflates in no time."""
ITEMS_BASE = 2**14
"""The same for its numbers, texts, arrays and maps, which parse in less than 20 ms."""
ADAPTIVE_BASE = 2**20
"""Symbols of coder `adaptive` that any file may have: a chunk, which takes at most half a second."""


@dataclass(frozen=True)
class Limits:
    """What a reader accepts. The defaults fit every published model and stop files that claim absurd sizes.

    All sizes are bytes. A decoded model may be `base_bytes` plus `expansion` times its file: honest files expand
    4 to 100 times, a bomb a million times. A manifest may be 64 KiB plus `manifest_expansion` times its deflated size:
    honest ones expand 3 to 5 times, thousands of equal scalars 29 times, a bomb a thousand times. It may hold 16384
    numbers, texts, arrays and maps plus `manifest_items` for every byte of its deflated size: honest ones hold up to
    1.6, thousands of equal scalars 7.9, a bomb a thousand. Decoding a tensor may take `scratch_bytes` beside its
    result: the tables, classes and indices of its streams, and a chunk of each; honest ones take up to 10 MB. Symbols
    of coder `adaptive`, a hundred times as slow as others, may be 2^20 plus `adaptive_expansion` for every byte of the
    file: honest ones are 1 to 10, and where they were more tersor takes another coder; a bomb has ten thousand.
    """

    manifest_bytes: int = 256 * 2**20
    manifest_expansion: int = 32
    manifest_items: int = 8
    tensors: int = 1_000_000
    tensor_bytes: int = 64 * 2**30
    base_bytes: int = 256 * 2**20
    expansion: int = 1024
    scratch_bytes: int = 45 * 2**20
    adaptive_expansion: int = 128

    def check_manifest(self, size: int, stored: int) -> None:
        """Raise `LimitError` if a manifest of `stored` bytes may not inflate to `size`."""
        self.check("the manifest's size", size, self.manifest_bytes, "manifest_bytes", "manifest")
        allowed = MANIFEST_BASE + self.manifest_expansion * stored
        self.check("the manifest's size", size, allowed, "manifest_expansion", "manifest")

    def most_items(self, stored: int) -> int:
        """How many items a manifest of `stored` bytes may hold."""
        return ITEMS_BASE + self.manifest_items * stored

    def check_decoded(self, what: str, size: int, stored: int) -> None:
        """Raise `LimitError` if a file of `stored` bytes may not decode to `size`."""
        self.check(what, size, self.base_bytes + self.expansion * stored, "expansion")

    def check_adaptive(self, symbols: int, stored: int) -> None:
        """Raise `LimitError` if a file of `stored` bytes may not have so many symbols of coder `adaptive`."""
        allowed = ADAPTIVE_BASE + self.adaptive_expansion * stored
        self.check("the number of symbols of coder adaptive", symbols, allowed, "adaptive_expansion")

    def check(self, what: str, asked: int, allowed: int, setting: str, where: str = "") -> None:
        """Raise `LimitError` if `asked` exceeds `allowed`."""
        if asked > allowed:
            raise self.exceeded(what, asked, allowed, setting, where)

    def exceeded(self, what: str, asked: int, allowed: int, setting: str, where: str = "") -> LimitError:
        """The error that says so."""
        return LimitError(
            "limit",
            f"{what} is {asked:,}, the limit is {allowed:,}",
            where=where,
            remedy=f"if you trust the file, raise Limits.{setting} (--limit-{setting.replace('_', '-')})",
        )
