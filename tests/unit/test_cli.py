from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from helpers import Arrays, read_safetensors, run_tersor, save_safetensors

import tersor
from tersor.cli import main
from tersor.report import Report


class Result(NamedTuple):
    status: int
    out: str
    errors: str


Run = Callable[..., Result]
Compressed = dict[int, tuple[Path, Report]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command line in this process."""

    def call(*arguments: str | os.PathLike[str]) -> Result:
        status = 0
        try:
            main([os.fspath(a) for a in arguments])
        except SystemExit as end:
            if isinstance(end.code, str):  # what the interpreter does with a message
                out, errors = capsys.readouterr()
                return Result(1, out, f"{errors}{end.code}\n")
            status = end.code or 0
        return Result(status, *capsys.readouterr())

    return call


def failed(result: Result, *words: str) -> None:
    """One line that says what, where, remedy; exit status 1."""
    assert result.status == 1 and result.out == ""
    lines = [line for line in result.errors.splitlines() if not line.endswith(" ...")]  # without progress
    assert len(lines) == 1 and lines[0].startswith("tersor: "), result.errors
    assert all(word in lines[0] for word in words), lines[0]


def test_the_whole_way(run: Run, model: Arrays, model_file: Path, tmp_path: Path) -> None:
    file, back = tmp_path / "m.tsr", tmp_path / "m.safetensors"
    result = run("compress", model_file, "-o", file, "--ratio", "8")
    assert result.status == 0 and f"{os.path.getsize(file):,} bytes" in result.out and str(file) in result.out
    assert run("verify", file).status == 0
    result = run("decompress", file, "-o", back)
    assert result.status == 0 and f"{os.path.getsize(back):,} bytes" in result.out
    assert set(read_safetensors(back)) == set(model)
    result = run("compare", file, back)
    assert result.status == 0 and f"{len(model)} of {len(model)} tensors are identical" in result.out
    result = run("compare", model_file, file)
    assert result.status == 1 and result.errors == "" and "signal-to-noise" in result.out
    assert run("compress", model_file, "-o", file, "--lossless", "--force").status == 0
    assert run("compare", model_file, file).status == 0


@pytest.mark.parametrize("command", [["inspect"], ["inspect", "--tensors"], ["verify"]])
def test_reading_commands(run: Run, compressed: Compressed, command: list[str]) -> None:
    result = run(*command, compressed[8][0])
    assert result.status == 0 and result.errors == ""
    assert f"{os.path.getsize(compressed[8][0]):,} bytes" in result.out
    if "--tensors" in command:
        assert all(t.name in result.out for t in compressed[8][1].tensors)


def test_json_of_compress(run: Run, model_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "m.tsr"
    result = run("compress", model_file, "-o", file, "--size", "100kB", "--json")
    data = json.loads(result.out)
    assert result.status == 0 and result.errors == "" and not data["predicted"]
    assert data["file_bytes"] == os.path.getsize(file) <= 100_000


def test_json_of_the_others(run: Run, compressed: Compressed, model_file: Path) -> None:
    path, report = compressed[8]
    inspected = json.loads(run("inspect", path, "--json").out)
    assert inspected == json.loads(json.dumps(report.to_dict()))
    compared = run("compare", model_file, path, "--json")
    assert compared.status == 1 and json.loads(compared.out)["identical"] is False
    methods = json.loads(run("methods", "--json").out)
    names = ["nearest", "second_order", "gptq", "adaround", "calibtip", "trellis"]
    assert [m["name"] for m in methods] == names and methods[0]["settings"]


def test_methods_are_listed(run: Run) -> None:
    result = run("methods")
    assert result.status == 0 and "nearest" in result.out and "rounding_price" in result.out


def test_dry_run_writes_nothing(run: Run, model_file: Path, tmp_path: Path) -> None:
    result = run("compress", model_file, "-o", tmp_path / "m.tsr", "--ratio", "8", "--dry-run")
    assert result.status == 0 and "would be about" in result.out and os.listdir(tmp_path) == []
    result = run("compress", model_file, "-o", tmp_path / "m.tsr", "--ratio", "8", "--dry-run", "--json")
    assert json.loads(result.out)["predicted"] is True


def test_settings_of_a_method_are_noted(run: Run, model_file: Path, tmp_path: Path) -> None:
    file = tmp_path / "m.tsr"
    assert run("compress", model_file, "-o", file, "--ratio", "8", "--set", "rounding_price=0.2").status == 0
    assert json.loads(run("inspect", file, "--json").out)["meta"]["recipe"]["rounding_price"] == 0.2


@pytest.mark.parametrize(
    ("text", "size"),
    [("100000", 100_000), ("100kB", 100_000), ("0.1MB", 100_000), ("100 KiB", 102_400), ("100_000b", 100_000)],
)
def test_sizes(run: Run, model_file: Path, tmp_path: Path, text: str, size: int) -> None:
    result = run("compress", model_file, "-o", tmp_path / "m.tsr", "--size", text, "--dry-run", "--json")
    assert result.status == 0 and 0.95 * size < json.loads(result.out)["file_bytes"] <= size


# -- wrong usage: exit status 2 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["--nonsense"],
        ["compress"],
        ["compress", "MODEL"],
        ["compress", "MODEL", "-o", "OUT"],
        ["compress", "MODEL", "-o", "OUT", "--ratio", "4", "--size", "5MB"],
        ["compress", "MODEL", "-o", "OUT", "--ratio", "4", "--lossless"],
        ["compress", "MODEL", "-o", "OUT", "--ratio", "4", "--max-drop", "1%"],
        ["compress", "MODEL", "-o", "OUT", "--max-drop", "half%"],
        ["compress", "MODEL", "-o", "OUT", "--max-divergence", "small"],
        ["compress", "MODEL", "-o", "OUT", "--ratio", "much"],
        ["compress", "MODEL", "-o", "OUT", "--size", "5 parsecs"],
        ["compress", "MODEL", "-o", "OUT", "--size", ""],
        ["compress", "MODEL", "-o", "OUT", "--size", "inf"],
        ["compress", "MODEL", "-o", "OUT", "--ratio", "4", "--workers", "0"],
        ["compress", "MODEL", "-o", "OUT", "--ratio", "4", "--nonfinite", "maybe"],
        ["decompress", "FILE"],
        ["inspect"],
        ["compare", "A"],
        ["verify", "FILE", "--limit-tensors", "many"],
    ],
    ids=" ".join,
)
def test_wrong_usage(run: Run, model_file: Path, tmp_path: Path, arguments: list[str]) -> None:
    names = {"MODEL": str(model_file), "OUT": str(tmp_path / "m.tsr")}
    result = run(*(names.get(a, a) for a in arguments))
    assert result.status == 2 and result.out == "" and "Usage:" in result.errors and "Error:" in result.errors
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["compress", "--help"], ["--version"]])
def test_help(run: Run, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.status == 0 and "tersor" in result.out and result.errors == ""


# -- failure: exit status 1 and one line -------------------------------------------------------------------------------


def test_existing_output_is_kept(run: Run, model_file: Path, compressed: Compressed, tmp_path: Path) -> None:
    output = tmp_path / "m.tsr"
    output.write_text("precious")
    failed(run("compress", model_file, "-o", output, "--ratio", "8"), "exists already", str(output), "--force")
    failed(run("decompress", compressed[8][0], "-o", output), "exists already", str(output), "--force")
    assert output.read_text() == "precious" and os.listdir(tmp_path) == ["m.tsr"]
    assert run("decompress", compressed[8][0], "-o", output, "--force").status == 0


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.safetensors", None, ["no such file"]),
        ("empty.safetensors", b"", ["empty"]),
        ("cut.safetensors", b"\x40\0\0\0\0\0\0\0{", []),
        ("noise.safetensors", bytes(range(256)), []),
        ("noise.pt", bytes(range(256)), []),
        ("model.onnx", b"x", ["ONNX", "safetensors"]),
        ("model.tsr", b"x", ["decompress"]),
        ("model", b"x", ["suffix"]),
    ],
)
def test_sources_that_are_none(run: Run, tmp_path: Path, name: str, content: bytes | None, words: list[str]) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    result = run("compress", tmp_path / name, "-o", tmp_path / "out.tsr", "--ratio", "8")
    failed(result, name, *words)
    assert not (tmp_path / "out.tsr").exists()


@pytest.mark.parametrize("command", ["decompress", "inspect", "verify", "compare"])
@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "flipped", "noise", "folder", "newer"])
def test_damaged_files(run: Run, compressed: Compressed, tmp_path: Path, command: str, damage: str) -> None:
    path, data = tmp_path / "m.tsr", bytearray(compressed[8][0].read_bytes())
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        if damage == "newer":
            from tersor import _core

            data[8] = 2
            data[48:56] = _core.hash(bytes(data[:48])).to_bytes(8, "little")
        if damage == "flipped":
            data[30] ^= 1
        path.write_bytes({"empty": b"", "cut": data[:-1], "noise": b"noise" * 100}.get(damage, data))
    more = {"decompress": ["-o", str(tmp_path / "out.safetensors")], "compare": [str(path)]}.get(command, [])
    failed(run(command, path, *more), *(["update tersor"] if damage == "newer" else []))
    assert [n for n in os.listdir(tmp_path) if n != "m.tsr"] == []


def test_flipped_bit_in_a_tensor(run: Run, compressed: Compressed, tmp_path: Path) -> None:
    data = bytearray(compressed[8][0].read_bytes())
    data[len(data) // 2] ^= 8
    (tmp_path / "m.tsr").write_bytes(data)
    failed(run("verify", tmp_path / "m.tsr"), "checksum", "tensor '", "byte ")
    assert run("inspect", tmp_path / "m.tsr").status == 0  # reads the manifest only


@pytest.mark.parametrize("place", ["missing/m.tsr", "file/m.tsr", "m" * 300 + ".tsr"])
def test_outputs_that_cannot_be(run: Run, model_file: Path, compressed: Compressed, tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    for arguments in (["compress", model_file, "--ratio", "8"], ["decompress", compressed[8][0]]):
        failed(run(*arguments, "-o", tmp_path / place), "cannot write the output")
    assert os.listdir(tmp_path) == ["file"]


def test_unreachable_ratio(run: Run, model_file: Path, tmp_path: Path) -> None:
    failed(
        run("compress", model_file, "-o", tmp_path / "m.tsr", "--ratio", "5000"), "cannot be reached", "smallest", "x)"
    )


@pytest.mark.parametrize(
    ("size", "what"),
    [
        (("--ratio", "1e12"), "1 bytes cannot be reached"),  # less than a byte
        (("--bits", "1e-9"), "1 bytes cannot be reached"),
        (("--size", "1e30"), "makes no sense"),
        (("--ratio", "nan"), "makes no sense"),
    ],
)
def test_absurd_sizes(run: Run, model_file: Path, tmp_path: Path, size: tuple[str, str], what: str) -> None:
    failed(run("compress", model_file, "-o", tmp_path / "m.tsr", *size), what)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
def test_devices_that_are_not_there(run: Run, model_file: Path, tmp_path: Path, device: str) -> None:
    arguments = ["compress", model_file, "-o", tmp_path / "m.tsr", "--ratio", "8", "--device", device]
    failed(run(*arguments), f"device '{device}' cannot be used", "name one")


def test_a_size_beyond_all_files(run: Run, model_file: Path, tmp_path: Path) -> None:
    assert run("compress", model_file, "-o", tmp_path / "m.tsr", "--ratio", "1e-308").status == 0


def test_nonfinite_weights(run: Run, tmp_path: Path) -> None:
    broken = np.random.default_rng(0).standard_normal((100, 100)).astype(np.float32)
    broken[3, 3] = np.nan
    good = np.random.default_rng(1).standard_normal((100, 300)).astype(np.float32)
    save_safetensors(tmp_path / "m.safetensors", {"broken [1]": broken, "good": good})
    arguments = ["compress", tmp_path / "m.safetensors", "-o", tmp_path / "m.tsr", "--ratio", "2.2"]
    failed(run(*arguments, "--nonfinite", "fail"), "'broken [1]'", "NaN")
    failed(run(*arguments[:-1], "8"), "cannot be reached", "bit for bit", "'broken [1]'")
    result = run(*arguments)
    assert result.status == 0 and "bit for bit" in result.out and "broken [1]" in result.out
    assert tersor.load(tmp_path / "m.tsr")["broken [1]"].tobytes() == broken.tobytes()


@pytest.mark.parametrize("arguments", [["--method", "magic"], ["--set", "nonsense=1"], ["--set", "rounding_price=x"]])
def test_settings_that_do_not_exist(run: Run, model_file: Path, tmp_path: Path, arguments: list[str]) -> None:
    failed(run("compress", model_file, "-o", tmp_path / "m.tsr", "--ratio", "8", *arguments))


@pytest.mark.parametrize("name", ["limit-tensors", "limit-tensor-bytes", "limit-manifest-bytes"])
def test_limits(run: Run, compressed: Compressed, name: str) -> None:
    failed(run("verify", compressed[8][0], f"--{name}", "3"), "the limit is 3", f"--{name}")


def test_names_with_line_breaks_stay_on_one_line(run: Run, tmp_path: Path) -> None:
    save_safetensors(tmp_path / "m.safetensors", {"new\nline": np.full((50, 50), np.nan, np.float32), "w": np.ones(9)})
    arguments = ["-o", tmp_path / "m.tsr", "--ratio", "5", "--nonfinite", "fail"]
    failed(run("compress", tmp_path / "m.safetensors", *arguments), r"new\nline")


def test_names_cannot_command_the_terminal(run: Run, tmp_path: Path) -> None:
    model = {"\x1b[31m[bold]red": np.ones((16, 16), np.float32)}
    tersor.compress(model, tmp_path / "m.tsr", lossless=True)
    shown = run("inspect", tmp_path / "m.tsr", "--tensors").out
    assert r"\x1b[31m[bold]red" in shown and "\x1b" not in shown


def test_a_folder_is_no_output(run: Run, model_file: Path, tmp_path: Path) -> None:
    for output in (tmp_path, "."):
        failed(run("compress", model_file, "-o", output, "--ratio", "8", "--force"), "the output is a folder")


def test_out_of_memory_is_one_line(run: Run, compressed: Compressed, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(tersor.TensorFile, "verify", fail)
    failed(run("verify", compressed[8][0]), "out of memory")


def test_exit_statuses_of_the_real_program(compressed: Compressed, tmp_path: Path) -> None:
    assert run_tersor("verify", compressed[8][0]).returncode == 0
    result = run_tersor("verify", tmp_path / "missing.tsr")
    assert (result.returncode, result.stdout) == (1, "") and len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith("tersor: there is no such file")
    assert run_tersor("verify").returncode == 2
