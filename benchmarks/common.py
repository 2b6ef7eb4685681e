"""What the benchmark scripts share: where results go, what machine they came from, and how times are taken."""

import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PEERS = ROOT / "benchmarks" / "peers"
PACKAGES = ("tersor", "numpy", "torch", "transformers", "gguf", "nncodec", "zipnn", "lmzip", "z4ai", "zstandard",
            "constriction", "brotli")  # fmt: skip
BUILD = ["CMakeLists.txt", "pyproject.toml", "src"]


class Results:
    """The file benchmarks/results/PART.jsonl: a first line that says where and when, then one record a line.

    Records appear as they are found, in a file that replaces the old one when the part is complete.
    """

    def __init__(self, part: str) -> None:
        self.part = part
        self._path = RESULTS / f"{part}.jsonl"
        self._partial = self._path.with_suffix(".partial")

    def __enter__(self) -> Self:
        RESULTS.mkdir(exist_ok=True)
        self._file = self._partial.open("w")
        self._write({"part": self.part, **origin()})
        return self

    def add(self, **record: Any) -> None:
        """Note a record and show it."""
        self._write(record)
        print(self.part, *(f"{key}={_short(value)}" for key, value in record.items()), flush=True)

    def _write(self, record: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if kind is None:
            self._partial.replace(self._path)


class Table:
    """The file benchmarks/results/PART.jsonl of records that come and are replaced one by one: `key` names a record.

    Every record says by which commit and when it was found; the first line is that of the last run. A run that is cut
    loses nothing, and two may run at once.
    """

    def __init__(self, part: str, *key: str) -> None:
        self.part, self.key = part, key
        RESULTS.mkdir(exist_ok=True)
        self._path = RESULTS / f"{part}.jsonl"
        self._origin = origin()

    def known(self) -> set[tuple[Any, ...]]:
        """The keys of all records."""
        return {self._key(record) for record in read_results(self.part)[1]}

    def add(self, **record: Any) -> None:
        """Note a record, in the place of the one with its key if there is one, and show it."""
        now = datetime.now(UTC).isoformat(timespec="minutes")
        print(self.part, *(f"{key}={_short(value)}" for key, value in record.items()), flush=True)
        folder = os.open(RESULTS, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            records = {self._key(r): r for r in read_results(self.part)[1]}
            records[self._key(record)] = record | {"commit": self._origin["commit"], "date": now}
            lines = ({"part": self.part, **self._origin, "date": now}, *records.values())
            new = self._path.with_suffix(".new")
            new.write_text("".join(json.dumps(line) + "\n" for line in lines))
            new.replace(self._path)
        finally:
            os.close(folder)  # and its lock goes

    def _key(self, record: Mapping[str, Any]) -> tuple[Any, ...]:
        return tuple(record.get(name) for name in self.key)


def _short(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def origin() -> dict[str, Any]:
    """Machine, versions, commit and date."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "packages": packages,
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def commit() -> str:
    """The last commit that changed the code that runs; if its sources were changed since, with a hash of the change."""
    head = _git("log", "-1", "--format=%h", "--", *BUILD).decode().strip()
    change = _git("diff", "HEAD", "--", *BUILD)
    return f"{head} with changes {hashlib.sha256(change).hexdigest()[:8]}" if change else head


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True).stdout


class Seconds(NamedTuple):
    """Of one call: by the clock, and of the process on all its processors."""

    wall: float
    cpu: float


def timed(call: Callable[[], Any]) -> Seconds:
    """One call."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return Seconds(time.perf_counter() - wall, time.process_time() - cpu)


def fastest(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, Seconds]:
    """The least time of each call over `rounds` rounds in which they take turns: what a quiet machine would show."""
    found: dict[str, list[Seconds]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            found[name].append(timed(call))
    return {n: Seconds(min(s.wall for s in t), min(s.cpu for s in t)) for n, t in found.items()}


def memcpy_calls(nbytes: int) -> Callable[[], None]:
    """Copy so many bytes between two buffers that are in memory already."""
    source, target = np.ones(nbytes, np.uint8), np.ones(nbytes, np.uint8)
    return lambda: np.copyto(target, source)


def environment(folder: Path, *packages: str) -> Path:
    """A new virtual environment with these packages and a tersor built from this tree; its interpreter."""
    python = folder / "bin" / "python"
    quiet = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if not python.exists():
        subprocess.run(["python3", "-m", "venv", str(folder)], check=True)
    if packages:
        subprocess.run([*quiet, *packages], check=True)
    install_tersor(python)
    return python


def install_tersor(python: Path) -> None:
    """Build tersor from this tree (in a build folder of its own) and install it alone, without what it depends on."""
    build = f"--config-settings=build-dir={python.parent.parent / 'tersor-build'}"
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--force-reinstall"]
    subprocess.run([*command, "--no-deps", build, str(ROOT)], check=True)


def read_results(part: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The first line and the records of a part; empty if it has not run."""
    path = RESULTS / f"{part}.jsonl"
    if not path.exists():
        return {}, []
    first, *rest = (json.loads(line) for line in path.read_text().splitlines())
    return first, rest
