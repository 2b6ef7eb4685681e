"""Reading a file: everything is checked before it is believed, one tensor at a time (spec/FORMAT.md)."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import accumulate, pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import numpy as np
import numpy.typing as npt

from tersor import _core
from tersor.coders import chunk_input
from tersor.errors import FormatError
from tersor.format.dtypes import Bytes, to_numpy
from tersor.format.layout import HEADER_SIZE, Header, checksum, digest_of
from tersor.format.limits import Limits
from tersor.format.manifest import Entry, Manifest, Step
from tersor.ops import open_entry
from tersor.ops.chunks import Chunk, ChunkDecoder, Leaves, stream_errors

Array = npt.NDArray[np.generic]
Readable = str | os.PathLike[str] | bytes | BinaryIO


class TensorFile(Mapping[str, Array]):
    """An open tersor file: a read-only mapping from names to arrays that decodes what is asked for, when it is asked
    for.

    `source` is a path, the bytes themselves, or a seekable binary file. `workers` threads decode the chunks of large
    tensors and, in `load`, several tensors at once. Arrays have the dtype that was stored; BF16 and the 8-bit floats,
    which numpy lacks, widen exactly to float32 (`stored` gives their bytes). Safe to use from many threads.

    Raises `FormatError` with a code for a damaged or hostile file, `LimitError` for one that asks for more than
    `limits`.
    """

    def __init__(self, source: Readable, *, limits: Limits | None = None, workers: int | None = None) -> None:
        self._lock = threading.Lock()
        self._pool: Executor | None = None
        self.workers = workers if workers is not None else min(os.cpu_count() or 1, 8)
        self.limits = limits or Limits()
        self._file, self._owned, self.label = _open(source)
        try:
            size = self._file.seek(0, io.SEEK_END)
            self.header = Header.unpack(self._read(0, min(size, HEADER_SIZE)), size)
            stored = self._read(HEADER_SIZE, self.header.stored_size)
            self.manifest = self._manifest(stored)
        except BaseException:
            self.close()
            raise
        start = HEADER_SIZE + self.header.stored_size
        offsets = accumulate((e.stored for e in self.manifest.entries), initial=start)
        self._starts = list(offsets)
        self._index = {entry.name: k for k, entry in enumerate(self.manifest.entries)}

    def _manifest(self, stored: bytes) -> Manifest:
        if _core.hash(stored) != self.header.manifest_hash:
            raise FormatError("manifest_checksum", "the manifest does not match its checksum", where="manifest")
        manifest = Manifest.unpack(stored, self.header.manifest_size, self.limits)
        end = HEADER_SIZE + self.header.stored_size + manifest.data_size
        if end != self.header.file_size:
            raise FormatError("sizes", f"the streams end at byte {end:,}, the file at {self.header.file_size:,}")
        decoded = sum(e.nbytes for e in manifest.entries if e.tie is None)
        self.limits.check_decoded("the decoded size", decoded, self.header.file_size)
        return manifest

    # -- what is in the file ----------------------------------------------------------------------------------------

    @property
    def meta(self) -> Mapping[str, Any]:
        """The recipe, origin and measurements that the writer noted; nothing in it is needed to decode."""
        return self.manifest.meta

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The record of every tensor."""
        return self.manifest.entries

    @property
    def nbytes(self) -> int:
        """Size of the file."""
        return self.header.file_size

    def entry(self, name: str) -> Entry:
        """The record of the tensor called `name`; `KeyError` if there is none."""
        return self.entries[self._index[name]]

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __contains__(self, name: object) -> bool:  # that of `Mapping` would decode the tensor
        return name in self._index

    # -- decoding ---------------------------------------------------------------------------------------------------

    def __getitem__(self, name: str) -> Array:
        entry = self.entry(name)
        return to_numpy(self.stored(name), entry.dtype, entry.shape)

    def stored(self, name: str) -> Bytes:
        """The bytes of a tensor, little endian, in C order, checked against its digest."""
        decoder = self._decoder(name)
        out = np.empty(self.entry(name).nbytes, np.uint8)
        bounds = list(pairwise(accumulate((n * decoder.width for n in decoder.counts), initial=0)))
        pieces = [out[a:b] for a, b in bounds]
        leaves: Iterable[Leaves]
        if len(pieces) > 1 and self.workers > 1:
            leaves = self._executor().map(decoder.decode, range(len(pieces)), pieces)
        else:
            leaves = map(decoder.decode, range(len(pieces)), pieces)
        self._check_digest(name, list(leaves))
        return out

    def chunks(self, name: str) -> Iterator[Bytes]:
        """The bytes of a tensor chunk by chunk, for tensors larger than memory.

        The digest is checked after the last chunk: what came before must not be relied upon until the iterator ends.
        """
        decoder = self._decoder(name)
        leaves: list[Leaves] = []
        for k, count in enumerate(decoder.counts):
            out = np.empty(count * decoder.width, np.uint8)
            leaves.append(decoder.decode(k, out))
            yield out
        self._check_digest(name, leaves)

    def load(self) -> dict[str, Array]:
        """All tensors. Tied ones are views of one array."""
        own = [e.name for e in self.entries if e.tie is None]
        if self.workers > 1 and len(own) > 1:
            with ThreadPoolExecutor(self.workers) as pool:
                arrays = dict(zip(own, pool.map(self.__getitem__, own), strict=True))
        else:
            arrays = {name: self[name] for name in own}
        return {e.name: arrays[e.name if e.tie is None else self.entries[e.tie].name] for e in self.entries}

    def verify(self) -> None:
        """Decode every tensor and check every checksum and digest; raises `FormatError` at the first that fails."""
        for entry in self.entries:
            if entry.tie is None:
                for _ in self.chunks(entry.name):
                    pass

    def _decoder(self, name: str) -> ChunkDecoder:
        index = self._index[name]
        entry = self.entries[index]
        if entry.tie is not None:
            index, entry = entry.tie, self.entries[entry.tie]
        return open_entry(entry, _EntryInputs(self, entry, self._starts[index]))

    def _check_digest(self, name: str, leaves: list[Leaves]) -> None:
        entry = self.entry(name)
        joined = np.concatenate(leaves) if leaves else np.zeros(0, np.uint64)
        if digest_of(joined, entry.words) != entry.digest:
            raise FormatError("digest", "the decoded tensor does not match its digest", where=f"tensor {name!r}")

    # -- input ------------------------------------------------------------------------------------------------------

    def _read(self, offset: int, size: int) -> bytes:
        with self._lock:
            if self._file.closed:
                raise ValueError(f"{self.label} is closed")
            self._file.seek(offset)
            data = self._file.read(size)
            while len(data) < size and (more := self._file.read(size - len(data))):
                data += more
        if len(data) != size:
            raise FormatError("truncated", f"the file ends at byte {offset + len(data):,}", where=self.label)
        return data

    def _executor(self) -> Executor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self.workers)
            return self._pool

    def close(self) -> None:
        """Release the file and the threads."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        if self._owned:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _EntryInputs:
    """The pieces of one entry's streams, read from the file and checked."""

    def __init__(self, file: TensorFile, entry: Entry, start: int) -> None:
        self.where = f"tensor {entry.name!r}"
        self._file = file
        (self._step,) = entry.chain
        self._offsets = _offsets(self._step, start)
        self._preludes: dict[int, bytes] = {}

    def chunk(self, stream: int, chunk: int) -> Chunk:
        record = self._step.streams[stream]
        prelude = b""
        if record.preludes:
            if stream not in self._preludes:
                self._preludes[stream] = self._prelude(stream)
            prelude = self._preludes[stream]
        piece = self._piece(stream, record.preludes + chunk)
        where = f"{self.where}, stream {stream}, chunk {chunk}"
        return Chunk(*chunk_input(record, chunk, prelude, piece, where))

    def _prelude(self, stream: int) -> bytes:
        """All tables are checked once; the decoder of a chunk reads no further than its own."""
        data = self._piece(stream, 0)
        with stream_errors(f"{self.where}, stream {stream}, tables"):
            _core.check_prelude(np.frombuffer(data, np.uint8))
        return data

    def _piece(self, stream: int, piece: int) -> bytes:
        record = self._step.streams[stream]
        data = self._file._read(self._offsets[stream][piece], record.sizes[piece])  # pyright: ignore[reportPrivateUsage]
        if checksum(data) != record.checksums[piece]:
            raise FormatError(
                "chunk_checksum", "a piece does not match its checksum",
                where=f"{self.where}, stream {stream}, piece {piece}, byte {self._offsets[stream][piece]:,}",
            )  # fmt: skip
        return data


def _offsets(step: Step, start: int) -> list[list[int]]:
    """Where every piece of every stream begins in the file."""
    table: list[list[int]] = []
    for stream in step.streams:
        bounds = list(accumulate(stream.sizes, initial=start))
        start = bounds[-1]
        table.append(bounds)
    return table


def _open(source: Readable) -> tuple[BinaryIO, bool, str]:
    if isinstance(source, bytes):
        return io.BytesIO(source), True, "bytes in memory"
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if path.is_dir():
            raise FormatError("not_tersor", "this is a folder", where=str(path), remedy="name the .tsr file in it")
        try:
            return path.open("rb", buffering=0), True, str(path)  # type: ignore[return-value]
        except FileNotFoundError:
            raise FormatError("missing", "there is no such file", where=str(path), remedy="check the path") from None
        except OSError as error:
            raise FormatError(
                "unreadable",
                f"the file cannot be opened: {error.strerror}",
                where=str(path),
                remedy="check its permissions",
            ) from None
    return source, False, str(getattr(source, "name", "a file object"))
