"""Write dreamcore/config/keywords.py, the settings as keyword arguments: `python -m tools.house.write_keywords`."""

from __future__ import annotations

import keyword
import sys
import textwrap
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

from dreamcore.config import Settings
from dreamcore.config.base import Strict, kinds_of
from dreamcore.config.describe import aliases, place
from dreamcore.config.look import DataConfig
from tests.support.paths import ROOT
from tools.house.write_settings import COMMANDS

FILE = ROOT / "dreamcore" / "config" / "keywords.py"
HEAD = '''"""The settings as keyword arguments, for type checkers and editors alone: nothing imports this at run time.

Written from the settings themselves by `python -m tools.house.write_keywords`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypedDict

from .concepts import Concept

# fmt: off
'''
WIDTH = 120


def document() -> str:
    """A class for each class of settings: every setting's name, type and help."""
    classes = dict.fromkeys(owner for cls in {**COMMANDS, "data": DataConfig}.values() for owner in _owners(cls))
    return HEAD + "".join(f"\n\n{chr(10).join(_class(cls))}\n" for cls in classes)


def _owners(cls: type[Settings]) -> Iterator[type[Settings]]:
    """The classes that a configuration is put together from, itself last."""
    yield from (one for one in reversed(cls.__mro__) if issubclass(one, Settings) and one is not Settings)


def _name(cls: type[Settings]) -> str:
    return f"{cls.__name__.removesuffix('Config').removesuffix('Settings')}{'' if _whole(cls) else 'Group'}Keywords"


def _whole(cls: type[Settings]) -> bool:
    return cls.__name__.endswith("Config")


def _class(cls: type[Settings]) -> Iterator[str]:
    bases = [_name(base) for base in reversed(cls.__bases__) if issubclass(base, Settings) and base is not Settings]
    line = f"class {_name(cls)}({', '.join([*(bases or ['TypedDict']), 'total=False'])}):"
    yield from textwrap.wrap(line, WIDTH, subsequent_indent=" " * 8)
    yield from _text((cls.__doc__ or "").partition("\n\n")[0])
    for name in vars(cls).get("__annotations__", {}):
        inherited = any(name in base.model_fields for base in cls.__bases__ if issubclass(base, Settings))
        if name not in cls.model_fields or inherited:  # a dictionary's type cannot be changed by one that builds on it
            continue
        types = _types(cls, name)
        yield ""
        yield from _field(name, types)
        yield from _text(cls.model_fields[name].description or "")
        for other in aliases(name):
            if not keyword.iskeyword(other):
                yield from _field(other, types)
                yield from _text(f"Another name of `{name}`.")


def _types(cls: type[Settings], name: str) -> list[str]:
    field = cls.model_fields[name]
    path = place(name, field) is not None
    found = [text for kind in kinds_of(field.annotation) for text in _type(kind, path)]
    return [*found, *(["None"] if type(None) in get_args(field.annotation) else [])]


def _type(kind: Any, path: bool) -> list[str]:
    """A type as Python code; a path may be given as one, and several of a thing as any sequence, or as one."""
    if get_origin(kind) is Literal:
        return [f"Literal[{', '.join(repr(word) for word in get_args(kind))}]"]
    if get_origin(kind) is list:
        (of,) = get_args(kind)
        if issubclass(of, Strict):
            return [f"Sequence[{of.__name__} | Mapping[str, Any]]"]
        one = " | ".join(_type(of, path))
        return [one, f"Sequence[{one}]"]
    return ["str", "Path"] if kind is str and path else [kind.__name__]


def _field(name: str, types: list[str]) -> Iterator[str]:
    line = f"    {name}: {' | '.join(types)}".replace("'", '"')
    if len(line) <= WIDTH:
        yield line
        return
    head, _, rest = line.partition("Literal[")
    words, _, tail = rest.rpartition("]")
    yield f"{head}Literal["
    yield from textwrap.wrap(words, WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 8)
    yield f"    ]{tail}"


def _text(words: str) -> Iterator[str]:
    body = " ".join(words.split()).replace("\\", "\\\\")
    yield from textwrap.wrap(
        f'"""{body}"""', WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 4, break_long_words=False
    )


if __name__ == "__main__":
    FILE.write_text(document(), encoding="utf-8")
    sys.stdout.write(f"{FILE}\n")
