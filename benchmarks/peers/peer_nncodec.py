"""NNCodec at a quantization parameter, plain, with its trellis, or with that and opt_qp: "qp -32, trellis, opt_qp".

NNCodec imports torchvision and OpenCV for its training part, which is not used here: stand-ins take their place where
they are not installed. Its file is entropy-coded already: a lossless coder behind it finds nothing, and `plain` is the
file.
"""

import importlib
import os
import re
import sys
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
from _peer import Tensors, serve

STAND_INS = (
    "torchvision", "torchvision.transforms", "torchvision.datasets", "torchvision.models",
    "torchvision.models.segmentation", "flwr", "wandb", "timm",
)  # fmt: skip

for _name in STAND_INS:
    try:
        importlib.import_module(_name)
    except Exception:  # a torchvision beside another torch fails in many ways
        sys.modules[_name] = MagicMock(__spec__=None, __path__=[])
from nncodec.nn import decode, encode  # noqa: E402


def write(tensors: Tensors, setting: str, path: Path) -> None:
    given = {n: np.atleast_1d(a.astype(np.int32) if a.dtype.kind == "i" else a) for n, a in tensors.items()}
    qp = int(re.findall(r"qp (-?\d+)", setting)[0])
    flags = {"use_dq": "trellis" in setting, "opt_qp": "opt_qp" in setting}
    path.write_bytes(encode(given, args={"qp": qp, **flags, "verbose": False}))


def read(path: Path, only: str | None) -> Tensors:
    """It decodes whole files, whatever is wanted."""
    stream = bytearray(path.read_bytes())  # it takes `bytes` for a path
    return {name: np.asarray(a) for name, a in decode(stream).items()}


def plain(path: Path) -> Tensors:
    return {"file": np.frombuffer(path.read_bytes(), np.uint8)}


if __name__ == "__main__":
    os.chdir(sys.argv[2])  # it leaves files in the current folder
    serve("nncodec", write, read, plain)
