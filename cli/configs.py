"""`dreambooth configs`: the presets, what each needs and where it is from; the trainers that `--like` knows."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from dreamcore.config import preset_names
from dreamcore.config.compat import SYSTEMS
from dreamcore.config.names import nearest
from dreamcore.config.presets import Preset, read_preset
from dreamcore.errors import ConfigError

from .flags import CommandParser
from .layout import wrapped

HEAD = ("preset", "memory", "card", "time", "source of its values")


def run(about: str, argv: Sequence[str]) -> int:
    """Print them, or one preset's file."""
    parser = CommandParser(prog="dreambooth configs", description=about, allow_abbrev=False)
    parser.add_argument("name", nargs="?", metavar="NAME", help="print this preset's file: one to begin your own with")
    parser.add_argument("--json", action="store_true", help="as JSON: what is known of each preset, with its settings")
    asked = parser.parse_args(argv)
    if asked.name is not None:
        preset = _named(asked.name)
        sys.stdout.write(f"{json.dumps(_as_dict(preset), indent=2)}\n" if asked.json else preset.text)
        return 0
    presets = [read_preset(name) for name in preset_names()]
    if asked.json:
        trainers = [{"name": one.name, "about": one.about} for one in SYSTEMS.values()]
        print(json.dumps({"presets": [_as_dict(one) for one in presets], "trainers": trainers}, indent=2))
    else:
        print(*_in_words(presets), sep="\n")
    return 0


def _named(name: str) -> Preset:
    known = preset_names()
    if name in known:
        return read_preset(name)
    if name in SYSTEMS:
        raise ConfigError(f"configs: {name}: another trainer, for --like, and no preset; presets: {', '.join(known)}")
    near = nearest(name, known)
    raise ConfigError(f"configs: {name}: no such preset; " + (f"did you mean {near}?" if near else ", ".join(known)))


def _as_dict(preset: Preset) -> dict[str, Any]:
    return {name: value for name, value in asdict(preset).items() if name != "text"} | {"settings": preset.values}


def _in_words(presets: Sequence[Preset]) -> list[str]:
    rows = [HEAD, *((p.name, f"{p.memory_gib:g} GiB", _card(p), p.time, _short(p.source)) for p in presets)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(HEAD))]
    lines = ['presets, for --config, and `preset = "NAME"` in a file:']
    for row, preset in zip(rows, [None, *presets], strict=True):
        cells = zip(row, widths, strict=True)
        lines.append("  " + "  ".join(cell.ljust(width) for cell, width in cells).rstrip())
        lines += wrapped(preset.about, 6) if preset else []
    how = {preset.memory_how for preset in presets}
    said = (
        "predicted by `dreambooth plan`, at most at once" if how == {"predicted"} else "each file says how it is known"
    )
    lines += wrapped(
        f"Memory is the card's: {said}.  `dreambooth configs NAME` prints a preset: sources in full, settings."
    )
    lines += ["", "other trainers, for --like:"]
    lines += [line for one in SYSTEMS.values() for line in wrapped(one.about, 19, first=f"  {one.name}")]
    return lines


def _card(preset: Preset) -> str:
    return "any" if preset.card_gb is None else f"{preset.card_gb} GB"


def _short(source: str) -> str:
    """A source's address, without what is the same in all."""
    address = re.split(r"[:;,]? |: ", source)[0].rstrip(":;.,")
    if found := re.fullmatch(r"https://github\.com/[^/]+/([^/]+)/blob/[^/]+/(?:.*/)?([^/]+)", address):
        return f"{found[1]}, {found[2]}"
    return re.sub(r"^https://|^.*/(?=[A-Z_]+\.md$)", "", address)
