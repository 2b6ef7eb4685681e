"""The targets of the reader. Each takes the bytes of an input and returns what became of them; it must not raise."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Any

from examine import examine
from files import HEADER, Choices, bases, golden_files, sign, streams_of

from tersor import _core
from tersor.format.dtypes import DTYPES
from tersor.format.manifest import CODERS, INTEGER_TYPES, OPS

MAGIC = b"\x89TSR\r\n\x1a\n"
NUMBERS = (0, 1, -1, 2, 5, 8, 23, 24, 255, 256, 65535, 65536, 2**20, 2**20 + 65536, 2**31, 2**32 - 1, 2**53, 2**62,
           2**63 - 1, 2**63, 2**64 - 1, -(2**64))  # fmt: skip
WORDS = (*OPS, *CODERS, *INTEGER_TYPES, *DTYPES, "", "a\0b", "needs", "meta", "tensors", "steps", "offset", "low",
         "columns", "values", "planes", "__metadata__", "ä€𝄞", "unknown")  # fmt: skip
FLOATS = (0.0, -0.0, -1.0, 1.0, 1e-45, 3e38, float("inf"), float("nan"), -0.9999999)
SIDES = (0, 1, 2, 3, 64, 127, 128, 2**14, 2**16, 2**24, 2**24 + 1, 2**32, 2**63, 2**64 - 1)
OTHERS = (None, True, False, 0.0, float("nan"), b"", b"\0" * 8, [], {}, [[]], {"": 0})


# -- whole files -------------------------------------------------------------------------------------------------------


def container(data: bytes) -> str:
    """A file as it is, after a byte that says which parts of its header are put right first."""
    flags, file = data[:1], bytearray(data[1:])
    if flags and len(file) >= HEADER.size + 8:
        if flags[0] & 1:
            struct.pack_into("<Q", file, 16, len(file))
        if flags[0] & 2:
            (stored,) = struct.unpack_from("<Q", file, 24)
            struct.pack_into("<Q", file, 40, _core.hash(bytes(file[HEADER.size + 8 :][:stored])))
        if flags[0] & 4:
            struct.pack_into("<Q", file, 48, _core.hash(bytes(file[: HEADER.size])))
    return examine(bytes(file))


def container_seeds() -> list[bytes]:
    """The golden files, with and without help for the header."""
    return [bytes([flags]) + file for file in golden_files() for flags in (0, 7)]


# -- manifests ---------------------------------------------------------------------------------------------------------


def manifest(data: bytes) -> str:
    """A valid file with a changed manifest: steps, values of its tree, bytes of its encoding or its deflated stream."""
    choices = Choices(data)
    root, pieces = choices.pick(bases()).fresh()
    where = choices.below(8)
    holder = [root]
    if choices.below(3) == 0:
        _change_step(root, choices)
    for _ in range(choices.below(4) + (where < 6)):
        _change_tree(holder, choices)
    plain = bytearray(_encode(holder[0], bool(choices.below(8) == 7)))
    if where in (5, 6):
        _change_bytes(plain, choices)
    size = len(plain) + (choices.pick((0, 0, 1, -1, 2**20, 2**40)) if where == 7 else 0)
    stored = bytearray(zlib.compress(bytes(plain), choices.pick((6, 0, 1, 9))))
    if where == 7:
        _change_bytes(stored, choices)
    body = b"".join(pieces)
    if choices.below(4):  # as many bytes as the streams now claim, if that is a sensible number
        due = _claimed(holder[0])
        body = (body + b"\0" * max(0, due - len(body)))[:due] if 0 <= due < 2**16 else body
    return examine(sign(bytes(stored), max(0, size), body))


def _change_step(root: dict[str, Any], choices: Choices) -> None:
    """Another op with the parameters it has, or other numbers in the parameters."""
    steps = [step for tensor in root["tensors"] if len(tensor) == 5 for step in tensor[4]]
    if not steps:
        return
    step = choices.pick(steps)
    match choices.below(3):
        case 0:
            step[0] = choices.pick(OPS)
            names = choices.pick(
                (("steps", "columns", "offset"), ("steps", "columns", "values"), ("steps", "offset", "low"))
            )
            given = [v for v in step[1].values() if isinstance(v, bytes)] + [struct.pack("<f", 1)]
            step[1] = {name: 0 if name == "low" else given[k % len(given)] for k, name in enumerate(names)}
        case 1:
            packed = [name for name, value in step[1].items() if isinstance(value, bytes)]
            for name in packed[:1] if choices.below(2) else packed[1:2]:
                at = 4 * choices.below(256)
                value = struct.pack("<f", choices.pick(FLOATS))
                step[1][name] = step[1][name][:at] + value + step[1][name][at + 4 * choices.below(2) :]
        case _ if step[2]:
            stream = choices.pick(step[2])
            stream[2] += choices.pick((1, -1, stream[2], 65536)) if choices.below(2) else 0
            step[2].insert(choices.below(len(step[2]) + 1), _copy(stream))


def _slots(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    """Every place in a tree, as its parent and the key there."""
    keys = range(len(value)) if isinstance(value, list) else value if isinstance(value, dict) else ()
    for key in keys:
        found.append((value, key))
        _slots(value[key], found)
    return found


def _change_tree(holder: list[Any], choices: Choices) -> None:
    slots = _slots(holder, [])[:5000]
    parent, key = choices.pick(slots)
    value = parent[key]
    like = NUMBERS if type(value) is int else WORDS if isinstance(value, str) else OTHERS
    match choices.below(12):
        case 0 | 1:
            parent[key] = _copy(choices.pick(like))
        case 2:
            parent[key] = _copy(choices.pick(choices.pick((NUMBERS, WORDS, OTHERS))))
        case 3:
            other, at = choices.pick(slots)
            parent[key] = _copy(other[at])
        case 4 if parent is not holder:
            del parent[key]
        case 5 if isinstance(parent, list) and parent is not holder:
            parent.insert(key, _copy(value))
        case 6 if isinstance(value, (int, float)):
            parent[key] = value + choices.pick((1, -1, 65536, -65536, value, 2**32))
        case 7 if isinstance(value, (bytes, str)):
            raw = bytearray(value.encode() if isinstance(value, str) else value)
            _change_bytes(raw, choices)
            parent[key] = raw.decode(errors="replace") if isinstance(value, str) else bytes(raw)
        case 8:
            for _ in range(choices.below(20)):
                parent[key] = [parent[key]]
        case 9 if isinstance(value, (list, bytes, str)):
            parent[key] = value * choices.pick((0, 2, 3, 40, 1000))
        case 10 if isinstance(value, dict):
            value[choices.pick(WORDS)] = choices.pick(NUMBERS)
        case _:
            parent[key] = choices.take(1 + choices.below(16))


def _copy(value: Any) -> Any:
    """A deep copy, so that no tree contains itself."""
    if isinstance(value, list):
        return [_copy(v) for v in value]
    return {k: _copy(v) for k, v in value.items()} if isinstance(value, dict) else value


def _head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes([major << 5 | number])
    size = next(s for s in (1, 2, 4, 8) if number < 1 << 8 * s)
    return bytes([major << 5 | {1: 24, 2: 25, 4: 26, 8: 27}[size]]) + number.to_bytes(size, "big")


def _encode(value: Any, unsorted: bool) -> bytes:
    """CBOR of anything a tree may hold by now; numbers beyond 64 bits are cut."""
    match value:
        case None:
            return b"\xf6"
        case bool():
            return b"\xf5" if value else b"\xf4"
        case int():
            return _head(0, value % 2**64) if value >= 0 else _head(1, (-1 - value) % 2**64)
        case float():
            return b"\xfb" + struct.pack(">d", value)
        case bytes():
            return _head(2, len(value)) + value
        case str():
            text = value.encode()
            return _head(3, len(text)) + text
        case list():
            return _head(4, len(value)) + b"".join(_encode(v, unsorted) for v in value)
        case _:
            pairs = [(_encode(k, unsorted), _encode(v, unsorted)) for k, v in value.items()]
            ordered = pairs[::-1] if unsorted else sorted(pairs)
            return _head(5, len(pairs)) + b"".join(k + v for k, v in ordered)


def _claimed(root: Any) -> int:
    """What the sizes of all streams add up to; -1 if the tree is too wild to say."""
    try:
        total = sum(size for stream in streams_of(root) for size in stream[4])
    except (TypeError, KeyError, IndexError):
        return -1
    return total if isinstance(total, int) else -1


def _change_bytes(data: bytearray, choices: Choices) -> None:
    for _ in range(1 + choices.below(3)):
        at = choices.below(65536) % (len(data) + 1)
        match choices.below(6):
            case 0 | 1 if at < len(data):
                data[at] ^= 1 << choices.below(8)
            case 2 if at < len(data):
                data[at] = choices.below(256)
            case 3:
                del data[at : at + 1 + choices.below(8)]
            case 4:
                data[at:at] = choices.take(1 + choices.below(8))
            case _:
                del data[at:]
                data += choices.take(choices.below(8))


# -- chunks -----------------------------------------------------------------------------------------------------------


def chunks(data: bytes) -> str:
    """A valid file with changed pieces, whose sizes and checksums are right again; the digests are not touched."""
    choices = Choices(data)
    root, pieces = choices.pick(bases()).fresh()
    for _ in range(1 + choices.below(3)):
        if not pieces:
            break
        number = choices.below(len(pieces))
        piece = bytearray(pieces[number])
        match choices.below(8):
            case 0:
                donor = choices.pick(bases()).pieces
                piece = bytearray(choices.pick(donor) if donor else b"")
            case 1:
                piece[:1] = bytes([choices.pick((0, 1, 254, 255))])
            case 2:
                stream = choices.pick(streams_of(root))
                stream[choices.below(2)] = choices.pick((*CODERS, *INTEGER_TYPES))
            case 3 | 4:
                number, piece = _change_prelude(root, pieces, choices)
            case _:
                _change_bytes(piece, choices)
        pieces[number] = bytes(piece)
    _sign_pieces(root, pieces)
    plain = _encode(root, False)
    return examine(sign(zlib.compress(plain), len(plain), b"".join(pieces)))


def _change_prelude(root: dict[str, Any], pieces: list[bytes], choices: Choices) -> tuple[int, bytearray]:
    """Number and content of a prelude with another number of lanes, tables or columns, or another share of the rows."""
    first, numbers = 0, []
    for stream in streams_of(root):
        if stream[0] == "rans2d" and stream[4]:
            numbers.append(first)
        first += len(stream[4])
    number = choices.pick(numbers or range(len(pieces)))
    piece = bytearray(pieces[number])
    ends = [k + 1 for k, byte in enumerate(piece) if k >= 2 and byte < 128][:2]  # of the two varints
    if not numbers or len(ends) < 2:
        return number, piece
    match choices.below(4):
        case 0:
            piece[choices.below(2)] = choices.pick((0, 1, 2, 5, 6, 63, 64, 65, 255))
        case 1:
            piece[2 : ends[0]] = _varint(choices.pick(SIDES))
        case 2:
            piece[ends[0] : ends[1]] = _varint(
                choices.pick(SIDES) if choices.below(2) else piece[ends[0]] + choices.below(3) - 1
            )
        case _:
            _change_bytes(piece, choices)
    return number, piece


def _varint(x: int) -> bytes:
    out = bytearray()
    while x > 127:
        out.append(x & 127 | 128)
        x >>= 7
    return bytes([*out, max(x, 0)])


def _sign_pieces(root: dict[str, Any], pieces: list[bytes]) -> None:
    rest = iter(pieces)
    for stream in streams_of(root):
        own = [next(rest) for _ in stream[4]]
        stream[4] = [len(piece) for piece in own]
        stream[5] = b"".join(_core.hash(piece).to_bytes(8, "little")[:4] for piece in own)


TARGETS: dict[str, Callable[[bytes], str]] = {"container": container, "manifest": manifest, "chunks": chunks}
SEEDS: dict[str, Callable[[], list[bytes]]] = {"container": container_seeds}
