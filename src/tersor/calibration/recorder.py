"""Watching a model run: every linear map that is applied with one of its parameters is seen where it happens.

A `TorchFunctionMode` sees the calls of `linear`, `conv2d`, `embedding` and the like with the tensors that they really
get, after whatever padding or reshaping the module does, and knows the weights by identity. So no layer class is
special, and the model is not touched. Attention and recurrent layers, which torch computes in one call, are taken apart
into their linear maps.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from tersor.calibration.coupling import most_together, some_of
from tersor.calibration.layers import convolution_rows, enough_rows, linear_rows, parts_of
from tersor.calibration.recurrent import gru, gru_gates, lstm, lstm_gates
from tersor.calibration.statistics import Inputs, Sums
from tersor.errors import CalibrationError

_ATTENTION = inspect.signature(functional.multi_head_attention_forward)


class Recorder(TorchFunctionMode):
    """Sums up inputs and output gradients of the linear maps whose weights are `parameters` (name to tensor).

    `samples` is how many samples will be run, by which the number of inputs taken of each is set. With `gradients`,
    outputs get hooks that add squared gradients during the backward pass; parameters are expected to be frozen.
    Raises `CalibrationError` when a layer's inputs are not finite.
    """

    def __init__(
        self,
        parameters: Mapping[str, torch.Tensor],
        samples: int,
        generator: torch.Generator,
        *,
        gradients: bool = True,
    ) -> None:
        super().__init__()
        self.sums: dict[str, Sums] = {}
        self.gradients = gradients
        self.mask: torch.Tensor | None = None
        self.closely = False
        """Whether gradients of weights are kept too, to find out how coherent positions are."""
        self.half = 0
        """Which half of the samples is run."""
        self.outputs: list[tuple[str, torch.Tensor]] = []
        """Outputs of layers in `remember`, for gradients by other ways than `backward`."""
        self.remember: set[str] | None = set()
        self.kept: deque[list[torch.Tensor]] | None = None
        """Inputs of every call, if they are to be kept rather than summed up."""
        self.partner: deque[list[torch.Tensor]] | None = None
        """Inputs of the same calls in the original model, for cross covariances."""
        self.names: dict[int, str] = {}
        """Units by the identity of their parameters."""
        for name, parameter in parameters.items():
            self.names.setdefault(id(parameter), name)
        self._alive = list(parameters.values())  # so that no other object gets the identity of one of them
        self._samples = max(1, samples)
        self._together = most_together(parameters.values())
        self.generator = generator
        self._latest: tuple[torch.Tensor, Any, Inputs | None] | None = None
        # functions, not methods of this object: what holds itself is freed late, and with it the sums of whole blocks
        self._handlers: dict[Any, Callable[..., Any]] = {
            functional.linear: Recorder._linear,
            functional.embedding: Recorder._embedding,
            functional.multi_head_attention_forward: Recorder._attention,
            torch._VF.lstm: Recorder._recurrent(torch._VF.lstm, lstm),  # type: ignore[attr-defined]
            torch._VF.gru: Recorder._recurrent(torch._VF.gru, gru),  # type: ignore[attr-defined]
            torch._VF.lstm_cell: Recorder._lstm_cell,  # type: ignore[attr-defined]
            torch._VF.gru_cell: Recorder._gru_cell,  # type: ignore[attr-defined]
            torch.addmm: Recorder._addmm,
            torch.matmul: Recorder._matmul,
            torch.Tensor.matmul: Recorder._matmul,
            torch.Tensor.__matmul__: Recorder._matmul,
            torch.mm: Recorder._matmul,
            **{f: Recorder._convolution(f) for f in (functional.conv1d, functional.conv2d, functional.conv3d)},
        }

    def __torch_function__(
        self, func: Any, types: Iterable[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Record the call if it is one of those that apply weights."""
        handler = self._handlers.get(func)
        return func(*args, **(kwargs or {})) if handler is None else handler(self, *args, **(kwargs or {}))

    # -- what is recorded ----------------------------------------------------------------------------------------------

    def _of(self, weight: Any, rows: int) -> Sums | None:
        name = self.names.get(id(weight))
        return None if name is None else self.sums.setdefault(name, Sums(rows, parts_of(weight.numel() // rows)))

    def _leaf(self, x: torch.Tensor) -> torch.Tensor:
        """x with a gradient graph behind it, also where the model begins."""
        wanted = self.gradients and torch.is_grad_enabled() and not x.requires_grad
        return x.detach().requires_grad_() if wanted else x

    def _weight(self, weight: torch.Tensor) -> torch.Tensor:
        """The weight, or what stands for it while its gradient is wanted."""
        closely = self.closely and self.gradients and torch.is_grad_enabled()
        return self.sums[self.names[id(weight)]].leaf(weight) if closely else weight

    def _inputs(
        self,
        weight: Any,
        x: torch.Tensor,
        geometry: Any,
        rows: Callable[[], Iterable[torch.Tensor]],
        group: slice = slice(None),
        groups: int | None = None,
    ) -> None:
        """Add the inputs of a call. Layers that share an input (queries, keys and values) share the product."""
        latest, call = self._latest, (x._version, geometry)
        if latest is not None and latest[0] is x and latest[1] == call:
            found = latest[2]
        else:
            found = self._summed(weight, rows)
            self._latest = (x, call, found)
        if found is not None:
            sums = self.sums[self.names[id(weight)]]
            if sums.parts > 1:  # groups share the covariances of parts
                group, groups = slice(None), sums.parts
            sums.add_inputs(found, group, groups or len(found.own.totals))

    def _summed(self, weight: Any, rows: Callable[[], Iterable[torch.Tensor]]) -> Inputs | None:
        with torch.no_grad():
            parts = self.sums[self.names[id(weight)]].parts
            blocks = (b.detach().float() for b in rows())
            if parts > 1:
                blocks = (b.reshape(-1, parts, b.shape[-1] // parts).transpose(0, 1) for b in blocks)
            if self.kept is not None:
                self.kept.append(list(blocks))
                return None
            partners = None if self.partner is None else self.partner.popleft() if self.partner else []
            found = Inputs.of(blocks, partners)
        if not bool(torch.isfinite(found.own.products.diagonal(dim1=-2, dim2=-1).sum())):
            raise CalibrationError(
                "the inputs of a layer are NaN or infinite, or too large to square",
                where=f"layer {self.names[id(weight)]!r}",
                remedy="look at the samples, and at the layer before it",
            )
        return found

    def _most(self, fan_in: int, groups: int = 1) -> int:
        """How many inputs to take of a call."""
        return -(-enough_rows(fan_in // parts_of(fan_in), groups) // self._samples)

    def _rows(self, x: torch.Tensor) -> Iterable[torch.Tensor]:
        """Inputs of a linear layer."""
        return linear_rows(x, self.mask, self._most(x.shape[-1]), self.generator)

    def _watch(self, weight: Any, output: torch.Tensor, channel: int, part: slice = slice(None)) -> None:
        """Have squared gradients of an output added to the rows `part`, once they are known."""
        name = self.names[id(weight)]
        sums = self.sums[name]
        sums.calls += 1
        if not (self.gradients and output.requires_grad):
            return
        together, positions = self._together, self._most(self._together)
        generator, half = self.generator, self.half

        def add(gradient: torch.Tensor) -> None:  # holds nothing that holds the output: it would be freed late
            rows = gradient.detach().float().movedim(channel, 0).reshape(gradient.shape[channel], -1)
            sums.add_gradient(rows.square().sum(1), part)
            sums.add_outer(some_of(rows, positions, generator), part, half, together)

        output.register_hook(add)
        if self.remember is None or name in self.remember:
            self.outputs.append((name, output))

    # -- the functions that apply weights ------------------------------------------------------------------------------

    def _linear(self, input: torch.Tensor, weight: torch.Tensor, bias: Any = None) -> torch.Tensor:
        if self._of(weight, len(weight)) is None:
            return functional.linear(input, weight, bias)
        x = self._leaf(input)
        self._inputs(weight, input, "linear", lambda: self._rows(input))
        output = functional.linear(x, self._weight(weight), bias)
        self._watch(weight, output, -1)
        return output

    def _matmul(self, input: Any, other: Any, **options: Any) -> Any:
        named = isinstance(other, torch.Tensor) and other.dim() == 2 and isinstance(input, torch.Tensor)
        sums = self._of(other, other.shape[1]) if named and not options else None
        if sums is None:
            return torch.matmul(input, other, **options)
        sums.transposed = True
        x = self._leaf(input)
        self._inputs(other, input, "linear", lambda: self._rows(input))
        output = torch.matmul(x, self._weight(other))
        self._watch(other, output, -1)
        return output

    def _addmm(self, input: Any, mat1: Any, mat2: Any, **options: Any) -> Any:
        if options or id(mat2) not in self.names:
            return torch.addmm(input, mat1, mat2, **options)
        return self._matmul(mat1, mat2) + input

    @staticmethod
    def _convolution(function: Any) -> Callable[..., torch.Tensor]:
        def call(
            self: Recorder,
            input: torch.Tensor,
            weight: torch.Tensor,
            bias: Any = None,
            stride: Any = 1,
            padding: Any = 0,
            dilation: Any = 1,
            groups: int = 1,
        ) -> torch.Tensor:
            if self._of(weight, len(weight)) is None:
                return function(input, weight, bias, stride, padding, dilation, groups)
            kernel = tuple(weight.shape[2:])
            steps, gaps = _each(stride, len(kernel)), _each(dilation, len(kernel))
            edges = padding if isinstance(padding, str) else _each(padding, len(kernel))
            batch = input if input.dim() == weight.dim() else input[None]

            def rows() -> Iterable[torch.Tensor]:
                most = self._most(weight[0].numel(), groups)
                return convolution_rows(batch, kernel, steps, edges, gaps, groups, most, self.generator)

            self._inputs(weight, input, (kernel, steps, edges, gaps, groups), rows)
            output = function(self._leaf(input), self._weight(weight), bias, stride, padding, dilation, groups)
            self._watch(weight, output, output.dim() - len(kernel) - 1)
            return output

        return call

    def _embedding(self, input: torch.Tensor, weight: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        output = functional.embedding(input, weight, *args, **options)
        sums = self._of(weight, len(weight))
        if sums is None:
            return output
        sums.looked_up = True
        sums.calls += input.numel()
        if not (self.gradients and torch.is_grad_enabled()):
            return output
        if not output.requires_grad:
            output = output.detach().requires_grad_().clone()  # a leaf itself could not be changed in place
        rows, places = torch.unique(input, return_inverse=True)

        def add(gradient: torch.Tensor) -> None:
            width = gradient.shape[-1]
            total = gradient.new_zeros((len(rows), width), dtype=torch.float32)
            total.index_add_(0, places.reshape(-1), gradient.detach().reshape(-1, width).float())
            sums.add_usage(rows, total.square().mean(1))

        output.register_hook(add)
        return output

    @staticmethod
    def _recurrent(function: Any, apart: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Recorder, *args: Any) -> Any:
            packed = not isinstance(args[3], bool)  # sequences of several lengths come with one argument more
            known = not packed and any(id(weight) in self.names for weight in args[2])
            return apart(self._linear, *args) if known else function(*args)

        return call

    def _lstm_cell(self, x: Any, state: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Any:
        return lstm_gates(self._linear(x, w_ih, b_ih), self._linear(state[0], w_hh, b_hh), tuple(state))

    def _gru_cell(self, x: Any, state: Any, w_ih: Any, w_hh: Any, b_ih: Any = None, b_hh: Any = None) -> Any:
        return gru_gates(self._linear(x, w_ih, b_ih), self._linear(state, w_hh, b_hh), (state,))[0]

    def _attention(self, *args: Any, **options: Any) -> Any:
        """Attention with its projections outside: identity matrices stand in for them inside."""
        given = _ATTENTION.bind(*args, **options)
        given.apply_defaults()
        a = given.arguments
        if a["static_k"] is not None or a["static_v"] is not None:
            return functional.multi_head_attention_forward(*args, **options)
        inputs, bias = [a["query"], a["key"], a["value"]], a["in_proj_bias"]
        biases = [None] * 3 if bias is None else bias.chunk(3)
        if a["use_separate_proj_weight"]:
            weights = [a[f"{part}_proj_weight"] for part in "qkv"]
            projected = [self._linear(x, w, b) for x, w, b in zip(inputs, weights, biases, strict=True)]
        elif inputs[0] is inputs[1] is inputs[2]:
            projected = list(self._linear(inputs[0], a["in_proj_weight"], bias).chunk(3, -1))
        else:
            projected = self._stacked(inputs, a["in_proj_weight"], biases)
        weight, bias = a["out_proj_weight"], a["out_proj_bias"]
        identity = torch.eye(projected[0].shape[-1], dtype=projected[0].dtype, device=projected[0].device)
        a.update(zip(("query", "key", "value"), projected, strict=True))
        a.update(dict.fromkeys(("q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj_weight"), identity))
        a.update(use_separate_proj_weight=True, in_proj_bias=None, out_proj_bias=None)
        output, attention = functional.multi_head_attention_forward(**a)
        return self._linear(output, weight, bias), attention

    def _stacked(
        self, inputs: Sequence[torch.Tensor], weight: torch.Tensor, biases: Sequence[Any]
    ) -> list[torch.Tensor]:
        """Three projections in one tensor that see different inputs: one group each."""
        named = self._of(weight, len(weight)) is not None
        width, outputs = len(weight) // 3, list[torch.Tensor]()
        for k, (x, bias) in enumerate(zip(inputs, biases, strict=True)):
            part = slice(k * width, (k + 1) * width)
            x = self._leaf(x) if named else x
            output = functional.linear(x, (self._weight(weight) if named else weight)[part], bias)
            if named:
                self._inputs(
                    weight,
                    x,
                    "linear",
                    lambda x=x: self._rows(x),
                    slice(k, k + 1),
                    3,
                )
                self._watch(weight, output, -1, part)
            outputs.append(output)
        return outputs


def _each(value: Any, dimensions: int) -> tuple[int, ...]:
    """One number a dimension."""
    values = (value,) if isinstance(value, int) else tuple(int(v) for v in value)
    return values * dimensions if len(values) == 1 else values
