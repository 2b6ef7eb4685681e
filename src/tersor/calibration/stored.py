"""Statistics on disk: covariances of all layers may need more room than the model."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from zipfile import BadZipFile

import numpy as np

from tersor.calibration.statistics import Statistics
from tersor.errors import OutputError
from tersor.format.writer import explain

PARTS = ("covariance", "fisher", "usage", "mean", "original_mean", "target", "coupling")
"""The arrays of statistics."""
FACTS = ("count", "transposed", "parts", "coherence")
"""Numbers beside them."""
_READING = threading.Lock()
"""numpy parses the headers of arrays as Python, which two threads cannot do at once in CPython 3.11: SystemError."""


class Stored(MutableMapping[str, Statistics]):
    """Statistics by unit name, each in a file of its own; of those that were read, a thread keeps the last alone.

    `files` says which are there; copies share the folder, where nothing is ever overwritten or deleted.
    """

    def __init__(self, folder: Path, files: Mapping[str, str] | None = None) -> None:
        self.folder, self.files = folder, dict(files or {})
        self._last = threading.local()

    def copy(self) -> Stored:
        """Another mapping of the same statistics."""
        return Stored(self.folder, self.files)

    def __setitem__(self, name: str, s: Statistics) -> None:
        arrays = {part: getattr(s, part) for part in PARTS if getattr(s, part) is not None}
        facts = json.dumps({name: getattr(s, name) for name in FACTS})
        try:
            self.folder.mkdir(exist_ok=True)
            file = f"{sum(1 for _ in self.folder.iterdir()):06d}.npz"
            np.savez(self.folder / file, facts=np.frombuffer(facts.encode(), np.uint8), **arrays)  # type: ignore[arg-type]
        except OSError as error:
            raise explain(error, self.folder) from error
        self.files[name] = file

    def __getitem__(self, name: str) -> Statistics:
        path, last = self.folder / self.files[name], self._last
        if getattr(last, "path", None) == path:
            return last.statistics
        last.path = last.statistics = None  # before the next is read: both may be large
        try:
            with _READING, path.open("rb") as file, np.load(file) as arrays:
                found = {key: arrays[key] for key in arrays.files}
            facts = json.loads(found.pop("facts").tobytes())
        except (OSError, EOFError, ValueError, KeyError, BadZipFile) as error:
            raise OutputError(
                "the work folder is damaged", where=str(path), remedy="run again without --resume"
            ) from error
        last.path, last.statistics = path, Statistics(**{part: found.get(part) for part in PARTS}, **facts)
        return last.statistics

    def __delitem__(self, name: str) -> None:
        del self.files[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)

    def __contains__(self, name: object) -> bool:
        return name in self.files
