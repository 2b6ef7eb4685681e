from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_sources_builder import T, g, put, write_legacy, write_zip

from tersor.errors import SourceError
from tersor.sources import CheckpointSource, open_source

F4 = np.arange(6, dtype="<f4")
W = {"0": F4}


def loaded(path: Path, key: str | None = None) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    units = open_source(path, key=key).units()
    return {unit.name: (unit.dtype, unit.shape, unit.load().tobytes()) for unit in units}


@pytest.fixture(params=["zip", "deflated", "legacy"])
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Write a checkpoint in each of the containers; tensors come from `make(**T's arguments)`."""
    legacy = request.param == "legacy"

    def run(build: Any, storages: dict[str, Any]) -> Path:
        path = tmp_path / "a.pt"
        if legacy:
            return write_legacy(path, build(lambda *a, **k: T(*a, **{"view": None, **k})), storages)
        mode = zipfile.ZIP_DEFLATED if request.param == "deflated" else zipfile.ZIP_STORED
        return write_zip(path, build(T), storages, compression=mode)

    return run


def test_dtypes_shapes_and_order(write: Any) -> None:
    storages = {
        "10": F4,
        "2": np.array([3, -4], "<i8"),
        "3": np.array([True, False]),
        "4": np.array([1.5], "<f2"),
        "5": np.zeros(0, "<f4"),
        "6": np.array([1 + 2j], "<c8"),
    }

    def build(make: Any) -> Any:
        return {
            "w": make("10", (2, 3)),
            "n": make("2", (2,), storage="LongStorage"),
            "mask.ü": make("3", (2, 1), storage="BoolStorage"),
            "scalar": make("4", (), storage="HalfStorage"),
            "empty": make("5", (0, 7)),
            "c": make("6", (1,), storage="ComplexFloatStorage"),
        }

    result = loaded(write(build, storages))
    assert list(result) == ["w", "n", "mask.ü", "scalar", "empty", "c"]
    assert result["w"] == ("F32", (2, 3), F4.tobytes())
    assert result["n"] == ("I64", (2,), storages["2"].tobytes())
    assert result["mask.ü"] == ("BOOL", (2, 1), b"\1\0")
    assert result["scalar"] == ("F16", (), storages["4"].tobytes())
    assert result["empty"] == ("F32", (0, 7), b"")
    assert result["c"] == ("C64", (1,), storages["6"].tobytes())


def test_strides_and_offsets_are_gathered(write: Any) -> None:
    def build(make: Any) -> Any:
        return {
            "transposed": make("0", (3, 2), (1, 3), numel=6),
            "column": make("0", (2,), (3,), offset=1, numel=6),
            "row": make("0", (1, 3), (77, 1), offset=3, numel=6),
            "expanded": make("0", (2, 2), (0, 1), numel=6),
        }

    result = loaded(write(build, W))
    grid = F4.reshape(2, 3)
    assert result["transposed"][2] == np.ascontiguousarray(grid.T).tobytes()
    assert result["column"][2] == grid[:, 1].tobytes()
    assert result["row"][2] == grid[1:].tobytes()
    assert result["expanded"][2] == np.tile(F4[:2], 2).tobytes()


def test_ties_need_the_same_storage_offset_shape_and_strides(write: Any) -> None:
    def build(make: Any) -> Any:
        return {
            "a": make("0", (2, 3)),
            "same": make("0", (2, 3)),
            "transposed": make("0", (3, 2), (1, 3)),
            "shorter": make("0", (3,), numel=6),
            "shorter too": make("0", (3,), numel=6),
            "later": make("0", (3,), offset=3, numel=6),
            "equal, stored twice": make("1", (2, 3)),
            "empty": make("2", (0,)),
            "empty too": make("2", (0,)),
        }

    units = open_source(write(build, {"0": F4, "1": F4, "2": F4[:0]})).units()
    ties = {unit.name: unit.tied_to for unit in units if unit.tied_to}
    assert ties == {"same": "a", "shorter too": "shorter"}
    assert units[1].load().tobytes() == F4.tobytes()


def test_legacy_views_of_storages(tmp_path: Path) -> None:
    root = {"a": T("0", (6,), view=None), "b": T("0", (2,), numel=6, view=("v", 3, 2))}
    assert loaded(write_legacy(tmp_path / "a.pth", root, W))["b"][2] == F4[3:5].tobytes()
    root["b"] = T("0", (3,), numel=6, view=("v", 3, 2))
    with pytest.raises(SourceError, match="reaches to byte 12 of a storage of 8"):
        open_source(write_legacy(tmp_path / "a.pth", root, W))
    root["b"] = T("0", (4,), numel=6, view=("v", 3, 4))
    with pytest.raises(SourceError, match="only 6 elements long"):
        open_source(write_legacy(tmp_path / "a.pth", root, W))


def test_parameters_and_typed_tensors_over_untyped_storages(tmp_path: Path) -> None:
    tensor = T("0", (2, 3))
    parameter = g("torch._utils", "_rebuild_parameter") + put((tensor, True, {})) + b"R"
    untyped = put(("storage", g("torch.storage", "UntypedStorage"), "1", "cpu", 4)) + b"Q"
    arguments = (untyped, 1, (3,), (1,), False, {}, g("torch", "float8_e4m3fn"))
    third = g("torch._utils", "_rebuild_tensor_v3") + put(arguments) + b"R"
    outer = (
        g("torch._utils", "_rebuild_tensor_v2"),
        g("torch", "Tensor"),
        (*_arguments(tensor),),
        {"note": 1},
    )
    subclass = g("torch._tensor", "_rebuild_from_type_v2") + put(outer) + b"R"
    path = write_zip(tmp_path / "a.pt", {"p": parameter, "f": third, "s": subclass}, W | {"1": b"\1\2\3\4"})
    result = loaded(path)
    assert result["p"] == ("F32", (2, 3), F4.tobytes()) == result["s"]
    assert result["f"] == ("F8_E4M3", (3,), b"\2\3\4")


def _arguments(tensor: T) -> tuple[Any, ...]:
    return (put(tensor.identifier) + b"Q", *tensor.arguments)


W2 = {"w": T("0", (6,))}


@pytest.mark.parametrize(
    ("root", "names", "skipped"),
    [
        (W2, ["w"], ()),
        ({"state_dict": W2, "epoch": 3, "args": g("argparse", "Namespace") + b")R"}, ["w"], ("args",)),
        ({"model": {"state_dict": W2}, "optimizer": {"state": {0: W2}}}, ["w"], ("optimizer (1 tensors)",)),
        ({"model": {}, "net": W2, "ema": 0.99}, ["w"], ("model",)),
        ({"model": "resnet", "state_dict": W2}, ["w"], ()),
        (
            {"encoder": W2, "decoder": {"layers": [W2, W2]}},
            ["encoder.w", "decoder.layers.0.w", "decoder.layers.1.w"],
            (),
        ),
        ({"encoder": W2, "optimizer": {"m": W2}, "seed": 1}, ["encoder.w"], ("optimizer (1 tensors)",)),
        ({"optimizer": T("0", (6,))}, ["optimizer"], ()),
        (
            {0: W2, "d": g("collections", "defaultdict") + put((g("builtins", "dict"),)) + b"R"},
            ["0.w"],
            ("d",),
        ),
        ([W2, 7], ["0.w"], ()),
    ],
)
def test_where_the_weights_are(tmp_path: Path, root: Any, names: list[str], skipped: tuple[str, ...]) -> None:
    source = CheckpointSource(write_zip(tmp_path / "a.pt", root, W))
    assert [unit.name for unit in source.units()] == names
    assert source.skipped == skipped


def test_numbers_and_texts_are_metadata(tmp_path: Path) -> None:
    root = {"state_dict": W2, "epoch": 3, "best": 0.5, "arch": "resnet", "big": 1 << 900, "none": None}
    source = open_source(write_zip(tmp_path / "a.pt", root, W))
    assert dict(source.metadata) == {"epoch": "3", "best": "0.5", "arch": "resnet"}
    assert source.skipped == ("big", "none")


def test_several_models_need_a_key(tmp_path: Path) -> None:
    root = {"model": W2, "ema": {"shadow": T("1", (6,))}}
    path = write_zip(tmp_path / "a.pt", root, W | {"1": -F4})
    with pytest.raises(SourceError, match=r"several models, under model, ema .*key="):
        open_source(path)
    assert loaded(path, key="ema") == {"shadow": ("F32", (6,), (-F4).tobytes())}
    with pytest.raises(SourceError, match=r"no tensors under 'x' .*keys are 'model', 'ema'"):
        open_source(path, key="x")
    prints = {open_source(path, key=key).fingerprint() for key in ("model", "ema")}
    assert len(prints) == 2


def test_torchscript_attributes(tmp_path: Path) -> None:
    def thing(name: str, state: Any) -> bytes:
        return g("__torch__.m", name) + b")\x81" + put(state) + b"b"

    root = thing("Net", {"training": False, "fc": thing("Linear", {"weight": T("0", (2, 3))})})
    path = write_zip(tmp_path / "a.jit", root, W, members={"code/m.py": b"", "constants.pkl": b"\x80\x02)."})
    assert loaded(path) == {"fc.weight": ("F32", (2, 3), F4.tobytes())}
    with pytest.raises(SourceError, match=r"would run __torch__\.m\.Net"):
        open_source(write_zip(tmp_path / "b.pt", root, W))


BROKEN_TENSORS = {
    "storage missing": (T("9", (6,)), "'9' is missing"),
    "storage shorter than declared": (T("0", (7,)), "24 bytes instead of 28|only 6 elements"),
    "tensor past its storage": (T("0", (7,), numel=6), "reaches to byte 28 of a storage of 24"),
    "offset past its storage": (T("0", (6,), offset=1), "reaches to byte 28"),
    "negative offset": (T("0", (6,), offset=-1), "strides or the offset"),
    "negative stride": (T("0", (6,), (-1,)), "whole numbers of 0 or more"),
    "stride past its storage": (T("0", (2, 3), (1 << 62, 1)), "of a storage of 24"),
    "too few strides": (T("0", (2, 3), (1,)), "strides or the offset"),
    "negative shape": (T("0", (-6,), (1,), numel=6), "whole numbers of 0 or more"),
    "boolean shape": (T("0", (True,), (1,), numel=6), "whole numbers of 0 or more"),
    "expanded without end": (T("0", (1 << 20, 1 << 20), (0, 0), numel=6), "repeats 4 stored bytes up to"),
    "unsupported dtype": (
        T("0", (3,), storage="ComplexDoubleStorage", numel=1),
        "complex128 is not supported",
    ),
    "conjugated": (T("0", (6,), metadata={"conj": True}), "resolve_conj"),
    "negative length": (T("0", (0,), numel=-1), "without a storage type, key or length"),
}


@pytest.mark.parametrize("case", BROKEN_TENSORS)
def test_broken_tensors_are_refused(tmp_path: Path, case: str) -> None:
    tensor, message = BROKEN_TENSORS[case]
    with pytest.raises(SourceError, match=message) as caught:
        open_source(write_zip(tmp_path / "a.pt", {"w": tensor}, W))
    assert caught.value.where and caught.value.remedy


@pytest.mark.parametrize(
    ("root", "message"),
    [
        (T("0", (6,)), "one tensor without a name"),
        (3, "no table of tensors"),
        ({}, "no tensors"),
        ({"epoch": 1}, "no tensors"),
        ({"": T("0", (6,))}, "empty name"),
        ({"a\0": T("0", (6,))}, "NUL"),
        ({"\ud800": T("0", (6,))}, "surrogate"),
        ({(1, 2): T("0", (6,))}, "neither text nor a number"),
        ({"a": {b"\x80\x02\x88."[2:3]: T("0", (6,))}}, "neither text nor a number"),
        ({1: T("0", (6,)), "1": T("0", (6,))}, "two tensors are called '1'"),
        ({"a.b": T("0", (6,)), "a": {"b": T("0", (6,))}}, "two tensors are called 'a.b'"),
        ({"a" * 5000: W2}, "longer than 4096"),
    ],
)
def test_unusable_tables(tmp_path: Path, root: Any, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_source(write_zip(tmp_path / "a.pt", root, W))


def test_containers_that_are_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    contents = {
        b"x" * 600: "neither of the two formats",
        b"\x80\x04K\x01.": "bare pickle",
        b"PK\x05\x06" + bytes(18): "empty or spanned zip",
        b"PK\x03\x04" + bytes(18): "cannot be read",
        bytes(257) + b"ustar" + bytes(300): "torch before 0.1.10",
        b"": "is empty",
    }
    for content, message in contents.items():
        path.write_bytes(content)
        with pytest.raises(SourceError, match=message):
            open_source(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights.npy", b"")
    with pytest.raises(SourceError, match=r"no data\.pkl"):
        open_source(path)
    with pytest.raises(SourceError, match="no such file"):
        open_source(tmp_path / "none.pt")


def test_big_endian_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.pt", W2, W, members={"byteorder": b"big"})
    with pytest.raises(SourceError, match="big-endian"):
        open_source(path)
    path = write_legacy(tmp_path / "a.pt", {"w": T("0", (6,), view=None)}, W, little_endian=False)
    with pytest.raises(SourceError, match="big-endian"):
        open_source(path)
    loaded(write_zip(tmp_path / "a.pt", W2, W, members={"byteorder": b"little"}))


def test_members_with_one_name_are_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "a.pt", W2, W)
    with pytest.warns(UserWarning, match="Duplicate"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/0", b"other")
    with pytest.raises(SourceError, match="two members have the same name"):
        open_source(path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_flipped_bit_in_a_zip_member_is_found(tmp_path: Path, compression: int) -> None:
    data = np.random.default_rng(0).normal(size=1000).astype("<f4")
    path = write_zip(tmp_path / "a.pt", {"w": T("0", (1000,))}, {"0": data}, compression=compression)
    content = bytearray(path.read_bytes())
    content[content.index(b"archive/data/0") + 2000] ^= 4
    path.write_bytes(content)
    (unit,) = open_source(path).units()
    with pytest.raises(SourceError, match=r"checksum|CRC|cannot be read"):
        unit.load()


def test_parts_of_a_compressed_storage(tmp_path: Path) -> None:
    data = np.arange(600_000, dtype="<f4")
    root = {"tail": T("0", (5,), offset=599_990, numel=600_000)}
    path = write_zip(tmp_path / "a.pt", root, {"0": data}, compression=zipfile.ZIP_DEFLATED)
    assert loaded(path)["tail"][2] == data[599_990:599_995].tobytes()


@pytest.mark.parametrize("legacy", [False, True])
def test_every_truncation_is_refused(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "a.pt"
    (write_legacy if legacy else write_zip)(path, {"w": T("0", (6,), view=None if legacy else "zip")}, W)
    whole = path.read_bytes()
    for length in range(0, len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(SourceError):
            open_source(path)


def test_legacy_lengths_are_checked(tmp_path: Path) -> None:
    root = {"w": T("0", (6,), view=None)}
    for error in (1, -7, 1 << 61):
        with pytest.raises(SourceError, match="past the end of the file"):
            open_source(write_legacy(tmp_path / "a.pt", root, W, count_error=error))
    with pytest.raises(SourceError, match="no tensor uses"):
        open_source(write_legacy(tmp_path / "a.pt", root, W | {"1": F4}))
    with pytest.raises(SourceError, match="'0' is missing"):
        open_source(write_legacy(tmp_path / "a.pt", root, {}))


@pytest.mark.parametrize("legacy", [False, True])
def test_random_damage_never_escapes(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "a.pt"
    root = {"w": T("0", (2, 3), view=None if legacy else "zip"), "n": {"x": [1, 2.5, "text"]}}
    (write_legacy if legacy else write_zip)(path, root, W)
    whole = path.read_bytes()
    random = np.random.default_rng(1)
    for _ in range(400):
        content = bytearray(whole)
        for _ in range(random.integers(1, 4)):
            content[random.integers(len(content))] = random.integers(256)
        path.write_bytes(content)
        try:
            for unit in open_source(path).units():
                assert unit.load().nbytes == unit.nbytes
        except SourceError:
            pass


def test_torch_checkpoints_of_every_kind(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    weight = torch.arange(12.0).reshape(3, 4)
    state = {
        "w": weight,
        "t": weight.t(),
        "tied": weight,
        "slice": weight[1:, ::2],
        "scalar": torch.tensor(5),
        "empty": torch.empty(0, 3),
        "half": weight.half(),
        "bf16": weight.bfloat16(),
        "bool": weight > 3,
        "c64": torch.tensor([1 + 2j]),
        "p": torch.nn.Parameter(weight * 2),
        "u16": torch.tensor([1, 65535], dtype=torch.uint16),
    }
    newer = {"f8": weight.to(torch.float8_e5m2), "f8e4": weight.to(torch.float8_e4m3fn)}
    for name, extra, new in (("new.pt", newer, True), ("old.pt", {}, False)):
        content = {
            "model_state": state | extra,
            "step": 3,
            "device": torch.device("cpu"),
            "size": weight.size(),
        }
        torch.save(content, tmp_path / name, _use_new_zipfile_serialization=new)
        units = {unit.name: unit for unit in open_source(tmp_path / name).units()}
        assert list(units) == list(state | extra)
        assert units["tied"].tied_to == "w"
        for key, tensor in (state | extra).items():
            expected = tensor.detach().contiguous().reshape(-1)
            want = expected.view(torch.uint8).numpy().tobytes() if expected.numel() else b""
            assert units[key].load().tobytes() == want, key
            assert units[key].shape == tuple(tensor.shape)


def test_torch_objects_that_are_no_dense_tensors(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "a.pt"
    torch.save({"w": torch.eye(3).to_sparse()}, path)
    with pytest.raises(SourceError, match="a sparse tensor"):
        open_source(path)
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(SourceError, match=r"would run torch\.nn\.modules\.linear\.Linear .*state_dict"):
        open_source(path)
    torch.save({"w": torch.empty(3, device="meta")}, path)
    with pytest.raises(SourceError, match="meta device"):
        open_source(path)
