"""Work on units, several at a time, within bounds of memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from tersor.memory import trim
from tersor.sources import Unit

T = TypeVar("T")

IN_FLIGHT = 128 * 2**20
"""Bytes of units being worked on at once; a single larger one is taken alone."""

LARGE = 2**22
"""Bytes of a unit beyond which what it needed is given back to the system before the next."""


def for_each(work: Callable[[Unit], T], units: Sequence[Unit], workers: int, done: Callable[[int], None]) -> list[T]:
    """Results of `work` in the order of `units`; `done` is told the bytes finished so far, from the calling thread.

    The first error ends the work: units that have not begun are dropped, those under way finish first.
    """
    results: dict[int, T] = {}
    finished = 0
    running: dict[Future[T], int] = {}

    def collect() -> None:
        nonlocal finished
        ready, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in ready:
            index = running.pop(future)
            results[index] = future.result()
            finished += units[index].nbytes
            done(finished)
            if units[index].nbytes > LARGE:
                trim()

    with ThreadPoolExecutor(workers) as pool:
        for index, unit in enumerate(units):
            while running and (
                len(running) >= workers or unit.nbytes + sum(units[k].nbytes for k in running.values()) > IN_FLIGHT
            ):
                collect()
            running[pool.submit(work, unit)] = index
        while running:
            collect()
    trim()
    return [results[index] for index in range(len(units))]
