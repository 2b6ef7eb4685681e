"""Fuzz the reader: `python fuzz/reader TARGET`, guided by coverage where atheris is installed.

Without atheris, or with --plain, inputs are pseudo-random changes of the seeds: the same for the same --seed.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

CORPUS = Path(__file__).resolve().parents[1] / "corpus"


def main() -> None:
    """Run a target for so many seconds or iterations, or on the files named."""
    parser = argparse.ArgumentParser(prog="fuzz/reader", description=__doc__)
    parser.add_argument("target", choices=["container", "manifest", "chunks"])
    parser.add_argument("--seconds", type=int, default=0)
    parser.add_argument("--iterations", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plain", action="store_true", help="without atheris")
    parser.add_argument("--corpus", type=Path, help="folder that keeps what atheris finds worth keeping")
    parser.add_argument("--findings", type=Path, default=Path("build/fuzz/findings"), help="folder for reproducers")
    parser.add_argument("inputs", nargs="*", type=Path, help="reproducers to run instead")
    options = parser.parse_args()
    options.findings.mkdir(parents=True, exist_ok=True)
    if options.inputs:
        _replay(options.target, options.inputs)
    elif options.plain or not _guided(options):
        _plain(options)


def _replay(target: str, inputs: list[Path]) -> None:
    from targets import TARGETS

    for path in inputs:
        TARGETS[target](path.read_bytes())


def _guided(options: argparse.Namespace) -> bool:
    """Run atheris; False if it is not installed."""
    try:
        import atheris
    except ImportError:
        return False
    _find_sources()
    with atheris.instrument_imports(include=["tersor"]):
        import tersor.format.reader  # noqa: F401
    from targets import SEEDS, TARGETS

    corpus = options.corpus or Path("build/fuzz/corpus") / options.target
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[options.target]() if options.target in SEEDS else []):
        (corpus / f"seed-{number}").write_bytes(seed)
    arguments = [f"-artifact_prefix={options.findings}/{options.target}-", "-print_final_stats=1", "-timeout=60",
                 "-rss_limit_mb=1024", "-max_len=4096", f"-seed={options.seed or 1}"]  # fmt: skip
    if options.seconds:
        arguments.append(f"-max_total_time={options.seconds}")
    if options.iterations:
        arguments.append(f"-runs={options.iterations}")
    folders = [str(corpus), *(str(p) for p in [CORPUS / options.target] if p.is_dir())]
    target = TARGETS[options.target]

    def run(data: bytes) -> None:
        target(data)

    atheris.Setup([sys.argv[0], *arguments, *folders], run)
    atheris.Fuzz()
    return True


def _find_sources() -> None:
    """Let the instrumenting importer, which knows ordinary folders only, find a package that is installed in place."""
    from tersor import _core

    for name in [name for name in sys.modules if name.partition(".")[0] == "tersor"]:
        del sys.modules[name]
    sys.modules["tersor._core"] = _core
    sys.meta_path[:] = [f for f in sys.meta_path if "ScikitBuild" not in type(f).__name__]
    sys.path.insert(0, str(CORPUS.parents[1] / "src"))


def _plain(options: argparse.Namespace) -> None:
    from targets import TARGETS

    target, done, start = TARGETS[options.target], 0, time.monotonic()
    outcomes: Counter[str] = Counter()
    for data in _inputs(options.target, random.Random(options.seed)):
        try:
            outcomes[target(data)] += 1
        except BaseException:
            path = options.findings / f"{options.target}-{done}"
            path.write_bytes(data)
            print(f"finding: {path}", file=sys.stderr)
            raise
        done += 1
        if done == options.iterations or (options.seconds and time.monotonic() - start > options.seconds):
            break
    found = ", ".join(f"{code} {n}" for code, n in outcomes.most_common())
    print(f"{options.target}: {done} executions, {time.monotonic() - start:.1f} s; {found}")


def _inputs(target: str, rng: random.Random) -> Iterator[bytes]:
    """Kept reproducers first; then for ever: changed seeds where there are any, else random bytes."""
    from targets import SEEDS

    if (CORPUS / target).is_dir():
        yield from (path.read_bytes() for path in sorted((CORPUS / target).iterdir()))
    seeds = SEEDS[target]() if target in SEEDS else []
    while True:
        if not seeds or rng.random() < 0.01:
            yield rng.randbytes(rng.randrange(1, 64))
            continue
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.choice((1, 1, 2, 5))):
            _change(data, rng, seeds)
        yield bytes(data)


def _change(data: bytearray, rng: random.Random, seeds: list[bytes]) -> None:
    at = rng.randrange(len(data) or 1)
    match rng.randrange(6):
        case 0 | 1 | 2 if data:
            data[at] ^= 1 << rng.randrange(8)
        case 3:
            del data[at:]
        case 4:
            data[at:at] = rng.randbytes(rng.randrange(1, 9))
        case _:
            other = rng.choice(seeds)
            data[at:] = other[rng.randrange(len(other)) :]


if __name__ == "__main__":
    main()
