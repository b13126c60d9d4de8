"""Write docs/settings.md from the settings themselves: `python -m tools.house.write_settings`."""

from __future__ import annotations

import sys
from typing import Literal, get_args, get_origin

from dreamcore.config import GenerateConfig, Settings, TrainConfig
from dreamcore.config.base import kinds_of
from dreamcore.config.convert import ConvertConfig, ExtractConfig, MergeConfig, ResizeConfig
from dreamcore.config.identifiers import IdentifiersConfig
from dreamcore.config.used import conditions
from tests.support.paths import ROOT

FILE = ROOT / "docs" / "settings.md"
COMMANDS: dict[str, type[Settings]] = {
    "train": TrainConfig,
    "generate": GenerateConfig,
    "identifiers": IdentifiersConfig,
    "convert": ConvertConfig,
    "convert merge": MergeConfig,
    "convert resize": ResizeConfig,
    "convert extract": ExtractConfig,
}


def document() -> str:
    """A table for each command: every setting, its default, what it is and when it acts."""
    lines = [
        "# Settings",
        "",
        "Every setting of each command: a flag (`--NAME`), a line of a configuration file, an argument in Python.",
        "`dreambooth data` takes those of `train`.  One that is given where it cannot act is refused by name.",
    ]
    for command, cls in COMMANDS.items():
        lines += [
            "",
            f"## dreambooth {command}",
            "",
            "| setting | default | what it is | acts only |",
            "|---|---|---|---|",
        ]
        for name, field in cls.model_fields.items():
            default = "required" if field.is_required() else "" if field.default is None else f"`{field.default}`"
            kind = kinds_of(field.annotation)[0]
            choices = f" One of {', '.join(get_args(kind))}." if get_origin(kind) is Literal else ""
            cells = (f"`{name}`", default, f"{field.description or ''}{choices}", conditions(cls, name))
            lines.append(f"| {' | '.join(cell.replace('|', '/').replace(chr(10), ' ') for cell in cells)} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    FILE.write_text(document(), encoding="utf-8")
    sys.stdout.write(f"{FILE}\n")
