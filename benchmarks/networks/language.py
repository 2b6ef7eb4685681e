"""A small language model trained here on English prose (LLaMA, 4 layers of 256, grouped heads, tied; 3.1 M weights).

Source: this script, on the Debian package anarchism; its last 200,000 characters are kept for the metric. Tokens are
byte pairs (2048) that this script finds in the training text. `python -m benchmarks.networks.language` trains it, if
the cache does not hold it yet (some minutes of one core); other processors round differently. Metric: perplexity of
8192 tokens of the held-out text in windows of 256, KL divergence and agreement with the original's next tokens there.
"""

import sys
from functools import cache
from typing import Any

import numpy as np
import torch
from tokenizers import ByteLevelBPETokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from ._common import Metrics, Network, Tensors, as_arrays, divergence, evaluator, exported, with_weights
from .smollm2 import Predictions, prose

WORDS, CONTEXT, WINDOWS = 2048, 256, 32
_HELD_OUT = 200_000
TIED = "lm_head.weight"


def config() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=WORDS, hidden_size=256, intermediate_size=512, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=CONTEXT, tie_word_embeddings=True, bos_token_id=0,
        eos_token_id=0,
    )  # fmt: skip


@cache
def _tokenizer() -> ByteLevelBPETokenizer:
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(prose()[:-_HELD_OUT].splitlines(), vocab_size=WORDS, show_progress=False)
    return tokenizer


def encode(text: str) -> Tensor:
    """A text as tokens."""
    return torch.tensor(_tokenizer().encode(text).ids)


@cache
def tokens() -> tuple[Tensor, Tensor]:
    """Training text and held-out text, as tokens."""
    text = prose()
    return encode(text[:-_HELD_OUT]), encode(text[-_HELD_OUT:])


def train(steps: int = 1200, batch: int = 16, length: int = 128, lr: float = 4e-3) -> dict[str, np.ndarray]:
    """AdamW, one-cycle learning rate, bfloat16 on one thread; prints a line every hundred steps."""
    torch.set_num_threads(1)
    text = tokens()[0]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module: Any = LlamaForCausalLM(config()).train()
        optimizer = torch.optim.AdamW(module.parameters(), lr, betas=(0.9, 0.95), weight_decay=0.1)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps, pct_start=0.1)
        for step in range(steps):
            starts = torch.randint(len(text) - length - 1, (batch,))
            chunk = torch.stack([text[s : s + length + 1] for s in starts.tolist()])
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(module(chunk[:, :-1]).logits.flatten(0, 1), chunk[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if not (step + 1) % 100:
                print(f"language: step {step + 1} of {steps}, loss {loss.item():.3f}", file=sys.stderr, flush=True)
    return {name: array for name, array in as_arrays(module.state_dict()).items() if name != TIED}


def load(name: str) -> Network:
    test = tokens()[1][: CONTEXT * WINDOWS].view(WINDOWS, CONTEXT)

    def model(tensors: Tensors) -> nn.Module:
        return with_weights(LlamaForCausalLM(config()), {**tensors, TIED: tensors["model.embed_tokens.weight"]})

    def outputs(module: Any) -> Predictions:
        logits = torch.cat([module(part).logits[:, :-1] for part in test.split(8)])
        return Predictions(F.cross_entropy(logits.flatten(0, 1), test[:, 1:].flatten()).item(), logits.flatten(0, 1))

    def metrics(before: Predictions, after: Predictions) -> Metrics:
        return {"perplexity": float(np.exp(after.loss)), **divergence(before.logits, after.logits)}

    weights = exported(name, train)
    return Network(name, weights, evaluator(weights, model, outputs, metrics))


if __name__ == "__main__":
    load("language")
