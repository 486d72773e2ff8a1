"""Reads the pickles of CIFAR without Python's unpickler: nothing is imported, called or allocated on their word.

A pickle is a program for a small stack machine. `pickletools` of the standard library lists its instructions; this
machine knows those that numbers, texts, lists, dictionaries and arrays of bytes need, and refuses the rest. So no code
runs, no NumPy object is made from a state that the file chose, a memory slot of any number costs one entry, and keys
are texts, since hashing a deeply nested tuple overflows the stack.
"""

from __future__ import annotations

import pickletools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.printable import printable

_MARK = object()
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_KEEP = ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE")
_FETCH = ("GET", "BINGET", "LONG_BINGET")
# What NumPy and the codecs call when they are pickled: by name here, never by import.
_ENCODE = "_codecs encode"
_NDARRAY, _DTYPE = "numpy ndarray", "numpy dtype"
_RECONSTRUCT = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
_FROMBUFFER = ("numpy.core.numeric _frombuffer", "numpy._core.numeric _frombuffer")
_BYTES = ("u1", "|u1", "uint8")


class PickleError(ValueError):
    """The pickle is damaged, or asks for more than a CIFAR batch has a use for; one line."""


class _Name(str):
    """Something that the pickle would have imported."""


class _Dtype:
    """A NumPy type, known only by whether it is that of bytes."""

    def __init__(self, is_bytes: bool) -> None:
        self.is_bytes = is_bytes


class _Array:
    """An array, empty until its state arrives."""

    value: NDArray[np.uint8] | None = None

    def fill(self, state: Any) -> None:
        """Takes NumPy's state: version, shape, type, whether columns come first, bytes."""
        if not (isinstance(state, tuple) and len(state) == 5 and state[3] is False):
            raise PickleError("holds an array in a form that CIFAR does not have")
        self.value = _array(state[4], state[2], state[1])


def _array(data: Any, dtype: Any, shape: Any) -> NDArray[np.uint8]:
    if isinstance(data, str):
        data = data.encode("latin1")
    sides = shape if isinstance(shape, tuple) else ()
    if not (isinstance(dtype, _Dtype) and dtype.is_bytes and isinstance(data, bytes | bytearray)):
        raise PickleError("holds an array that is not one of bytes")
    if not (1 <= len(sides) <= 3 and all(type(side) is int and 0 <= side <= len(data) for side in sides)):
        raise PickleError("holds an array whose shape and bytes do not fit")
    if np.prod(np.array(sides, dtype=object)) != len(data):
        raise PickleError("holds an array whose shape and bytes do not fit")
    return np.frombuffer(data, dtype=np.uint8).reshape(sides)


def _call(name: Any, arguments: Any) -> Any:
    """What the few known calls give; the others are refused by name."""
    if not isinstance(name, _Name) or not isinstance(arguments, tuple):
        raise PickleError("calls what is no function")
    if name == _ENCODE and len(arguments) in (1, 2) and isinstance(arguments[0], str):
        if arguments[1:] not in ((), ("latin1",), ("latin-1",)):
            raise PickleError("asks for an encoding that CIFAR does not have")
        return arguments[0].encode("latin1")
    if name in _RECONSTRUCT and arguments[:1] == (_NDARRAY,):
        return _Array()
    if name == _DTYPE and arguments and isinstance(arguments[0], str):
        return _Dtype(arguments[0] in _BYTES)
    if name in _FROMBUFFER and len(arguments) == 4 and arguments[3] == "C":
        made = _Array()
        made.value = _array(*arguments[:3])
        return made
    asked = printable(name.replace(" ", ".")[:120])
    raise PickleError(f"asks for {asked}, which a CIFAR batch has no use for")


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def above_mark(self) -> list[Any]:
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise IndexError
        found = self.stack[at + 1 :]
        del self.stack[at:]
        return found

    def into(self, kind: type, values: list[Any]) -> None:
        """Adds values to the list, or pairs to the dictionary, on top of the stack."""
        target: Any = self.stack[-1]
        if not issubclass(type(target), kind):
            raise PickleError(f"adds to what is no {kind.__name__}")
        if kind is list:
            target += values
        elif not all(isinstance(key, str | bytes) for key in values[::2]):
            raise PickleError("has a key that is no text")
        else:
            target.update(zip(values[::2], values[1::2], strict=True))

    def pop(self, count: int) -> list[Any]:
        if count > len(self.stack):
            raise IndexError
        found = self.stack[len(self.stack) - count :]
        del self.stack[len(self.stack) - count :]
        return found

    def step(self, name: str, argument: Any, pushes: bool) -> None:
        """One instruction; `pushes`: it does no more than push its argument."""
        stack = self.stack
        if name in ("PROTO", "FRAME", "STOP"):
            return
        if name in _KEEP:
            self.memo[len(self.memo) if argument is None else argument] = stack[-1]
        elif name in _FETCH:
            stack.append(self.memo[argument])
        elif pushes:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            stack.append(tuple(self.pop(_TUPLES[name])))
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("EMPTY_DICT", "EMPTY_LIST"):
            stack.append({} if name == "EMPTY_DICT" else [])
        elif name == "TUPLE":
            stack.append(tuple(self.above_mark()))
        elif name in ("LIST", "DICT"):
            values = self.above_mark()
            stack.append([] if name == "LIST" else {})
            self.into(list if name == "LIST" else dict, values)
        elif name in ("APPEND", "SETITEM"):
            values = self.pop(1 if name == "APPEND" else 2)
            self.into(list if name == "APPEND" else dict, values)
        elif name in ("APPENDS", "SETITEMS"):
            values = self.above_mark()
            self.into(list if name == "APPENDS" else dict, values)
        elif name == "GLOBAL":
            stack.append(_Name(argument))
        elif name == "STACK_GLOBAL":
            module, attribute = self.pop(2)
            if not (isinstance(module, str) and isinstance(attribute, str)):
                raise PickleError("imports what has no name")
            stack.append(_Name(f"{module} {attribute}"))
        elif name == "REDUCE":
            function, arguments = self.pop(2)
            stack.append(_call(function, arguments))
        elif name == "BUILD":
            (state,) = self.pop(1)
            if isinstance(stack[-1], _Array):
                stack[-1].fill(state)
            elif not isinstance(stack[-1], _Dtype):  # a type's state is of no interest: bytes have no order
                raise PickleError("changes the inside of an object")
        else:
            raise PickleError(f"has the instruction {name}, which a CIFAR batch has no use for")


def _pushes(code: Any) -> bool:
    return code.arg is not None and not code.stack_before and len(code.stack_after) == 1 and code.name not in _OTHERS


_OTHERS = frozenset((*_FETCH, "GLOBAL", "EXT1", "EXT2", "EXT4", "PERSID", "INST"))


def read(data: bytes) -> dict[str, Any]:
    """The dictionary that a CIFAR pickle holds: texts, bytes, numbers, lists, and arrays of uint8.

    Raises:
        PickleError: it is damaged, or would do more than that.
    """
    machine = _Machine()
    try:
        for code, argument, _ in pickletools.genops(data):
            machine.step(code.name, argument, _pushes(code))
        (value,) = machine.stack
    except PickleError:
        raise
    except (ValueError, KeyError, IndexError, TypeError, OverflowError) as error:
        raise PickleError(f"is damaged ({' '.join(str(error).split())[:120] or type(error).__name__})") from None
    if type(value) is not dict:
        raise PickleError(f"holds a {type(value).__name__} and no dictionary")
    arrays = {key: item.value if isinstance(item, _Array) else item for key, item in value.items()}
    return {key.decode("latin1") if isinstance(key, bytes) else key: item for key, item in arrays.items()}
