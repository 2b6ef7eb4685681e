from __future__ import annotations

import math
import struct
from typing import Any

import pytest

from tersor.format import cbor

# RFC 8949, appendix A, as far as the subset reaches.
RFC = [
    (0, "00"), (1, "01"), (10, "0a"), (23, "17"), (24, "1818"), (25, "1819"), (100, "1864"), (1000, "1903e8"),
    (1000000, "1a000f4240"), (1000000000000, "1b000000e8d4a51000"), (18446744073709551615, "1bffffffffffffffff"),
    (-18446744073709551616, "3bffffffffffffffff"), (-1, "20"), (-10, "29"), (-100, "3863"), (-1000, "3903e7"),
    (1.1, "fb3ff199999999999a"), (1.0e300, "fb7e37e43c8800759c"), (-4.1, "fbc010666666666666"),
    (math.inf, "fb7ff0000000000000"), (-math.inf, "fbfff0000000000000"), (-0.0, "fb8000000000000000"),
    (False, "f4"), (True, "f5"), (None, "f6"), (b"", "40"), (b"\1\2\3\4", "4401020304"), ("", "60"), ("a", "6161"),
    ("IETF", "6449455446"), ("\"\\", "62225c"), ("ü", "62c3bc"), ("水", "63e6b0b4"), ("\U00010151", "64f0908591"),
    ([], "80"), ([1, 2, 3], "83010203"), ([1, [2, 3], [4, 5]], "8301820203820405"),
    (list(range(1, 26)), "98190102030405060708090a0b0c0d0e0f101112131415161718181819"), ({}, "a0"),
    ({"a": 1, "b": [2, 3]}, "a26161016162820203"),
    ({"a": "A", "b": "B", "c": "C", "d": "D", "e": "E"}, "a56161614161626142616361436164614461656145"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "encoded"), RFC)
def test_examples_of_the_rfc(value: Any, encoded: str) -> None:
    assert cbor.encode(value).hex() == encoded
    decoded = cbor.decode(bytes.fromhex(encoded))
    assert repr(decoded) == repr(value)


def test_keys_are_sorted_by_their_encodings() -> None:
    assert cbor.encode({"bb": 1, "a": 2, "é": 3, "": 4}).hex() == "a460046161026262620162c3a903"
    assert cbor.encode({"a": 1, "b": 2}) == cbor.encode({"b": 2, "a": 1})


def test_tuples_are_arrays() -> None:
    assert cbor.encode((1, (2,))) == cbor.encode([1, [2]])


def test_nan_comes_back() -> None:
    decoded = cbor.decode(cbor.encode(math.nan))
    assert isinstance(decoded, float) and math.isnan(decoded)


@pytest.mark.parametrize("value", [2**64, -(2**64) - 1, {1: 2}, object(), {1, 2}, 1j, [b"", {"a": object()}]])
def test_what_has_no_encoding(value: Any) -> None:
    if value == {1: 2}:
        with pytest.raises(cbor.CborError):
            cbor.decode(cbor.encode(value))
    else:
        with pytest.raises(cbor.CborError):
            cbor.encode(value)


REFUSED = {
    "nothing": "",
    "two items": "0000",
    "number not shortest, 1 byte": "1817",
    "number not shortest, 2 bytes": "1900ff",
    "number not shortest, 4 bytes": "1a0000ffff",
    "number not shortest, 8 bytes": "1b00000000ffffffff",
    "negative not shortest": "3800",
    "text length not shortest": "78016100",
    "bytes length not shortest": "5800",
    "array length not shortest": "9800",
    "map length not shortest": "b800",
    "indefinite bytes": "5f4100ff",
    "indefinite text": "7f6161ff",
    "indefinite array": "9f00ff",
    "indefinite map": "bf616100ff",
    "break": "ff",
    "reserved length": "1c",
    "tag": "c000",
    "half": "f93c00",
    "single": "fa3f800000",
    "undefined": "f7",
    "simple value": "e0",
    "simple value in a byte": "f8ff",
    "key is a number": "a10000",
    "key is bytes": "a14000",
    "keys out of order": "a2616200616100",
    "key twice": "a2616100616100",
    "shorter key after longer": "a262616100616200",
    "text is not UTF-8": "61ff",
    "text is an overlong form": "62c080",
    "text is a surrogate": "63eda080",
    "ends in a number": "19",
    "ends in text": "6261",
    "ends in bytes": "42",
    "ends in an array": "8201",
    "ends in a map": "a16161",
    "ends in a float": "fb0000",
    "bytes longer than memory": "5bffffffffffffffff",
    "array longer than memory": "9bffffffffffffffff",
    "map longer than memory": "bbffffffffffffffff",
}


@pytest.mark.parametrize("encoded", REFUSED.values(), ids=REFUSED)
def test_refused(encoded: str) -> None:
    with pytest.raises(cbor.CborError):
        cbor.decode(bytes.fromhex(encoded))


def nested(depth: int) -> bytes:
    return b"\x81" * depth + b"\x00"


def test_depth_is_bounded() -> None:
    """The root is depth 0; a number inside sixteen arrays is at depth 16."""
    cbor.decode(nested(16))
    with pytest.raises(cbor.CborError, match="deep"):
        cbor.decode(nested(17))
    with pytest.raises(cbor.CborError, match="deep"):
        cbor.decode(nested(1_000_000))
    with pytest.raises(cbor.CborError, match="deep"):
        cbor.decode(b"\xa1\x61a" * 17 + b"\x00")


def test_every_cut_is_refused() -> None:
    encoded = cbor.encode({"a": [1, -70000, 2.5, b"bytes" * 10, "text" * 100], "b": {"c": None}})
    assert cbor.encode(cbor.decode(encoded)) == encoded
    for end in range(len(encoded)):
        with pytest.raises(cbor.CborError):
            cbor.decode(encoded[:end])


def test_any_accepted_single_byte_change_is_another_canonical_item() -> None:
    encoded = cbor.encode({"needs": [], "meta": {"x": 1.5}, "tensors": [["w", "F32", [2, 3], bytes(8), [1000]]]})
    for position in range(len(encoded)):
        for bit in range(8):
            changed = bytearray(encoded)
            changed[position] ^= 1 << bit
            try:
                value = cbor.decode(bytes(changed))
            except cbor.CborError:
                continue
            assert cbor.encode(value) == changed


def test_float_bits_survive() -> None:
    for bits in (1, 1 << 63, 0x7FEFFFFFFFFFFFFF):
        data = b"\xfb" + struct.pack(">Q", bits)
        assert cbor.encode(cbor.decode(data)) == data


def test_items_are_counted_before_they_are_built() -> None:
    data = cbor.encode([[1, 2], {"a": [], "b": {}}])  # the root, its 2 items, 2 in the array, 4 in the map
    assert cbor.decode(data, 9) == [[1, 2], {"a": [], "b": {}}]
    for most in range(9):
        with pytest.raises(cbor.TooManyItemsError) as caught:
            cbor.decode(data, most)
        assert most < caught.value.items <= 9
