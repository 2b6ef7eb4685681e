"""llama.cpp's formats of 32 weights a block, by gguf's own numpy quantizers, as .gguf files.

K-quants are not among what gguf's Python package can write.
"""

from pathlib import Path

import gguf
import numpy as np
from _peer import Tensors, matrices, serve


def write(tensors: Tensors, setting: str, path: Path) -> None:
    kind = gguf.GGMLQuantizationType[setting]
    writer = gguf.GGUFWriter(path, "network")
    chosen = matrices(tensors, setting, 32)
    for name, array in tensors.items():
        if name in chosen:
            writer.add_tensor(name, gguf.quantize(chosen[name], kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, np.atleast_1d(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def read(path: Path, only: str | None) -> Tensors:
    found = (t for t in gguf.GGUFReader(path).tensors if only in (None, t.name))
    return {t.name: gguf.dequantize(t.data, t.tensor_type) if coded(t) else np.array(t.data) for t in found}


def coded(tensor: gguf.ReaderTensor) -> bool:
    return tensor.tensor_type.name.startswith("Q")


def plain(path: Path) -> Tensors:
    arrays: Tensors = {}
    for tensor in gguf.GGUFReader(path).tensors:
        name, kind, data = tensor.name, tensor.tensor_type, np.array(tensor.data)
        if not coded(tensor):
            arrays[name] = data
            continue
        size, width = gguf.GGML_QUANT_SIZES[kind]
        blocks = data.reshape(-1, width)
        packed = size // 2 if kind.name.startswith(("Q4", "Q5")) else size
        head, body = blocks[:, :-packed], blocks[:, -packed:]
        codes = np.concatenate([body & 15, body >> 4], 1) if packed < size else body.view(np.int8)
        if kind.name.startswith("Q5"):  # the fifth bits are the last four bytes of the head
            high = np.unpackbits(np.ascontiguousarray(head[:, -4:]), axis=1, bitorder="little")
            codes, head = codes | high << 4, head[:, :-4]
        arrays[name] = codes
        arrays[f"{name}.scales"] = np.ascontiguousarray(head).view(np.float16)
    return arrays


if __name__ == "__main__":
    serve("gguf", write, read, plain)
