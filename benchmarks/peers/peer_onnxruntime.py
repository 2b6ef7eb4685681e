"""ONNX Runtime: dynamic quantization to 8 bits, of the whole matrix or a column, and 4 bits in blocks of 32.

The network is a graph of one MatMul a matrix: what is stored does not depend on what surrounds them.
"""

from pathlib import Path

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


def read(path: Path) -> tuple[Tensors, Tensors]:
    model = onnx.load(path)
    held = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    decoded, plain, used = {}, {}, set()
    for node in model.graph.node:
        if node.op_type == "MatMulInteger":
            name = node.input[1].removesuffix("_quantized")
            codes, scale = held[node.input[1]], held[f"{name}_scale"]
            zero = held[f"{name}_zero_point"].astype(np.float32)
            decoded[name] = ((codes.astype(np.float32) - zero) * scale).T
            plain |= {name: codes, f"{name}.scale": scale, f"{name}.zero": zero.astype(codes.dtype)}
            used |= {node.input[1], f"{name}_scale", f"{name}_zero_point"}
        elif node.op_type == "MatMulNBits":
            width = next(a.i for a in node.attribute if a.name == "K")
            packed, scale = held[node.input[1]], held[node.input[2]]
            zero = held[node.input[3]].reshape(len(packed), -1)
            name = node.input[1].removesuffix("_Q4")
            codes, zeros = unpacked(packed.reshape(len(packed), -1)), unpacked(zero)
            blocks = packed.shape[1]
            steps = scale.reshape(len(packed), blocks, 1)
            levels = codes.reshape(len(packed), blocks, -1).astype(np.float32) - zeros[:, :blocks, None]
            decoded[name] = (levels * steps).reshape(len(packed), -1)[:, :width]
            plain |= {name: codes, f"{name}.scale": scale, f"{name}.zero": zeros}
            used |= set(node.input[1:4])
    rest = {n: a for n, a in held.items() if n not in used}
    for node in model.graph.node:  # too small or odd for it: still a MatMul
        if node.op_type == "MatMul":
            rest[node.input[1]] = rest[node.input[1]].T
    return decoded | rest, plain | rest


def unpacked(packed: np.ndarray) -> np.ndarray:
    """Two codes a byte, the lower half first."""
    return np.stack([packed & 15, packed >> 4], -1).reshape(len(packed), -1)


if __name__ == "__main__":
    serve(write, read)
