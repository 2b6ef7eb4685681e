"""What must hold for any bytes at all: a reader decodes them to what their digests promise, or refuses them by a code
of the specification, within a second and 300 MB."""

from __future__ import annotations

import re
import resource
import time
from functools import cache
from pathlib import Path

from files import contents, digest_of

from tersor.errors import FormatError
from tersor.format.dtypes import DTYPES
from tersor.format.limits import Limits
from tersor.format.reader import TensorFile

SPECIFICATION = Path(__file__).resolve().parents[2] / "spec" / "FORMAT.md"
LIMITS = Limits(base_bytes=2**22, expansion=64)
MOST_SECONDS, MOST_MEGABYTES = 1.0, 300


class Finding(AssertionError):
    """Something a reader must not do."""


def examine(data: bytes) -> str:
    """Open and decode a file from memory; "ok", or the code it was refused with. Raises `Finding`."""
    contents(), codes()  # read once, and not in the time of the first file
    memory, start = _peak(), time.process_time()
    outcome = "ok"
    try:
        with TensorFile(data, limits=LIMITS, workers=1) as file:
            for entry in file.entries:
                _check_tensor(file, entry.name)
            file.verify()
    except FormatError as error:
        outcome = error.code
        if outcome not in codes():
            raise Finding(f"the code {outcome!r} is not in the specification") from error
    seconds, grown = time.process_time() - start, _peak() - memory
    if seconds > MOST_SECONDS:
        raise Finding(f"{seconds:.1f} s for {len(data)} bytes ({outcome})")
    if grown > MOST_MEGABYTES:
        raise Finding(f"{grown:.0f} MB for {len(data)} bytes ({outcome})")
    return outcome


def _check_tensor(file: TensorFile, name: str) -> None:
    entry = file.entry(name)
    stored = file.stored(name).tobytes()
    digest = entry.digest.to_bytes(8, "little")
    if len(stored) != entry.nbytes or digest_of(stored, DTYPES[entry.dtype].width) != digest:
        raise Finding(f"tensor {name!r} decoded to something that does not match its digest")
    if contents().get((digest, len(stored)), stored) != stored:
        raise Finding(f"tensor {name!r} decoded to other bytes than the original with this digest")
    if file[name].shape != entry.shape:
        raise Finding(f"tensor {name!r} has the wrong shape")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@cache
def codes() -> frozenset[str]:
    """The error codes of section 9 of the specification."""
    text = SPECIFICATION.read_text().partition("## 9.")[2]
    return frozenset(re.findall(r"`([a-z_]+)`", text))
