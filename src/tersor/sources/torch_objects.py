"""What a torch checkpoint's pickle may name, and the inert records that stand for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tersor.errors import SourceError
from tersor.sources.pickle_reader import Attributes, Function, Opaque, PickleError


@dataclass(frozen=True)
class ElementType:
    """A torch dtype: its name there, bytes of one element, and its safetensors name (None: not supported)."""

    torch_name: str
    itemsize: int
    dtype: str | None


@dataclass(frozen=True)
class StorageRecord:
    """A run of elements in the checkpoint: `count` of them, from element `start` of the storage `key`."""

    key: str
    element: ElementType
    start: int
    count: int


@dataclass(frozen=True)
class TensorRecord:
    """A tensor laid over a storage; offset and strides count elements of `element`. Not yet checked."""

    storage: StorageRecord
    element: ElementType
    offset: Any
    shape: Any
    strides: Any


def _element_types() -> dict[str, ElementType]:
    table = """
        float64 8 F64, double 8 F64, float32 4 F32, float 4 F32, float16 2 F16, half 2 F16, bfloat16 2 BF16,
        int64 8 I64, long 8 I64, int32 4 I32, int 4 I32, int16 2 I16, short 2 I16, int8 1 I8, uint8 1 U8,
        uint16 2 U16, uint32 4 U32, uint64 8 U64, bool 1 BOOL, complex64 8 C64, cfloat 8 C64,
        float8_e4m3fn 1 F8_E4M3, float8_e5m2 1 F8_E5M2, float8_e8m0fnu 1 F8_E8M0,
        complex128 16 -, cdouble 16 -, complex32 4 -, chalf 4 -, float8_e4m3fnuz 1 -, float8_e5m2fnuz 1 -,
        float4_e2m1fn_x2 1 -, quint8 1 -, qint8 1 -, qint32 4 -, quint4x2 1 -, quint2x4 1 -"""
    rows = [row.split() for row in table.split(",")]
    return {name: ElementType(name, int(size), None if dtype == "-" else dtype) for name, size, dtype in rows}


ELEMENT_TYPES = _element_types()
"""By torch's name, without `torch.`."""

_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "QUInt8Storage": "quint8",
    "QInt8Storage": "qint8",
    "QInt32Storage": "qint32",
    "QUInt4x2Storage": "quint4x2",
    "QUInt2x4Storage": "quint2x4",
    "UntypedStorage": "uint8",
}


@dataclass(frozen=True)
class StorageType(Function):
    """`torch.FloatStorage` and its like; never called, only named in persistent identifiers."""

    element: ElementType


@dataclass(frozen=True)
class DtypeName(Function):
    """`torch.float32` and its like; never called, only an argument."""

    element: ElementType


def _not_called(arguments: tuple[Any, ...]) -> Any:
    raise PickleError("the pickle calls a torch dtype or storage type")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, element: ElementType | None, metadata: Any) -> Any:
    if not isinstance(storage, StorageRecord):
        raise PickleError("a tensor without a storage")
    if metadata:
        raise PickleError("a tensor that is lazily conjugated or negated; call .resolve_conj().resolve_neg() first")
    return TensorRecord(storage, element or storage.element, offset, shape, strides)


def _arity(arguments: tuple[Any, ...], least: int, most: int) -> tuple[Any, ...]:
    if not least <= len(arguments) <= most:
        raise PickleError(f"a tensor is built from {len(arguments)} values instead of {least} to {most}")
    return arguments + (None,) * (most - len(arguments))


def _tensor_v1(arguments: tuple[Any, ...]) -> Any:
    storage, offset, shape, strides = _arity(arguments, 4, 4)
    return _tensor(storage, offset, shape, strides, None, None)


def _tensor_v2(arguments: tuple[Any, ...]) -> Any:
    storage, offset, shape, strides, _, _, metadata = _arity(arguments, 6, 7)
    return _tensor(storage, offset, shape, strides, None, metadata)


def _tensor_v3(arguments: tuple[Any, ...]) -> Any:
    storage, offset, shape, strides, _, _, element, metadata = _arity(arguments, 7, 8)
    if not isinstance(element, DtypeName):
        raise PickleError("a tensor whose dtype is no torch dtype")
    return _tensor(storage, offset, shape, strides, element.element, metadata)


def _parameter(arguments: tuple[Any, ...]) -> Any:
    return _arity(arguments, 1, 4)[0]


def _from_type(arguments: tuple[Any, ...]) -> Any:
    """A tensor with attributes: (function, class, arguments, state). The attributes are no weights."""
    function, _, inner, _ = _arity(arguments, 4, 4)
    if not isinstance(function, Function) or function.build not in (_tensor_v2, _tensor_v3, _parameter):
        raise PickleError("a tensor that is not built by torch's own functions")
    if type(inner) is not tuple:
        raise PickleError("a tensor built from something that is no list of arguments")
    return function.build(inner)


def _dictionary(arguments: tuple[Any, ...]) -> Any:
    """An OrderedDict, empty or (Python 2) with its pairs, which become a plain dict."""
    if len(arguments) > 1 or any(type(argument) is not list for argument in arguments):
        raise PickleError("an OrderedDict that is not built from a list of pairs")
    result: dict[Any, Any] = {}
    for pair in arguments[0] if arguments else ():
        if type(pair) not in (tuple, list) or len(pair) != 2 or type(pair[0]) is not str:
            raise PickleError("an OrderedDict that is not built from pairs of a name and a value")
        result[pair[0]] = pair[1]
    if arguments:
        arguments[0].clear()  # a list is spent once, so repeating the call costs the file bytes too
    return result


def _default_dictionary(arguments: tuple[Any, ...]) -> Any:
    del arguments  # what it would give for missing keys
    return {}


def _first(arguments: tuple[Any, ...]) -> Any:
    return arguments[0] if arguments else ()


def _opaque(arguments: tuple[Any, ...]) -> Opaque:
    del arguments
    return Opaque()


def _attributes(arguments: tuple[Any, ...]) -> Attributes:
    del arguments
    return Attributes()


_BUILDERS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    "collections.OrderedDict": _dictionary,
    "collections.defaultdict": _default_dictionary,
    "torch._utils._rebuild_tensor": _tensor_v1,
    "torch._utils._rebuild_tensor_v2": _tensor_v2,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _from_type,
    "torch.Size": _first,
}

# Values that trainers leave beside the weights. They are data of no interest here, so what a pickle says
# about them is dropped; nothing of these modules is imported or called.
_DROPPED = {
    "torch": "device Tensor Generator",
    "torch.nn.parameter": "Parameter Buffer",
    "torch.serialization": "_get_layout",
    "collections": "Counter deque",
    "argparse": "Namespace",
    "builtins": "set frozenset complex bytearray range slice list dict int float str bool",
    "__builtin__": "set frozenset complex",
    "_codecs": "encode",
    "numpy": "dtype ndarray",
    "numpy.core.multiarray": "scalar _reconstruct",
    "numpy._core.multiarray": "scalar _reconstruct",
    "pathlib": "Path PosixPath WindowsPath",
    "pathlib._local": "Path PosixPath WindowsPath",
    "datetime": "datetime date timedelta",
}

_UNREADABLE_TENSORS = {
    "_rebuild_sparse_tensor": "a sparse tensor",
    "_rebuild_qtensor": "a quantized tensor",
    "_rebuild_nested_tensor": "a nested tensor",
    "_rebuild_meta_tensor_no_storage": "a tensor on the meta device, which has no values",
    "_rebuild_wrapper_subclass": "a tensor subclass",
}


def find_global(module: str, name: str, *, torchscript: bool, where: str) -> Function:
    """Return the stand-in for a global that files of weights use; raises `SourceError` naming any other."""
    full = f"{module}.{name}"
    if full in _BUILDERS:
        return Function(full, _BUILDERS[full])
    if module in ("torch", "torch.cuda", "torch.storage") and name in _STORAGES:
        return StorageType(full, _not_called, ELEMENT_TYPES[_STORAGES[name]])
    if module == "torch" and name in ELEMENT_TYPES:
        return DtypeName(full, _not_called, ELEMENT_TYPES[name])
    if name in _DROPPED.get(module, "").split():
        return Function(full, _opaque)
    if torchscript and module.split(".", 1)[0] == "__torch__":
        return Function(full, _attributes)
    if torchscript and module == "torch.jit._pickle" and name.startswith(("build_", "restore_type_tag")):
        return Function(full, _first)
    raise _refused(module, name, where)


def _refused(module: str, name: str, where: str) -> SourceError:
    full = f"{module}.{name}"[:200]
    if module == "torch._utils" and name in _UNREADABLE_TENSORS:
        return SourceError(
            f"the checkpoint holds {_UNREADABLE_TENSORS[name]} ({full})",
            where=where,
            remedy="save it as an ordinary dense tensor",
        )
    return SourceError(
        f"this file would run {full} when unpickled; it was not run",
        where=where,
        remedy="do not load it unless you trust it; where you do, load it with torch and save "
        "model.state_dict() alone, best as .safetensors",
    )
