"""Runs that are killed at chosen moments: nothing half-written is taken for a result, and nothing finished is done
again.

The process kills itself, so that the moments are the same in every run.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from helpers import Arrays, read_safetensors, run_python, run_tersor, save_safetensors

import tersor

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")

COMPRESS = textwrap.dedent(
    """
    import os, signal, sys
    import tersor
    from tersor import job
    from tersor.journal import Journal

    source, output, log, where, number, resume = sys.argv[1:]
    left = int(number)

    def die_at(place):
        global left
        if place == where:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def watch(owner, name, before="", after=""):
        function = getattr(owner, name)

        def watched(*arguments, **named):
            die_at(before)
            result = function(*arguments, **named)
            die_at(after)
            return result

        setattr(owner, name, watched)

    put = Journal.put

    def logged_put(self, key, encoded):
        stored = put(self, key, encoded)
        with open(log, "a") as file:
            file.write(key + "\\n")
        die_at("unit stored")
        return stored

    Journal.put = logged_put
    watch(Journal, "note_size", before="size measured", after="size noted")
    watch(job, "write", before="writing", after="written")
    watch(os, "fsync", before="fsync")
    tersor.compress(
        source, output, ratio=9, workers=1, resume=resume == "resume",
        progress=lambda label, done, total: die_at(label),
    )
    """
)


def run(source: Path, output: Path, log: Path, where: str = "-", number: int = 0, resume: str = "fresh") -> int:
    result = run_python(COMPRESS, str(source), str(output), str(log), where, str(number), resume)
    assert result.returncode in (0, -signal.SIGKILL), result.stderr
    return result.returncode


def keys(log: Path) -> list[str]:
    return log.read_text().split() if log.exists() else []


@pytest.fixture(scope="module")
def undisturbed(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[str]]:
    """The file of a run that nobody kills, and the keys of the units it encoded."""
    folder = tmp_path_factory.mktemp("undisturbed")
    assert run(model_file, folder / "m.tsr", folder / "log") == 0
    return (folder / "m.tsr").read_bytes(), keys(folder / "log")


MOMENTS = [
    ("reading", 1),
    ("unit stored", 1),
    ("keeping small tensors", 5),
    ("unit stored", 12),
    ("unit stored", 20),
    ("size measured", 1),
    ("size noted", 1),
    ("writing", 1),
    ("fsync", 1),
]


@pytest.mark.parametrize(("where", "number"), MOMENTS, ids=lambda v: str(v).replace(" ", "-"))
def test_killed_run_leaves_no_output_and_resumes(
    model_file: Path, tmp_path: Path, undisturbed: tuple[bytes, list[str]], where: str, number: int
) -> None:
    output = tmp_path / "m.tsr"
    expected, all_keys = undisturbed
    assert run(model_file, output, tmp_path / "first", where, number) == -signal.SIGKILL
    assert not output.exists()
    assert all(name.startswith(".") for name in os.listdir(tmp_path) if name != "first")
    assert list(tmp_path.glob("*.tsr")) == []

    assert run(model_file, output, tmp_path / "second", resume="resume") == 0
    assert output.read_bytes() == expected
    first, second = keys(tmp_path / "first"), keys(tmp_path / "second")
    assert set(first) & set(second) == set()
    assert sorted(first + second) == sorted(all_keys)
    assert not (tmp_path / ".m.tsr.journal").exists()


def test_killed_again_and_again(model_file: Path, tmp_path: Path, undisturbed: tuple[bytes, list[str]]) -> None:
    output, log = tmp_path / "m.tsr", tmp_path / "log"
    expected, all_keys = undisturbed
    runs = 1
    while run(model_file, output, log, "unit stored", 8, "resume") != 0 and runs < 10:
        runs += 1
    assert runs > 2 and output.read_bytes() == expected
    assert sorted(keys(log)) == sorted(all_keys)


def test_killed_just_after_the_rename(model_file: Path, tmp_path: Path, undisturbed: tuple[bytes, list[str]]) -> None:
    output = tmp_path / "m.tsr"
    assert run(model_file, output, tmp_path / "log", "written", 1) == -signal.SIGKILL
    assert output.read_bytes() == undisturbed[0]


def test_without_resume_everything_is_done_again(
    model_file: Path, tmp_path: Path, undisturbed: tuple[bytes, list[str]]
) -> None:
    run(model_file, tmp_path / "m.tsr", tmp_path / "first", "unit stored", 10)
    assert run(model_file, tmp_path / "m.tsr", tmp_path / "second") == 0
    assert keys(tmp_path / "second") == undisturbed[1]
    assert (tmp_path / "m.tsr").read_bytes() == undisturbed[0]


def test_another_source_does_not_resume(
    model: Arrays, model_file: Path, tmp_path: Path, undisturbed: tuple[bytes, list[str]]
) -> None:
    run(model_file, tmp_path / "m.tsr", tmp_path / "first", "unit stored", 10)
    other = save_safetensors(tmp_path / "other.safetensors", {**model, "positions": model["positions"] + 1})
    assert run(other, tmp_path / "m.tsr", tmp_path / "second", resume="resume") == 0
    assert len(keys(tmp_path / "second")) == len(undisturbed[1])
    assert tersor.load(tmp_path / "m.tsr")["positions"][0] == 1


def test_damaged_journal_is_not_trusted(model_file: Path, tmp_path: Path, undisturbed: tuple[bytes, list[str]]) -> None:
    run(model_file, tmp_path / "m.tsr", tmp_path / "first", "unit stored", 15)
    units = sorted((tmp_path / ".m.tsr.journal" / "units").iterdir())
    units[0].write_bytes(b"")
    units[1].write_bytes(units[1].read_bytes()[:-1])
    units[2].write_bytes(units[2].read_bytes() + b"\0")
    damaged = bytearray(units[3].read_bytes())
    damaged[40] ^= 1
    units[3].write_bytes(damaged)
    assert run(model_file, tmp_path / "m.tsr", tmp_path / "second", resume="resume") == 0
    assert (tmp_path / "m.tsr").read_bytes() == undisturbed[0]


DECOMPRESS = textwrap.dedent(
    """
    import os, signal, sys
    import tersor
    from tersor import TensorFile

    chunks, left = TensorFile.chunks, int(sys.argv[3])

    def watched(self, name):
        global left
        for chunk in chunks(self, name):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            yield chunk

    TensorFile.chunks = watched
    tersor.decompress(sys.argv[1], sys.argv[2])
    """
)


@pytest.mark.parametrize("number", [1, 10])
def test_killed_decompression_leaves_nothing_that_looks_like_a_result(
    compressed: dict[int, tuple[Path, object]], tmp_path: Path, number: int
) -> None:
    output = tmp_path / "out.safetensors"
    result = run_python(DECOMPRESS, str(compressed[8][0]), str(output), str(number))
    assert result.returncode == -signal.SIGKILL, result.stderr
    assert not output.exists() and list(tmp_path.glob("*.safetensors")) == []
    tersor.decompress(compressed[8][0], output)
    assert set(read_safetensors(output)) == set(tersor.load(compressed[8][0]))


# -- Ctrl-C -----------------------------------------------------------------------------------------------------------

INTERRUPT = textwrap.dedent(
    """
    import os, signal, sys
    from tersor import engine
    from tersor.cli import main

    run = engine.compress

    def compress(*arguments, progress=None, **named):
        def watched(label, done, total):
            if label == "compressing":
                os.kill(os.getpid(), signal.SIGINT)

        return run(*arguments, progress=watched, **named)

    engine.compress = compress
    main(sys.argv[1:])
    """
)


def test_interrupt_is_one_line_and_resumes(
    model_file: Path, tmp_path: Path, compressed: dict[int, tuple[Path, object]]
) -> None:
    arguments = ["compress", str(model_file), "-o", str(tmp_path / "m.tsr"), "--ratio", "8"]
    result = run_python(INTERRUPT, *arguments)
    lines = [line for line in result.stderr.splitlines() if line]
    assert result.returncode == 1 and result.stdout == ""
    assert len(lines) == 1 and lines[0].startswith("tersor: interrupted") and "--resume" in lines[0]
    assert os.listdir(tmp_path) == [".m.tsr.journal"]
    assert run_tersor(*arguments, "--resume").returncode == 0
    assert os.listdir(tmp_path) == ["m.tsr"]
    direct = tmp_path / "direct.tsr"
    tersor.compress(model_file, direct, ratio=8)
    assert (tmp_path / "m.tsr").read_bytes() == direct.read_bytes()


def test_interrupt_from_outside(model_file: Path, tmp_path: Path) -> None:
    code = "import time\nfrom tersor.methods.nearest import Nearest\nencode = Nearest.encode\n" + textwrap.dedent(
        """
        def slow(*arguments):
            time.sleep(0.2)
            return encode(*arguments)

        Nearest.encode = slow
        from tersor.cli import main

        main()
        """
    )
    arguments = ["compress", str(model_file), "-o", str(tmp_path / "m.tsr"), "--ratio", "8", "--workers", "1"]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    units = tmp_path / ".m.tsr.journal" / "units"
    end = time.monotonic() + 60
    while time.monotonic() < end and not (units.is_dir() and any("-0x" in name for name in os.listdir(units))):
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and out == ""
    assert "Traceback" not in errors and errors.splitlines()[-1].startswith("tersor: interrupted")
    assert os.listdir(tmp_path) == [".m.tsr.journal"]


# -- no space ---------------------------------------------------------------------------------------------------------

FULL = textwrap.dedent(
    """
    import resource, sys
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
    from tersor.cli import main
    main(sys.argv[2:])
    """
)


@pytest.mark.parametrize("limit", [0, 3000, 60_000])
def test_a_device_that_takes_no_more(model_file: Path, tmp_path: Path, limit: int) -> None:
    """The system refuses to let any file grow beyond a size: first those of the journal, then the output itself."""
    result = run_python(FULL, str(limit), "compress", str(model_file), "-o", str(tmp_path / "m.tsr"), "--ratio", "8")
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("tersor: cannot write the output") and str(tmp_path) in last, result.stderr
    assert "Traceback" not in result.stderr
    assert [name for name in os.listdir(tmp_path) if name != ".m.tsr.journal"] == []


def test_a_device_that_takes_no_more_of_a_decompressed_model(
    compressed: dict[int, tuple[Path, object]], tmp_path: Path
) -> None:
    output = tmp_path / "m.safetensors"
    result = run_python(FULL, "100000", "decompress", str(compressed[8][0]), "-o", str(output))
    assert result.returncode == 1
    assert len(result.stderr.splitlines()) == 1 and result.stderr.startswith("tersor: cannot write the output")
    assert os.listdir(tmp_path) == []
