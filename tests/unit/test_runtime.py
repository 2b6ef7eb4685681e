from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import WIDTHS, Arrays, array_unit, container, identical, random_bytes, read_safetensors, unit_of

import tersor
from tersor.encoded import Encoded
from tersor.errors import FormatError, LimitError, MismatchError, OutputError
from tersor.methods import keep


def file_of(arrays: Arrays) -> bytes:
    return container(*(keep.lossless(u, u.load()) for u in (array_unit(n, a) for n, a in arrays.items())))


def test_load_gives_arrays_that_may_be_changed() -> None:
    array = np.random.default_rng(0).standard_normal((20, 30)).astype(np.float32)
    loaded = tersor.load(file_of({"w": array}))["w"]
    assert identical(loaded, array) and loaded.flags.writeable and loaded.flags.c_contiguous


def test_decompressed_file_is_read_by_the_safetensors_library(
    model: Arrays, compressed: dict[int, tuple[Path, Any]], tmp_path: Path
) -> None:
    from safetensors import safe_open
    from safetensors.numpy import load_file

    size = tersor.decompress(compressed[8][0], tmp_path / "m.safetensors")
    assert size == os.path.getsize(tmp_path / "m.safetensors")
    back, loaded = load_file(tmp_path / "m.safetensors"), tersor.load(compressed[8][0])
    assert set(back) == set(model) and all(identical(back[n], loaded[n]) for n in model)
    with safe_open(tmp_path / "m.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt"}


def test_every_dtype_is_decompressed_and_aligned(tmp_path: Path) -> None:
    shape = (3, 5)
    bits = {dtype: random_bytes(dtype, 15, k) for k, dtype in enumerate(WIDTHS)}
    tensors: list[Encoded] = [keep.lossless(unit_of(d, d, shape, data), data) for d, data in bits.items()]
    path = tmp_path / "m.safetensors"
    tersor.decompress(container(*tensors), path)
    assert read_safetensors(path) == {d: (d, shape, data.tobytes()) for d, data in bits.items()}
    start = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    data = path.read_bytes()
    assert start % 8 == 0
    for dtype, words in bits.items():
        assert data.index(words.tobytes(), start) % min(WIDTHS[dtype], 8) == 0
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    loaded = load_file(path)
    assert all(loaded[d].view(torch.uint8).numpy().tobytes() == words.tobytes() for d, words in bits.items())


def test_decompress_keeps_what_exists(tmp_path: Path) -> None:
    data, path = file_of({"w": np.ones(3)}), tmp_path / "m.safetensors"
    path.write_text("precious")
    with pytest.raises(OutputError, match="exists already"):
        tersor.decompress(data, path)
    assert path.read_text() == "precious"
    tersor.decompress(data, path, overwrite=True)
    assert read_safetensors(path)["w"][0] == "F64"


def test_damage_leaves_no_decompressed_file(tmp_path: Path) -> None:
    data = bytearray(file_of({"a": np.arange(5000.0), "b": np.random.default_rng(0).standard_normal(5000)}))
    data[-1] ^= 1
    with pytest.raises(FormatError, match="'b'"):
        tersor.decompress(bytes(data), tmp_path / "m.safetensors")
    assert os.listdir(tmp_path) == []


def test_limits_reach_every_function(tmp_path: Path) -> None:
    data, limits = file_of({"w": np.ones(1000)}), tersor.Limits(tensor_bytes=100)
    for function in (tersor.load, tersor.open, tersor.verify):
        with pytest.raises(LimitError):
            function(data, limits=limits)
    with pytest.raises(LimitError):
        tersor.decompress(data, tmp_path / "a", limits=limits)


def test_verify_reads_from_memory_and_files() -> None:
    data = file_of({"w": np.ones(1000)})
    tersor.verify(data)
    tersor.verify(io.BytesIO(data))


# -- modules ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def network() -> Any:
    torch = pytest.importorskip("torch")
    torch.manual_seed(1)
    return torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 3))


def state_of(network: Any) -> Arrays:
    return {n: t.detach().numpy().copy() for n, t in network.state_dict().items()}


def shifted(state: Arrays) -> Arrays:
    return {n: np.asarray(a + a.dtype.type(1)) for n, a in state.items()}


def test_load_into(network: Any) -> None:
    state = shifted(state_of(network))
    parameters = list(network.parameters())
    tersor.load_into(network, file_of(state))
    assert all(identical(a, state[n]) for n, a in state_of(network).items())
    assert all(p is q for p, q in zip(parameters, network.parameters(), strict=True))
    assert all(p.requires_grad and p.grad is None for p in parameters)


def test_load_into_another_dtype(network: Any) -> None:
    import torch

    state = state_of(network)
    half = network.to(torch.bfloat16)
    tersor.load_into(half, file_of(state))
    expected = torch.from_numpy(state["0.weight"]).bfloat16()
    assert torch.equal(half.state_dict()["0.weight"], expected)


def test_load_into_with_bfloat16_in_the_file(network: Any) -> None:
    import torch

    bits = random_bytes("BF16", 48).view("<u2") & 0xBFFF  # finite
    state = state_of(network)
    tensors = [keep.lossless(u, u.load()) for u in (array_unit(n, a) for n, a in state.items())]
    data = bits.view(np.uint8)
    tensors[0] = keep.lossless(unit_of("0.weight", "BF16", (8, 6), data), data)
    tersor.load_into(network, container(*tensors))
    expected = torch.from_numpy(bits.view(np.int16).copy()).view(torch.bfloat16).float().reshape(8, 6)
    assert torch.equal(network.state_dict()["0.weight"], expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("0.weight"), "missing in the file: 0.weight"),
        (lambda s: s.update(extra=np.ones(1)), "not in the module: extra"),
        (lambda s: s.update({"2.bias": np.ones(4, np.float32)}), r"2.bias is \(4,\), the module has \(3,\)"),
        (lambda s: [s.pop(n) for n in list(s)[:5]], "and 2 more"),
    ],
)
def test_mismatch_changes_nothing(network: Any, change: Any, message: str) -> None:
    before = state_of(network)
    state = shifted(before)
    change(state)
    with pytest.raises(MismatchError, match=message):
        tersor.load_into(network, file_of(state))
    assert all(identical(a, before[n]) for n, a in state_of(network).items())


def test_loaded_arrays_are_apart_and_writable(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"a": (3,), "large": (1100, 1000), "none": (0, 4), "scalar": (), "b": (7, 5)}
    model = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    tersor.compress(model, tmp_path / "m.tsr", lossless=True)
    loaded = tersor.load(tmp_path / "m.tsr")
    assert all(array.flags.writeable and array.ctypes.data % 16 == 0 for array in loaded.values())
    for name, array in loaded.items():
        array[...] = 0
        model[name][...] = 0
        assert all(np.array_equal(loaded[other], model[other]) for other in shapes)
