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
NATIVE = {"table": 1, "plain": 1, "helpers": 1, "hash": 1, "rans": 2, "uniform": 2, "planes": 2, "roundtrip": 2, "paths": 2}
READER = {"container": 2, "manifest": 2, "chunks": 2}
"""Targets and their shares of the time: those that need more for an execution get more."""
OPTIONS = ["-max_len=512", "-timeout=10", "-rss_limit_mb=1024", "-len_control=20", "-entropic_scale_per_exec_time=1",
           "-print_final_stats=1"]  # fmt: skip
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
        print("{target:10} {executions:>12,} executions {seconds:>6.0f} s  {findings} findings".format(**record), flush=True)
    print(f"{'all':10} {sum(r['executions'] for r in records):>12,} executions")
    if options.results:
        _save(options.results, records)
    found = [r for r in records if r["findings"]]
    for record in found:
        print(f"FOUND by {record['target']}: see {record['log']} and {FINDINGS.relative_to(ROOT)}/{record['target']}-*")
    return 1 if found else 0


def _run(name: str, seconds: int) -> dict[str, Any]:
    log = BUILD / f"{name}.log"
    kept = BUILD / "corpus" / name
    kept.mkdir(parents=True, exist_ok=True)
    before, start = set(FINDINGS.iterdir()), time.monotonic()
    if name in NATIVE:
        from seeds import write_seeds

        seeds, regressions = BUILD / "seeds" / name, FUZZ / "corpus" / name
        write_seeds(name, seeds)
        folders = [kept, seeds, *([regressions] if regressions.is_dir() else [])]
        command = [BUILD / name, *OPTIONS, f"-max_total_time={seconds}", f"-artifact_prefix={FINDINGS}/{name}-", *folders]
    else:
        command = [sys.executable, FUZZ / "reader", name, "--seconds", str(seconds), "--findings", FINDINGS]
    with log.open("w") as output:
        environment = {**os.environ, "ASAN_OPTIONS": SANITIZERS}
        status = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, env=environment).returncode
    text = log.read_text(errors="replace")
    counts = re.findall(r"number_of_executed_units: (\d+)|: (\d+) executions", text)
    new = set(FINDINGS.iterdir()) - before
    return {
        "target": name,
        "executions": max((int(a or b) for a, b in counts), default=0),
        "seconds": round(time.monotonic() - start, 1),
        "findings": len(new) or int(status != 0),
        "log": str(log.relative_to(ROOT)),
    }


def _save(path: Path, records: list[dict[str, Any]]) -> None:
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from common import origin

    clang = subprocess.run([os.environ.get("CLANG", "clang"), "--version"], capture_output=True, text=True, check=True)
    first = {"part": "fuzz", **origin(), "compiler": clang.stdout.splitlines()[0], "cores_used": 1}
    lines = [first, *({k: v for k, v in r.items() if k != "log"} for r in records)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    sys.exit(main())
