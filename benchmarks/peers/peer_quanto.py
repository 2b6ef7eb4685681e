"""optimum-quanto: int8 a row, int4 and int2 in groups, in its own serialization (safetensors)."""

import json
from pathlib import Path

import optimum.quanto as quanto
import torch
from _layers import Layers, array
from _peer import ONLY, Tensors, matrices, serve
from safetensors import safe_open
from safetensors.torch import save_file


def write(tensors: Tensors, setting: str, path: Path) -> None:
    model = Layers(tensors, matrices(tensors, setting))
    quanto.quantize(model, weights=getattr(quanto, f"q{setting.removesuffix(ONLY)}"))
    quanto.freeze(model)
    notes = {"map": json.dumps(quanto.quantization_map(model)), "names": json.dumps(model.names)}
    shapes = {"shapes": json.dumps([list(layer.weight.shape) for layer in model.layers])}
    save_file(model.state_dict(), path, notes | shapes)


def opened(path: Path) -> Layers:
    with safe_open(path, "pt") as file:
        notes = {key: json.loads(text) for key, text in file.metadata().items()}
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    zeros = {n: torch.empty(shape).numpy() for n, shape in zip(notes["names"], notes["shapes"], strict=False)}
    rest = {n: state[f"rest{k}"].numpy() for k, n in enumerate(notes["names"][len(zeros) :])}
    model = Layers({**zeros, **rest}, zeros)
    quanto.requantize(model, state, notes["map"], torch.device("cpu"))
    return model


def read(path: Path, only: str | None) -> Tensors:
    model = opened(path)
    return model.rest() | {n: array(w.dequantize()) for n, w in model.weights() if only in (None, n)}


def plain(path: Path) -> Tensors:
    model = opened(path)
    arrays = model.rest()
    for name, weight in model.weights():
        packed = weight._data
        arrays[name] = array(packed.unpack() if hasattr(packed, "unpack") else packed)
        arrays[f"{name}.scale"] = array(weight._scale)
        if hasattr(weight, "_shift"):
            arrays[f"{name}.shift"] = array(weight._shift)
    return arrays


if __name__ == "__main__":
    serve("optimum-quanto", write, read, plain)
