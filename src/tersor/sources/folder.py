"""A model folder as Hugging Face lays it out: one file of weights, or shards with an index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from types import MappingProxyType
from typing import Any

from tersor.errors import SourceError
from tersor.sources.checkpoint import CheckpointSource
from tersor.sources.files import StoredFile, digest
from tersor.sources.safetensors import SafetensorsSource, parse_json_object
from tersor.sources.unit import Unit, check_name, listed

PREFERRED = (
    "model.safetensors",
    "model.safetensors.index.json",
    "diffusion_pytorch_model.safetensors",
    "diffusion_pytorch_model.safetensors.index.json",
    "adapter_model.safetensors",
)
"""Taken in this order, before any other name."""

PREFERRED_CHECKPOINTS = ("pytorch_model.bin", "pytorch_model.bin.index.json", "diffusion_pytorch_model.bin")

INDEX_SUFFIX = ".index.json"
_CHECKPOINT_SUFFIXES = (".bin", ".pt", ".pth")
_NOT_WEIGHTS = frozenset(
    {"training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.bin", "scheduler.pt", "scaler.pt"}
)
_MAX_INDEX_BYTES = 100_000_000
_DOWNLOAD = "download the folder again, all of it"

FileSource = SafetensorsSource | CheckpointSource


class FolderSource:
    """The tensors of a model folder, shard by shard in the order in which the index first names them.

    `path` is the folder, or an index in it. Safetensors are preferred to checkpoints. Raises `SourceError`
    when the folder has no weights or several files that could be meant, when the index names files outside
    the folder or files that are missing, and when index and shards do not hold exactly the same tensors.
    Tied tensors are found within a checkpoint shard; safetensors cannot express them.
    """

    def __init__(self, path: str | Path) -> None:
        chosen = Path(path)
        if chosen.is_dir():
            chosen = _find(chosen)
        self.label = str(path)
        self._index = ""
        if chosen.name.endswith(INDEX_SUFFIX):
            index = _Index(chosen)
            self._index = index.identity
            self._shards: tuple[FileSource, ...] = tuple(_open(chosen.parent / name) for name in index.shards)
            index.check([shard.units() for shard in self._shards])
        else:
            self._shards = (_open(chosen),)
        metadata: dict[str, str] = {}
        for shard in self._shards:
            metadata.update(shard.metadata)
        self.metadata: Mapping[str, str] = MappingProxyType(metadata)
        self.skipped: tuple[str, ...] = tuple(name for shard in self._shards for name in shard.skipped)
        self._units = tuple(unit for shard in self._shards for unit in shard.units())

    def units(self) -> Sequence[Unit]:
        """The tensors; nothing of their data has been read yet."""
        return self._units

    def fingerprint(self) -> str:
        """A hexadecimal digest of the index and every shard's fingerprint."""
        return digest("folder", self._index, *(shard.fingerprint() for shard in self._shards))


def _open(path: Path) -> FileSource:
    return SafetensorsSource(path) if path.suffix == ".safetensors" else CheckpointSource(path)


def _find(folder: Path) -> Path:
    """Return the file of weights, or the index, that `folder` is about."""
    try:
        names = sorted(entry.name for entry in folder.iterdir() if not entry.is_dir())
    except OSError as error:
        raise SourceError(
            f"cannot be listed: {error.strerror or error}", where=str(folder), remedy="check its permissions"
        ) from error
    stages = (
        [name for name in PREFERRED if name in names][:1],
        _whole(names, (".safetensors",)),
        [name for name in PREFERRED_CHECKPOINTS if name in names][:1],
        [name for name in _whole(names, _CHECKPOINT_SUFFIXES) if name not in _NOT_WEIGHTS],
    )
    for found in stages:
        if len(found) > 1:
            raise SourceError(
                f"several files could be the model: {listed(found, 8)}",
                where=str(folder),
                remedy="name the one you mean",
            )
        if found:
            return folder / found[0]
    if "model_index.json" in names:
        raise SourceError(
            "a pipeline of several models, each in a folder of its own",
            where=str(folder),
            remedy="name one of its folders, for instance unet, transformer, vae or text_encoder",
        )
    raise SourceError(
        "the folder has no weights",
        where=str(folder),
        remedy="it should hold model.safetensors, model.safetensors.index.json, another .safetensors file, "
        "or pytorch_model.bin",
    )


def _whole(names: list[str], suffixes: tuple[str, ...]) -> list[str]:
    """Return what could be a whole model: indices if there are any (their shards are not), else all files."""
    indices = [name for name in names if name.endswith(tuple(f"{suffix}{INDEX_SUFFIX}" for suffix in suffixes))]
    return indices or [name for name in names if name.endswith(suffixes)]


class _Index:
    """A `*.index.json`: which shard holds which tensor."""

    def __init__(self, path: Path) -> None:
        self._where = str(path)
        file = StoredFile.at(path)
        if file.size > _MAX_INDEX_BYTES:
            raise self._wrong(f"the index has {file.size} bytes, more than {_MAX_INDEX_BYTES}")
        text = file.read(0, file.size).tobytes()
        self.identity = digest(text)
        table: Any = parse_json_object(text, self._where).get("weight_map")
        if not isinstance(table, dict) or not table:
            raise self._wrong("the index has no weight_map")
        self._shard_of: dict[str, str] = {
            check_name(name, self._where): self._inside(shard) for name, shard in table.items()
        }
        self.shards = tuple(dict.fromkeys(self._shard_of.values()))
        missing = [name for name in self.shards if not (path.parent / name).is_file()]
        if missing:
            raise SourceError(
                f"{len(missing)} of {len(self.shards)} shards are missing: {listed(missing, 4)}",
                where=self._where,
                remedy=_DOWNLOAD,
            )

    def _inside(self, shard: Any) -> str:
        """Return a shard's name if it stays in the folder; links may leave it, as in the hub's cache."""
        if not isinstance(shard, str) or not shard or "\0" in shard:
            raise self._wrong("the index names a shard with something that is no file name")
        path = PurePosixPath(shard)
        windows = PureWindowsPath(shard)
        if path.is_absolute() or windows.drive or windows.root or ".." in windows.parts or "\\" in shard:
            raise self._wrong(f"the index names {shard!r}, which is outside the folder")
        if not shard.endswith((".safetensors", *_CHECKPOINT_SUFFIXES)):
            raise self._wrong(f"the index names {shard!r}, which is no file of weights")
        return str(path)

    def check(self, found: list[Sequence[Unit]]) -> None:
        """Raise `SourceError` unless the shards hold each tensor where the index says, and no other."""
        seen: dict[str, str] = {}
        for shard, unit in self._pairs(found):
            if unit.name in seen:
                raise self._wrong(f"the tensor {unit.name!r} is in {seen[unit.name]} and again in {shard}")
            seen[unit.name] = shard
            expected = self._shard_of.get(unit.name)
            if expected != shard:
                place = f"says {expected}" if expected else "does not mention it"
                raise self._wrong(f"the tensor {unit.name!r} is in {shard}, but the index {place}")
        missing = [name for name in self._shard_of if name not in seen]
        if missing:
            name = missing[0]
            raise self._wrong(
                f"{len(missing)} tensors are missing from their shards, for instance {name!r} "
                f"from {self._shard_of[name]}"
            )

    def _pairs(self, found: list[Sequence[Unit]]) -> Iterator[tuple[str, Unit]]:
        for shard, units in zip(self.shards, found, strict=True):
            for unit in units:
                yield shard, unit

    def _wrong(self, what: str) -> SourceError:
        return SourceError(what, where=self._where, remedy=_DOWNLOAD)
