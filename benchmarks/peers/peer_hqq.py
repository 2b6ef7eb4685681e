"""HQQ: 8, 4, 3 and 2 bits in groups of 64 (fewer where the rows do not divide by it), saved by torch."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from _layers import Layers, array
from _peer import ONLY, Tensors, group, matrices, serve
from hqq.core.quantize import BaseQuantizeConfig, HQQLinear, Quantizer


def write(tensors: Tensors, setting: str, path: Path) -> None:
    model = Layers(tensors, matrices(tensors, setting, 16))
    state = {"names": model.names, "rest": model.rest(), "layers": []}
    for layer in model.layers:
        config = BaseQuantizeConfig(int(setting.removesuffix(ONLY).split()[0]), group(layer.in_features, 64), axis=1)
        done = HQQLinear(layer, config, compute_dtype=torch.float16, device="cpu", del_orig=False)
        state["layers"].append(done.state_dict())
    state["rest"] = {name: torch.from_numpy(a) for name, a in state["rest"].items()}
    torch.save(state, path)


def read(path: Path, only: str | None) -> Tensors:
    rest, layers = opened(path)
    return rest | {name: array(make().dequantize().float()) for name, make in layers.items() if only in (None, name)}


def opened(path: Path) -> tuple[Tensors, dict[str, Callable[[], HQQLinear]]]:
    """The tensors that are not quantized, and what makes the layer of every other one."""
    state = torch.load(path, weights_only=False, mmap=True)

    def layer(saved: dict[str, Any]) -> HQQLinear:
        made = HQQLinear(None, None, compute_dtype=torch.float16, device="cpu")
        made.load_state_dict(saved)
        return made

    rest = {name: array(t) for name, t in state["rest"].items()}
    return rest, {n: partial(layer, saved) for n, saved in zip(state["names"], state["layers"], strict=False)}


def plain(path: Path) -> Tensors:
    rest, layers = opened(path)
    arrays = dict(rest)
    for name, make in layers.items():
        layer = make()
        meta = layer.meta
        codes = Quantizer.unpack[meta["packing"]](layer.W_q, dtype=torch.uint8)
        groups = meta["shape"].numel() // meta["group_size"]
        arrays[name] = array(codes[:groups] if meta["axis"] == 1 else codes)  # 3 bits: padded to tens of rows
        arrays[f"{name}.scale"], arrays[f"{name}.zero"] = array(meta["scale"]), array(meta["zero"])
    return arrays


if __name__ == "__main__":
    serve("hqq", write, read, plain)
