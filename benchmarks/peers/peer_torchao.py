"""torchao: weights alone of 8 bits a row, and of 2 to 6 bits in groups of 64, saved by torch.

Its packed int4 does not run here ("Requires mslk"); what runs, IntxWeightOnlyConfig, saves one weight a byte: the
lossless coder behind it is what makes it small.
"""

from pathlib import Path
from typing import Any

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


def opened(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """The tensors that are not quantized, and the others."""
    saved = torch.load(path, weights_only=False, mmap=True)
    names, state = saved["names"], saved["state"]
    layers = sum(key.startswith("layers.") for key in state)
    rest = {name: array(state[f"rest{k}"]) for k, name in enumerate(names[layers:])}
    return rest, {name: state[f"layers.{k}.weight"] for k, name in enumerate(names[:layers])}


def read(path: Path, only: str | None) -> Tensors:
    rest, weights = opened(path)
    return rest | {name: array(w.dequantize().float()) for name, w in weights.items() if only in (None, name)}


def plain(path: Path) -> Tensors:
    arrays, weights = opened(path)
    for name, weight in weights.items():
        parts = {"": weight.qdata, ".scale": weight.scale, ".zero": getattr(weight, "zero_point", None)}
        arrays |= {name + part: array(t) for part, t in parts.items() if t is not None}
    return arrays


if __name__ == "__main__":
    serve("torchao", write, read, plain)
