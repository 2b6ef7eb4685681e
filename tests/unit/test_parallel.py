from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from tersor.parallel import IN_FLIGHT, for_each
from tersor.sources import Unit


def unit(k: int, nbytes: int = 10) -> Unit:
    return Unit(f"u{k}", "U8", (nbytes,), lambda: np.zeros(0, np.uint8))


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_results_keep_the_order(workers: int) -> None:
    units = [unit(k, k) for k in range(40)]

    def work(u: Unit) -> str:
        time.sleep(0.001 * (u.nbytes % 3))
        return u.name

    progress: list[int] = []
    assert for_each(work, units, workers, progress.append) == [u.name for u in units]
    assert progress == sorted(progress) and progress[-1] == sum(range(40)) and len(progress) == 40


def test_nothing_to_do() -> None:
    assert for_each(lambda u: 1, [], 3, lambda n: None) == []


def test_results_may_be_none() -> None:
    assert for_each(lambda u: None, [unit(1), unit(2)], 2, lambda n: None) == [None, None]


@pytest.mark.parametrize(
    ("sizes", "workers", "most"),
    [([10] * 20, 3, 3), ([IN_FLIGHT // 2] * 8, 4, 2), ([IN_FLIGHT // 2 + 1] * 5, 4, 1), ([3 * IN_FLIGHT] * 3, 4, 1)],
)
def test_memory_and_workers_are_bounded(sizes: list[int], workers: int, most: int) -> None:
    lock, running, seen = threading.Lock(), 0, 0

    def work(_: Unit) -> None:
        nonlocal running, seen
        with lock:
            running += 1
            seen = max(seen, running)
        time.sleep(0.01)
        with lock:
            running -= 1

    for_each(work, [unit(k, size) for k, size in enumerate(sizes)], workers, lambda n: None)
    assert 1 <= seen <= most


def test_progress_comes_from_the_calling_thread() -> None:
    threads: set[threading.Thread] = set()
    for_each(lambda u: 1, [unit(k) for k in range(9)], 3, lambda n: threads.add(threading.current_thread()))
    assert threads == {threading.current_thread()}


@pytest.mark.parametrize("workers", [1, 3])
def test_first_error_ends_the_work(workers: int) -> None:
    done: list[str] = []

    def work(u: Unit) -> None:
        if u.name == "u5":
            raise KeyError(u.name)
        done.append(u.name)

    with pytest.raises(KeyError, match="u5"):
        for_each(work, [unit(k) for k in range(1000)], workers, lambda n: None)
    assert len(done) < 1000
