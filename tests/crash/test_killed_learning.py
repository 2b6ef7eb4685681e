"""A run of recipe `best` that is killed, in any of its parts, and resumes: it ends with the same file.

The process kills itself at a step of its progress. Statistics are not collected again, and at most a phase of learning
is done again; so are the fifteen passes over the samples that finish the file of `balanced`.
"""

from __future__ import annotations

import json
import signal
import sys
import textwrap
from pathlib import Path

import pytest
from helpers import run_python

pytest.importorskip("torch")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX")

LEARN = textwrap.dedent(
    """
    import dataclasses, json, os, signal, sys
    import torch
    from torch import nn
    import tersor
    from tersor.joint import BEST

    output, label, moment, resume, log = sys.argv[1:]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).eval()
    samples = torch.randn(128, 32, generator=torch.Generator().manual_seed(1))
    recipe = dataclasses.replace(BEST, rounds=3, transformation_iterations=8, weight_iterations=12)
    seen = {}

    def watch(name, done, total):
        seen.setdefault(name, []).append(done)
        if name == label and done >= float(moment) * total:
            os.kill(os.getpid(), signal.SIGKILL)

    tersor.compress(
        model, output, ratio=8, method=recipe, calibration=samples, workers=1, resume=resume == "resume", progress=watch
    )
    with open(log, "w") as file:
        json.dump(seen, file)
    """
)


def run(output: Path, label: str = "-", moment: float = 1, resume: str = "fresh") -> dict[str, list[int]]:
    """What progress was seen; nothing of a run that is killed."""
    log = output.with_suffix(".json")
    result = run_python(LEARN, str(output), label, str(moment), resume, str(log))
    assert result.returncode == (0 if label == "-" else -signal.SIGKILL), result.stderr
    return json.loads(log.read_text()) if label == "-" else {}


def test_it_ends_with_the_same_file(tmp_path: Path) -> None:
    whole = tmp_path / "whole.tsr"
    undisturbed = run(whole)
    assert undisturbed["learning"] == list(range(1, 61))
    for label, moment in (("learning steps", 0.5), ("learning", 0.5), ("learning", 0.9)):
        output = tmp_path / "killed.tsr"
        run(output, label, moment)
        assert not output.exists()
        seen = run(output, resume="resume")
        assert output.read_bytes() == whole.read_bytes(), (label, moment)
        assert "learning from samples" in undisturbed and "learning from samples" not in seen
        if label == "learning":
            assert 60 * moment - 20 <= seen["learning"][0] <= 60 * moment + 1
        assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
        output.unlink()
