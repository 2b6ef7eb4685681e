"""One `.safetensors` file, parsed strictly and read range by range.

The safetensors library maps the file into memory, and pages of a map count as memory of this process. Here a
tensor's bytes are read when they are asked for and forgotten with the array that holds them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, NoReturn

from tersor.errors import SourceError
from tersor.sources.files import StoredFile, digest
from tersor.sources.unit import ITEMSIZE, Unit, check_name, check_shape, unsupported_dtype

MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors format itself."""

_DAMAGED = "the file is truncated or damaged: get it again"


class SafetensorsSource:
    """The tensors of one `.safetensors` file, in the order of their bytes in the file.

    Raises `SourceError` when the header's length, JSON, dtypes, shapes or offsets are wrong: the tensors must
    follow each other without holes or overlaps and end where the file ends. A safetensors file cannot say
    that two tensors are tied, so no unit here is.
    """

    def __init__(self, path: str | Path) -> None:
        self._file = StoredFile.at(Path(path))
        self.label = str(self._file.path)
        header, start = _read_header(self._file)
        self._header_digest = digest(header)
        entries = _parse_header(header, self.label)
        self.metadata: Mapping[str, str] = MappingProxyType(_take_metadata(entries, self.label))
        self.skipped: tuple[str, ...] = ()
        self._units = tuple(_units(self._file, entries, start))

    def units(self) -> Sequence[Unit]:
        """The tensors; nothing of their data has been read yet."""
        return self._units

    def fingerprint(self) -> str:
        """A hexadecimal digest of the file's name, size, time of last change and header."""
        return digest("safetensors", self._file.identity(), self._header_digest)


def _read_header(file: StoredFile) -> tuple[bytes, int]:
    """Return the header's bytes and the offset at which the tensors start."""
    where = str(file.path)
    if file.size < 10:
        raise SourceError(f"{file.size} bytes are too few for a safetensors file", where=where, remedy=_DAMAGED)
    length = int.from_bytes(file.read(0, 8).tobytes(), "little")
    if length > MAX_HEADER_BYTES:
        raise SourceError(
            f"the header would be {length} bytes long, more than the format's limit of {MAX_HEADER_BYTES}",
            where=where,
            remedy="this is no safetensors file, or it is damaged",
        )
    if 8 + length > file.size:
        raise SourceError(
            f"the header should end at byte {8 + length}, but the file ends at {file.size}",
            where=where,
            remedy=_DAMAGED,
        )
    return file.read(8, length).tobytes(), 8 + length


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


def unique_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a dict for `json.loads`; a key that occurs twice raises `ValueError`, not hiding the first."""
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"the key {twice!r} occurs twice")
    return result


def parse_json_object(text: bytes, where: str) -> dict[str, Any]:
    """Return the JSON object in `text`; raises `SourceError` for anything else, duplicate keys included."""
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=unique_pairs, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"the JSON is not valid: {error}", where=where, remedy=_DAMAGED) from None
    if not isinstance(value, dict):
        raise SourceError("the JSON is not an object", where=where, remedy=_DAMAGED)
    return value  # pyright: ignore[reportUnknownVariableType]


def _parse_header(header: bytes, where: str) -> dict[str, Any]:
    if not header.startswith(b"{"):
        raise SourceError(
            "the header does not start with '{'",
            where=where,
            remedy="this is no safetensors file, or it is damaged",
        )
    return parse_json_object(header, f"{where}, header")


def _take_metadata(entries: dict[str, Any], where: str) -> dict[str, str]:
    metadata: Any = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or any(
        not isinstance(value, str)
        for value in metadata.values()  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    ):
        raise SourceError(
            "__metadata__ is not a table of texts", where=f"{where}, header", remedy="save the file again"
        )
    return metadata  # pyright: ignore[reportUnknownVariableType]


def _units(file: StoredFile, entries: Mapping[str, Any], start: int) -> list[Unit]:
    """Turn header entries into units, checking that they cover the rest of the file exactly."""
    layout = [_layout(name, entry, str(file.path)) for name, entry in entries.items()]
    layout.sort(key=lambda item: item[3:])  # stable: empty tensors stay in the order of the header
    units: list[Unit] = []
    position = 0
    for name, dtype, shape, begin, end in layout:
        if begin != position:
            what = "overlaps the tensor before it" if begin < position else "leaves a hole before it"
            raise SourceError(
                f"the data starts at byte {begin}, where {position} was expected: it {what}",
                where=f"{file.path}, tensor {name!r}",
                remedy=_DAMAGED,
            )
        position = end
        units.append(Unit(name, dtype, shape, partial(file.read, start + begin, end - begin)))
    if start + position != file.size:
        raise SourceError(
            f"the tensors end at byte {start + position}, but the file at {file.size}",
            where=str(file.path),
            remedy=_DAMAGED,
        )
    if not units:
        raise SourceError("the file holds no tensors", where=str(file.path), remedy="name a file of weights")
    return units


def _layout(name: str, entry: Any, file: str) -> tuple[str, str, tuple[int, ...], int, int]:
    """Check one header entry; return name, dtype, shape and the first and last byte after the header."""
    check_name(name, file)
    where = f"{file}, tensor {name!r}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:  # pyright: ignore[reportUnknownArgumentType]
        raise SourceError("the entry is not exactly dtype, shape and data_offsets", where=where, remedy=_DAMAGED)
    fields: dict[str, Any] = entry
    dtype = fields["dtype"]
    if not isinstance(dtype, str) or dtype not in ITEMSIZE:
        raise unsupported_dtype(str(dtype)[:80], where)
    shape = check_shape(fields["shape"], where)
    offsets: Any = fields["data_offsets"]
    if not isinstance(offsets, list) or len(offsets) != 2 or any(type(offset) is not int for offset in offsets):  # pyright: ignore
        raise SourceError("data_offsets is not a pair of whole numbers", where=where, remedy=_DAMAGED)
    begin: int = offsets[0]
    end: int = offsets[1]
    expected = math.prod(shape) * ITEMSIZE[dtype]
    if begin < 0 or end - begin != expected:
        raise SourceError(
            f"the offsets {begin} to {end} do not hold the {expected} bytes of {dtype} {list(shape)}",
            where=where,
            remedy=_DAMAGED,
        )
    return name, dtype, shape, begin, end
