from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import Arrays, run_python, save_raw_safetensors, save_safetensors

import tersor
from tersor.comparison import compare

A: Arrays = {
    "w": np.array([[3.0, 4.0], [0.0, 0.0]], np.float32),
    "n": np.arange(5),
    "flag": np.array([True, False]),
    "c": np.array([1 + 2j], np.complex64),
}


def changed(**arrays: Any) -> Arrays:
    return {**A, **arrays}


def rows(b: Any, a: Any = A) -> dict[str, Any]:
    return {row.name: row for row in compare(a, b).tensors}


def test_identical() -> None:
    result = compare(A, {n: a.copy() for n, a in A.items()})
    assert result.identical and result.snr_db is None
    assert [row.status for row in result.tensors] == ["identical"] * 4


def test_signal_to_noise_ratio() -> None:
    result = compare(A, changed(w=A["w"] + np.float32(0.25)))
    row = result.tensors[0]
    assert (row.status, row.largest) == ("close", 0.25) and not result.identical
    assert row.snr_db == pytest.approx(10 * np.log10(25 / 0.25))


def test_integers_are_no_signal() -> None:
    large = changed(n=np.array([10**6]))
    wrong = compare(large, changed(w=A["w"] + np.float32(0.25), n=np.array([0])))
    same = compare(large, changed(w=A["w"] + np.float32(0.25), n=large["n"]))
    assert wrong.snr_db == same.snr_db == pytest.approx(10 * np.log10((25 + 5) / 0.25))


def test_every_difference_is_named() -> None:
    b = changed(w=A["w"].T[:1], n=A["n"].astype(np.int32), c=A["c"] * 2, new=np.zeros(3))
    del b["flag"]
    assert {name: row.status for name, row in rows(b).items()} == {
        "w": "shape", "n": "dtype", "flag": "only in A", "c": "close", "new": "only in B",
    }  # fmt: skip
    assert rows(b)["c"].largest == pytest.approx(abs(1 + 2j))


def test_bits_count_not_values() -> None:
    assert rows({"z": np.array([-0.0])}, {"z": np.array([0.0])})["z"].status == "close"
    nan = np.array([np.nan], np.float32)
    payload = np.array([0x7FC00001], np.uint32).view(np.float32)
    assert rows({"z": nan}, {"z": nan.copy()})["z"].status == "identical"
    assert rows({"z": payload}, {"z": nan})["z"].status == "close"


def test_nonfinite_values_do_not_spoil_the_whole() -> None:
    a = {"x": np.array([np.inf, 1.0]), "w": np.array([3.0, 4.0])}
    b = {"x": np.array([np.inf, 2.0]), "w": np.array([3.0, 4.5])}
    result = compare(a, b)
    assert result.snr_db == pytest.approx(20.0)
    json.loads(json.dumps(result.to_dict(), allow_nan=False))


def test_empty_and_scalar_tensors() -> None:
    empty = {"e": np.zeros((0, 3), np.float32), "s": np.array(1.0)}
    assert compare(empty, {n: a.copy() for n, a in empty.items()}).identical
    assert rows({"e": np.zeros((0, 4), np.float32), "s": np.array(1.0)}, empty)["e"].status == "shape"


def test_files_of_any_kind_on_either_side(tmp_path: Path) -> None:
    save_safetensors(tmp_path / "a.safetensors", A)
    tersor.compress(A, tmp_path / "a.tsr", lossless=True)
    sources: list[Any] = [A, tmp_path / "a.safetensors", str(tmp_path / "a.tsr")]
    assert all(compare(x, y).identical for x in sources for y in sources)


def test_bfloat16(tmp_path: Path) -> None:
    for name, word in (("a", 0x3F80), ("b", 0x4000)):
        save_raw_safetensors(
            tmp_path / f"{name}.safetensors", {"w": ("BF16", [2], np.array([word, 0x3F80], "<u2").tobytes())}
        )
    row = rows(tmp_path / "b.safetensors", tmp_path / "a.safetensors")["w"]
    assert (row.dtype, row.largest, row.snr_db) == ("BF16", 1.0, pytest.approx(10 * np.log10(2)))


def test_to_dict_is_json() -> None:
    result = compare(A, changed(w=A["w"] * 2))
    assert json.loads(json.dumps(result.to_dict()))["identical"] is False


def test_the_public_name_stays_a_function() -> None:
    """`tersor.compare` is a function, before and after the module of that name is imported."""
    code = (
        "import numpy, tersor; a = {'w': numpy.ones(3)}\n"
        "assert tersor.compare(a, a).identical\nassert tersor.compare(a, a).identical\n"
        "import tersor.report.text\nassert tersor.compare(a, a).identical"
    )
    result = run_python(code)
    assert result.returncode == 0, result.stderr
