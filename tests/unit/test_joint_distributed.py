"""Two processes learn together: gradients are averaged, and both end with the same weights."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
    pytest.skip("torch has no gloo", allow_module_level=True)

SCRIPT = """
import dataclasses, sys
import torch
from torch import distributed, nn

rank, meeting, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.set_num_threads(1)
distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)

from tersor.joint import BEST, refine
from tersor.joint.training import _average

leaf = torch.zeros(3, requires_grad=True)
leaf.grad = torch.tensor([1.0, 2.0, 3.0]) * (rank + 1)
_average([leaf])
assert leaf.grad.tolist() == [1.5, 3.0, 4.5]

torch.manual_seed(0)
module = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32)).eval()
samples = [torch.randn(8, 16) for _ in range(10)]
recipe = dataclasses.replace(BEST, rounds=1, transformation_iterations=4, weight_iterations=6, patience=0)
refined = refine(module, samples, ratio=4, recipe=recipe)
torch.save(dict(refined.tensors), out)
"""


def test_two_processes(tmp_path: Path) -> None:
    outs = [tmp_path / f"{rank}.pt" for rank in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SCRIPT, str(rank), str(tmp_path / "meeting"), str(out)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, out in enumerate(outs)
    ]
    errors = [process.communicate(timeout=240)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    a, b = (torch.load(out, weights_only=True) for out in outs)
    assert all(torch.equal(a[name], b[name]) for name in a)

    from torch import nn

    from tersor.joint import BEST, refine

    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32)).eval()
    samples = [torch.randn(8, 16) for _ in range(10)]
    recipe = dataclasses.replace(BEST, rounds=1, transformation_iterations=4, weight_iterations=6, patience=0)
    alone = refine(module, samples, ratio=4, recipe=recipe).tensors
    assert any(not torch.equal(a[name], alone[name]) for name in a), "the second process had no say"
