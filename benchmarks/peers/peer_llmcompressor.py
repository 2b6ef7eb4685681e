"""llm-compressor: GPTQ of linear layers and embeddings rounded, 8, 4 or 3 bits in groups of 128, in its packed form.

It needs a network of transformers that runs, FOLDER/model, and batches to calibrate it with, FOLDER/calibration.pt. Its
file is written again without tensors that the original does not have: it unties a language model's head.
"""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import transformers
from _layers import array
from _peer import ONLY, Tensors, serve
from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor
from compressed_tensors.compressors.pack_quantized.helpers import unpack_from_int32
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from llmcompressor import oneshot
from llmcompressor.modifiers.gptq import GPTQModifier
from llmcompressor.modifiers.quantization import QuantizationModifier
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader

FOLDER = Path(sys.argv[2])
PACKED = ".weight_packed"


def scheme(bits: int, target: str) -> QuantizationScheme:
    weights = QuantizationArgs(num_bits=bits, type="int", symmetric=True, strategy="group", group_size=128)
    return QuantizationScheme(targets=[target], weights=weights)


def write(tensors: Tensors, setting: str, path: Path) -> None:
    name = json.loads((FOLDER / "model" / "config.json").read_text())["architectures"][0]
    model = getattr(transformers, name).from_pretrained(FOLDER / "model", dtype=torch.float32)
    batches = torch.load(FOLDER / "calibration.pt")
    bits = int(setting.removesuffix(ONLY).split()[0])
    recipe = [GPTQModifier(config_groups={"linear": scheme(bits, "Linear")}, ignore=["lm_head"])]
    if not setting.endswith(ONLY):
        recipe.insert(0, QuantizationModifier(config_groups={"embeddings": scheme(bits, "Embedding")}))
    with TemporaryDirectory() as folder:
        oneshot(
            model=model, dataset=DataLoader(batches, batch_size=None), num_calibration_samples=len(batches),
            processor=transformers.ProcessorMixin(), recipe=recipe,
        )  # fmt: skip
        model.save_pretrained(folder, save_compressed=True)
        saved = load_file(Path(folder) / "model.safetensors")
    known = {name: tensor for name, tensor in saved.items() if name in tensors or ".weight_" in name}
    absent = (name for name in tensors if name not in saved and name.removesuffix(".weight") + PACKED not in saved)
    save_file(known | {name: torch.from_numpy(tensors[name]) for name in absent}, path, {"bits": str(bits)})


def opened(path: Path) -> tuple[Tensors, dict[str, dict[str, torch.Tensor]], int]:
    """The tensors that are not quantized; the parts of every matrix; bits."""
    with safe_open(path, "pt") as file:
        state, bits = {key: file.get_tensor(key) for key in file.keys()}, int(file.metadata()["bits"])  # noqa: SIM118
    names = [key.removesuffix(PACKED) for key in state if key.endswith(PACKED)]
    parts = ("weight_packed", "weight_scale", "weight_shape")
    layers = {f"{name}.weight": {part: state.pop(f"{name}.{part}") for part in parts} for name in names}
    return {name: array(tensor) for name, tensor in state.items()}, layers, bits


def read(path: Path, only: str | None) -> Tensors:
    rest, layers, bits = opened(path)
    how = scheme(bits, "Linear")
    return rest | {
        name: array(PackedQuantizationCompressor.decompress(parts, how)["weight"].float())
        for name, parts in layers.items()
        if only in (None, name)
    }


def plain(path: Path) -> Tensors:
    arrays, layers, bits = opened(path)
    for name, parts in layers.items():
        codes = unpack_from_int32(parts["weight_packed"], bits, torch.Size(parts["weight_shape"].tolist()))
        arrays |= {name: array(codes), f"{name}.scale": array(parts["weight_scale"])}
    return arrays


if __name__ == "__main__":
    serve("llmcompressor", write, read, plain)
