"""A short run of every fuzz target (fuzz/README.md) that needs no clang: a fixed corpus, under the sanitizers of the C
compiler at hand, without vector instructions, and as the release is compiled; then the targets of the reader, without
atheris."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import ROOT

FUZZ = ROOT / "fuzz"
CORE = ROOT / "src" / "tersor" / "core"
TARGETS = sorted(path.stem for path in (FUZZ / "targets").glob("*.c"))
COMMON = ["-std=c11", "-ffp-contract=off", f"-I{CORE}", f"-I{FUZZ}"]
BUILDS = {
    "sanitized": ["-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
    "scalar": ["-O1", "-DTSR_SCALAR"],
    "release": ["-O3", "-fno-math-errno"],
}
INPUTS = {"sanitized": 1500, "scalar": 1500, "release": 3000}
READER_ITERATIONS = 500  # for each of three targets
Build = Callable[[str], Path]


def _compile(compiler: str, flags: list[str], folder: Path) -> Path:
    """One program of all targets, driven by fuzz/standalone.c."""
    sources = [(path, []) for path in sorted(CORE.glob("*.c"))]
    sources += [(FUZZ / f"{part}.c", ["-O1"]) for part in ("builder", "standalone")]
    sources += [(FUZZ / "targets" / f"{t}.c", ["-O1", f"-DLLVMFuzzerTestOneInput=fuzz_{t}"]) for t in TARGETS]
    jobs = []
    for number, (source, own) in enumerate(sources):
        command = [compiler, *COMMON, *flags, *own, "-c", str(source), "-o", str(folder / f"{number}.o")]
        jobs.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
    for job in jobs:
        _, errors = job.communicate()
        assert job.returncode == 0, errors
    program = folder / "standalone"
    objects = [str(folder / f"{number}.o") for number in range(len(sources))]
    subprocess.run([compiler, *flags, *objects, "-lm", "-o", str(program)], check=True)
    return program


def _missing(compiler: str, flags: list[str], folder: Path) -> str:
    """Why an empty program with these flags cannot be made; nothing if it can."""
    source = folder / "empty.c"
    source.write_text("int main(void) { return 0; }\n")
    program = folder / "empty"
    made = subprocess.run([compiler, *flags, str(source), "-o", str(program)], capture_output=True, text=True)
    if made.returncode != 0:
        return (made.stderr.strip() or "no message").splitlines()[-1]
    return "" if subprocess.run([program], capture_output=True).returncode == 0 else "an empty program fails"


@pytest.fixture(scope="module")
def standalone(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """The targets, compiled once each way."""
    made: dict[str, Path] = {}

    def build(way: str) -> Path:
        if way not in made:
            compiler = next((c for c in ("gcc", "cc", "clang") if shutil.which(c)), None)
            if compiler is None:
                pytest.skip("there is no C compiler")
            folder = tmp_path_factory.mktemp(way)
            if problem := _missing(compiler, BUILDS[way], folder):
                pytest.skip(f"{compiler} cannot make {way} programs: {problem}")
            made[way] = _compile(compiler, BUILDS[way], folder)
        return made[way]

    return build


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("way", BUILDS)
def test_native_target(standalone: Build, way: str, target: str) -> None:
    program = standalone(way)
    kept = FUZZ / "corpus" / target
    files = [str(path) for path in sorted(kept.iterdir())] if kept.is_dir() else []
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=1"}
    run = subprocess.run(
        [program, target, str(INPUTS[way]), *files], capture_output=True, text=True, timeout=60, env=environment
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout == f"{target}: {INPUTS[way]} inputs and {len(files)} files\n"


@pytest.mark.parametrize("target", ["container", "manifest", "chunks"])
def test_reader_target(tmp_path: Path, target: str) -> None:
    command = [sys.executable, FUZZ / "reader", target, "--plain", "--iterations", str(READER_ITERATIONS)]
    run = subprocess.run([*command, "--findings", tmp_path], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.startswith(f"{target}: {READER_ITERATIONS} executions")
