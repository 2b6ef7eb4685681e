"""One open file, many readers: threads, processes after a fork, interpreters without a global lock.

On free-threaded Python: `python3.13t -m venv V && V/bin/pip install . pytest hypothesis && V/bin/python -m pytest
tests/concurrency` (the last test is skipped elsewhere).
"""

from __future__ import annotations

import io
import os
import sys
import sysconfig
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers import Arrays, array_unit, container, identical, run_python

import tersor
from tersor import TensorFile
from tersor.errors import FormatError
from tersor.format.layout import LEAF
from tersor.methods import keep

RNG = np.random.default_rng(0)
ARRAYS: Arrays = {
    "wide": RNG.standard_normal((5, LEAF)).astype(np.float32),
    "half": RNG.standard_normal(3 * LEAF + 5).astype(np.float16),
    **{f"small.{k}": RNG.standard_normal((20 + k, 30)).astype(np.float32) for k in range(20)},
}


@pytest.fixture(scope="module")
def data() -> bytes:
    tensors = (keep.lossless(unit, unit.load()) for unit in (array_unit(n, a) for n, a in ARRAYS.items()))
    return container(*tensors)


@pytest.fixture(scope="module")
def path(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("shared") / "model.tsr"
    path.write_bytes(data)
    return path


def together(count: int, work: Callable[[int], None]) -> list[BaseException]:
    """Run `work` in threads that start at the same time; returns what they raised."""
    barrier, raised = threading.Barrier(count), list[BaseException]()

    def run(number: int) -> None:
        barrier.wait()
        try:
            work(number)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(k,)) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    return raised


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("kind", ["path", "bytes", "file object"])
def test_many_threads_read_one_file(data: bytes, path: Path, kind: str, workers: int) -> None:
    source = {"path": path, "bytes": data, "file object": io.BytesIO(data)}[kind]
    with TensorFile(source, workers=workers) as file:

        def work(number: int) -> None:
            names = list(np.random.default_rng(number).permutation(list(ARRAYS)))
            for name in names:
                assert identical(file[name], ARRAYS[name])
            if number == 0:
                file.verify()
            if number == 1:
                assert all(identical(array, ARRAYS[name]) for name, array in file.load().items())

        assert together(8, work) == []


def test_damage_met_by_one_thread_is_not_the_others_problem(data: bytes) -> None:
    damaged = bytearray(data)
    with TensorFile(data) as file:
        damaged[len(data) - file.entries[-1].stored] ^= 1
    last = list(ARRAYS)[-1]
    with TensorFile(bytes(damaged), workers=2) as file:

        def work(number: int) -> None:
            for _ in range(20):
                if number % 2:
                    with pytest.raises(FormatError, match="checksum"):
                        file[last]
                else:
                    assert identical(file["half"], ARRAYS["half"])

        assert together(6, work) == []


def test_closing_while_others_read(path: Path) -> None:
    """They get their weights or an error, and nothing hangs."""
    for _ in range(10):
        file = TensorFile(path, workers=2)

        def work(number: int, file: TensorFile = file) -> None:
            if number == 0:
                file.close()
                return
            for _ in range(5):
                try:
                    assert identical(file["wide"], ARRAYS["wide"])
                except (ValueError, RuntimeError, FormatError):  # closed, or the threads are gone
                    return

        assert together(4, work) == []


def test_several_compressions_at_once(model: Arrays, tmp_path: Path) -> None:
    def work(number: int) -> None:
        tersor.compress(model, tmp_path / f"{number}.tsr", ratio=8, workers=2)

    assert together(4, work) == []
    assert len({(tmp_path / f"{k}.tsr").read_bytes() for k in range(4)}) == 1


# -- fork -------------------------------------------------------------------------------------------------------------

fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

FORK = textwrap.dedent(
    """
    import hashlib, os, signal, sys, threading, time, warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is what this is about
    import tersor

    def digest(file):
        return hashlib.sha256(b"".join(file[name].tobytes() for name in file)).hexdigest()

    source, workers = sys.argv[1], int(sys.argv[2])
    file = tersor.open(open(source, "rb").read() if sys.argv[3] == "bytes" else source, workers=workers)
    expected = digest(file)  # the threads are there now
    stop = threading.Event()

    def busy():
        while not stop.is_set():
            assert digest(file) == expected

    readers = [threading.Thread(target=busy) for _ in range(2)]
    for reader in readers:
        reader.start()
    children = []
    for number in range(12):
        time.sleep(0.01)
        child = os.fork()
        if child == 0:
            signal.alarm(60)  # a deadlock ends with a signal
            wrong = digest(file) != expected or any(file.load()[n].tobytes() != file[n].tobytes() for n in file)
            file.verify()
            file.close()
            os._exit(int(wrong))
        children.append(child)
    results = [os.waitpid(child, 0)[1] for child in children]
    stop.set()
    for reader in readers:
        reader.join()
    assert digest(file) == expected  # although the children closed it
    file.close()
    print(results)
    sys.exit(any(results))
    """
)


@fork
@pytest.mark.parametrize("kind", ["path", "bytes"])
@pytest.mark.parametrize("workers", [1, 3])
def test_fork_while_threads_decode(path: Path, workers: int, kind: str) -> None:
    """Parent and children read the same descriptor at the same time, and none waits for threads that only the parent
    has."""
    done = run_python(FORK, str(path), str(workers), kind)
    assert done.returncode == 0, done.stdout + done.stderr


POOL = textwrap.dedent(
    """
    import multiprocessing, sys, warnings
    warnings.simplefilter("ignore", DeprecationWarning)
    import tersor

    file = tersor.open(sys.argv[1], workers=2)
    first = {name: file[name].tobytes() for name in file}

    def read(name):
        return name, file[name].tobytes()

    with multiprocessing.get_context("fork").Pool(3) as pool:
        for name, data in pool.map(read, list(file) * 3):
            assert data == first[name], name
    """
)


@fork
def test_pool_of_forked_processes(path: Path) -> None:
    done = run_python(POOL, str(path))
    assert done.returncode == 0, done.stderr


# -- no global interpreter lock ---------------------------------------------------------------------------------------


@pytest.mark.skipif(
    not sysconfig.get_config_var("Py_GIL_DISABLED"), reason="needs a free-threaded interpreter (python3.13t or later)"
)
def test_the_lock_stays_off_and_threads_agree(path: Path) -> None:
    """Importing the core must not bring the lock back, and threads that truly run at once must see the same bits."""
    assert not sys._is_gil_enabled()  # type: ignore[attr-defined]
    with TensorFile(path, workers=3) as file:

        def work(number: int) -> None:
            for _ in range(10):
                assert all(identical(array, ARRAYS[name]) for name, array in file.load().items())

        assert together(8, work) == []
    assert not sys._is_gil_enabled()  # type: ignore[attr-defined]
