"""What the balanced recipe reaches, and what each of its ingredients is worth: quality against bytes on real networks.

    python -m benchmarks.second_order [--ingredients] [--missing] [--method NAME ...] [NETWORK ...]

At 2, 3 and 4 bits a weight of the whole file: the recipe, the recipe with method trellis, method gptq, method nearest,
and NNCodec with its trellis and opt_qp at several quantization parameters. Every row is of weights decoded from a file,
on data that calibration never saw; `other` is the divergence on inputs of another domain, `same` on what those are
compared with: calibration inputs that were not used. At 3 bits, the recipe also with inputs of the other domain among
its own: as many more, or where there are few, every second batch, and `other` is of the other batches then. With
--ingredients, the recipe at 3 bits, or at 2 (part ingredients-NETWORK): each left out in turn.

Statistics of the original network are the same for all rows of a network and are made once; their time counts in
every row. A row replaces the one of its method and size; with --missing, only those run that are not there.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.numpy import save_file

import tersor
from benchmarks.calibrated import COUNT, TASKS
from benchmarks.common import Table
from benchmarks.networks import load
from benchmarks.networks._common import read
from benchmarks.pareto import peer
from tersor import balanced
from tersor.calibration.collect import Collected
from tersor.calibration.samples import load_samples
from tersor.engine import compress
from tersor.evaluate.divergence import Evaluator
from tersor.methods import Gptq, Nearest, SecondOrder, Trellis

BITS = (3.0, 2.0, 4.0)
METHODS = {"balanced": SecondOrder(), "nearest": Nearest(), "gptq": Gptq(), "balanced, trellis": Trellis()}
RATIOS = {"efficientnet_lite0": (8, 10, 12), "resnet18_fashion": (12, 15, 20)}
"""The recipe alone, at ratios for which papers have figures."""
LOWEST = 1.25
"""The recipe alone, down to where NNCodec's errors are."""
PARAMETERS = (-38, -34, -30, -26, -22)
INGREDIENTS_AT = {"mobilenet_fashion": 2.0}
"""Bits at which ingredients are left out, if not 3."""
INGREDIENTS: dict[str, Any] = {
    "all": SecondOrder(),
    "no rate term": SecondOrder(rate=0.0, quadratic=0.0),
    "no quadratic term": SecondOrder(quadratic=0.0),
    "no water-filling of columns": SecondOrder(column_steps=0.0),
    "one step for all rows of a layer": SecondOrder(row_steps=0.0),
    "rows apart": SecondOrder(coupling=0.0),
    "no classes": SecondOrder(classes=0),
    "one pass": SecondOrder(passes=1),
    "defaults, no tuning on held-out samples": SecondOrder(tune=False),
    "with the trellis": Trellis(),
}


@contextmanager
def replaced(name: str, method: Callable[..., Any]) -> Iterator[None]:
    """The recipe with one of its steps done otherwise."""
    original = getattr(balanced.Balanced, name)
    setattr(balanced.Balanced, name, method)
    try:
        yield
    finally:
        setattr(balanced.Balanced, name, original)


class Bench:
    """One network, and rows for one part of the results."""

    def __init__(self, name: str, table: Table, wanted: Callable[[str, Any], bool], folder: Path) -> None:
        self.name, self.table, self.path, self.folder = name, table, folder / f"{name}.tsr", folder
        self.network, task = load(name), TASKS[name]
        self.model, self.calibration = task.model(), task.calibration()
        samples = load_samples(self.calibration, self.model, count=COUNT)
        self.used = samples.calibration
        self.elsewhere, self.more = task.other(), task.more
        self.other, self.same = Evaluator(self.model, self.elsewhere), Evaluator(self.model, samples.held_out)
        self.wanted = wanted
        self.learned: tuple[Any, float] | None = None

    def collect(self, recipe: Any, into: Any) -> Collected:
        """Statistics of the original, made once."""
        if self.learned is None:
            start = time.process_time()
            self.learned = self._collect(recipe, {}), time.process_time() - start
        known = self.learned[0]
        into.update(known)
        return Collected(into, known.notes, known.kind)

    _collect = staticmethod(balanced.Balanced._collect)

    def add(self, method: str, asked: Any, nbytes: int, seconds: float | None, tensors: dict[str, Any]) -> None:
        """A row of decoded weights."""
        tensors = {key.removeprefix("module."): array for key, array in tensors.items()}
        known = self.model.module.state_dict()
        mine = {key: array.reshape(known[key].shape) for key, array in tensors.items() if key in known}
        self.table.add(
            network=self.name, method=method, asked=asked, bytes=nbytes, cpu=seconds,
            metrics=self.network.evaluate(tensors), same=self.same(mine).mean, other=self.other(mine).mean,
        )  # fmt: skip

    def compress(self, label: str, asked: float | str, method: Any) -> None:
        """A row of a method of ours, at bits a weight or, with an x at its end, a ratio."""
        if not self.wanted(label, asked):
            return
        size: dict[str, Any] = {"ratio": float(asked[:-1])} if isinstance(asked, str) else {"bits": asked}
        start, known = time.process_time(), self.learned
        with replaced("_collect", lambda recipe, into: self.collect(recipe, into)):
            report = compress(
                self.model, self.path, method=method, calibration=self.calibration,
                calibration_count=COUNT, overwrite=True, workers=1, **size,
            )  # fmt: skip
        seconds = time.process_time() - start
        if known is not None and not isinstance(method, Nearest):
            seconds += known[1]
        self.add(label, asked, report.file_bytes, seconds, tersor.load(self.path))

    def both_domains(self, label: str, bits: float) -> None:
        """A row of the recipe with inputs of the other domain beside its own, and others evaluated."""
        if not self.wanted(label, bits):
            return
        more = self.more() if self.more else self.elsewhere[::2]
        batches, start = [*self.used, *more], time.process_time()
        report = compress(
            self.model, self.path, recipe="balanced", calibration=batches, calibration_count=2 * COUNT, bits=bits,
            overwrite=True, workers=1,
        )  # fmt: skip
        seconds = time.process_time() - start
        whole = self.other
        if self.more is None:
            self.other = Evaluator(self.model, self.elsewhere[1::2])
        self.add(label, bits, report.file_bytes, seconds, tersor.load(self.path))
        self.other = whole

    def nncodec(self) -> None:
        """NNCodec at its best: with its trellis and opt_qp."""
        left = [f"qp {p}, trellis, opt_qp" for p in PARAMETERS if self.wanted("NNCodec", f"qp {p}")]
        if not left:
            return
        source = self.folder / "original.safetensors"
        save_file(read(self.network.weights), source)
        for record, decoded in peer("NNCodec", source, self.folder, left):
            self.add("NNCodec", record["setting"].partition(",")[0], record["bytes"], None, decoded)


def against_others(bench: Bench) -> None:
    """The recipe, with the trellis too, gptq, nearest and NNCodec."""
    for bits in BITS:
        for label, method in METHODS.items():
            bench.compress(label, bits, method)
    for ratio in RATIOS.get(bench.name, ()):
        bench.compress("balanced", f"{ratio}x", SecondOrder())
    bench.nncodec()
    bench.compress("balanced", LOWEST, SecondOrder())
    bench.both_domains("balanced, both domains", BITS[0])


def ingredients(bench: Bench) -> None:
    """The recipe with each ingredient left out."""
    bits = INGREDIENTS_AT.get(bench.name, 3.0)
    for label, method in INGREDIENTS.items():
        bench.compress(label, bits, method)
    with replaced("_exchange", lambda *arguments: None):
        bench.compress("no precision moved between tensors", bits, SecondOrder())
    with replaced("_sequential", lambda recipe, original, stored, price: stored):
        bench.compress("no sequential statistics", bits, SecondOrder())
    with replaced("_repair", lambda *arguments: None):
        bench.compress("no repair", bits, SecondOrder())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--ingredients", action="store_true")
    parser.add_argument("--missing", action="store_true")
    parser.add_argument("--method", action="append", default=[])
    parser.add_argument("networks", nargs="*", default=list(TASKS))
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.networks:
        table = Table(f"{'ingredients' if given.ingredients else 'second_order'}-{name}", "method", "asked")
        done = table.known() if given.missing else set()

        def wanted(method: str, asked: Any, done: set[tuple[Any, ...]] = done) -> bool:
            return (method, asked) not in done and (not given.method or method in given.method)

        with tempfile.TemporaryDirectory() as folder:
            (ingredients if given.ingredients else against_others)(Bench(name, table, wanted, Path(folder)))


if __name__ == "__main__":
    main()
