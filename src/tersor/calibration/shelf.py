"""Tensors of all samples between two blocks: in memory while they are few, beyond that in a temporary file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import IO, NamedTuple

import torch

from tersor.format.writer import explain

ROOM = 2**24
"""Bytes that stay in memory: what the first convolutions give may be many times larger than the model."""


class _Place(NamedTuple):
    """Where a tensor is in the file, and what it was."""

    start: int
    dtype: torch.dtype
    shape: torch.Size
    device: torch.device


class Shelf:
    """A list of tensors that only grows. Its file is in `folder`, by default where the system keeps such files, and
    has no name: it goes with the shelf. Raises `OutputError` if there is no room for it."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or Path(tempfile.gettempdir())
        self._room = ROOM
        self._tensors: list[torch.Tensor | _Place] = []
        self._file: IO[bytes] | None = None

    def append(self, tensor: torch.Tensor) -> None:
        """Put a tensor at the end."""
        self._room -= tensor.nbytes
        self._tensors.append(tensor if self._room >= 0 else self._put(tensor))

    def __len__(self) -> int:
        return len(self._tensors)

    def __getitem__(self, number: int) -> torch.Tensor:
        found = self._tensors[number]
        return found if isinstance(found, torch.Tensor) else self._get(found)

    def _put(self, tensor: torch.Tensor) -> _Place:
        data = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        try:
            if self._file is None:
                self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - lives as long as the shelf
            start = self._file.seek(0, 2)
            self._file.write(data)  # type: ignore[arg-type]
        except OSError as error:
            raise explain(error, self._folder) from error
        return _Place(start, tensor.dtype, tensor.shape, tensor.device)

    def _get(self, place: _Place) -> torch.Tensor:
        assert self._file is not None
        self._file.seek(place.start)
        data = torch.empty(place.shape, dtype=place.dtype)
        self._file.readinto(data.reshape(-1).view(torch.uint8).numpy())  # type: ignore[attr-defined]
        return data.to(place.device)

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()
