"""torchao: weights alone of 8 bits a row, and of 2 to 6 bits in groups of 64, saved by torch.

Its packed int4 does not run here ("Requires mslk"); what runs, IntxWeightOnlyConfig, saves one weight a byte: the
lossless coder behind it is what makes it small.
"""

from pathlib import Path

import torch
from _layers import Layers, array
from _peer import ONLY, Tensors, group, matrices, serve
from torchao.quantization import Int8WeightOnlyConfig, IntxWeightOnlyConfig, quantize_
from torchao.quantization.granularity import PerGroup


def write(tensors: Tensors, setting: str, path: Path) -> None:
    model = Layers(tensors, matrices(tensors, setting, 16))
    kind = setting.removesuffix(ONLY)
    for layer in model.layers:
        if kind == "int8":
            config = Int8WeightOnlyConfig()
        else:
            config = IntxWeightOnlyConfig(getattr(torch, kind), PerGroup(group(layer.in_features, 64)))
        quantize_(layer, config)
    torch.save({"names": model.names, "state": model.state_dict()}, path)


def read(path: Path) -> tuple[Tensors, Tensors]:
    saved = torch.load(path, weights_only=False)
    names, state = saved["names"], saved["state"]
    layers = sum(key.startswith("layers.") for key in state)
    decoded = {name: array(state[f"rest{k}"]) for k, name in enumerate(names[layers:])}
    plain = dict(decoded)
    for k, name in enumerate(names[:layers]):
        weight = state[f"layers.{k}.weight"]
        decoded[name] = array(weight.dequantize().float())
        parts = {"": weight.qdata, ".scale": weight.scale, ".zero": getattr(weight, "zero_point", None)}
        plain |= {name + part: array(t) for part, t in parts.items() if t is not None}
    return decoded, plain


if __name__ == "__main__":
    serve(write, read)
