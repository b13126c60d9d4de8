"""`dreambooth convert SOURCE TARGET`, and its `merge`, `resize` and `extract`: weights in other forms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import dreamcore
from dreamcore.config import Settings, load_config
from dreamcore.config.convert import ConvertConfig, ExtractConfig, MergeConfig, ResizeConfig

from .flags import parse_settings

if TYPE_CHECKING:
    from dreamcore.commands.conversion import Conversion


class Part(NamedTuple):
    """A sub-command: its settings, what does it, and its help."""

    settings: type[Settings]
    run: Callable[[Any], Conversion]
    about: str


PARTS: Mapping[str, Part] = {
    "merge": Part(MergeConfig, dreamcore.merge, "Merge LoRAs into one, or into the weights of a model."),
    "resize": Part(ResizeConfig, dreamcore.resize, "Bring a LoRA to another rank, and say the error that it costs."),
    "extract": Part(ExtractConfig, dreamcore.extract, "Make the LoRA that is nearest to the difference of two models."),
}


def run(about: str, argv: Sequence[str]) -> int:
    """Print what was written, and what has no place in it.  A source of a sub-command's name is given as ./NAME."""
    name = argv[0] if argv and argv[0] in PARTS else ""
    more = "\n".join(f"  dreambooth convert {one:<8} {part.about}" for one, part in PARTS.items())
    part = PARTS[name] if name else Part(ConvertConfig, dreamcore.convert, f"{about}\n{more}")
    words = " ".join(part.settings.WORDS).upper()
    own = f"{words} "
    given = parse_settings(part.settings, f"convert {name}".strip(), part.about, argv[1:] if name else argv, own)
    print(*part.run(load_config(part.settings, *given)).in_words(), sep="\n")
    return 0
