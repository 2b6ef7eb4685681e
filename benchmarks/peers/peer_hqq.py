"""HQQ: 8, 4, 3 and 2 bits in groups of 64 (fewer where the rows do not divide by it), saved by torch."""

from pathlib import Path

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


def read(path: Path) -> tuple[Tensors, Tensors]:
    state = torch.load(path, weights_only=False)
    decoded = {name: array(t) for name, t in state["rest"].items()}
    plain = dict(decoded)
    for name, saved in zip(state["names"], state["layers"], strict=False):
        layer = HQQLinear(None, None, compute_dtype=torch.float16, device="cpu")
        layer.load_state_dict(saved)
        meta = layer.meta
        decoded[name] = array(layer.dequantize().float())
        codes = Quantizer.unpack[meta["packing"]](layer.W_q, dtype=torch.uint8)
        groups = decoded[name].size // meta["group_size"]
        plain[name] = array(codes[:groups] if meta["axis"] == 1 else codes)  # 3 bits: padded to tens of rows
        plain[f"{name}.scale"], plain[f"{name}.zero"] = array(meta["scale"]), array(meta["zero"])
    return decoded, plain


if __name__ == "__main__":
    serve(write, read)
