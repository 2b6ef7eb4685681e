"""What learning transformations costs: CPU time of an iteration against a plain training iteration of the same model.

A plain iteration is forward, backward and Adam on all parameters, same batch, one thread. Goal: at most 1.5 times for
an iteration on the transformation (the paper: about ten times). Outputs of the original are kept in memory. The two
kinds of iteration take turns, so that other work on the machine hits both; the median is taken.

    python -m benchmarks.joint_cost [NETWORK ...]
"""

import statistics
import sys
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from benchmarks.common import Results
from benchmarks.networks import fashion, load
from benchmarks.networks._common import read, with_weights
from tersor.joint import BEST, L2_PAPER
from tersor.joint.student import Student
from tersor.joint.tensors import LearnedTensors
from tersor.joint.training import Trainer, _learning
from tersor.sources.model import open_model

NETWORKS = ("fashion_resnet", "resnet18_fashion", "mobilenet_fashion", "vit_fashion")
REPEATS = 7


def plain(module: nn.Module, batch: Tensor) -> Callable[[], None]:
    """A training iteration of the module."""
    module = module.train()
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam(module.parameters(), 1e-9, fused=True)
    labels = torch.zeros(len(batch), dtype=torch.long)

    def iterate() -> None:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(module(batch), labels).backward()
        optimizer.step()

    return iterate


def learning(trainer: Trainer, weights: bool) -> Iterator[None]:
    """Iterations of a phase, one at a time."""
    optimizer, _ = trainer._optimizer(weights)
    with _learning(optimizer):
        while True:
            trainer._step(0, optimizer, trainer.recipe.rate_everywhere or not weights)
            yield


def main() -> None:
    torch.set_num_threads(1)
    with Results("joint_cost") as results:
        for name in sys.argv[1:] or NETWORKS:
            network, size = load(name), 16 if name.startswith("vit") else 32
            batch = fashion.images("train")[0][:size]
            contenders: dict[str, Callable[[], object]] = {
                "plain": plain(with_weights(fashion.build(name), read(network.weights)), batch)
            }
            for recipe in (L2_PAPER, BEST):
                model = open_model(with_weights(fashion.build(name), read(network.weights)))
                student = Student(model, None, "cpu")
                tensors = LearnedTensors(list(model.units()), dict(student.module.named_parameters()), recipe, None)
                trainer = Trainer(student, tensors, student.buffers(), [batch], [batch], recipe, 1e6, 0)
                contenders[f"{recipe.name}, transformation"] = learning(trainer, False).__next__
                if recipe is BEST:
                    contenders[f"{recipe.name}, weights"] = learning(trainer, True).__next__
            times: dict[str, list[float]] = {label: [] for label in contenders}
            for _ in range(REPEATS + 2):
                for label, iterate in contenders.items():
                    start = time.process_time()
                    iterate()
                    times[label].append(time.process_time() - start)
            base = statistics.median(times["plain"][2:])
            for label, found in times.items():
                seconds = statistics.median(found[2:])
                results.add(network=name, batch=size, iteration=label, seconds=seconds, times_plain=seconds / base)


if __name__ == "__main__":
    main()
