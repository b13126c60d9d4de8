"""YAML as its version 1.2 reads it (the core schema); to PyYAML, of 1.1, `010` is 8, `1:30` is 90 and `no` is false.

One thing of 1.1 stays: `<<` merges mappings, for settings that several concepts share.
"""

from __future__ import annotations

import re
from copy import deepcopy
from functools import lru_cache
from typing import Any

import yaml

from .numbers import WrittenFloat, WrittenInt

TAG = "tag:yaml.org,2002:"
CORE = (
    # tag, what a plain scalar of it looks like (YAML 1.2.2, section 10.3.2), the letters that it can begin with
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
)


class Loader(yaml.SafeLoader):
    """Plain values, each name once in its mapping."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own, filled below

    def compose_mapping_node(self, anchor: Any) -> Any:
        node = super().compose_mapping_node(anchor)
        seen = set[str]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value}: given twice; give it once", key.start_mark
                )
            seen.update([key.value] if isinstance(key, yaml.ScalarNode) else [])
        return node

    def construct_int(self, node: Any) -> int:
        text = str(self.construct_scalar(node))
        return WrittenInt(text, int(text[2:], {"0o": 8, "0x": 16}[text[:2]]) if text[:2] in ("0o", "0x") else int(text))

    def construct_float(self, node: Any) -> float:
        text = str(self.construct_scalar(node))
        return WrittenFloat(text, float(text.replace(".inf", "inf").replace(".nan", "nan")))


for _tag, _pattern, _letters in CORE:
    Loader.add_implicit_resolver(f"{TAG}{_tag}", re.compile(rf"^(?:{_pattern})$"), _letters)
Loader.add_constructor(f"{TAG}int", Loader.construct_int)
Loader.add_constructor(f"{TAG}float", Loader.construct_float)


def load(text: str) -> Any:
    """What one YAML document holds; a run's settings are read again and again, and parsed once."""
    return deepcopy(_parsed(text))


@lru_cache(maxsize=8)
def _parsed(text: str) -> Any:
    return yaml.load(text, Loader=Loader)
