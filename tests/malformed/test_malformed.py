"""Every malformed file is refused with exactly the code of the rule it breaks, by both decoders."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
from reference import reference

import tersor
from tersor.errors import FormatError, LimitError, MismatchError, UnsupportedError

HERE = Path(__file__).resolve().parent
EXPECTED: dict[str, list[str]] = json.loads((HERE / "expected.json").read_text())
FILES = sorted(EXPECTED)
ENVIRONMENT = {"missing", "unreadable", "zstd_missing"}
"""Codes that no content of a file causes; tests/unit covers them."""
NEWER = {"unknown_feature", "unknown_dtype", "unknown_op", "unknown_coder", "version"}
SECONDS = 0.05


def data_of(name: str) -> bytes:
    return (HERE / "files" / name).read_bytes()


def code_of(data: bytes) -> str:
    """What the real decoder says of a file."""
    try:
        tersor.verify(data)
    except FormatError as error:
        return error.code
    return "ok"


def reference_code_of(data: bytes) -> str:
    try:
        reference.decode(data)
    except reference.DecodeError as error:
        return error.code
    return "ok"


@pytest.mark.parametrize("name", FILES)
def test_code(name: str) -> None:
    data = data_of(name)
    with pytest.raises(FormatError) as caught:
        tersor.verify(data)
    assert caught.value.code == EXPECTED[name][0]
    assert isinstance(caught.value, UnsupportedError) == (caught.value.code in NEWER)
    assert isinstance(caught.value, LimitError) == (caught.value.code == "limit")


@pytest.mark.parametrize("name", FILES)
def test_code_of_the_reference_decoder(name: str) -> None:
    """The last of two codes, where there are two: its limits are others, and it looks at other things first."""
    assert reference_code_of(data_of(name)) == EXPECTED[name][-1]


@pytest.mark.parametrize("name", FILES)
def test_refused_quickly(name: str) -> None:
    """However much a file claims to hold. The best of three runs: the machine may have other things to do."""
    data, times = data_of(name), []
    for _ in range(3):
        start = time.perf_counter()
        code_of(data)
        times.append(time.perf_counter() - start)
        if times[-1] < SECONDS:
            return
    raise AssertionError(f"{min(times):.3f} seconds")


@pytest.mark.parametrize("name", FILES)
def test_loading_is_refused_too(name: str) -> None:
    """`load` with several workers takes another way through the code than `verify`."""
    with pytest.raises(FormatError) as caught:
        tersor.load(data_of(name), workers=3)
    assert caught.value.code == EXPECTED[name][0]


def test_from_a_path_too(tmp_path: Path) -> None:
    for name in FILES[::7]:
        path = tmp_path / name
        path.write_bytes(data_of(name))
        with pytest.raises(FormatError) as caught:
            tersor.verify(path)
        assert caught.value.code == EXPECTED[name][0]


def test_every_code_of_the_specification_is_there() -> None:
    text = (HERE.parents[1] / "spec" / "FORMAT.md").read_text()
    section = text[text.index("## 9. ") :].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    codes = {code for row in rows for code in re.findall(r"`(\w+)`", row)}
    assert codes - ENVIRONMENT == {found[0] for found in EXPECTED.values()}
    assert {found[-1] for found in EXPECTED.values()} <= codes | {"ok"}


def test_every_file_is_listed() -> None:
    assert sorted(path.name for path in (HERE / "files").glob("*")) == FILES
    assert len(FILES) >= 80


def test_limits_can_be_set() -> None:
    data = data_of("limit-17-times-32-megabytes.tsr")
    assert code_of(data) == "limit"
    with tersor.open(data, limits=tersor.Limits(base_bytes=2**30)) as file:
        assert len(file) == 17
    good = (HERE.parent / "golden" / "files" / "many-tensors.tsr").read_bytes()
    for limits in (
        tersor.Limits(manifest_bytes=1000), tersor.Limits(tensors=299), tersor.Limits(tensor_bytes=1),
        tersor.Limits(base_bytes=0, expansion=0),
    ):  # fmt: skip
        with pytest.raises(LimitError) as caught:
            tersor.open(good, limits=limits)
        assert caught.value.code == "limit"


def test_ties_are_counted_before_they_are_written(tmp_path: Path) -> None:
    """A tie costs a file nothing, and the output of `decompress` the whole tensor again."""
    import handmade as hm

    table, chunk = hm.prelude([hm.Table()], 1), hm.rans_chunk([], hm.Table(), 1)
    stream = hm.Stream("rans", "u8", 2**24, (table, *(chunk,) * 16), 2**20)
    tensor = hm.Tensor("w", "U8", (2**24,), bytes(2**24), "raw", {"planes": 1}, (stream,))
    data = hm.assemble(tensor, *((f"t{k}", 0) for k in range(300)))
    tersor.verify(data)
    with pytest.raises(LimitError):
        tersor.decompress(data, tmp_path / "out.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_safetensors_reserves(tmp_path: Path) -> None:
    """Legal here, but it would make a file that nobody can read."""
    with pytest.raises(MismatchError):
        tersor.decompress(HERE.parent / "golden" / "files" / "names.tsr", tmp_path / "out.safetensors")
    assert list(tmp_path.iterdir()) == []
