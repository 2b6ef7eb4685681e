"""A torch module of linear layers without biases, one a matrix, and parameters: what quantizers of modules get."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from _peer import Tensors
from torch import nn


class Layers(nn.Module):
    """Matrix k of those `chosen` is layer k; the rest of the tensors are buffers. `names` says whose each is."""

    def __init__(self, tensors: Tensors, chosen: Tensors) -> None:
        super().__init__()
        self.names = [*chosen, *(name for name in tensors if name not in chosen)]
        self.layers = nn.ModuleList()
        for array in chosen.values():
            layer = nn.Linear(array.shape[1], array.shape[0], bias=False)
            layer.weight.data = torch.from_numpy(array)
            self.layers.append(layer)
        for k, name in enumerate(self.names[len(chosen) :]):
            self.register_buffer(f"rest{k}", torch.from_numpy(tensors[name]))

    def rest(self) -> Tensors:
        """The tensors that are not quantized."""
        names = self.names[len(self.layers) :]
        return {name: getattr(self, f"rest{k}").numpy() for k, name in enumerate(names)}

    def weights(self) -> Iterator[tuple[str, Any]]:
        """Those that are, as what the quantizer made of them."""
        return ((name, layer.weight) for name, layer in zip(self.names, self.layers, strict=False))


def array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().contiguous().numpy()
