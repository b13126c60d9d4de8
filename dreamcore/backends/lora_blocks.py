"""Which blocks of a denoiser get LoRA factors, by patterns of their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ..errors import ConfigError

B_LORA = {"content": "up_blocks.0.attentions.0", "style": "up_blocks.0.attentions.1"}
"""B-LoRA's blocks of SDXL (arXiv 2403.14572, section 4; diffusers' `train_dreambooth_lora_sdxl_advanced.py`)."""
_NUMBERED = ("transformer_blocks", "layers")
"""What lists of transformer blocks are called in denoisers."""


@dataclass(frozen=True)
class Blocks:
    """Blocks of a component, as they were asked for."""

    asked: tuple[str, ...]
    component: str

    @classmethod
    def of(cls, asked: Sequence[str], component: str) -> Blocks:
        """Of a setting's words."""
        return cls(tuple(word.strip() for word in asked), component)

    def within(self, component: str, layers: Iterable[str]) -> set[str]:
        """The layers that lie in these blocks; of another component all.

        Raises:
            ConfigError: a block that has none of them, naming those that have.
        """
        layers = set(layers)
        if component != self.component:
            return layers
        found: dict[str, set[str]] = {word: self._in(word, layers) for word in self.asked}
        if unknown := [word for word, own in found.items() if not own]:
            raise ConfigError(
                f"lora_blocks: {', '.join(unknown)}: no such block of the {component} has layers of lora_layers; "
                f"there are {', '.join(blocks_of(layers)) or 'none'}"
            )
        return set().union(*found.values())

    def _in(self, word: str, layers: set[str]) -> set[str]:
        return {layer for pattern in _patterns(word, self.component) for layer in layers if pattern.match(layer)}


def _patterns(word: str, component: str) -> list[re.Pattern[str]]:
    """What begins the names of a block's layers.

    >>> [bool(_patterns("a.0-1", "unet")[0].match(name)) for name in ("a.1.to_q", "a.2.to_q", "b.a.1.to_q")]
    [True, False, False]
    """
    word = B_LORA.get(word, word.removeprefix(f"{component}."))
    if re.fullmatch(r"\d+(-\d+)?", word):
        return [pattern for name in _NUMBERED for pattern in _patterns(f"{name}.{word}", component)]
    return [re.compile("".join(_part(part) + r"\." for part in word.split(".")))]


def _part(part: str) -> str:
    if part == "*":
        return r"\d+"
    if match := re.fullmatch(r"(\d{1,4})-(\d{1,4})", part):
        return f"(?:{'|'.join(map(str, range(int(match[1]), int(match[2]) + 1))) or '(?!)'})"
    return re.escape(part)


def blocks_of(layers: Iterable[str]) -> list[str]:
    """Names of the smallest blocks that hold layers, numbers that follow each other as a range.

    >>> blocks_of(["a.0.attentions.1.b.0.q", "a.0.attentions.0.b.3.q", "c.2.q", "c.3.q"])
    ['a.0.attentions.0-1', 'c.2-3']
    """
    numbers: dict[str, set[int]] = {}
    for layer in layers:
        if match := re.match(r"((?:\w+\.(?:\d+\.)?)?(?:attentions|resnets)|\w+)\.(\d+)\.", layer):
            numbers.setdefault(match[1], set()).add(int(match[2]))
    found = []
    for name, own in sorted(numbers.items()):
        for first, last in _ranges(sorted(own)):
            found.append(f"{name}.{first}" if first == last else f"{name}.{first}-{last}")
    return found


def _ranges(numbers: Sequence[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number - 1:
            found[-1] = (found[-1][0], number)
        else:
            found.append((number, number))
    return found
