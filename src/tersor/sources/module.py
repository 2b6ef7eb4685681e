"""Weights that are in memory already: a `torch.nn.Module`, or a mapping of names to arrays or tensors.

torch is imported only where a tensor is at hand, so that arrays can be compressed without it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tersor.errors import SourceError
from tersor.sources.files import digest
from tersor.sources.torch_objects import ELEMENT_TYPES
from tersor.sources.unit import Bytes, Ties, Unit, check_name, check_shape, unsupported_dtype

if TYPE_CHECKING:
    import torch


class MappingSource:
    """The tensors of a mapping from names to numpy arrays or torch tensors, in its order.

    Nothing is copied until a unit is loaded, and nothing is changed: values that are altered between listing
    and loading give the altered bytes. Other values raise `SourceError`, as do dtypes that a file cannot
    hold, sparse and quantized tensors, and tensors on the meta device.
    """

    def __init__(self, tensors: Mapping[str, Any], *, label: str = "the mapping", skipped: Sequence[str] = ()) -> None:
        self.label = label
        self.metadata: Mapping[str, str] = MappingProxyType({})
        self.skipped: tuple[str, ...] = tuple(skipped)
        self._units = tuple(_units(tensors, label))
        if not self._units:
            raise SourceError("there are no tensors", where=label, remedy="give at least one")

    def units(self) -> Sequence[Unit]:
        """The tensors; nothing of their data has been copied yet."""
        return self._units

    def fingerprint(self) -> str:
        """A hexadecimal digest over names, dtypes, shapes and all bytes, loaded one tensor after another."""
        parts = (
            digest(unit.name, unit.dtype, repr(unit.shape), unit.tied_to or "", unit.load().data)
            for unit in self._units
        )
        return digest("memory", *parts)


class ModuleSource(MappingSource):
    """The parameters and persistent buffers of a module, as `state_dict()` names them; tied ones once.

    The module is left as it is: on its device, with its gradients and its mode. A tensor moves to the CPU
    only while it is loaded. Entries that are no tensors (extra state) are listed in `skipped`.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        import torch

        state: dict[str, Any] = dict(module.state_dict())
        tensors = {name: value for name, value in state.items() if isinstance(value, torch.Tensor)}
        skipped = [name for name in state if name not in tensors]
        super().__init__(tensors, label=type(module).__name__, skipped=skipped)


def is_module(value: Any) -> bool:
    """Tell whether `value` is a `torch.nn.Module`, without importing torch."""
    return any(
        base.__module__ == "torch.nn.modules.module" and base.__name__ == "Module" for base in type(value).__mro__
    )


def _units(tensors: Mapping[str, Any], label: str) -> Iterator[Unit]:
    ties = Ties()
    for name, value in tensors.items():
        check_name(name, label)
        where = f"{label}, tensor {name!r}"
        if isinstance(value, (np.ndarray, np.generic)):
            yield _numpy_unit(name, np.asarray(value), ties, where)
        elif any(base.__module__ == "torch" and base.__name__ == "Tensor" for base in type(value).__mro__):
            yield _torch_unit(name, value, ties, where)
        else:
            raise SourceError(
                f"a {type(value).__name__} is neither a numpy array nor a torch tensor",
                where=where,
                remedy="convert it, or leave it out",
            )


def _numpy_unit(name: str, array: npt.NDArray[Any], ties: Ties, where: str) -> Unit:
    element = ELEMENT_TYPES.get(array.dtype.name)  # ml_dtypes calls bfloat16 and the 8-bit floats what torch does
    if element is None or element.dtype is None:
        raise unsupported_dtype(f"numpy {array.dtype.name}", where)
    address = array.__array_interface__["data"][0]
    tied = ties.owner(name, array.size, "numpy", address, array.dtype.str, array.dtype.name, array.shape, array.strides)
    return Unit(name, element.dtype, check_shape(array.shape, where), partial(_numpy_bytes, array), tied)


def _numpy_bytes(array: npt.NDArray[Any]) -> Bytes:
    """Copy the elements, little endian, in C order."""
    little = array.dtype if array.dtype.isnative else array.dtype.newbyteorder("<")
    return np.array(array, dtype=little, order="C", copy=True, subok=False).reshape(-1).view(np.uint8)


def _torch_unit(name: str, tensor: torch.Tensor, ties: Ties, where: str) -> Unit:
    import torch

    element = ELEMENT_TYPES.get(str(tensor.dtype).removeprefix("torch."))
    if tensor.layout is not torch.strided or tensor.is_quantized:
        raise SourceError("the tensor is sparse or quantized", where=where, remedy="make it dense and floating")
    if element is None or element.dtype is None:
        raise unsupported_dtype(str(tensor.dtype), where)
    if tensor.is_meta:
        raise SourceError(
            "the tensor is on the meta device and has no values", where=where, remedy="load the weights first"
        )
    if torch.nn.parameter.is_lazy(tensor):
        raise SourceError("the parameter is not initialized yet", where=where, remedy="run the module once first")
    tensor = tensor.detach()
    identity = (
        str(tensor.device),
        tensor.untyped_storage().data_ptr(),
        tensor.storage_offset(),
        tuple(tensor.stride()),
        tensor.is_conj(),
        tensor.is_neg(),
    )
    shape = tuple(int(length) for length in tensor.shape)
    tied = ties.owner(name, tensor.numel(), element.dtype, shape, *identity)
    return Unit(name, element.dtype, check_shape(shape, where), partial(_torch_bytes, tensor), tied)


def _torch_bytes(tensor: torch.Tensor) -> Bytes:
    """Copy the elements to the CPU in C order; viewed as bytes, since numpy lacks bfloat16 and float8."""
    import torch

    with torch.no_grad():
        flat = tensor.resolve_conj().resolve_neg().cpu().contiguous().reshape(-1)
        if flat.numel() == 0:
            return np.empty(0, np.uint8)
        return flat.view(torch.uint8).numpy().copy()
