"""Results of benchmarks that are kept point by point."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import common


def test_a_point_replaces_the_one_of_its_key_and_the_others_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    first = common.Table("part", "network", "tool")
    first.add(network="a", tool="x", bytes=3)
    first.add(network="b", tool="x", bytes=5)
    other = common.Table("part", "network", "tool")  # a run that was cut goes on as another one
    assert other.known() == {("a", "x"), ("b", "x")}
    other.add(network="a", tool="x", bytes=2)
    head, records = common.read_results("part")
    assert head["part"] == "part"
    assert [(r["network"], r["bytes"]) for r in records] == [("a", 2), ("b", 5)]
    assert all(r["commit"] == head["commit"] for r in records)
    assert [p.name for p in tmp_path.iterdir()] == ["part.jsonl"]
