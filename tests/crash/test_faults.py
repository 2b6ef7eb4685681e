"""What the system may refuse: space, whole reads and writes, folders, memory. One clear error, nothing half, nothing
lost."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import handmade as hm
import pytest
from helpers import read_safetensors, run_python, run_tersor

import tersor

HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of faults.c."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if not sys.platform.startswith("linux") or compiler is None:
        pytest.skip("faults are put between a program and glibc, and need a C compiler")
    library = tmp_path_factory.mktemp("faults") / "faults.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(HERE / "faults.c"), "-ldl"]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("faults.c needs glibc")
    return library


@pytest.fixture(scope="module")
def direct(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that nobody disturbs."""
    path = tmp_path_factory.mktemp("direct") / "m.tsr"
    tersor.compress(model_file, path, ratio=8)
    return path


def with_faults(library: Path, **settings: int) -> dict[str, Any]:
    more = {f"FAULTS_{name.upper()}": str(value) for name, value in settings.items()}
    return {"env": {**os.environ, "LD_PRELOAD": str(library), "PYTHONDONTWRITEBYTECODE": "1", **more}}


def one_line(done: subprocess.CompletedProcess[str], start: str) -> None:
    """The command failed, and its last line says why."""
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"tersor: {start}"), done.stderr


# -- short reads and writes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [1000, 4097])
def test_short_reads_and_writes(faults: Path, model_file: Path, direct: Path, tmp_path: Path, most: int) -> None:
    """The system may do less than it was asked to, every time."""
    options = with_faults(faults, most=most)
    output, back = tmp_path / "m.tsr", tmp_path / "m.safetensors"
    for arguments in (
        ["compress", model_file, "-o", output, "--ratio", "8"],
        ["verify", output],
        ["decompress", output, "-o", back],
    ):
        done = run_tersor(*arguments, **options)
        assert done.returncode == 0, done.stderr
    assert output.read_bytes() == direct.read_bytes()
    loaded = tersor.load(output)
    assert {name: data for name, (_, _, data) in read_safetensors(back).items()} == {
        name: array.tobytes() for name, array in loaded.items()
    }


# -- no space ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [0, 1, 5000, 100_000, 150_000])
def test_a_full_device_loses_nothing(faults: Path, model_file: Path, direct: Path, tmp_path: Path, room: int) -> None:
    """It fills up in the journal or in the output; what was there before stays, and the work goes on later."""
    output = tmp_path / "m.tsr"
    output.write_bytes(b"precious")
    arguments = ["compress", model_file, "-o", output, "--ratio", "8", "--force", "--resume"]
    one_line(
        run_tersor(*arguments, **with_faults(faults, room=room)), "cannot write the output: there is no space left"
    )
    assert output.read_bytes() == b"precious"
    assert sorted(os.listdir(tmp_path)) == [".m.tsr.journal", "m.tsr"]
    assert run_tersor(*arguments).returncode == 0
    assert output.read_bytes() == direct.read_bytes() and os.listdir(tmp_path) == ["m.tsr"]


@pytest.mark.parametrize("room", [0, 1, 100_000])
def test_a_full_device_leaves_no_half_of_a_decompressed_file(
    faults: Path, compressed: dict[int, tuple[Path, Any]], tmp_path: Path, room: int
) -> None:
    done = run_tersor("decompress", compressed[8][0], "-o", tmp_path / "m", **with_faults(faults, room=room))
    one_line(done, "cannot write the output: there is no space left")
    assert os.listdir(tmp_path) == []


# -- folders ----------------------------------------------------------------------------------------------------------

MORTAL = textwrap.dedent(
    """
    import ctypes, os
    if os.geteuid() == 0:  # give up the right to write anywhere, which is all that makes root root here
        header = (ctypes.c_uint32 * 2)(0x20080522, 0)
        assert ctypes.CDLL(None).capset(header, (ctypes.c_uint32 * 6)()) == 0
    from tersor.cli import main
    main()
    """
)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="gives up capabilities")
@pytest.mark.parametrize("command", ["compress", "decompress"])
def test_a_folder_that_may_only_be_read(
    model_file: Path, compressed: dict[int, tuple[Path, Any]], tmp_path: Path, command: str
) -> None:
    folder = tmp_path / "read-only"
    folder.mkdir()
    (folder / "out").write_bytes(b"precious")
    folder.chmod(0o500)
    arguments = {"compress": [str(model_file), "--ratio", "8"], "decompress": [str(compressed[8][0])]}[command]
    try:
        for name, more in (("new", []), ("out", ["--force"])):
            done = run_python(MORTAL, command, *arguments, "-o", str(folder / name), *more)
            one_line(done, "cannot write the output: no permission to write there")
    finally:
        folder.chmod(0o700)
    assert os.listdir(folder) == ["out"] and (folder / "out").read_bytes() == b"precious"


# -- memory -----------------------------------------------------------------------------------------------------------

ALLOCATIONS = textwrap.dedent(
    """
    import ctypes, os, sys
    from pathlib import Path
    import numpy as np
    import tersor

    arm = ctypes.CDLL(sys.argv[1]).faults_arm
    arm.argtypes, arm.restype = [ctypes.c_long, ctypes.c_size_t], ctypes.c_long
    what, source, folder, least = sys.argv[2:]
    output = Path(folder, "output")
    actions = {
        "load": lambda: tersor.load(source, workers=1),
        "load with threads": lambda: tersor.load(source, workers=2),
        "verify": lambda: tersor.verify(source),
        "decompress": lambda: tersor.decompress(source, output),
        "compress": lambda: tersor.compress(source, output, ratio=8, workers=1),
    }
    act = actions[what]
    act()
    expected = output.read_bytes() if output.exists() else b""
    output.unlink(missing_ok=True)
    number = refused = 0
    while True:
        arm(number, int(least))
        try:
            act()
        except (MemoryError, tersor.TersorError) as error:
            assert isinstance(error, MemoryError) or "memory" in str(error), error
            refused += 1
        failed = arm(-1, 0)
        if output.exists():
            assert output.read_bytes() == expected, number
            output.unlink()
        assert not [n for n in os.listdir(folder) if n.endswith(".part")], number
        if not failed:
            break
        number += 1 + number // 20
    act()
    print(number, refused)
    """
)


@pytest.mark.parametrize("what", ["load", "load with threads", "verify", "decompress", "compress"])
def test_any_allocation_may_fail(
    faults: Path, model_file: Path, compressed: dict[int, tuple[Path, Any]], tmp_path: Path, what: str
) -> None:
    """The first, the second, ... allocation fails until there are no more: a MemoryError, and the next try works.

    Of a compression, only those of 128 kB and more: numpy 2.4 itself crashes when its buffers of 64 kB cannot be had.
    """
    source, least = (model_file, 2**17) if what == "compress" else (compressed[8][0], 2**10)
    arguments = [str(faults), what, str(source), str(tmp_path), str(least)]
    done = run_python(ALLOCATIONS, *arguments, **with_faults(faults))
    assert done.returncode == 0, done.stderr
    number, refused = map(int, done.stdout.split())
    assert number > 20 and refused > 10


NO_MEMORY = textwrap.dedent(
    """
    import re, resource, sys
    from pathlib import Path
    import numpy as np
    import tersor
    from tersor.cli import main

    size = int(re.search(r"VmSize:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (size + 64 * 10**6,) * 2)
    if sys.argv[1] == "load":
        try:
            tersor.load(sys.argv[2], workers=1)
        except MemoryError:
            sys.exit("tersor: MemoryError")
    main(sys.argv[1:])
    """
)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the size from /proc")
def test_a_model_larger_than_memory(tmp_path: Path) -> None:
    """`load` needs memory for the weights and says so; `verify` and `decompress` do not."""
    path, output, size = tmp_path / "m.tsr", tmp_path / "m.safetensors", 2**27
    chunks = (hm.rans_chunk([], hm.Table(), 1),) * (size // 2**20)
    zeros = hm.Stream("rans", "u8", size, (hm.prelude([hm.Table()], 1), *chunks), 2**20)
    path.write_bytes(hm.assemble(hm.Tensor("w", "U8", (size,), bytes(size), "raw", {"planes": 1}, (zeros,))))
    one_line(run_python(NO_MEMORY, "load", str(path)), "MemoryError")
    for arguments in (["verify", str(path)], ["decompress", str(path), "-o", str(output)]):
        done = run_python(NO_MEMORY, *arguments)
        assert done.returncode == 0, done.stderr
    assert output.stat().st_size > size


def test_out_of_memory_is_one_line(tmp_path: Path, compressed: dict[int, tuple[Path, Any]]) -> None:
    code = """
import numpy, sys
from tersor import cli, runtime
def fail(*_, **__): raise MemoryError
runtime.decompress = fail
cli.main(sys.argv[1:])
"""
    done = run_python(code, "decompress", str(compressed[8][0]), "-o", str(tmp_path / "m"))
    one_line(done, "out of memory")
    assert os.listdir(tmp_path) == []
