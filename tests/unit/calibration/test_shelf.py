"""A shelf gives back what was put on it, from memory or from its file."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from tersor.calibration import shelf  # noqa: E402
from tersor.calibration.shelf import Shelf  # noqa: E402
from tersor.errors import OutputError  # noqa: E402


@pytest.mark.parametrize("room", [0, 100, 10**6])
def test_tensors_come_back_as_they_were(room: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "ROOM", room)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3, 4, 5, generator=generator)
    given = [x, x[0].T, x.bfloat16(), torch.arange(7), torch.tensor(2.5), torch.empty(0, 3), x > 0]
    kept = Shelf(tmp_path)
    for tensor in given:
        kept.append(tensor)
    assert len(kept) == len(given)
    for _ in range(2):
        for k in reversed(range(len(given))):
            found = kept[k]
            assert found.dtype == given[k].dtype and found.shape == given[k].shape and torch.equal(found, given[k])
    assert not list(tmp_path.iterdir())  # the file has no name


def test_a_full_disk_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def seek(self, *_: Any) -> int:
            return 0

        def write(self, _: Any) -> int:
            raise OSError(errno.ENOSPC, "full")

        def close(self) -> None:
            pass

    monkeypatch.setattr(shelf, "ROOM", 0)
    monkeypatch.setattr(shelf.tempfile, "TemporaryFile", lambda dir: Full())
    with pytest.raises(OutputError, match="no space left"):
        Shelf(tmp_path).append(torch.ones(3))
