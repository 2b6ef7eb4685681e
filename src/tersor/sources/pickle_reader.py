"""A pickle read as data: a small stack machine that can build containers and records, and nothing else.

Python's own unpickler calls what the file names. This one does not: the standard library's `pickletools`
splits the stream into opcodes without running anything, and the machine below knows no callables but the
`Function`s that its caller hands it, which build inert records. It also bounds what Python's leaves open: the
number of operations, the size of the memo, and the kinds of dictionary keys (hashing deep tuples overflows
the C stack, and chosen integers collide).
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

MAX_BYTES = 1 << 28
MAX_OPERATIONS = 10_000_000
_MAX_MEMO_KEY = 1 << 32
_MAX_KEY_INTEGER = 1 << 60

CONSTANTS = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
)
"""Opcodes whose argument, as pickletools decodes it, is the value."""


class PickleError(ValueError):
    """The pickle is damaged, or asks for something that this reader refuses; the message says what."""


@dataclass(frozen=True)
class Function:
    """What a pickle may call: `build(arguments)` makes an inert record. `name` is for messages."""

    name: str
    build: Callable[[tuple[Any, ...]], Any]


class Opaque:
    """Something of no interest: a harmless value that is no tensor, or an unusual dictionary key."""

    __slots__ = ()


class Attributes:
    """An object of a class that we do not have, with the state the pickle gives it (or None)."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state: Any = None


FindGlobal = Callable[[str, str], Function]
PersistentLoad = Callable[[Any], Any]


class _Bounded:
    """The part of a file that one pickle may use: reads never allocate more than what is there."""

    def __init__(self, file: BinaryIO, end: int) -> None:
        self._file = file
        self._end = min(end, file.tell() + MAX_BYTES)

    def read(self, size: int) -> bytes:
        return self._file.read(min(size, self._end - self._file.tell()))

    def readline(self) -> bytes:
        return self._file.readline(self._end - self._file.tell())

    def tell(self) -> int:
        return self._file.tell()


def read_pickle(file: BinaryIO, end: int, find_global: FindGlobal, persistent_load: PersistentLoad) -> Any:
    """Return what one pickle at the file's position describes, and leave the position just after it.

    `end` is the offset that the pickle must not pass. `find_global(module, name)` gives the `Function` for a
    global or raises; `persistent_load(identifier)` gives the record for a persistent identifier or raises.
    Raises `PickleError` when the stream is truncated, damaged, too long, or uses an opcode that weights
    do not need.
    """
    machine = _Machine(find_global, persistent_load)
    operations = 0
    position: int | None = None
    try:
        for opcode, argument, position in pickletools.genops(cast(BinaryIO, _Bounded(file, end))):  # noqa: B007
            operations += 1
            if operations > MAX_OPERATIONS:
                raise PickleError(f"the pickle has more than {MAX_OPERATIONS} operations")
            if opcode.name == "STOP":
                return machine.pop()
            machine.run(opcode.name, argument)
    except PickleError as error:
        raise PickleError(f"{error} (byte {position} of the pickle stream)") from error
    except (ValueError, AssertionError, struct.error, OverflowError, DeprecationWarning) as error:
        # The last one is for a backslash out of place, where the caller has made warnings errors.
        raise PickleError(f"the pickle is truncated or damaged: {str(error)[:200]}") from error
    raise PickleError("the pickle is truncated")


def _usable_key(key: Any) -> Any:
    """Return a key that is safe to hash: texts, small integers, None; anything else becomes opaque."""
    if key is None or type(key) in (str, bool, bytes):
        return key
    if type(key) is int and abs(key) < _MAX_KEY_INTEGER:
        return key
    return Opaque()


class _Machine:
    """The stack, the marks and the memo of one pickle, and what each opcode does to them."""

    def __init__(self, find_global: FindGlobal, persistent_load: PersistentLoad) -> None:
        self._find_global = find_global
        self._persistent_load = persistent_load
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []  # the stacks below each mark
        self._memo: dict[int, Any] = {}

    def run(self, name: str, argument: Any) -> None:
        """Carry out one opcode."""
        if name in CONSTANTS:
            self._stack.append(argument)
            return
        action = _ACTIONS.get(name)
        if action is None:
            raise PickleError(f"the opcode {name} is not used by files of weights")
        action(self, argument)

    def pop(self) -> Any:
        if not self._stack:
            raise PickleError("the pickle takes more from its stack than it put there")
        return self._stack.pop()

    def _top(self, kind: type) -> Any:
        if not self._stack or type(self._stack[-1]) is not kind:
            raise PickleError(f"the pickle adds to something that is no {kind.__name__}")
        return self._stack[-1]

    def _pop_to_mark(self) -> list[Any]:
        if not self._marked:
            raise PickleError("the pickle misses a mark")
        items, self._stack = self._stack, self._marked.pop()
        return items

    def mark(self, _: Any) -> None:
        self._marked.append(self._stack)
        self._stack = []

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def duplicate(self, _: Any) -> None:
        value = self.pop()
        self._stack += [value, value]

    def discard(self, _: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._pop_to_mark()

    def tuple_of(self, count: int) -> None:
        if len(self._stack) < count:
            raise PickleError("the pickle takes more from its stack than it put there")
        items = tuple(self._stack[-count:])
        del self._stack[-count:]
        self._stack.append(items)

    def tuple_to_mark(self, _: Any) -> None:
        self.push(tuple(self._pop_to_mark()))

    def list_to_mark(self, _: Any) -> None:
        self.push(self._pop_to_mark())

    def opaque_to_mark(self, _: Any) -> None:
        self._pop_to_mark()
        self.push(Opaque())

    def dict_to_mark(self, _: Any) -> None:
        items = self._pop_to_mark()
        self.push({})
        self._set(items)

    def append(self, _: Any) -> None:
        self._extend([self.pop()])

    def appends(self, _: Any) -> None:
        self._extend(self._pop_to_mark())

    def _extend(self, items: list[Any]) -> None:
        if not self._is_opaque():
            self._top(list).extend(items)

    def add_items(self, _: Any) -> None:
        self._pop_to_mark()
        self._top(Opaque)

    def _is_opaque(self) -> bool:
        return bool(self._stack) and type(self._stack[-1]) is Opaque

    def set_item(self, _: Any) -> None:
        value = self.pop()
        self._set([self.pop(), value])

    def set_items(self, _: Any) -> None:
        self._set(self._pop_to_mark())

    def _set(self, items: list[Any]) -> None:
        if len(items) % 2:
            raise PickleError("the pickle sets a key without a value")
        if self._is_opaque():
            return
        target: dict[Any, Any] = self._top(dict)
        for position in range(0, len(items), 2):
            target[_usable_key(items[position])] = items[position + 1]

    def put(self, key: int) -> None:
        if not 0 <= key < _MAX_MEMO_KEY:
            raise PickleError("the pickle's memo is out of bounds")
        value = self.pop()
        self._stack.append(value)
        self._memo[key] = value

    def memoize(self, _: Any) -> None:
        self.put(len(self._memo))

    def get(self, key: int) -> None:
        if key not in self._memo:
            raise PickleError("the pickle refers to something that it has not built")
        self._stack.append(self._memo[key])

    def global_named(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self.push(self._find_global(module, name))

    def global_from_stack(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        if type(name) is not str or type(module) is not str:
            raise PickleError("the pickle names a global with something that is no text")
        self.push(self._find_global(module, name))

    def reduce(self, _: Any) -> None:
        arguments, function = self.pop(), self.pop()
        if type(arguments) is not tuple or not isinstance(function, Function):
            raise PickleError("the pickle calls something that is no function")
        self.push(function.build(arguments))

    def new_object_with_keywords(self, argument: Any) -> None:
        if type(self.pop()) is not dict:
            raise PickleError("the pickle passes keywords that are no dictionary")
        self.reduce(argument)

    def build(self, _: Any) -> None:
        """Give an object its state. Only `Attributes` keep it: attributes of a dictionary are no weights."""
        state = self.pop()
        target = self.pop()
        if isinstance(target, Function):
            raise PickleError(f"the pickle changes {target.name} itself")
        if isinstance(target, Attributes):
            target.state = state
        self.push(target)

    def persistent_text(self, argument: str) -> None:
        self.push(self._persistent_load(argument))

    def persistent(self, _: Any) -> None:
        self.push(self._persistent_load(self.pop()))


def _nothing(machine: _Machine, argument: Any) -> None:
    del machine, argument


_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": _nothing,
    "FRAME": _nothing,
    "MARK": _Machine.mark,
    "POP": _Machine.discard,
    "POP_MARK": lambda machine, _: _nothing(machine, machine._pop_to_mark()),
    "DUP": _Machine.duplicate,
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_SET": lambda machine, _: machine.push(Opaque()),
    "TUPLE": _Machine.tuple_to_mark,
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "LIST": _Machine.list_to_mark,
    "DICT": _Machine.dict_to_mark,
    "FROZENSET": _Machine.opaque_to_mark,
    "APPEND": _Machine.append,
    "APPENDS": _Machine.appends,
    "ADDITEMS": _Machine.add_items,
    "SETITEM": _Machine.set_item,
    "SETITEMS": _Machine.set_items,
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "GLOBAL": _Machine.global_named,
    "STACK_GLOBAL": _Machine.global_from_stack,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.reduce,
    "NEWOBJ_EX": _Machine.new_object_with_keywords,
    "BUILD": _Machine.build,
    "PERSID": _Machine.persistent_text,
    "BINPERSID": _Machine.persistent,
}
