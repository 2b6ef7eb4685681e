"""Run every target for its share of the time and say what was done: `python fuzz/campaign.py SECONDS`.

Exit status 1 if anything was found. `--results PATH` also writes the numbers as JSON lines.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

FUZZ = Path(__file__).resolve().parent
ROOT = FUZZ.parent
BUILD = ROOT / "build" / "fuzz"
FINDINGS = BUILD / "findings"
NATIVE = {"table": 1, "plain": 1, "helpers": 1, "hash": 1}
NATIVE |= {"rans": 2, "uniform": 2, "planes": 2, "roundtrip": 2, "paths": 3, "adaptive": 2, "runs": 2}
READER = {"container": 2, "manifest": 2, "chunks": 2}
"""Targets and their shares of the time: those that need more for an execution get more."""
LINE = "{target:10} {executions:>12,} executions {seconds:>6.0f} s  {findings} findings"
OPTIONS = ["-max_len=512", "-timeout=60", "-report_slow_units=60", "-rss_limit_mb=1024", "-len_control=20",
           "-entropic_scale_per_exec_time=1", "-print_final_stats=1"]  # fmt: skip
"""Seconds are by the clock, and the machine may have other things to do: an input takes milliseconds."""
SANITIZERS = "detect_stack_use_after_return=0:quarantine_size_mb=8:malloc_context_size=2"


def main() -> int:
    """Fuzz, report, and return the exit status."""
    parser = argparse.ArgumentParser(prog="fuzz/run.sh", description=__doc__)
    parser.add_argument("seconds", type=int)
    parser.add_argument("--results", type=Path)
    parser.add_argument("--only", nargs="*", help="just these targets")
    options = parser.parse_args()
    chosen = {name: w for name, w in {**NATIVE, **READER}.items() if not options.only or name in options.only}
    FINDINGS.mkdir(parents=True, exist_ok=True)
    records = []
    for name, share in chosen.items():
        record = _run(name, max(1, options.seconds * share // sum(chosen.values())))
        records.append(record)
        print(LINE.format(**record), flush=True)
    print(f"{'all':10} {sum(r['executions'] for r in records):>12,} executions")
    if options.results:
        _save(options.results, records)
    found = [r for r in records if r["findings"]]
    for record in found:
        print(f"FOUND by {record['target']}: see {record['log']} and {FINDINGS.relative_to(ROOT)}/{record['target']}-*")
    return 1 if found else 0


def _run(name: str, seconds: int) -> dict[str, Any]:
    log = BUILD / f"{name}.log"
    before, start, failures = set(FINDINGS.iterdir()), time.monotonic(), 0
    commands = [_native(name, seconds)] if name in NATIVE else _reader(name, seconds)
    with log.open("w") as output:
        for command in commands:
            environment = {**os.environ, "ASAN_OPTIONS": SANITIZERS}
            run = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, env=environment)
            failures += run.returncode != 0
    text = log.read_text(errors="replace")
    counts = re.findall(r"number_of_executed_units: (\d+)|: (\d+) executions", text)
    return {
        "target": name,
        "executions": sum(int(a or b) for a, b in counts),
        "seconds": round(time.monotonic() - start, 1),
        "findings": max(len(set(FINDINGS.iterdir()) - before), failures),
        "log": str(log.relative_to(ROOT)),
    }


def _native(name: str, seconds: int) -> list[str | Path]:
    from seeds import write_seeds

    kept, seeds, regressions = BUILD / "corpus" / name, BUILD / "seeds" / name, FUZZ / "corpus" / name
    kept.mkdir(parents=True, exist_ok=True)
    write_seeds(name, seeds)
    folders = [kept, seeds, *([regressions] if regressions.is_dir() else [])]
    return [BUILD / name, *OPTIONS, f"-max_total_time={seconds}", f"-artifact_prefix={FINDINGS}/{name}-", *folders]


def _reader(name: str, seconds: int) -> list[list[str | Path]]:
    """Half of the time guided by coverage, half not: that is several times as fast."""
    command: list[str | Path] = [sys.executable, FUZZ / "reader", name, "--findings", FINDINGS]
    guided, plain = seconds // 2, seconds - seconds // 2
    seed = str(int(time.time()))
    return [[*command, "--seconds", str(guided)], [*command, "--plain", "--seed", seed, "--seconds", str(plain)]]


def _save(path: Path, records: list[dict[str, Any]]) -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from common import origin

    clang = subprocess.run([os.environ.get("CLANG", "clang"), "--version"], capture_output=True, text=True, check=True)
    first = {"part": "fuzz", **origin(), "compiler": clang.stdout.splitlines()[0], "cores_used": 1}
    lines = [first, *({k: v for k, v in r.items() if k != "log"} for r in records)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    sys.exit(main())
