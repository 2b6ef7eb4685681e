"""LSTM and GRU as the linear maps they are made of, one step after another.

torch computes them in one call, which hides the inputs of the recurrent weights and the gradients of the gates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Linear = Callable[[Tensor, Tensor, "Tensor | None"], Tensor]
State = tuple[Tensor, ...]
"""(h,) of a GRU, (h, c) of an LSTM: each (batch, width)."""
Cell = Callable[[Tensor, Tensor, State], State]
"""New state from the gates' parts that come from the input and from h, and the old state."""


def lstm_gates(from_input: Tensor, from_state: Tensor, state: State) -> State:
    """One step of an LSTM."""
    i, f, g, o = (from_input + from_state).chunk(4, -1)
    c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def gru_gates(from_input: Tensor, from_state: Tensor, state: State) -> State:
    """One step of a GRU."""
    (r, z, n), (hr, hz, hn) = from_input.chunk(3, -1), from_state.chunk(3, -1)
    z = (z + hz).sigmoid()
    return ((1 - z) * (n + (r + hr).sigmoid() * hn).tanh() + z * state[0],)


def unrolled(
    linear: Linear,
    cell: Cell,
    x: Tensor,
    state: Sequence[Tensor],
    weights: Sequence[Tensor],
    biased: bool,
    layers: int,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Tensor, list[Tensor]]:
    """Output and last states of what `torch.lstm` and `torch.gru` compute, by calls of `linear`.

    x is (steps, batch, width), or (batch, steps, width) with `batch_first`; states are (layers * directions, batch,
    width). In evaluation mode: there is no dropout.
    """
    x = x.transpose(0, 1) if batch_first else x
    directions = 2 if bidirectional else 1
    each = len(weights) // (layers * directions)
    last: list[State] = []
    for layer in range(layers):
        outputs = list[Tensor]()
        for direction in range(directions):
            k = layer * directions + direction
            w_ih, w_hh, *rest = weights[k * each : (k + 1) * each]
            b_ih, b_hh = rest[:2] if biased else (None, None)
            projection = rest[2 if biased else 0 :]
            gates = linear(x, w_ih, b_ih)
            h, steps = tuple(s[k] for s in state), list[Tensor]()
            for part in gates.flip(0) if direction else gates:
                h = cell(part, linear(h[0], w_hh, b_hh), h)
                if projection:
                    h = (linear(h[0], projection[0], None), *h[1:])
                steps.append(h[0])
            output = torch.stack(steps)
            outputs.append(output.flip(0) if direction else output)
            last.append(h)
        x = torch.cat(outputs, -1)
    x = x.transpose(0, 1) if batch_first else x
    return x, [torch.stack(parts) for parts in zip(*last, strict=True)]


def lstm(linear: Linear, x: Tensor, state: Sequence[Tensor], weights: Sequence[Tensor], *options: Any) -> Any:
    """What `torch.lstm` does with (biased, layers, dropout, training, bidirectional, batch_first)."""
    biased, layers, _, _, bidirectional, batch_first = options
    output, last = unrolled(linear, lstm_gates, x, state, weights, biased, layers, bidirectional, batch_first)
    return output, *last


def gru(linear: Linear, x: Tensor, state: Tensor, weights: Sequence[Tensor], *options: Any) -> Any:
    """What `torch.gru` does with (biased, layers, dropout, training, bidirectional, batch_first)."""
    biased, layers, _, _, bidirectional, batch_first = options
    output, last = unrolled(linear, gru_gates, x, [state], weights, biased, layers, bidirectional, batch_first)
    return output, *last
