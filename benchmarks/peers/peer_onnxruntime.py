"""ONNX Runtime: dynamic quantization to 8 bits, of the whole matrix or a column, and 4 bits in blocks of 32.

The network is a graph of one MatMul a matrix: what is stored does not depend on what surrounds them.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
from _peer import Tensors, matrices, serve
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer


def graph(tensors: Tensors, setting: str) -> onnx.ModelProto:
    """Matrix k, transposed as exporters do, is the initializer NAME of MatMul k."""
    nodes, inputs, outputs, held = [], [], [], []
    chosen = matrices(tensors, setting)
    for k, (name, array) in enumerate(chosen.items()):
        nodes.append(helper.make_node("MatMul", [f"x{k}", name], [f"y{k}"], f"matmul{k}"))
        inputs.append(helper.make_tensor_value_info(f"x{k}", TensorProto.FLOAT, [1, array.shape[1]]))
        outputs.append(helper.make_tensor_value_info(f"y{k}", TensorProto.FLOAT, [1, array.shape[0]]))
        held.append(numpy_helper.from_array(np.ascontiguousarray(array.T), name))
    for name, array in tensors.items():
        if name not in chosen:  # used by something, or the quantizer drops it
            nodes.append(helper.make_node("Identity", [name], [f"{name}.out"]))
            outputs.append(
                helper.make_tensor_value_info(f"{name}.out", helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            )
            held.append(numpy_helper.from_array(array, name))
    made = helper.make_graph(nodes, "network", inputs, outputs, held)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def write(tensors: Tensors, setting: str, path: Path) -> None:
    model = graph(tensors, setting)
    if setting.startswith("int4"):
        quantizer = MatMulNBitsQuantizer(model, block_size=32, is_symmetric=False)
        quantizer.process()
        quantizer.model.save_model_to_file(str(path))
        return
    source = path.with_suffix(".onnx")
    onnx.save(model, source)
    quantize_dynamic(source, path, per_channel="channel" in setting, weight_type=QuantType.QInt8)
    source.unlink()


class Weight(NamedTuple):
    """A matrix: its codes, one an element, as they are stored; their steps and zeros; and what decodes it."""

    codes: np.ndarray
    scale: np.ndarray
    zero: np.ndarray
    decode: Callable[[], np.ndarray]


def opened(path: Path) -> tuple[Tensors, dict[str, Weight]]:
    """The tensors that are not quantized, and the others."""
    model = onnx.load(path)
    rest = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    weights: dict[str, Weight] = {}
    for node in model.graph.node:
        if node.op_type == "MatMulInteger":
            name = node.input[1].removesuffix("_quantized")
            codes, scale, zero = (rest.pop(f"{name}_{part}") for part in ("quantized", "scale", "zero_point"))
            weights[name] = Weight(codes, scale, zero, partial(by_column, codes, scale, zero))
        elif node.op_type == "MatMulNBits":
            width = next(a.i for a in node.attribute if a.name == "K")
            packed, scale, zero = (rest.pop(key) for key in node.input[1:4])
            codes, zeros = (unpacked(part.reshape(len(packed), -1)) for part in (packed, zero))
            decode = partial(by_block, packed, scale, zero, width)
            weights[node.input[1].removesuffix("_Q4")] = Weight(codes, scale, zeros, decode)
        elif node.op_type == "MatMul":  # too small or odd for it
            rest[node.input[1]] = rest[node.input[1]].T
    return rest, weights


def by_column(codes: np.ndarray, scale: np.ndarray, zero: np.ndarray) -> np.ndarray:
    return ((codes.astype(np.float32) - zero.astype(np.float32)) * scale).T


def by_block(packed: np.ndarray, scale: np.ndarray, zero: np.ndarray, width: int) -> np.ndarray:
    rows, blocks = packed.shape[:2]
    codes, zeros = (unpacked(part.reshape(rows, -1)) for part in (packed, zero))
    levels = codes.reshape(rows, blocks, -1).astype(np.float32) - zeros[:, :blocks, None]
    return (levels * scale.reshape(rows, blocks, 1)).reshape(rows, -1)[:, :width]


def read(path: Path, only: str | None) -> Tensors:
    rest, weights = opened(path)
    return rest | {name: weight.decode() for name, weight in weights.items() if only in (None, name)}


def plain(path: Path) -> Tensors:
    arrays, weights = opened(path)
    for name, weight in weights.items():
        arrays |= {name: weight.codes, f"{name}.scale": weight.scale, f"{name}.zero": weight.zero}
    return arrays


def unpacked(packed: np.ndarray) -> np.ndarray:
    """Two codes a byte, the lower half first."""
    return np.stack([packed & 15, packed >> 4], -1).reshape(len(packed), -1)


if __name__ == "__main__":
    serve("onnxruntime", write, read, plain)
