"""A few of the kills of benchmarks/kills.py: at random moments, of real processes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.kills import campaign, commands

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")


@pytest.mark.parametrize(("way", "kills"), [(0, 10), (1, 10), (2, 10)], ids=["compress", "two threads", "decompress"])
def test_random_kills(
    model_file: Path, compressed: dict[int, tuple[Path, Any]], tmp_path: Path, way: int, kills: int
) -> None:
    found = campaign(commands(model_file, compressed[8][0], ratio=9)[way], tmp_path, kills, "tests")
    assert found.problems == []
    assert found.counts["kills"] >= kills
    assert found.most_repeated <= found.command.workers
