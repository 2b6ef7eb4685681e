"""Deterministic CBOR (RFC 8949, section 4.2.1) of the few types a manifest needs (spec/FORMAT.md, section 4.1)."""

from __future__ import annotations

import struct
from typing import TypeAlias

Value: TypeAlias = "int | float | bool | str | bytes | list[Value] | dict[str, Value] | None"

MAX_DEPTH = 16


class CborError(ValueError):
    """Bytes that are not the one encoding of a value."""


class TooManyItemsError(CborError):
    """More items than the caller allows; `items` says how many at least."""

    def __init__(self, items: int) -> None:
        self.items = items
        super().__init__(f"{items} items or more")


def encode(value: object) -> bytes:
    """Encode `value`; map keys are sorted by their encoding, floats always take 8 bytes."""
    out: list[bytes] = []
    _encode(value, out)
    return b"".join(out)


def _head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes([major << 5 | number])
    for code, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 1 << 8 * size:
            return bytes([major << 5 | code]) + number.to_bytes(size, "big")
    raise CborError(f"{number} needs more than 64 bits")


def _encode(value: object, out: list[bytes]) -> None:
    match value:
        case None:
            out.append(b"\xf6")
        case bool():
            out.append(b"\xf5" if value else b"\xf4")
        case int():
            out.append(_head(0, value) if value >= 0 else _head(1, -1 - value))
        case float():
            out.append(b"\xfb" + struct.pack(">d", value))
        case bytes():
            out.append(_head(2, len(value)) + value)
        case str():
            text = value.encode("utf-8")
            out.append(_head(3, len(text)) + text)
        case list() | tuple():
            items: list[object] = list(value)  # pyright: ignore[reportUnknownArgumentType]
            out.append(_head(4, len(items)))
            for item in items:
                _encode(item, out)
        case dict():
            pairs: dict[str, object] = dict(value)  # pyright: ignore[reportUnknownArgumentType]
            out.append(_head(5, len(pairs)))
            for key in sorted(pairs, key=lambda k: encode(k)):
                _encode(key, out)
                _encode(pairs[key], out)
        case _:
            raise CborError(f"cannot encode {type(value).__name__}")


def decode(data: bytes, most_items: int | None = None) -> Value:
    """Decode one value that fills `data`; raises `CborError` unless `encode` would give the same bytes back.

    The items of all arrays and maps together are counted before they are built: each takes up to 72 bytes of memory.
    """
    parser = _Parser(data, len(data) if most_items is None else most_items)
    value = parser.value(0)
    if parser.position != len(data):
        raise CborError(f"{len(data) - parser.position} bytes after the value")
    return value


class _Parser:
    def __init__(self, data: bytes, most_items: int) -> None:
        self.data = data
        self.position = 0
        self.items = 1
        self.most_items = most_items

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.position:
            raise CborError(f"ends inside a value at byte {self.position}")
        self.position += size
        return self.data[self.position - size : self.position]

    def number(self, info: int) -> int:
        if info < 24:
            return info
        if info > 27:
            raise CborError(f"unknown length at byte {self.position - 1}")
        size = 1 << (info - 24)
        number = int.from_bytes(self.take(size), "big")
        if number < (24 if size == 1 else 1 << 4 * size):
            raise CborError(f"a number that is not in its shortest form at byte {self.position - size}")
        return number

    def value(self, depth: int) -> Value:
        if depth > MAX_DEPTH:
            raise CborError(f"nested more than {MAX_DEPTH} deep")
        head = self.take(1)[0]
        major, info = head >> 5, head & 31
        if major == 7:
            return self.simple(head)
        if major == 6:
            raise CborError(f"a tag at byte {self.position - 1}")
        number = self.number(info)
        match major:
            case 0:
                return number
            case 1:
                return -1 - number
            case 2:
                return self.take(number)
            case 3:
                return self.text(number)
            case 4:
                self.fits(number)
                return [self.value(depth + 1) for _ in range(number)]
            case _:
                return self.map(number, depth)

    def simple(self, head: int) -> Value:
        match head:
            case 0xF4 | 0xF5:
                return head == 0xF5
            case 0xF6:
                return None
            case 0xFB:
                (number,) = struct.unpack(">d", self.take(8))
                return float(number)
            case _:
                raise CborError(f"unknown simple value {head:#x} at byte {self.position - 1}")

    def text(self, size: int) -> str:
        try:
            return self.take(size).decode("utf-8")
        except UnicodeDecodeError:
            raise CborError(f"text that is not UTF-8 before byte {self.position}") from None

    def fits(self, items: int) -> None:
        """Refuse a length that the bytes left cannot hold, or that the caller does not want, before building a list."""
        if items > len(self.data) - self.position:
            raise CborError(f"a length of {items} before byte {self.position} does not fit")
        self.items += items
        if self.items > self.most_items:
            raise TooManyItemsError(self.items)

    def map(self, size: int, depth: int) -> dict[str, Value]:
        self.fits(2 * size)
        pairs: dict[str, Value] = {}
        previous = b""
        for _ in range(size):
            start = self.position
            key = self.value(depth + 1)
            if not isinstance(key, str):
                raise CborError(f"a key that is not text at byte {start}")
            encoded = self.data[start : self.position]
            if encoded <= previous:
                raise CborError(f"keys out of order or repeated at byte {start}")
            previous = encoded
            pairs[key] = self.value(depth + 1)
        return pairs
