"""Pickles read without running anything: a machine for their opcodes that builds plain values and imports nothing.

Python's own unpickler looks names up and calls them; this one knows a name as two words.  What its reader admits it
answers itself, what merely lies beside weights (a training loop's notes) becomes `Inert`, and any other name ends the
reading.  Every length is bounded by the bytes that are there, and no value is looked into, compared or hashed but for
plain keys, so that a small file cannot ask for much.

Source: CPython's `Lib/pickletools.py`, which also takes the bytes apart here.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

LIMIT = 64 << 20
"""Bytes of a pickle; one that names ten thousand tensors has two million."""
PIECE = 1 << 16
"""Bytes from which on a piece of a pickle is not copied."""
_NOTES = ("pytorch_lightning.", "lightning.", "lightning_fabric.", "omegaconf.")
"""Modules whose objects lie beside weights in checkpoints of training."""
_TYPES = {"set", "frozenset", "list", "dict", "int", "float", "complex", "bytearray", "slice", "range", "object"}
_PLAIN = {
    "builtins": _TYPES,
    "__builtin__": _TYPES,
    "copyreg": {"_reconstructor"},
    "copy_reg": {"_reconstructor"},
    "collections": {"defaultdict", "Counter", "deque"},
    "typing": {"Any"},
    "argparse": {"Namespace"},
    "pathlib": {"PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "Path"},
    "numpy": {"dtype", "ndarray", "bool_"},
    "numpy.core.multiarray": {"scalar", "_reconstruct"},
    "numpy._core.multiarray": {"scalar", "_reconstruct"},
    "_codecs": {"encode"},
}
"""Names that such notes are made of besides, by module."""
_CONSTANTS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_FIXED = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict}


class Refused(Exception):
    """What a pickle holds that is not read, in words."""


class Name(NamedTuple):
    """A class or function, as two words: it is not looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Inert:
    """Stands for an object of a class that is not read, and for whatever is put into it."""

    def __init__(self, name: object):
        self.name = str(name)


class Built:
    """What a name that is called may answer so that a state can be given to it."""

    state: Any = None


class Window:
    """A stretch of a mapped file, read from its beginning on as a file is.

    Args:
        content: the file.
        start: where the stretch begins.
        end: where it ends.
        limit: bytes of it that are read at most, without those that are handed out as they lie in the file: single
            pieces of `PIECE` bytes or more.
    """

    def __init__(self, content: Any, start: int, end: int, limit: int = LIMIT):
        self._content, self.at, self._end, self._left = content, start, end, limit

    def read(self, count: int) -> bytes | memoryview:
        """As many bytes as there are."""
        start, self.at = self.at, min(self.at + max(count, 0), self._end)
        if self.at - start >= PIECE:
            return memoryview(self._content)[start : self.at]
        self._left -= self.at - start
        if self._left < 0:
            raise Refused(f"is a pickle of more than {LIMIT >> 20} MiB")
        return bytes(self._content[start : self.at])

    def readline(self) -> bytes:
        """Bytes up to the next line feed and with it; of names and numbers, so that a long one is none."""
        found = self._content.find(b"\n", self.at, min(self._end, self.at + PIECE - 1))
        if found < 0:
            raise ValueError("a line does not end")
        return bytes(self.read(found + 1 - self.at))


def load(
    stream: Window,
    admitted: Mapping[Name, Callable[..., Any] | None],
    persistent: Callable[[Any], Any],
) -> Any:
    """The value of the pickle at the window's beginning; the window stands behind it afterwards.

    Args:
        admitted: names that may stand there, each with what answers where it is called.
        persistent: what is answered for a persistent id.

    Raises:
        Refused: it holds another name, or an opcode that weights do not need.
        Exception: any other where it is damaged.
    """
    return _Machine(admitted, persistent).run(stream)


class _Machine:
    def __init__(
        self,
        admitted: Mapping[Name, Callable[..., Any] | None],
        persistent: Callable[[Any], Any],
    ):
        self.admitted, self.persistent = admitted, persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # one stack for each mark that is open
        self.memo: dict[int, Any] = {}

    def run(self, stream: Window) -> Any:
        for opcode, argument, _ in pickletools.genops(stream):  # type: ignore[arg-type]
            name = opcode.name
            if name == "STOP":
                return self.stack.pop()
            if name in _CONSTANTS:
                self.stack.append(argument)
            elif name in _FIXED:
                self.stack.append(_FIXED[name])
            elif name in _EMPTY:
                self.stack.append(_EMPTY[name]())
            elif handle := getattr(self, f"_{name.lower()}", None):
                handle(argument)
            else:
                raise Refused(f"holds {name}, which weights do not need")
        raise ValueError("it does not end")

    def _proto(self, _: Any) -> None:
        pass

    _frame = _proto

    def _mark(self, _: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def _since_mark(self) -> list[Any]:
        found, self.stack = self.stack, self.below.pop()
        return found

    def _pop(self, _: Any) -> None:
        self.stack.pop()

    def _pop_mark(self, _: Any) -> None:
        self._since_mark()

    def _put(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    _binput = _long_binput = _put

    def _memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _get(self, place: int) -> None:
        self.stack.append(self.memo[place])

    _binget = _long_binget = _get

    def _tuple(self, _: Any) -> None:
        found = tuple(self._since_mark())
        self.stack.append(found)

    def _tuple1(self, _: Any) -> None:
        self.stack[-1:] = [tuple(self.stack[-1:])]

    def _tuple2(self, _: Any) -> None:
        self.stack[-2:] = [tuple(self.stack[-2:])]

    def _tuple3(self, _: Any) -> None:
        self.stack[-3:] = [tuple(self.stack[-3:])]

    def _list(self, _: Any) -> None:
        found = self._since_mark()
        self.stack.append(found)

    def _dict(self, _: Any) -> None:
        items = self._since_mark()
        self.stack.append({})
        self._fill(items)

    def _empty_set(self, _: Any) -> None:
        self.stack.append(Inert("set"))

    def _frozenset(self, _: Any) -> None:
        self._since_mark()
        self.stack.append(Inert("frozenset"))

    def _additems(self, _: Any) -> None:
        self._since_mark()
        if not isinstance(self.stack[-1], Inert):
            raise ValueError("items for what is no set")

    def _append(self, _: Any) -> None:
        self._extend([self.stack.pop()])

    def _appends(self, _: Any) -> None:
        self._extend(self._since_mark())

    def _extend(self, items: list[Any]) -> None:
        if isinstance(self.stack[-1], list):
            self.stack[-1] += items
        elif not isinstance(self.stack[-1], Inert):
            raise ValueError("items for what is no list")

    def _setitem(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._fill([key, value])

    def _setitems(self, _: Any) -> None:
        self._fill(self._since_mark())

    def _fill(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, Inert):
            return
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("items for what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int | float | Name | Inert | None):  # a tuple's hash may take for ever
                raise Refused(f"holds a {type(key).__name__} as a key")
            target[key] = value

    def _global(self, words: str) -> None:
        module, _, name = words.partition(" ")
        self._named(Name(module, name))

    def _stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise ValueError("a name that is no text")
        self._named(Name(module, name))

    def _named(self, name: Name) -> None:
        note = name.module.startswith(_NOTES) or name.name in _PLAIN.get(name.module, ())
        if name not in self.admitted and not note:
            raise Refused(f"holds {str(name)[:200]}, which weights do not need; only arrays are read from such files")
        self.stack.append(name)

    def _reduce(self, _: Any) -> None:
        arguments, name = self.stack.pop(), self.stack.pop()
        if not isinstance(arguments, tuple) or not isinstance(name, Name):
            raise Refused("calls what is no name")
        answer = self.admitted.get(name)
        self.stack.append(answer(*arguments) if answer is not None else Inert(name))

    def _newobj(self, _: Any) -> None:
        _arguments, name = self.stack.pop(), self.stack.pop()
        self.stack.append(Inert(name if isinstance(name, Name) else "no name"))

    def _newobj_ex(self, _: Any) -> None:
        self.stack.pop()
        self._newobj(None)

    def _build(self, _: Any) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Built):
            self.stack[-1].state = state
        elif not isinstance(self.stack[-1], Inert | dict):  # whose attributes nobody needs
            raise Refused("sets attributes of what has none")

    def _persid(self, key: Any) -> None:
        self.stack.append(self.persistent(key))

    def _binpersid(self, _: Any) -> None:
        self.stack.append(self.persistent(self.stack.pop()))
