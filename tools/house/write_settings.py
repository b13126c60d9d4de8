"""Write docs/settings.md from the settings themselves: `python -m tools.house.write_settings`."""

from __future__ import annotations

import sys

from dreamcore.config import GenerateConfig, Settings, TrainConfig
from dreamcore.config.convert import ConvertConfig, ExtractConfig, MergeConfig, ResizeConfig
from dreamcore.config.describe import aliases, as_flag, choices, default_in_words, example, groups, in_files_only
from dreamcore.config.evaluate import EvaluateConfig
from dreamcore.config.identifiers import IdentifiersConfig
from dreamcore.config.used import conditions
from tests.support.paths import ROOT

FILE = ROOT / "docs" / "settings.md"
COMMANDS: dict[str, type[Settings]] = {
    "train": TrainConfig,
    "generate": GenerateConfig,
    "evaluate": EvaluateConfig,
    "identifiers": IdentifiersConfig,
    "convert": ConvertConfig,
    "convert merge": MergeConfig,
    "convert resize": ResizeConfig,
    "convert extract": ExtractConfig,
}


def document() -> str:
    """A table for each subject of each command: every setting, its default, what it is, when it acts, an example."""
    lines = [
        "# Settings",
        "",
        "Every setting of each command: a flag (`--NAME`), a line of a configuration file, an argument in Python.",
        "`dreambooth teach`, `data` and `plan` take those of `train`.  What is given where it cannot act is",
        "refused by name.  In a terminal, `dreambooth train --help NAME` tells it of one, and which presets give it.",
    ]
    for command, cls in COMMANDS.items():
        lines += ["", f"## dreambooth {command}"]
        for title, group in groups(cls).items():
            lines += ["", f"### {title}", "", group.about, ""]
            lines += ["| setting | default | what it is | acts only | example |", "|---|---|---|---|---|"]
            lines += [_row(cls, name) for name in group.names]
    return "\n".join([*lines, ""])


def _row(cls: type[Settings], name: str) -> str:
    field = cls.model_fields[name]
    default = "required" if field.is_required() else f"`{said}`" if (said := default_in_words(field)) else ""
    words = choices(field)
    also = [f"`{other}`" for other in aliases(name) if other not in cls.model_fields]
    what = [field.description or "", *([f"One of {', '.join(words)}."] if words else [])]
    what += [f"Also {', '.join(also)}."] if also else []
    shown = "" if name in in_files_only(cls) else f"`{as_flag(name, example(field))}`"
    cells = (f"`{name}`", default, " ".join(what), conditions(cls, name), shown)
    return f"| {' | '.join(cell.replace('|', '/').replace(chr(10), ' ') for cell in cells)} |"


if __name__ == "__main__":
    FILE.write_text(document(), encoding="utf-8")
    sys.stdout.write(f"{FILE}\n")
