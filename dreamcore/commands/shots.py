"""The images that `generate` is to make: of a prompt, or of each line of a file, which may say more than its prompt.

`a sks dog --n blurred --w 768 --h 512 --d 42 --s 28 --l 6.5`, as kohya's scripts read them: what should not show,
width, height, seed, steps, strength of guidance.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..config import GenerateConfig
from ..errors import ConfigError
from ..io.text import NotUTF8, read_text
from ..models.folder import ModelFolder
from ..models.settings import guidance

OPTIONS = {"n": "negative", "w": "width", "h": "height", "d": "seed", "s": "steps", "l": "scale"}
"""Letter in a prompt's line -> what it says."""
SEEDS = 2**63
"""Seeds are below this, as those of settings are."""
_OPTION = re.compile(r"\s--(\w+)(?:\s+|$)")


@dataclass(frozen=True)
class Shot:
    """One image."""

    prompt: str
    negative: str
    seed: int
    height: int
    width: int
    steps: int
    scale: float

    @property
    def alike(self) -> tuple[str, int, int, int, float]:
        """What images that are made together share."""
        return self.negative, self.height, self.width, self.steps, self.scale


def shots(config: GenerateConfig, model: ModelFolder) -> list[Shot]:
    """The images, prompt by prompt.

    Raises:
        ConfigError: a file that cannot be read, a line that says what cannot be, or a size that the model cannot have.
    """
    plain = Shot(
        "",
        config.negative_prompt if model.classifier_free else "",
        config.seed,
        config.height or model.native_resolution,
        config.width or model.native_resolution,
        config.num_inference_steps,
        guidance(config.guidance_scale, model),
    )
    _check_size(plain, model)
    if config.prompt is not None:
        asked = [replace(plain, prompt=config.prompt)]
    else:
        asked = list(_of_lines(config, plain, model))
    return [replace(shot, seed=shot.seed + k) for shot in asked for k in range(config.num_images)]


def batches(work: Sequence[Shot], size: int) -> Iterator[list[Shot]]:
    """`size` images at a time, each time of one kind."""
    for _, alike in itertools.groupby(work, lambda shot: shot.alike):
        some = list(alike)
        yield from (some[start : start + size] for start in range(0, len(some), size))


def _check_size(shot: Shot, model: ModelFolder) -> None:
    for name, value in (("height", shot.height), ("width", shot.width)):
        if value < 1 or value % model.size_step:
            raise ConfigError(f"{name}: {value} is not a multiple of {model.size_step}, as this model needs")


def _of_lines(config: GenerateConfig, plain: Shot, model: ModelFolder) -> Iterator[Shot]:
    assert config.prompt_file is not None, "the configuration's check asks for one of them"
    try:
        text = read_text(Path(config.prompt_file).expanduser())
    except (OSError, NotUTF8) as error:
        raise ConfigError(f"prompt_file: {config.prompt_file}: {error}") from None
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise ConfigError(f"prompt_file: {config.prompt_file}: holds no prompt; write one a line")
    for number, line in lines:
        try:
            shot = _of_line(line, plain, model)
            _check_size(shot, model)
        except ValueError as error:
            raise ConfigError(f"prompt_file: {config.prompt_file}: line {number}: {error}") from None
        yield shot


def _of_line(line: str, plain: Shot, model: ModelFolder) -> Shot:
    prompt, *rest = _OPTION.split(" " + line)
    said = dict(zip(rest[::2], (value.strip() for value in rest[1::2]), strict=True))
    if unknown := [letter for letter in said if letter not in OPTIONS]:
        known = ", ".join(f"--{letter} ({what})" for letter, what in OPTIONS.items())
        raise ValueError(f"--{unknown[0]} is not known; {known} are")
    shot = replace(plain, prompt=prompt.strip())
    for letter, value in said.items():
        name = OPTIONS[letter]
        if name == "negative" and not model.classifier_free:
            raise ValueError("--n: this model is not guided by negative words; leave it out")
        kind = {"negative": str, "scale": float}.get(name, int)
        try:
            shot = replace(shot, **{name: kind(value)})
        except ValueError:
            raise ValueError(f"--{letter}: expected a number; received {value!r}") from None
    if shot.steps < 1 or not 0 <= shot.seed < SEEDS or not 0 <= shot.scale < math.inf:
        raise ValueError("--s: expected 1 or more; --l: 0 or more; --d: 0 to 2**63 - 1")
    return shot
