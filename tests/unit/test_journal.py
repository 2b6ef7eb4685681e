from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import array_unit

from tersor.encoded import Distortion, Encoded
from tersor.errors import BudgetError, OutputError, TersorError
from tersor.journal import Journal
from tersor.methods import keep


@pytest.fixture
def tensor() -> Encoded:
    unit = array_unit("w", np.random.default_rng(0).standard_normal(200_000).astype(np.float32))
    kept = keep.lossless(unit, unit.load())
    return replace(kept, distortion=Distortion(1.5, 2.5))


def journal(folder: Path, job: str = "job", resume: bool = True) -> Journal:
    """One that lets later ones have the folder, as if its process had ended."""
    opened = Journal(folder / "m.tsr", job, resume=resume)
    opened.close()
    return opened


def test_what_is_put_is_got_in_a_later_run(tmp_path: Path, tensor: Encoded) -> None:
    put = journal(tmp_path, resume=False).put("000001-kept", tensor)
    got = journal(tmp_path).get("000001-kept")
    for stored in (put, got):
        assert stored is not None
        assert stored.entry == tensor.entry and stored.distortion == tensor.distortion
        assert list(stored.pieces()) == list(tensor.pieces) and stored.nbytes == tensor.nbytes
    assert journal(tmp_path).get("000002-kept") is None


def test_it_lives_hidden_beside_the_output(tmp_path: Path) -> None:
    opened = journal(tmp_path)
    assert os.listdir(tmp_path) == [".m.tsr.journal"]
    opened.remove()
    opened.remove()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "left"), [(BudgetError("too small"), []), (OutputError("no space"), [".m.tsr.journal"])], ids=repr
)
def test_work_for_a_budget_that_cannot_be_reached_is_of_no_use(
    tmp_path: Path, tensor: Encoded, error: TersorError, left: list[str]
) -> None:
    with pytest.raises(type(error)), journal(tmp_path) as work:
        work.put("000000-a", tensor)
        raise error
    assert os.listdir(tmp_path) == left


def test_an_error_before_anything_is_done_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OutputError), journal(tmp_path):
        raise OutputError("no space")
    assert os.listdir(tmp_path) == []
    with pytest.raises(OutputError), journal(tmp_path) as work:
        work.learned.write_bytes(b"much")
        raise OutputError("no space")
    assert os.listdir(tmp_path) == [".m.tsr.journal"]


@pytest.mark.parametrize(("job", "resume"), [("another", True), ("job", False)])
def test_other_jobs_and_fresh_starts_forget(tmp_path: Path, tensor: Encoded, job: str, resume: bool) -> None:
    first = journal(tmp_path)
    first.put("000001-kept", tensor)
    first.note_size(0.5, 100)
    second = journal(tmp_path, job, resume)
    assert second.get("000001-kept") is None and second.sizes() == {}


def test_sizes_keep_every_bit_of_a_price(tmp_path: Path) -> None:
    prices = [1e-9 / 3, 5e-324, 1e12, 0.1]
    for number, price in enumerate(prices):
        journal(tmp_path).note_size(price, number)
    assert journal(tmp_path).sizes() == {price: number for number, price in enumerate(prices)}


def test_a_line_that_was_cut_short_is_left_out(tmp_path: Path) -> None:
    opened = journal(tmp_path)
    opened.note_size(0.5, 100)
    with open(tmp_path / ".m.tsr.journal" / "sizes.jsonl", "a") as file:
        file.write('{"price": 0.2, "si')
    assert journal(tmp_path).sizes() == {0.5: 100}


def test_damaged_units_are_not_there(tmp_path: Path, tensor: Encoded) -> None:
    opened = journal(tmp_path)
    path = opened.put("000001-kept", tensor).path
    whole = path.read_bytes()
    for damaged in (b"", whole[:10], whole[:60], whole[:-1], whole + b"\0", bytes(40) + whole[40:]):
        path.write_bytes(damaged)
        assert opened.get("000001-kept") is None
    path.write_bytes(whole)
    assert opened.get("000001-kept") is not None


def test_a_flipped_bit_in_a_piece_is_found_before_it_is_written(tmp_path: Path, tensor: Encoded) -> None:
    opened = journal(tmp_path)
    path = opened.put("000001-kept", tensor).path
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    stored = opened.get("000001-kept")
    assert stored is not None
    with pytest.raises(OutputError, match="damaged") as caught:
        list(stored.pieces())
    assert "without --resume" in str(caught.value)


def test_a_unit_is_there_whole_or_not_at_all(tmp_path: Path, tensor: Encoded, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = journal(tmp_path)

    def fail(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", fail)
        with pytest.raises(OutputError, match="no space left"):
            opened.put("000001-kept", tensor)
    assert opened.get("000001-kept") is None


def test_no_space_for_a_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = journal(tmp_path)

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(Path, "open", fail)
    with pytest.raises(OutputError, match="no space left"):
        opened.note_size(1.0, 2)


def test_discard_keeps_what_it_is_told(tmp_path: Path, tensor: Encoded) -> None:
    opened = journal(tmp_path)
    price, other = (0.1).hex(), (1e-7).hex()
    for key in ("000001-kept", f"000002-{price}", f"000003-{other}"):
        opened.put(key, tensor)
    opened.discard(keep={"kept", price})
    assert opened.get("000001-kept") and opened.get(f"000002-{price}") and not opened.get(f"000003-{other}")


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        Journal(tmp_path / "file" / "m.tsr", "job", resume=False)


def test_something_else_in_its_place(tmp_path: Path) -> None:
    (tmp_path / ".m.tsr.journal").write_text("not a folder")
    with pytest.raises(OutputError):
        journal(tmp_path)
    assert (tmp_path / ".m.tsr.journal").read_text() == "not a folder"


def test_two_runs_do_not_share_it(tmp_path: Path, tensor: Encoded) -> None:
    with Journal(tmp_path / "m.tsr", "job", resume=True) as first:
        first.put("000001-kept", tensor)
        for job, resume in (("job", True), ("job", False), ("another", True)):
            with pytest.raises(OutputError, match="another run is working") as caught:
                Journal(tmp_path / "m.tsr", job, resume=resume)
            assert str(first.folder) in str(caught.value) and caught.value.remedy
        assert first.get("000001-kept") is not None
        with Journal(tmp_path / "n.tsr", "job", resume=True):  # another output is another matter
            pass
    with Journal(tmp_path / "m.tsr", "job", resume=True) as second:
        assert second.get("000001-kept") is not None
        second.remove()
    with Journal(tmp_path / "m.tsr", "job", resume=True) as third:
        assert third.get("000001-kept") is None


def test_it_works_where_nothing_can_be_locked(tmp_path: Path, tensor: Encoded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tersor.format.writer.fcntl", None)
    with Journal(tmp_path / "m.tsr", "job", resume=True) as first:
        first.put("000001-kept", tensor)
    assert journal(tmp_path).get("000001-kept") is not None


def test_a_missing_folder_is_that_of_the_output(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="the folder does not exist") as caught:
        Journal(tmp_path / "missing" / "m.tsr", "job", resume=False)
    assert caught.value.where == str(tmp_path / "missing" / "m.tsr")


def test_unfinished_units_of_a_killed_run_are_removed(tmp_path: Path, tensor: Encoded) -> None:
    units = journal(tmp_path).put("000001-kept", tensor).path.parent
    (units / "000002-kept.part").write_bytes(b"half")
    assert journal(tmp_path).get("000001-kept") is not None
    assert os.listdir(units) == ["000001-kept"]


def test_a_kill_between_two_steps_of_opening_loses_nothing(tmp_path: Path, tensor: Encoded) -> None:
    """The note that says whose folder this is is not written anew when the job is the same."""
    journal(tmp_path).put("000001-kept", tensor)
    before = (tmp_path / ".m.tsr.journal" / "job").stat()
    journal(tmp_path)
    after = (tmp_path / ".m.tsr.journal" / "job").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
