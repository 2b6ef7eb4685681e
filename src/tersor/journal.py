"""The work folder of a compression: what is done stays done when the run is killed.

Every unit is one file, named by what it depends on and written atomically by the thread that made it, the moment it is
finished; every measured size is one line of a log. A run that resumes finds them and goes on: what a killed one loses
is the one unit that each of its workers had in hand. The folder belongs to one job (source, recipe, budget, version);
another job never reads it, and no two processes work in it at the same time.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tersor.encoded import Distortion, Encoded
from tersor.errors import BudgetError, FormatError, OutputError
from tersor.format.layout import checksum
from tersor.format.limits import Limits
from tersor.format.manifest import Entry, Manifest
from tersor.format.writer import explain, lock

_HEAD = struct.Struct("<QQdd?")


@dataclass(frozen=True)
class StoredUnit:
    """A finished unit on disk."""

    entry: Entry
    distortion: Distortion
    finite: bool
    path: Path
    start: int

    @property
    def nbytes(self) -> int:
        """Bytes of its pieces in the file."""
        return self.entry.stored

    def pieces(self) -> Iterator[bytes]:
        """The pieces of its streams, in order."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            for step in self.entry.chain:
                for stream in step.streams:
                    for size, expected in zip(stream.sizes, stream.checksums, strict=True):
                        piece = file.read(size)
                        if checksum(piece) != expected:
                            raise OutputError(
                                "the work folder is damaged",
                                where=str(self.path),
                                remedy="run again without --resume",
                            )
                        yield piece


class Journal:
    """The work folder beside an output; see the module's description.

    Closed, or left by its process, it stays. A job whose budget cannot be reached leaves none, for it would fail
    again, nor does one that got nowhere.
    """

    def __init__(self, output: Path, job: str, *, resume: bool) -> None:
        self.folder = output.with_name(f".{output.name}.journal")
        self._units = self.folder / "units"
        self._sizes = self.folder / "sizes.jsonl"
        self.learned = self.folder / "learned"
        """A folder for what calibration learned, for the recipe to write and read."""
        self._handle: int | None = None
        try:
            self._hold()
            if not (resume and self._job() == job):
                if self._units.exists():
                    shutil.rmtree(self._units)
                self._sizes.unlink(missing_ok=True)
                shutil.rmtree(self.learned, ignore_errors=True)
                (self.folder / "job").write_text(job)
            self._units.mkdir(exist_ok=True)
            for unfinished in self._units.glob("*.part"):
                unfinished.unlink()
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise explain(error, output if error.errno == errno.ENOENT else self.folder) from error
            raise

    def _hold(self) -> None:
        """Make the folder and lock it, where the system can."""
        while True:
            self.folder.mkdir(exist_ok=True)
            try:
                self._handle = os.open(self.folder, os.O_RDONLY)
                lock(self._handle)
                if os.path.samestat(os.fstat(self._handle), self.folder.stat()):
                    return
                self.close()  # it was removed before it was locked
            except BlockingIOError:
                self.close()
                raise OutputError(
                    "another run is working on this output",
                    where=str(self.folder),
                    remedy="wait for it, or choose another name",
                ) from None
            except FileNotFoundError:
                self.close()
            except OSError:  # no locks here
                return

    def _job(self) -> str:
        with contextlib.suppress(OSError):
            return (self.folder / "job").read_text()
        return ""

    def get(self, key: str) -> StoredUnit | None:
        """The unit stored under `key`, if it is there and whole."""
        path = self._units / key
        try:
            with path.open("rb") as file:
                stored_size, plain_size, error, energy, finite = _HEAD.unpack(file.read(_HEAD.size))
                (entry,) = Manifest.unpack(file.read(stored_size), plain_size, Limits()).entries
            start = _HEAD.size + stored_size
            if path.stat().st_size != start + entry.stored:
                return None
        except (OSError, struct.error, FormatError, ValueError):
            return None
        return StoredUnit(entry, Distortion(error, energy), finite, path, start)

    def put(self, key: str, encoded: Encoded) -> StoredUnit:
        """Store a finished unit; it is there completely or not at all."""
        stored, size = Manifest((encoded.entry,)).pack()
        path = self._units / key
        temporary = path.with_name(f"{key}.part")
        try:
            with temporary.open("wb") as file:
                file.write(_HEAD.pack(len(stored), size, *encoded.distortion, encoded.finite))
                file.write(stored)
                file.writelines(encoded.pieces)
            temporary.replace(path)
        except OSError as error:
            raise explain(error, path) from error
        return StoredUnit(encoded.entry, encoded.distortion, encoded.finite, path, _HEAD.size + len(stored))

    def sizes(self, stage: str = "") -> dict[float, int]:
        """File sizes measured so far in a stage of the work, by price."""
        return {price: int(size) for price, size in self._noted("size", stage)}

    def losses(self, stage: str = "") -> dict[float, float]:
        """Losses of quality measured so far in a stage of the work, by price."""
        return {price: float(loss) for price, loss in self._noted("loss", stage)}

    def _noted(self, what: str, stage: str) -> Iterator[tuple[float, Any]]:
        with contextlib.suppress(OSError, ValueError, KeyError):
            for line in self._sizes.read_text().splitlines():
                record = json.loads(line)
                if record["stage"] == stage and record[what] is not None:
                    yield float(record["price"]), record[what]

    def note_size(self, price: float, size: int, stage: str = "", loss: float | None = None) -> None:
        """Remember a measured size, and the loss of quality if that was measured as well."""
        try:
            with self._sizes.open("a") as file:
                file.write(json.dumps({"stage": stage, "price": price, "size": size, "loss": loss}) + "\n")
        except OSError as error:
            raise explain(error, self._sizes) from error

    def discard(self, keep: set[str]) -> None:
        """Delete the units whose key, after the number, is not in `keep`."""
        for path in self._units.iterdir():
            if path.name.partition("-")[2] not in keep:
                path.unlink(missing_ok=True)

    def _is_empty(self) -> bool:
        """Whether nothing is done: no unit, no size, nothing learned."""
        parts = {path.name for path in self.folder.glob("*")}
        return parts <= {"job", "units"} and not any(self._units.glob("*"))

    def remove(self) -> None:
        """The job is done: delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.close()

    def close(self) -> None:
        """Let others work in the folder."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, BudgetError) or self._is_empty():
            self.remove()
        else:
            self.close()
