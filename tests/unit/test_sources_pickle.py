"""Hostile pickles: nothing runs, hangs or eats the memory, and the message names what was refused."""

from __future__ import annotations

import io
import os
import pickle
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
from test_sources_builder import T, as_pickle, g, put, write_legacy, write_zip

from tersor.errors import SourceError
from tersor.sources import open_source
from tersor.sources.pickle_reader import Function, PickleError, read_pickle

W = {"0": bytes(24)}


class Evil:
    """Creates a file when a real unpickler meets it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (self.path,))


@pytest.mark.parametrize("protocol", range(6))
def test_nothing_is_run(tmp_path: Path, protocol: int) -> None:
    trap = tmp_path / "trap"
    content = pickle.dumps({"state_dict": Evil(str(trap))}, protocol=protocol)
    with pytest.raises(SourceError, match=r"would run (posix|nt)\.mkdir when unpickled; it was not run"):
        open_source(write_zip(tmp_path / "a.pt", content, W))
    assert not trap.exists()
    pickle.loads(content)
    assert trap.exists()


NAMED = {
    "os.system": g("os", "system"),
    "posix.system": b"\x8c\x05posix\x8c\x06system\x93",
    "builtins.eval": g("builtins", "eval"),
    "builtins.getattr": g("builtins", "getattr"),
    "torch.load": g("torch", "load"),
    "torch.storage._load_from_bytes": g("torch.storage", "_load_from_bytes"),
    "torch.hub.load": g("torch.hub", "load"),
    "torch.FloatStorage.__class__": g("torch", "FloatStorage.__class__"),
    "collections.OrderedDict.__init__.__globals__": g("collections", "OrderedDict.__init__.__globals__"),
    "tersor.sources.os": g("tersor.sources", "os"),
    "torch.jit._pickle.build_intlist": g("torch.jit._pickle", "build_intlist"),
    "__torch__.x.Y": g("__torch__.x", "Y"),
}


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("legacy", [False, True])
def test_globals_are_refused_by_name(tmp_path: Path, name: str, legacy: bool) -> None:
    root = {"w": NAMED[name] + b"(X\x02\x00\x00\x00idtR"}
    with pytest.raises(SourceError, match=name.replace(".", r"\.")) as caught:
        open_source((write_legacy if legacy else write_zip)(tmp_path / "a.pt", root, {}))
    assert "not run" in str(caught.value) and "state_dict()" in caught.value.remedy


OPCODES = {
    "call of a text": (b"X\x01\x00\x00\x00a)R", "calls something that is no function"),
    "call with a list": (g("torch", "Size") + b"]R", "no function"),
    "call of a storage type": (g("torch", "FloatStorage") + b")R", "calls a torch dtype or storage type"),
    "call of a dtype": (g("torch", "float32") + b")R", "calls a torch dtype or storage type"),
    "state for a function": (
        g("collections", "OrderedDict") + b"}b",
        "changes collections.OrderedDict itself",
    ),
    "global named by numbers": (b"K\x01K\x02\x93", "no text"),
    "tensor from nothing": (g("torch._utils", "_rebuild_tensor_v2") + b")R", "from 0 values"),
    "tensor over a text": (
        g("torch._utils", "_rebuild_tensor_v2") + put(("s", 0, (1,), (1,), False, {})) + b"R",
        "without a storage",
    ),
    "subclass rebuilt by OrderedDict": (
        g("torch._tensor", "_rebuild_from_type_v2") + put((g("collections", "OrderedDict"), None, (), {})) + b"R",
        "not built by torch's own functions",
    ),
    "persistent text": (b"P0\n", "no storage"),
    "persistent number": (b"K\x01Q", "no storage"),
    "persistent module": (put(("module", "a", "b", "c", 1)) + b"Q", "no storage"),
    "persistent without type": (
        put(("storage", "FloatStorage", "0", "cpu", 1)) + b"Q",
        "without a storage type",
    ),
    "persistent key no text": (
        put(("storage", g("torch", "FloatStorage"), 0, "cpu", 1)) + b"Q",
        "storage type, key",
    ),
    "persistent key outside": (put({"w": T("../../etc/passwd", (1,))}), "'../../etc/passwd' is missing"),
    "empty stack": (b"0" * 5, "misses a mark"),
    "tuple of nothing": (b"\x87", "takes more from its stack"),
    "append without list": (b"K\x01K\x02a", "no list"),
    "items without dict": (b"](K\x01K\x02u", "no dict"),
    "odd items": (b"}(K\x01u", "without a value"),
    "no mark": (b"t", "misses a mark"),
    "unknown memo": (b"h\x05", "has not built"),
    "memo out of bounds": (b"]p99999999999\n", "memo is out of bounds"),
    "memo of nothing": (b"q\x00", "takes more from its stack"),
    "instance opcode": (b"(ios\nsystem\n", "opcode INST"),
    "object opcode": (b"(" + g("torch", "Size") + b"o", "opcode OBJ"),
    "extension registry": (b"\x82\x01", "opcode EXT1"),
    "out-of-band buffer": (b"\x97", "opcode NEXT_BUFFER"),
    "unknown opcode": (b"\xff", "truncated or damaged"),
    "text of 2**62 bytes": (b"\x8d" + (1 << 62).to_bytes(8, "little"), "truncated or damaged"),
    "bytes of 2**40": (b"\x8e" + (1 << 40).to_bytes(8, "little"), "truncated or damaged"),
    "negative long": (b"\x8b\xff\xff\xff\xff", "truncated or damaged"),
    "decimal without end": (b"I" + b"9" * 5000 + b"\n", "truncated or damaged"),
    "no newline": (b"S'abc", "truncated or damaged"),
    "no stop": (b"]" + b"N" * 3, "truncated or damaged"),
}


@pytest.mark.parametrize("case", OPCODES)
def test_opcodes_out_of_place(tmp_path: Path, case: str) -> None:
    opcodes, message = OPCODES[case]
    ending = b"." if "no stop" not in case and "no newline" not in case else b""
    path = tmp_path / "a.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + opcodes + ending)
    with pytest.raises(SourceError, match=message):
        open_source(path)


def test_a_large_memo_index_costs_nothing(tmp_path: Path) -> None:
    content = b"\x80\x02" + put({"w": T("0", (6,))}) + b"r\xff\xff\xff\xff."
    assert len(open_source(write_zip(tmp_path / "a.pt", content, W)).units()) == 1


def laughs(opener: bytes, closer: bytes, levels: int, width: int) -> bytes:
    """A container of `width` references to a container of as many references to ..., around one tensor."""
    content = put(T("0", (6,)))
    for level in range(levels):
        memo = bytes([level])
        body = b"".join(put(str(item)) * (opener == b"}(") + b"h" + memo for item in range(width))
        content += b"q" + memo + b"0" + opener + body + closer
    return content


@pytest.mark.parametrize(("opener", "closer"), [(b"}(", b"u"), (b"](", b"e"), (b"(", b"t")])
def test_references_that_unfold_without_end(tmp_path: Path, opener: bytes, closer: bytes) -> None:
    begin = time.monotonic()
    with pytest.raises(SourceError, match="more than 2000000 values"):
        open_source(write_zip(tmp_path / "a.pt", b"\x80\x02" + laughs(opener, closer, 30, 20) + b".", W))
    assert time.monotonic() - begin < 60


def test_long_lists_scanned_again_and_again(tmp_path: Path) -> None:
    content = b"](" + b"N" * 200_000 + b"eq\x000" + b"](" + b"h\x00" * 200_000 + b"e"
    with pytest.raises(SourceError, match="more than 2000000 values"):
        open_source(write_zip(tmp_path / "a.pt", b"\x80\x02" + content + b".", W))


def test_pairs_are_spent_once(tmp_path: Path) -> None:
    pairs = b"](" + b"X\x01\x00\x00\x00aN\x86" * 100_000 + b"eq\x000"
    calls = (g("collections", "OrderedDict") + b"q\x010](") + b"h\x01h\x00\x85R" * 100_000 + b"e"
    begin = time.monotonic()
    with pytest.raises(SourceError, match="no tensors"):
        open_source(write_zip(tmp_path / "a.pt", b"\x80\x02" + pairs + calls + b".", W))
    assert time.monotonic() - begin < 30


def test_deep_nesting_neither_recurses_nor_crashes(tmp_path: Path) -> None:
    deep = b")" + b"\x85" * 300_000
    with pytest.raises(SourceError, match="more than 64 levels"):
        open_source(write_zip(tmp_path / "a.pt", b"\x80\x02" + deep + b".", W))
    with pytest.raises(SourceError, match="no tensors"):  # as a key, it would be hashed
        open_source(write_zip(tmp_path / "a.pt", b"\x80\x02}" + deep + b"K\x01s.", W))


def test_a_list_that_holds_itself(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="more than 64 levels"):
        open_source(write_zip(tmp_path / "a.pt", b"\x80\x02]q\x00h\x00a.", W))


def test_too_many_operations(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tersor.sources.pickle_reader.MAX_OPERATIONS", 1000)
    with pytest.raises(SourceError, match="more than 1000 operations"):
        open_source(write_zip(tmp_path / "a.pt", b"\x80\x02]" + b"N0" * 1000 + b".", W))


def test_a_compressed_pickle_is_bounded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tersor.sources.archives.MAX_BYTES", 1 << 20)
    content = b"\x80\x02" + b"N0" * (1 << 20) + b"."
    with pytest.raises(SourceError, match="longer than 1048576 bytes"):
        open_source(write_zip(tmp_path / "a.pt", content, W, compression=zipfile.ZIP_DEFLATED))


def _refuse(*arguments: Any) -> Function:
    raise PickleError(f"refused {arguments}")


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_come_back_whole(protocol: int) -> None:
    value = {
        "int": [0, 1, -1, 255, 65536, 1 << 40, -(1 << 70)],
        "float": [0.5, float("inf")],
        "text": ["", "ü", "\U0001f600", "a\nb", "x" * 300],
        "nested": {"a": {"b": (1, (2,), (3, 4), (5, 6, 7), (8, 9, 10, 11), ())}},
        "singles": [None, True, False],
        3: "int key",
    }
    if protocol >= 3:
        value["bytes"] = [b"", b"abc", bytes(300)]
    stream = io.BytesIO(pickle.dumps(value, protocol=protocol) + b"rest")
    assert read_pickle(stream, len(stream.getvalue()), _refuse, _refuse) == value
    assert stream.read() == b"rest"


def test_reading_stops_at_the_end_given() -> None:
    stream = io.BytesIO(as_pickle({"a": "b" * 100}))
    with pytest.raises(PickleError, match="truncated"):
        read_pickle(stream, 50, _refuse, _refuse)
