"""The vectors of aarch64, compiled for it and run by qemu: the same values and errors as the portable decoder and as a
slow one written from the specification, on random streams of every coder, intact and damaged, and on golden files."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import ROOT

FUZZ, CORE = ROOT / "fuzz", ROOT / "src" / "tersor" / "core"
COMPILER = "aarch64-linux-gnu-gcc"
EMULATOR = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
FLAGS = ["-std=c11", "-O2", "-static", "-ffp-contract=off", f"-I{CORE}", f"-I{FUZZ}"]
INPUTS = {"paths": 2000, "runs": 500, "rans": 2000, "uniform": 200, "planes": 200}
BEST = '#include "tersor.h"\nint main(void) { return (int)tsr_simd_best() == TSR_SIMD_NEON ? 0 : 1; }\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the core and all targets lie, compiled."""
    if shutil.which(COMPILER) is None:
        pytest.skip(f"there is no {COMPILER}")
    if EMULATOR is None:
        pytest.skip("there is no qemu-aarch64")
    made = tmp_path_factory.mktemp("aarch64")
    for source in CORE.glob("*.c"):
        compiled(made, source, "-Werror")
    return made


def compiled(folder: Path, source: Path, *flags: str) -> Path:
    """The object made of a source."""
    made = folder / f"{source.parent.name}-{source.stem}.o"
    subprocess.run([COMPILER, *FLAGS, *flags, "-c", source, "-o", made], check=True)
    return made


def run(folder: Path, objects: list[Path], *arguments: str | Path) -> str:
    """What a program of these objects and the core says."""
    program = folder / f"{objects[0].stem}.out"
    if not program.exists():
        core = folder.glob("core-*.o")
        subprocess.run([COMPILER, "-static", *objects, *core, "-lm", "-o", program], check=True)
    assert EMULATOR is not None
    done = subprocess.run([EMULATOR, program, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_its_vectors_are_chosen(folder: Path) -> None:
    (folder / "best.c").write_text(BEST)
    run(folder, [compiled(folder, folder / "best.c")])


def test_same_values_and_errors(folder: Path) -> None:
    """Targets `paths` and `runs` compare every kind of vectors with the slow decoder."""
    objects = [compiled(folder, FUZZ / f"{name}.c") for name in ("standalone", "builder")]
    for source in (FUZZ / "targets").glob("*.c"):
        objects.append(compiled(folder, source, f"-DLLVMFuzzerTestOneInput=fuzz_{source.stem}"))
    for target, inputs in INPUTS.items():
        assert run(folder, objects, target, str(inputs)).startswith(f"{target}: {inputs} inputs")


def test_golden_files(folder: Path) -> None:
    subprocess.run([sys.executable, FUZZ / "portable.py", folder / "battery"], check=True)
    assert "have their digests" in run(folder, [compiled(folder, FUZZ / "portable.c")], folder / "battery")
