"""A configuration file that says above each value why it was chosen: `# why`, then the setting."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

_SETTING = re.compile(r"(\w+):")


def write(settings: Mapping[str, Any], reasons: Mapping[str, str], earlier: Path) -> str:
    """The settings as YAML.

    Args:
        reasons: setting -> why; one line each.
        earlier: a file of the same run, whose reasons hold for the settings that are the same there.
    """
    import yaml

    before: dict[str, tuple[str, str]] = {}
    with suppress(OSError, UnicodeDecodeError):
        before = _blocks(earlier.read_text(encoding="utf-8"))
    parts = []
    for name, value in settings.items():
        block = yaml.safe_dump({name: value}, allow_unicode=True)
        why, was = before.get(name, ("", ""))
        said = " ".join(reasons[name].split()) if name in reasons else why if was == block else ""
        parts += [f"# {said}\n" if said else "", block]
    return "".join(parts)


def _blocks(text: str) -> dict[str, tuple[str, str]]:
    """Setting -> (why, its lines), of a file that `write` has written."""
    found, name, why = dict[str, tuple[str, str]](), "", ""
    for line in text.splitlines(keepends=True):
        if line.startswith("# "):
            why = line[2:].strip()
        elif setting := _SETTING.match(line):
            name = setting[1]
            found[name], why = (why, line), ""
        elif name:
            found[name] = (found[name][0], found[name][1] + line)
    return found
