"""Memory that was freed, given back to the system."""

from __future__ import annotations

import ctypes

EVERY = 4
"""Samples between two returns of what they left."""


def trim() -> None:
    """Have the C library return what was freed, where it is glibc; elsewhere nothing is done.

    It keeps blocks of up to 32 MiB for later, and what is allocated between two of them keeps them apart: outputs of a
    language model would take as much again every few samples.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):
        return


def trim_after(number: int) -> None:
    """`trim` after one in `EVERY` samples: what was given back has to be asked for anew, a third of the time."""
    if number % EVERY == EVERY - 1:
        trim()
