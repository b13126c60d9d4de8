"""`dreambooth configs`: the presets, and the trainers that `--like` knows."""

from __future__ import annotations

from collections.abc import Sequence

from dreamcore.config import preset_names
from dreamcore.config.compat import SYSTEMS
from dreamcore.config.files import preset_about
from dreamcore.errors import ConfigError


def run(about: str, argv: Sequence[str]) -> int:
    """Print them, each with a line about it."""
    if {"-h", "--help"} & set(argv):
        print(f"usage: dreambooth configs\n\n{about}")
        return 0
    if argv:
        raise ConfigError(f"configs: takes no arguments; received {' '.join(argv)}")
    rows = {name: preset_about(name) for name in preset_names()}
    print("presets, for --config:", *(f"  {name:<16} {line}" for name, line in rows.items()), sep="\n")
    likes = {one.name: one.about for one in SYSTEMS.values()}
    print("other trainers, for --like:", *(f"  {name:<16} {line}" for name, line in likes.items()), sep="\n")
    return 0
