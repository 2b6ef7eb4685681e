from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from tersor.errors import SourceError
from tersor.sources import open_source

A = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_arrays_of_every_kind() -> None:
    arrays: dict[str, Any] = {
        "f": A,
        "tied": A[:],
        "t": A.T,
        "part": A[:, ::2],
        "back": A[::-1],
        "big endian": A.astype(">f4"),
        "flag": np.array([True]),
        "c": np.array([1 + 2j], np.complex64),
        "number": np.float16(3),
        "empty": np.zeros((3, 0), np.int32),
        "ünïcode": np.arange(3, dtype=np.uint16),
    }
    source = open_source(arrays)
    units = {unit.name: unit for unit in source.units()}
    assert list(units) == list(arrays)
    assert {name: unit.tied_to for name, unit in units.items() if unit.tied_to} == {"tied": "f"}
    for name, unit in units.items():
        array = np.asarray(arrays[name])
        data = unit.load()
        assert data.tobytes() == array.astype(array.dtype.newbyteorder("<")).tobytes(), name
        assert data.dtype == np.uint8 and unit.shape == array.shape and not np.shares_memory(data, array)
    assert [unit.dtype for unit in units.values()][5:] == ["F32", "BOOL", "C64", "F16", "I32", "U16"]


def test_fingerprint_covers_the_bytes() -> None:
    assert open_source({"a": A}).fingerprint() == open_source({"a": A.copy()}).fingerprint()
    others = [{"a": A + 1}, {"b": A}, {"a": A.reshape(3, 2)}, {"a": A.view(np.int32)}, {"a": A, "b": A}]
    assert len({open_source(mapping).fingerprint() for mapping in [{"a": A}, *others]}) == 6


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({}, "no tensors"),
        ({"a": [1, 2]}, "list is neither"),
        ({"a": np.array(["x"])}, "str32 is not supported"),
        ({"a": np.array([None])}, "object is not supported"),
        ({"a": np.zeros(1, np.complex128)}, "complex128 is not supported"),
        ({"": A}, "empty name"),
        ({"a\0": A}, "NUL"),
        ({"\udc80": A}, "surrogate"),
        ({1: A}, "int, not text"),
    ],
)
def test_mappings_that_are_refused(mapping: Any, message: str) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        open_source(mapping)
    assert caught.value.where and caught.value.remedy


def test_torch_is_not_imported_for_files_and_arrays() -> None:
    program = "import sys, numpy, tersor.sources as s; s.open_source({'a': numpy.ones(2)}).units()[0].load()\n"
    program += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": ":".join(sys.path)}).returncode == 0


def test_a_module_is_read_and_left_alone() -> None:
    torch = pytest.importorskip("torch")
    inner = torch.nn.Sequential(torch.nn.Embedding(5, 4), torch.nn.Linear(4, 5, bias=False), torch.nn.BatchNorm1d(5))
    inner[1].weight = inner[0].weight
    inner.train()
    inner[2].weight.grad = torch.ones(5)
    before = {name: value.clone() for name, value in inner.state_dict().items()}
    source = open_source(inner)
    units = {unit.name: unit for unit in source.units()}
    assert source.label == "Sequential"
    assert list(units) == list(before)
    assert units["1.weight"].tied_to == "0.weight"
    assert units["2.num_batches_tracked"].dtype == "I64"
    for name, value in before.items():
        data = units[name].load()
        assert data.tobytes() == value.numpy().tobytes()
        data[:] = 255  # the caller's own
        assert torch.equal(inner.state_dict()[name], value)
    assert inner.training and inner[2].weight.grad is not None and inner[2].weight.requires_grad
    assert source.fingerprint() == open_source(inner).fingerprint()
    with torch.no_grad():
        inner[2].weight[0] += 1
    assert source.fingerprint() != open_source(before).fingerprint()


def test_tensors_that_numpy_does_not_know() -> None:
    torch = pytest.importorskip("torch")
    values = torch.tensor([[1.0, -2.0], [0.5, 4.0]])
    types = {
        "BF16": torch.bfloat16,
        "F8_E4M3": torch.float8_e4m3fn,
        "F8_E5M2": torch.float8_e5m2,
        "BOOL": torch.bool,
        "C64": torch.complex64,
        "U32": torch.uint32,
    }
    for dtype, kind in types.items():
        tensor = (values.abs() if dtype == "U32" else values).to(kind)
        (unit,) = open_source({"a": tensor.t()}).units()
        assert (unit.dtype, unit.shape) == (dtype, (2, 2))
        expected = tensor.t().contiguous().flatten().view(torch.uint8).numpy()
        assert unit.load().tobytes() == expected.tobytes()
    (unit,) = open_source({"a": torch.tensor([1 + 2j]).conj()}).units()
    assert unit.load().view(np.complex64).tolist() == [1 - 2j]


def test_tensors_that_are_refused() -> None:
    torch = pytest.importorskip("torch")
    for value, message in (
        (torch.eye(3).to_sparse(), "sparse or quantized"),
        (torch.empty(3, device="meta"), "meta device"),
        (torch.zeros(1, dtype=torch.complex128), "complex128 is not supported"),
        (torch.nn.UninitializedParameter(), "not initialized yet"),
    ):
        with pytest.raises(SourceError, match=message):
            open_source({"a": value})


def test_extra_state_is_skipped() -> None:
    torch = pytest.importorskip("torch")

    class Module(torch.nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"steps": 3}

        def set_extra_state(self, state: dict[str, int]) -> None:
            del state

    source = open_source(Module(2, 2))
    assert [unit.name for unit in source.units()] == ["weight", "bias"]
    assert source.skipped == ("_extra_state",)
