"""Encode and decode a float32 safetensors file with NNCodec at many settings; runs in the environment
peers/.venv-nncodec.

    python nncodec_sweep.py IN.safetensors OUT_FOLDER '[[-32, true, false], ...]'    (qp, use_dq, opt_qp)

Decoded weights go to OUT_FOLDER, one JSON line a setting to standard output. NNCodec imports torchvision and OpenCV for
its training part, which is not used here: stand-ins take their place where they are not installed.
"""

import contextlib
import importlib
import io
import json
import os
import sys
import time
from unittest.mock import MagicMock

import numpy as np
from safetensors.numpy import load_file, save_file

STAND_INS = ("torchvision", "torchvision.transforms", "torchvision.datasets", "torchvision.models",
"torchvision.models.segmentation",
             "flwr", "wandb", "timm")  # fmt: skip


def main() -> None:
    source, folder, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    for name in STAND_INS:
        try:
            importlib.import_module(name)
        except Exception:  # a torchvision beside another torch fails in many ways
            sys.modules[name] = MagicMock(__spec__=None, __path__=[])
    out = sys.stdout
    with contextlib.redirect_stdout(io.StringIO()):
        from nncodec.nn import decode, encode
    os.chdir(folder)  # it leaves files in the current folder
    original = load_file(source)
    tensors = {n: np.atleast_1d(a.astype(np.int32) if a.dtype.kind == "i" else a) for n, a in original.items()}
    for qp, use_dq, opt_qp in settings:
        start = time.perf_counter()
        record = {"qp": qp, "use_dq": use_dq, "opt_qp": opt_qp}
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                given = {n: a.copy() for n, a in tensors.items()}
                stream = encode(given, args={"qp": qp, "use_dq": use_dq, "opt_qp": opt_qp, "verbose": False})
                encoded = time.perf_counter()
                decoded = decode(stream)
        except Exception as error:
            print(json.dumps({**record, "error": repr(error)[:300]}), file=out, flush=True)
            continue
        end = time.perf_counter()
        path = f"{qp}_{use_dq}_{opt_qp}.safetensors"
        back = {n: np.asarray(decoded[n]).reshape(a.shape).astype(a.dtype) for n, a in original.items()}
        save_file({n: np.ascontiguousarray(a) for n, a in back.items()}, path)
        print(json.dumps({**record, "bytes": len(stream), "file": path, "encode_seconds": encoded - start,
                          "decode_seconds": end - encoded}), file=out, flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
