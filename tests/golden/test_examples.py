"""The examples of the specification (spec/FORMAT.md, section 10) decode as it says."""

from __future__ import annotations

import re
import struct
from typing import Any

import pytest
from helpers import ROOT
from reference import reference

import tersor
from tersor import _core
from tersor.format import manifest

TEXT = (ROOT / "spec" / "FORMAT.md").read_text()
SECTION = TEXT[TEXT.index("\n## 10. ") :]
PARTS = dict(re.findall(r"\n### (10\.\d+) [^\n]*\n(.*?)(?=\n### |\Z)", SECTION, re.DOTALL))
EXAMPLES = [number for number, part in PARTS.items() if "```hex\n" in part]


def block(number: str, kind: str) -> list[str]:
    found = re.search(rf"```{kind}\n(.*?)\n```", PARTS[number], re.DOTALL)
    assert found is not None
    return found.group(1).splitlines()


def rows(number: str) -> list[tuple[bytes, str]]:
    """Fields of an example: their bytes and what is said about them. Offsets must follow from the bytes before."""
    fields: list[tuple[bytes, str]] = []
    at = 0
    for line in block(number, "hex"):
        assert int(line[:4], 16) == at
        data = bytes.fromhex(line[6:53])
        at += len(data)
        fields.append((data, line[55:].strip()))
    return fields


def file_of(number: str) -> bytes:
    return b"".join(data for data, _ in rows(number))


def test_there_are_examples() -> None:
    """Of every op and coder but the one that another specification describes."""
    texts = {text for number in EXAMPLES for _, text in rows(number)}
    assert {f'op "{name}"' for name in manifest.OPS} <= texts
    assert {f'coder "{name}"' for name in manifest.CODERS if name != "zstd"} <= texts


@pytest.mark.parametrize("number", EXAMPLES)
def test_both_decoders_decode_it_as_it_says(number: str) -> None:
    data = file_of(number)
    decoded = reference.decode(data)
    lines = block(number, "result")
    assert len(lines) == len(decoded)
    with tersor.open(data) as file:
        file.verify()
        for line in lines:
            name, dtype, shape, content = re.fullmatch(r"(\S+) (\S+) \[(.*)\] ([0-9a-f]*)", line).groups()  # type: ignore[union-attr]
            sizes = tuple(int(size) for size in shape.split(",") if size)
            assert decoded[name] == (dtype, sizes, bytes.fromhex(content))
            assert file.stored(name).tobytes().hex() == content
            assert (file.entry(name).dtype, file.entry(name).shape) == (dtype, sizes)


@pytest.mark.parametrize("number", EXAMPLES)
def test_fields_hold_what_is_said_about_them(number: str) -> None:
    """Of texts in quotes and numbers after a colon."""
    checked = 0
    for data, text in rows(number):
        if quoted := re.search(r'"(.+)"', text):
            assert data[1:].decode() == quoted.group(1)
            checked += 1
        elif (stated := re.search(r": (\d+)$", text)) and len(data) in (5, 8):
            value = int.from_bytes(data[1:], "big") if len(data) == 5 else struct.unpack("<Q", data)[0]
            assert value == int(stated.group(1))
            checked += 1
    assert checked > 10


def test_hashes() -> None:
    lines = block("10.1", "hashes")[1:]
    assert len(lines) > 10
    for line in lines:
        length, seed, digest = line.split()
        data = bytes(i % 251 for i in range(int(length)))
        assert f"{_core.hash(data, int(seed)):016x}" == digest
        assert f"{reference.xxh3(data, int(seed)):016x}" == digest


def test_hashes_in_the_text() -> None:
    """Of the scalar: its leaf, its digest, its checksum."""
    leaf, digest, checksum = re.findall(r"`([0-9a-f]{8,16})`", PARTS["10.2"])[:3]
    value = file_of("10.2")[-4:]
    assert f"{reference.xxh3(value):016x}" == leaf
    assert f"{reference.xxh3(bytes.fromhex(leaf)[::-1], 1):016x}" == digest
    assert leaf.endswith(checksum)


def test_states_of_the_decoder() -> None:
    """The table of section 10.3, row by row, with the formulas of section 6.3."""
    fields = {text: data for data, text in rows("10.3")}
    chunk = fields["second piece: the chunk"]
    _, tables, *_ = reference.read_prelude(fields["first piece: the prelude"])
    ((precision, lowest, frequencies),) = tables
    state, words = struct.unpack_from("<I", chunk, 4)[0], list(struct.unpack("<H", chunk[8:]))
    steps = re.findall(
        r"^\| (\d) \| `(\w{8})` \| (\d+) \| (\d) \| (-?\d)[^|]* \| `(\w{8})` \|", PARTS["10.3"], re.MULTILINE
    )
    assert len(steps) == 8
    for i, (index, before, slot, symbol, value, after) in enumerate(steps):
        k, offset = int(symbol), int(slot) - sum(frequencies[: int(symbol)])
        assert (int(index), int(before, 16), int(slot)) == (i, state, state % (1 << precision))
        assert 0 <= offset < frequencies[k] and int(value) == lowest + k
        state = frequencies[k] * (state >> precision) + offset
        if state < 1 << 16:
            state = state << 16 | words.pop(0)
        assert int(after, 16) == state
    assert state == 1 << 16 and not words


def bits_of_tables(number: str) -> str:
    """What the text writes the tables as, without what it says about them."""
    lines = re.findall(r"```\n((?:[01 ]{3,}.*\n)+)```", PARTS[number])[0].splitlines()
    return "".join("".join(re.findall(r"(?<![^ ])[01]+(?= |$)", line.split("  ")[0])) for line in lines)


@pytest.mark.parametrize(
    ("number", "names", "start"),
    [
        ("10.3", ("first piece: the prelude",), 2),
        ("10.4", ("five tables", "the same, to the last"), 0),
        ("10.6", ("first piece, the prelude: 2^1 lanes, 2 tables",), 2),
        ("10.7", ("first piece, the prelude: 2^0 lanes, low parts of 2 bits, a table",), 2),
    ],
)
def test_bits_of_the_tables(number: str, names: tuple[str, ...], start: int) -> None:
    fields = {text: data for data, text in rows(number)}
    data = b"".join(fields[name] for name in names)[start:]
    assert bits_of_tables(number) == "".join(str(byte >> k & 1) for byte in data for k in range(8))


def prelude_with_classes() -> Any:
    """Of section 10.4, where it stands in the file."""
    fields = [data for data, _ in rows("10.4")]
    first = next(k for k, (_, text) in enumerate(rows("10.4")) if text.startswith("first piece"))
    return reference.read_prelude(b"".join(fields[first:-2]), 6)


def test_classes_of_rows_and_columns() -> None:
    """The first table of section 10.4."""
    prelude = prelude_with_classes()
    found = re.findall(r"^\| (rows|columns) \| (\d) \|.*\| (\d) \| `\w+` \|$", PARTS["10.4"], re.MULTILINE)
    assert [int(k) for side, _, k in found if side == "rows"] == prelude.rows == [1, 0]
    assert [int(k) for side, _, k in found if side == "columns"] == prelude.columns == [0, 0, 1]


def test_states_with_tables_by_row_and_column() -> None:
    """The second table of section 10.4, with the formulas of section 6.3."""
    prelude = prelude_with_classes()
    chunk = {text: data for data, text in rows("10.4")}["second piece: the chunk"]
    state = struct.unpack_from("<I", chunk, 2)[0]
    steps = re.findall(
        r"^\| (\d) \| (\d) \| (\d) \| (\d) \+ (\d) \| `(\w{8})` \| (\d+) \| (\d) \| (-?\d) \| `(\w{8})` \|$",
        PARTS["10.4"], re.MULTILINE,
    )  # fmt: skip
    assert len(steps) == 6
    for i, (index, row, column, *parts, before, slot, symbol, value, after) in enumerate(steps):
        assert (int(index), (int(row), int(column))) == (i, divmod(i, 3))
        assert [int(part) for part in parts] == [prelude.rows[i // 3], prelude.columns[i % 3]]
        precision, lowest, frequencies = prelude.tables[sum(map(int, parts))]
        k, offset = int(symbol), int(slot) - sum(frequencies[: int(symbol)])
        assert (int(before, 16), int(slot)) == (state, state % (1 << precision))
        assert 0 <= offset < frequencies[k] and int(value) == lowest + k
        state = frequencies[k] * (state >> precision) + offset
        assert int(after, 16) == state >= 1 << 16
    assert state == 1 << 16 and len(chunk) == 6


def test_states_of_the_trellis() -> None:
    """The table of section 10.5, with that of section 7.5."""
    after = [
        [int(state) for state in line.split("|")[2:-1]]
        for line in re.findall(r"^\| next where q is .*$", TEXT, re.MULTILINE)
    ]
    steps = re.findall(r"^\| (\d) \| (-?\d) \| (\d) \| (-?\d) \| (\S+) \| (\d) \|$", PARTS["10.5"], re.MULTILINE)
    assert len(steps) == 4
    state, elements = 0, struct.unpack("<4f", reference.decode(file_of("10.5"))["t"][2])
    for (_, level, before, doubled, element, then), decoded in zip(steps, elements, strict=True):
        q = int(level)
        assert int(before) == state
        assert int(doubled) == 2 * q - state % 2 * ((q > 0) - (q < 0))
        assert float(element) == int(doubled) / 2 == decoded
        state = after[q % 2][state]
        assert int(then) == state


def test_states_with_tables_by_the_level_before() -> None:
    """The table of section 10.6, with the formulas of sections 6.3 and 6.6."""
    fields = {text: data for data, text in rows("10.6")}
    _, tables, *_ = reference.read_prelude(fields["first piece, the prelude: 2^1 lanes, 2 tables"])
    states, last = list(struct.unpack_from("<2I", fields["second piece: the chunk"], 2)), [0, 0]
    found: dict[int, int] = {}
    steps = re.findall(
        r"^\| (\d) \| (\d) \| (\d) \| (-?\d) \| (\d) \| `(\w{8})` \| (\d+) \| (\d) \| (-?\d) \| `(\w{8})` \|$",
        PARTS["10.6"], re.MULTILINE,
    )  # fmt: skip
    assert len(steps) == 6
    for i, (index, lane, place, b, table, before, slot, symbol, value, after) in enumerate(steps):
        assert (int(index), int(lane), int(place)) == (i, i % 2, i % 2 * 3 + i // 2)
        assert int(b) == last[i % 2] and int(table) == min(abs(int(b)), 1)
        precision, lowest, frequencies = tables[int(table)]
        k, offset = int(symbol), int(slot) - sum(frequencies[: int(symbol)])
        assert (int(before, 16), int(slot)) == (states[i % 2], states[i % 2] % (1 << precision))
        assert 0 <= offset < frequencies[k] and int(value) == (lowest + k) * (-1 if int(b) < 0 else 1)
        states[i % 2] = frequencies[k] * (states[i % 2] >> precision) + offset
        assert int(after, 16) == states[i % 2] >= 1 << 16
        found[int(place)] = last[i % 2] = int(value)
    assert states == [1 << 16] * 2
    assert [found[place] / 2 for place in range(6)] == list(
        struct.unpack("<6f", reference.decode(file_of("10.6"))["w"][2])
    )


def test_tokens_of_runs() -> None:
    """The table of section 10.7, with the formulas of sections 6.3 and 6.7."""
    fields = {text: data for data, text in rows("10.7")}
    prelude = fields["first piece, the prelude: 2^0 lanes, low parts of 2 bits, a table"]
    ((precision, lowest, frequencies),) = reference.PRELUDES["runs"](prelude, 24).tables
    state, low = struct.unpack("<I", fields["the state"])[0], fields["their low parts"][0]
    levels = dict[int, int]()
    place = 0
    steps = re.findall(
        r"^\| (\d) \| `(\w{8})` \| (\d+) \| (\d) \| (-?\d) \| `(\w{8})` \| (\d) zeros?( and the level)? \| (\d+) \|$",
        PARTS["10.7"], re.MULTILINE,
    )  # fmt: skip
    assert len(steps) == 3 + (24 - 3 - 3) // 4
    for index, (i, before, slot, symbol, token, after, zeros, level, so_far) in enumerate(steps):
        k, offset = int(symbol), int(slot) - sum(frequencies[: int(symbol)])
        assert (int(i), int(before, 16), int(slot)) == (index, state, state % (1 << precision))
        assert 0 <= offset < frequencies[k] and int(token) == lowest + k
        state = frequencies[k] * (state >> precision) + offset
        assert int(after, 16) == state >= 1 << 16
        assert bool(level) == (token != "0") and int(zeros) == (low % 4 if level else 4)
        place += int(zeros)
        if level:
            levels[place], low, place = int(token), low >> 2, place + 1
        assert place == int(so_far)
    assert state == 1 << 16 and low == 0 and place <= 24
    found = struct.unpack("<24f", reference.decode(file_of("10.7"))["w"][2])
    assert {p: 2 * x for p, x in enumerate(found) if x} == levels
