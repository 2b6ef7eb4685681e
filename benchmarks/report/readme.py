"""The tables of README, from the result files: what stands between <!-- NAME --> and <!-- end -->."""

import math
import re
from collections.abc import Callable

from benchmarks.common import ROOT, read_results

README = ROOT / "README.md"
SIZES = {  # network: what it is called, its measure, and the metric
    "minilm": ("MiniLM sentence encoder", "cosine to its own embeddings", "cosine"),
    "efficientnet_lite0": ("EfficientNet-Lite0", "same top-1 as the original", "agreement"),
    "fashion_resnet": ("residual network, Fashion-MNIST", "accuracy", "accuracy"),
    "crepe_tiny": ("CREPE tiny, pitch", "pitch accuracy", "pitch_accuracy"),
    "crnn": ("CRNN text reader", "character error", "character_error"),
    "resemblyzer": ("Resemblyzer, 3 LSTM", "cosine to its own embeddings", "cosine"),
}
CALIBRATED = {  # network: what it is called, and bits a weight
    "efficientnet_lite0": ("EfficientNet-Lite0", (3,)),
    "fashion_resnet": ("residual network, Fashion-MNIST", (3, 2)),
    "vit_fashion": ("vision transformer, Fashion-MNIST", (3,)),
    "mobilenet_fashion": ("MobileNet, Fashion-MNIST", (2,)),
}


def sizes() -> str:
    """Bytes and what they are worth, without data."""
    found = {(r["network"], r["ratio"]): r for r in read_results("sizes")[1] if "bytes" in r}
    rows = ["| network | measure | original | 4x | 8x | 12x |", "|---|---|---:|---:|---:|---:|"]
    for network, (title, measure, metric) in SIZES.items():
        records = [found[network, ratio] for ratio in (1, 4, 8, 12)]
        cells = (f"{r['metrics'][metric]:.3f}<br>{r['bytes']:,} B" for r in records)
        rows.append(f"| {title} | {measure} | {' | '.join(cells)} |")
    return "\n".join(rows)


def calibrated() -> str:
    """What calibration is worth, on the networks that have run."""
    rows = ["| network | bits a weight | no data | GPTQ + our coder | `balanced` |", "|---|---:|---:|---:|---:|"]
    for network, (title, asked) in CALIBRATED.items():
        found = {(r["method"], r["asked"]): r["metrics"]["kl"] for r in read_results(f"second_order-{network}")[1]}
        for bits in asked if found else ():
            cells = (found.get((method, float(bits))) for method in ("nearest", "gptq", "balanced"))
            rows.append(f"| {title} | {bits} | {' | '.join('' if c is None else three_digits(c) for c in cells)} |")
    return "\n".join(rows)


def three_digits(value: float) -> str:
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}"


BLOCKS: dict[str, Callable[[], str]] = {"sizes": sizes, "calibrated": calibrated}


def updated(text: str) -> str:
    """README with the tables as the results are. Raises ValueError if a mark is missing."""
    for name, block in BLOCKS.items():
        text, count = re.subn(rf"(?s)(<!-- {name} -->\n).*?(<!-- end -->)", rf"\g<1>\n{block()}\n\n\g<2>", text)
        if count != 1:
            raise ValueError(f"README.md: {count} blocks <!-- {name} --> instead of one")
    return text
