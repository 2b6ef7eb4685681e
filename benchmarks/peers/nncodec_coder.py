"""NNCodec's entropy coder alone, DeepCABAC, on integer levels; runs in the environment peers/.venv-nncodec.

Commands come as JSON lines on standard input and are answered with one line each: {"encode": PATH} codes the levels of
a .npy file as NNCodec codes a tensor (its defaults: search of the parameters of contexts, empty rows skipped), and
{"decode": true} decodes them again and compares. Seconds are CPU time of the coder.
"""

import importlib.util
import json
import sys
import sysconfig
import time
from pathlib import Path

import numpy as np

UNARY = 11  # decisions for magnitudes before the exponential code: the default of nncodec.nn.encode


def native():
    """The extension module, without the package around it, which imports much more."""
    folder = Path(sysconfig.get_path("platlib")) / "nncodec" / "extensions"
    spec = importlib.util.spec_from_file_location("deepCABAC", next(folder.glob("deepCABAC*.so")))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    cabac = native()
    hdsp = (cabac.HdspMode.AlwaysOff, np.zeros(2, np.int8))
    levels = stream = None
    for line in sys.stdin:
        command = json.loads(line)
        if "encode" in command:
            levels = np.atleast_2d(np.load(command["encode"]).astype(np.int32))
            start = time.process_time()
            encoder = cabac.Encoder()
            encoder.initCtxModels(UNARY, 1)
            empty = (~levels.reshape(len(levels), -1).any(1)).astype(np.int32)
            encoder.encodeLayer(levels, 0, 0, 1, 0, 1, empty, *hdsp, 0, 0)
            stream = encoder.finish()
            answer = {"bytes": len(stream), "seconds": time.process_time() - start}
        else:
            found = np.zeros(levels.shape, np.int32)
            start = time.process_time()
            decoder = cabac.Decoder()
            decoder.setStream(stream)
            decoder.initCtxModels(UNARY)
            decoder.decodeLayer(found, 0, 0, 1, 0, *hdsp, 0, 0)
            answer = {"seconds": time.process_time() - start, "same": bool(np.array_equal(found, levels))}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
