from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import array_unit, container

from tersor.encoded import Encoded
from tersor.errors import OutputError
from tersor.format import writer
from tersor.format.manifest import Manifest
from tersor.format.writer import atomic_file, check_output, file_size, write
from tersor.methods import keep


@pytest.fixture
def tensor() -> Encoded:
    unit = array_unit("w", np.arange(10_000, dtype=np.float32))
    return keep.lossless(unit, unit.load())


def test_the_file_is_exactly_what_the_format_says(tmp_path: Path, tensor: Encoded) -> None:
    manifest = Manifest((tensor.entry,), {"note": 1})
    size = write(tmp_path / "a.tsr", manifest, tensor.pieces)
    assert (tmp_path / "a.tsr").read_bytes() == container(tensor, meta={"note": 1})
    assert size == file_size(manifest) == os.path.getsize(tmp_path / "a.tsr")
    assert os.listdir(tmp_path) == ["a.tsr"]


def test_pieces_that_do_not_add_up_are_a_mistake_and_leave_nothing(tmp_path: Path, tensor: Encoded) -> None:
    for pieces in (list(tensor.pieces)[:-1], (*tensor.pieces, b"x")):
        with pytest.raises(ValueError, match="bytes, the manifest says"):
            write(tmp_path / "a.tsr", Manifest((tensor.entry,)), pieces)
    assert os.listdir(tmp_path) == []


def test_existing_output_is_kept(tmp_path: Path, tensor: Encoded) -> None:
    path = tmp_path / "a.tsr"
    path.write_bytes(b"precious")
    with pytest.raises(OutputError, match="exists already") as caught:
        write(path, Manifest((tensor.entry,)), tensor.pieces)
    assert "--force" in str(caught.value) and str(path) in str(caught.value)
    assert path.read_bytes() == b"precious" and os.listdir(tmp_path) == ["a.tsr"]


def test_existing_output_is_replaced_if_asked(tmp_path: Path, tensor: Encoded) -> None:
    path = tmp_path / "a.tsr"
    path.write_bytes(b"old")
    write(path, Manifest((tensor.entry,)), tensor.pieces, overwrite=True)
    assert path.read_bytes() == container(tensor)


def test_a_failure_keeps_what_was_to_be_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"precious")
    with pytest.raises(KeyError), atomic_file(path, overwrite=True) as file:
        file.write(b"half")
        raise KeyError
    assert path.read_bytes() == b"precious" and os.listdir(tmp_path) == ["a"]


def test_output_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with pytest.raises(OutputError, match="exists already"), atomic_file(path) as file:
        file.write(b"mine")
        path.write_bytes(b"theirs")
    assert path.read_bytes() == b"theirs" and os.listdir(tmp_path) == ["a"]


def test_dangling_link_counts_as_existing(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="exists already"):
        check_output(tmp_path / "a", overwrite=False)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_is_no_output(tmp_path: Path, overwrite: bool) -> None:
    with pytest.raises(OutputError, match="is a folder"), atomic_file(tmp_path, overwrite=overwrite):
        pass


def test_nothing_is_visible_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with atomic_file(path) as file:
        file.write(b"x" * 100_000)
        file.flush()
        assert not path.exists()
        (name,) = os.listdir(tmp_path)
        assert name.startswith(".a.") and name.endswith(".part")
    assert path.read_bytes() == b"x" * 100_000 and os.listdir(tmp_path) == ["a"]


def test_flushed_to_disk_before_the_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def record_fsync(handle: int) -> None:
        events.append("fsync")
        fsync(handle)

    def record_replace(self: Path, target: Path) -> Path:
        events.append("replace")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(Path, "replace", record_replace)
    with atomic_file(tmp_path / "a") as file:
        file.write(b"x")
    assert events == ["fsync", "replace", "fsync"]


FAILURES = [
    (errno.ENOSPC, "no space left"),
    (errno.EDQUOT, os.strerror(errno.EDQUOT)),
    (errno.EROFS, "read-only"),
    (errno.EACCES, "no permission"),
    (errno.EIO, os.strerror(errno.EIO)),
]


@pytest.mark.parametrize(("number", "message"), FAILURES, ids=lambda v: str(v))
@pytest.mark.parametrize("function", ["fsync", "replace", "open"])
def test_refusals_of_the_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tensor: Encoded, function: str, number: int, message: str
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    path = tmp_path / "a.tsr"
    path.write_bytes(b"precious")
    with monkeypatch.context() as patch:
        patch.setattr(*{"fsync": (os, "fsync"), "replace": (Path, "replace"), "open": (Path, "open")}[function], fail)
        with pytest.raises(OutputError, match=message) as caught:
            write(path, Manifest((tensor.entry,)), tensor.pieces, overwrite=True)
    assert str(path) in str(caught.value) and caught.value.remedy
    assert path.read_bytes() == b"precious" and os.listdir(tmp_path) == ["a.tsr"]


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("missing/a.tsr", "the folder does not exist"),
        ("file/a.tsr", "leads through a file"),
        ("a" * 300 + ".tsr", "name is too long"),
    ],
)
def test_places_that_cannot_be(tmp_path: Path, tensor: Encoded, place: str, message: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match=message):
        write(tmp_path / place, Manifest((tensor.entry,)), tensor.pieces)
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder that nobody can write to")
def test_read_only_folder(tensor: Encoded) -> None:
    with pytest.raises(OutputError, match="cannot write the output"):
        write(Path("/proc/self/a.tsr"), Manifest((tensor.entry,)), tensor.pieces)


def test_a_folder_that_forbids_writing(tmp_path: Path, tensor: Encoded) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="no permission"):
        write(tmp_path / "a.tsr", Manifest((tensor.entry,)), tensor.pieces)
    tmp_path.chmod(0o700)


def test_a_name_just_short_enough(tmp_path: Path, tensor: Encoded) -> None:
    path = tmp_path / ("a" * 230 + ".tsr")
    write(path, Manifest((tensor.entry,)), tensor.pieces)
    assert path.exists()


# -- what killed processes leave --------------------------------------------------------------------------------------

locks = pytest.mark.skipif(writer.fcntl is None, reason="needs locks that end with their process")


@locks
def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".a.0123abcd.part").write_bytes(b"half")
    with atomic_file(tmp_path / "a") as file:
        assert len(os.listdir(tmp_path)) == 1
        file.write(b"whole")
    assert os.listdir(tmp_path) == ["a"]


@locks
def test_what_somebody_is_writing_stays(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with atomic_file(path, overwrite=True) as first:
        first.write(b"first")
        with atomic_file(path, overwrite=True) as second:
            assert len(os.listdir(tmp_path)) == 2
            second.write(b"second")
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first" and os.listdir(tmp_path) == ["a"]


def test_other_files_stay(tmp_path: Path) -> None:
    others = [".b.0123abcd.part", ".a.part", ".a.0123ABCD.part", ".a.0123abcd", "a.0123abcd.part", ".a.b.0123abcd.part",
              ".[ab].0123abcde.part"]  # fmt: skip
    for name in others:
        (tmp_path / name).write_bytes(b"precious")
    for name in ("a", "[ab]"):
        with atomic_file(tmp_path / name) as file:
            file.write(b"x")
    assert sorted(os.listdir(tmp_path)) == sorted([*others, "a", "[ab]"])


@locks
def test_a_file_taken_for_an_abandoned_one_before_it_was_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[str] = []
    lock = writer.lock

    def late(descriptor: int, *, wait: bool = False) -> None:
        if not taken:
            taken.extend(os.listdir(tmp_path))
            os.unlink(tmp_path / taken[0])
        lock(descriptor, wait=wait)

    monkeypatch.setattr(writer, "lock", late)
    with atomic_file(tmp_path / "a") as file:
        file.write(b"x")
        assert os.listdir(tmp_path) != taken
    assert os.listdir(tmp_path) == ["a"] and len(taken) == 1


def test_writing_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "fcntl", None)
    (tmp_path / ".a.0123abcd.part").write_bytes(b"somebody's?")
    with atomic_file(tmp_path / "a") as file:
        file.write(b"x")
    assert sorted(os.listdir(tmp_path)) == [".a.0123abcd.part", "a"]
