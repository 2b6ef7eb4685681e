"""Reading a file: everything is checked before it is believed, one tensor at a time (spec/FORMAT.md)."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import accumulate, groupby, pairwise
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tersor import _core
from tersor.coders import chunk_data, open_prelude
from tersor.coders.memory import chunk_memory, most_memory, prelude_memory
from tersor.errors import FormatError
from tersor.format.dtypes import DTYPES, Bytes, to_numpy, widen_in_place
from tersor.format.layout import HEADER_SIZE, Header, checksum, digest_of
from tersor.format.limits import Limits
from tersor.format.manifest import Entry, Manifest, Step, place_of
from tersor.format.storage import Readable, open_storage
from tersor.ops import open_entry
from tersor.ops.chunks import Chunk, ChunkDecoder, Leaves, stream_errors

Array = npt.NDArray[np.generic]

SCRATCH = 24 * 2**20
"""Bytes that what is being decoded may take together, besides the results. One chunk alone may take more."""
HUGE = 4 * 2**20
"""Bytes from which on numpy asks for huge pages, where the system has them."""
BLOCK = 16 * 2**20
"""Bytes of small tensors after which another block of memory begins: whoever keeps one tensor keeps its block."""
ALIGNED = 64


class TensorFile(Mapping[str, Array]):
    """An open tersor file: a read-only mapping from names to arrays that decodes what is asked for, when it is asked
    for.

    `source` is a path, the bytes themselves, or a seekable binary file. `workers` threads decode the chunks of large
    tensors and, in `load`, several tensors at once. Arrays have the dtype that was stored; BF16 and the 8-bit floats,
    which numpy lacks, widen exactly to float32 (`stored` gives their bytes). Safe to use from many threads.

    Raises `FormatError` with a code for a damaged or hostile file, `LimitError` for one that asks for more than
    `limits`. A process that was forked may go on with a file that its parent opened from a path or from bytes.
    """

    def __init__(self, source: Readable, *, limits: Limits | None = None, workers: int | None = None) -> None:
        self._pools: dict[int, ThreadPoolExecutor] = {}  # by process: a fork inherits no threads
        self.workers = workers or min(os.cpu_count() or 1, 8)
        self.limits = limits or Limits()
        self._storage = open_storage(source)
        try:
            with self._naming_the_file():
                size = self._storage.size
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
        slow = sum(s.count for e in manifest.entries for step in e.chain for s in step.streams if s.coder == "adaptive")
        self.limits.check_adaptive(slow, self.header.file_size)
        return manifest

    @contextmanager
    def _naming_the_file(self) -> Generator[None]:
        """Whatever is wrong is wrong in this file: there may be several."""
        try:
            yield
        except FormatError as error:
            error.within(self._storage.label)
            raise

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
        return self._array(name, np.empty(_room(self.entry(name)), np.uint8), self.workers)

    def _array(self, name: str, room: Bytes, workers: int) -> Array:
        """A tensor as an array in `room`."""
        entry = self.entry(name)
        with self._naming_the_file():
            self._decode(name, room[room.size - entry.nbytes :], workers)
        if DTYPES[entry.dtype].numpy is None:
            return widen_in_place(room, entry.dtype).reshape(entry.shape)
        return to_numpy(room, entry.dtype, entry.shape)

    def stored(self, name: str) -> Bytes:
        """The bytes of a tensor, little endian, in C order, checked against its digest."""
        out = np.empty(self.entry(name).nbytes, np.uint8)
        with self._naming_the_file():
            self._decode(name, out, self.workers)
        return out

    def _decode(self, name: str, out: Bytes, workers: int) -> None:
        """Fill `out` with the bytes of a tensor; as many chunks at once as there are threads and `SCRATCH` has room."""
        decoder, inputs = self._open_tensor(name)
        bounds = pairwise(accumulate((n * decoder.width for n in decoder.counts), initial=0))
        pieces = [out[a:b] for a, b in bounds]
        at_once = min(workers, len(pieces), (SCRATCH - inputs.kept) // inputs.chunk_bytes)
        if at_once <= 1:
            leaves = [decoder.decode(k, piece) for k, piece in enumerate(pieces)]
        else:
            pool, running, leaves = self._executor(), deque[Future[Leaves]](), list[Leaves]()
            for k, piece in enumerate(pieces):
                if len(running) == at_once:
                    leaves.append(running.popleft().result())
                running.append(pool.submit(decoder.decode, k, piece))
            leaves += [future.result() for future in running]
        self._check_digest(name, leaves)

    def chunks(self, name: str) -> Iterator[Bytes]:
        """The bytes of a tensor chunk by chunk, for tensors larger than memory.

        The digest is checked after the last chunk: what came before must not be relied upon until the iterator ends.
        """
        leaves: list[Leaves] = []
        with self._naming_the_file():
            decoder = self._decoder(name)
            for k, count in enumerate(decoder.counts):
                out = np.empty(count * decoder.width, np.uint8)
                leaves.append(decoder.decode(k, out))
                yield out
            self._check_digest(name, leaves)

    def load(self) -> dict[str, Array]:
        """All tensors. Tied ones are views of one array; those below 4 MiB are views of blocks of at most 20 MiB, which
        stay as long as one of them does."""
        own = [e for e in self.entries if e.tie is None]
        rooms = _rooms(own)
        small = [e for e in own if e.stored + e.nbytes <= SCRATCH // self.workers]
        arrays = self._side_by_side(small, rooms) if self.workers > 1 and len(small) > 1 else {}
        for name in (e.name for e in own if e.name not in arrays):  # of larger ones, the chunks are side by side
            arrays[name] = self._array(name, rooms[name], self.workers)
        return {e.name: arrays[e.name if e.tie is None else self.entries[e.tie].name] for e in self.entries}

    def _side_by_side(self, entries: list[Entry], rooms: Mapping[str, Bytes]) -> dict[str, Array]:
        """Small tensors, as many at once as there are threads and `SCRATCH` has room for."""
        arrays: dict[str, Array] = {}
        running: deque[tuple[str, int, Future[Array]]] = deque()
        taken = 0
        with ThreadPoolExecutor(self.workers) as pool:
            for entry in entries:
                (step,) = entry.chain
                most = entry.stored + sum(map(most_memory, step.streams))
                while running and taken + most > SCRATCH:
                    name, freed, future = running.popleft()
                    arrays[name], taken = future.result(), taken - freed
                running.append((entry.name, most, pool.submit(self._array, entry.name, rooms[entry.name], 1)))
                taken += most
            return arrays | {name: future.result() for name, _, future in running}

    def verify(self) -> None:
        """Decode every tensor and check every checksum and digest; raises `FormatError` at the first that fails."""
        for entry in self.entries:
            if entry.tie is None:
                for _ in self.chunks(entry.name):
                    pass

    def _decoder(self, name: str) -> ChunkDecoder:
        return self._open_tensor(name)[0]

    def _open_tensor(self, name: str) -> tuple[ChunkDecoder, _EntryInputs]:
        index = self._index[name]
        entry = self.entries[index]
        if entry.tie is not None:
            index, entry = entry.tie, self.entries[entry.tie]
        inputs = _EntryInputs(self, entry, self._starts[index])
        decoder = open_entry(entry, inputs)
        inputs.open_preludes()  # before threads would do so together
        return decoder, inputs

    def _check_digest(self, name: str, leaves: list[Leaves]) -> None:
        entry = self.entry(name)
        joined = np.concatenate(leaves) if leaves else np.zeros(0, np.uint64)
        if digest_of(joined, entry.words) != entry.digest:
            raise FormatError("digest", "the decoded tensor does not match its digest", where=place_of(name))

    # -- input ------------------------------------------------------------------------------------------------------

    def _read(self, offset: int, size: int) -> bytes:
        data = self._storage.read(offset, size)
        while len(data) < size and (more := self._storage.read(offset + len(data), size - len(data))):
            data += more
        if len(data) != size:
            raise FormatError("truncated", f"the file ends at byte {offset + len(data):,}", where=self._storage.label)
        return data

    def _executor(self) -> Executor:
        process = os.getpid()
        if process not in self._pools:  # threads only start once they are needed: one pool too many costs nothing
            self._pools.setdefault(process, ThreadPoolExecutor(self.workers))
        return self._pools[process]

    def close(self) -> None:
        """Release the file and the threads."""
        pool = self._pools.pop(os.getpid(), None)
        if pool is not None:
            pool.shutdown()
        self._storage.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _room(entry: Entry) -> int:
    """Bytes of the array that a tensor becomes: those numpy has no type for, widen to float32."""
    return 4 * entry.words if DTYPES[entry.dtype].numpy is None else entry.nbytes


def _rooms(entries: list[Entry]) -> dict[str, Bytes]:
    """Memory for the arrays of tensors. Small ones share blocks: by huge pages these come several times faster."""
    rooms = {e.name: np.empty(_room(e), np.uint8) for e in entries if _room(e) >= HUGE}
    small = [e for e in entries if e.name not in rooms]
    starts = accumulate((-(-_room(e) // ALIGNED) * ALIGNED for e in small), initial=0)
    for _, group in groupby(zip(small, starts, strict=False), key=lambda place: place[1] // BLOCK):
        places = list(group)
        (_, first), (last, end) = places[0], places[-1]
        block = np.empty(end - first + _room(last), np.uint8)
        rooms |= {e.name: block[start - first :][: _room(e)] for e, start in places}
    return rooms


class _EntryInputs:
    """The pieces of one entry's streams, read from the file and checked, and the memory that decoding them takes."""

    def __init__(self, file: TensorFile, entry: Entry, start: int) -> None:
        self.where = place_of(entry.name)
        self.kept = 0  # bytes, for all chunks
        self._file = file
        (self._step,) = entry.chain
        self.chunk_bytes = sum(map(chunk_memory, self._step.streams))  # one chunk of every stream, at most
        self._offsets = _offsets(self._step, start)
        self._preludes: dict[int, _core.Prelude] = {}

    def keep(self, nbytes: int) -> None:
        """Raise `LimitError` before memory is taken that decoding this tensor may not take."""
        self.kept += nbytes
        limits = self._file.limits
        asked = self.kept + self.chunk_bytes
        limits.check("what decoding takes beside its result", asked, limits.scratch_bytes, "scratch_bytes", self.where)

    def open_preludes(self) -> None:
        """Parse those of all streams that have one."""
        for number, stream in enumerate(self._step.streams):
            if stream.preludes:
                self._prelude(number)

    def chunk(self, stream: int, chunk: int) -> Chunk:
        record = self._step.streams[stream]
        prelude = self._prelude(stream) if record.preludes else None
        piece = self._piece(stream, record.preludes + chunk)
        where = f"{self.where}, stream {stream}, chunk {chunk}"
        return Chunk(prelude, chunk_data(record, chunk, piece, where))

    def _prelude(self, number: int) -> _core.Prelude:
        if number not in self._preludes:
            data, stream = self._piece(number, 0), self._step.streams[number]
            self.keep(prelude_memory(stream, data))
            with stream_errors(f"{self.where}, stream {number}, tables"):
                self._preludes[number] = open_prelude(stream, data)
        return self._preludes[number]

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
