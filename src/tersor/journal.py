"""The work folder of a compression: what is done stays done when the run is killed.

Every finished unit is one file, named by what it depends on and written atomically; every measured size is one line
of a log. A run that resumes finds them and goes on. The folder belongs to one job (source, recipe, budget, version);
another job never reads it.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tersor.encoded import Distortion, Encoded
from tersor.errors import FormatError, OutputError
from tersor.format.layout import checksum
from tersor.format.limits import Limits
from tersor.format.manifest import Entry, Manifest
from tersor.format.writer import explain

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
    """The work folder beside an output; see the module's description."""

    def __init__(self, output: Path, job: str, *, resume: bool) -> None:
        self.folder = output.with_name(f".{output.name}.journal")
        self._units = self.folder / "units"
        self._sizes = self.folder / "sizes.jsonl"
        try:
            if self.folder.exists() and not (resume and self._job() == job):
                shutil.rmtree(self.folder)
            self.folder.mkdir(exist_ok=True)
            self._units.mkdir(exist_ok=True)
            (self.folder / "job").write_text(job)
        except OSError as error:
            raise explain(error, self.folder) from error

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
        temporary = path.with_suffix(".part")
        try:
            with temporary.open("wb") as file:
                file.write(_HEAD.pack(len(stored), size, *encoded.distortion, encoded.finite))
                file.write(stored)
                file.writelines(encoded.pieces)
            temporary.replace(path)
        except OSError as error:
            raise explain(error, path) from error
        return StoredUnit(encoded.entry, encoded.distortion, encoded.finite, path, _HEAD.size + len(stored))

    def sizes(self) -> dict[float, int]:
        """File sizes measured so far, by price."""
        found: dict[float, int] = {}
        with contextlib.suppress(OSError, ValueError, KeyError):
            for line in self._sizes.read_text().splitlines():
                record = json.loads(line)
                found[float(record["price"])] = int(record["size"])
        return found

    def note_size(self, price: float, size: int) -> None:
        """Remember a measured size."""
        try:
            with self._sizes.open("a") as file:
                file.write(json.dumps({"price": price, "size": size}) + "\n")
        except OSError as error:
            raise explain(error, self._sizes) from error

    def discard(self, keep: set[str]) -> None:
        """Delete the units whose key, after the number, is not in `keep`."""
        for path in self._units.iterdir():
            if path.name.partition("-")[2] not in keep:
                path.unlink(missing_ok=True)

    def remove(self) -> None:
        """The job is done: delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
