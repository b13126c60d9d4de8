"""From a photograph's words to the prompt it is trained with: templates and the order of tags.

A backend learns its prompts once (`Backend.set_prompts`).  So where tags are shuffled, a photograph has several
wordings, drawn beforehand (`prompts.instance_prompts`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from ..config.places import BRACES, PLACE
from ..errors import ConfigError


@dataclass(frozen=True)
class Wording:
    """How prompts are made.

    Captions may hold {identifier} and {class} too; other braces in them are theirs ("{{masterpiece}}").
    """

    template: str = "{caption}"
    """Words with places for {identifier}, {class} and {caption}: "a photo of {identifier} {class}, {caption}"."""
    identifier: str | None = None
    """The rare word for the subject."""
    class_word: str | None = None
    """What the subject is one of."""
    shuffle_tags: bool = False
    """Draw a new order of a caption's tags (what its commas part) for every wording."""
    keep_tags: int = 0
    """Tags at the caption's beginning that keep their places."""

    def check(self, setting: str) -> None:
        """Refuse a template that cannot be filled.

        Raises:
            ConfigError: a place of an unknown name, or one for an identifier or class that is not given.
        """
        for brace in BRACES.findall(self.template):
            if not PLACE.fullmatch(brace):
                raise ConfigError(f"{setting}: {brace} is not known; expected {{identifier}}, {{class}} or {{caption}}")
        for name, value in (("identifier", self.identifier), ("class", self.class_word)):
            if value is None and f"{{{name}}}" in self.template:
                raise ConfigError(f"{setting}: {self.template!r} asks for the {name}, and none is given")

    def prompt(self, caption: str | None, rng: np.random.Generator | None = None) -> str:
        """The prompt of one sample.

        Args:
            caption: the photograph's words.
            rng: for the order of tags; may be None where they are not shuffled.

        Raises:
            ConfigError: the template or the caption has a place for words that are not there.
        """
        if caption is not None and self.shuffle_tags:
            assert rng is not None, "shuffling needs a generator"
            caption = shuffle_tags(caption, self.keep_tags, rng)
        own = None if caption is None else self._fill(caption, None)
        return self._fill(self.template, own)

    def own_words(self) -> str:
        """The template's words without a caption's; a place for what is not given stays empty."""
        words = {"identifier": self.identifier, "class": self.class_word}
        return PLACE.sub(lambda place: words.get(place[1]) or "", self.template)

    def _fill(self, text: str, caption: str | None) -> str:
        words = {"identifier": self.identifier, "class": self.class_word, "caption": caption}

        def word(place: re.Match[str]) -> str:
            value = words[place[1]]
            if value is None and place[1] == "caption":
                raise ConfigError(
                    f"prompt {text!r}: has a place for the caption, which only caption_template has (with use_captions)"
                )
            if value is None:
                setting = "class_word" if place[1] == "class" else place[1]
                raise ConfigError(f"prompt {text!r}: asks for the {place[1]}, and none is given; give {setting}")
            return value

        return PLACE.sub(word, text)


def shuffle_tags(caption: str, keep: int, rng: np.random.Generator) -> str:
    """The tags of a caption in a new order, all but the first `keep`; empty tags are dropped."""
    tags = [tag.strip() for tag in caption.split(",") if tag.strip()]
    order = rng.permutation(len(tags[keep:]))
    return ", ".join(tags[:keep] + [tags[keep + i] for i in order])
