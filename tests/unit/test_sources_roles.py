from __future__ import annotations

import numpy as np
import pytest

from tersor.sources import Unit, role, with_heads


@pytest.mark.parametrize(
    ("name", "dtype", "shape", "expected"),
    [
        ("model.embed_tokens.weight", "BF16", (32000, 2048), "embedding"),
        ("transformer.wte.weight", "F32", (100, 64), "embedding"),
        ("wpe.weight", "F16", (1024, 768), "embedding"),
        ("tok_embeddings.weight", "F32", (50, 8), "embedding"),
        ("lm_head.weight", "F32", (50257, 768), "embedding"),
        ("table", "F32", (4096, 512), "embedding"),
        ("almost", "F32", (4095, 8), "matrix"),
        ("wide", "F32", (4096, 513), "matrix"),
        ("fc.weight", "F32", (1000, 512), "matrix"),
        ("conv.weight", "F32", (64, 3, 7, 7), "convolution"),
        ("patch_embed.proj.weight", "F32", (64, 3, 16, 16), "convolution"),
        ("conv1d.weight", "F16", (64, 3, 7), "convolution"),
        ("conv3d.weight", "F32", (8, 3, 3, 3, 3), "convolution"),
        ("six", "F32", (2, 2, 2, 2, 2, 2), "matrix"),
        ("spectrum", "C64", (4, 4), "matrix"),
        ("bn.weight", "F32", (64,), "vector"),
        ("scale", "F32", (), "vector"),
        ("layer_scale", "F32", (1, 64, 1, 1), "vector"),
        ("embed.one", "F32", (1, 64), "vector"),
        ("empty", "F32", (0, 1), "vector"),
        ("bn.running_mean", "F32", (64,), "buffer"),
        ("running_var", "F32", (64,), "buffer"),
        ("bn.num_batches_tracked", "I64", (), "buffer"),
        ("position_ids", "I64", (1, 512), "buffer"),
        ("mask", "BOOL", (512, 512), "buffer"),
        ("packed", "U8", (512, 512), "buffer"),
    ],
)
def test_roles(name: str, dtype: str, shape: tuple[int, ...], expected: str) -> None:
    assert role(Unit(name, dtype, shape, lambda: np.empty(0, np.uint8))) == expected


@pytest.mark.parametrize(
    ("tensors", "expected"),
    [
        ([("model.embed_tokens.weight", 2048, None), ("model.layers.0.mlp.up_proj.weight", 512, None)], [True, False]),
        ([("model.embed_tokens.weight", 2048, None), ("lm_head.weight", 2048, None)], [False, False]),
        ([("shared.embed.weight", 9, None), ("out.weight", 9, "shared.embed.weight")], [True, False]),
        ([("embeddings.word_embeddings.weight", 30522, None), ("pooler.dense.weight", 384, None)], [False, False]),
        ([("transformer.wte.weight", 50257, None), ("transformer.wpe.weight", 1024, None)], [True, False]),
    ],
)
def test_heads(tensors: list[tuple[str, int, str | None]], expected: list[bool]) -> None:
    """Embeddings that another tensor is tied to, or that alone have a decoder's name and its many rows."""
    units = (Unit(name, "F32", (rows, 64), lambda: np.zeros(0, np.uint8), tied) for name, rows, tied in tensors)
    assert [unit.head for unit in with_heads(units)] == expected
