"""What a subject's prompts call it: its rare word and its class, where no setting says them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from .places import ARTICLES, class_in, filled

if TYPE_CHECKING:
    from .concepts import Concept
    from .train import TrainConfig

TEMPLATE = "a photo of {identifier} {class}"
PREPOSITIONS = frozenset(("of", "in", "on", "at", "with", "by", "from", "under"))
"""No class's name has one: of "a painting of dog", painting is no rare word."""


def names_of(config: TrainConfig, concept: Concept) -> tuple[str | None, str | None]:
    """Rare word and class of a concept: as its settings say, or as its prompts tell; None where neither does."""
    return rare_word(config, concept), concept.class_word or config.class_word or _told(config, concept)[1]


def rare_word(config: TrainConfig, concept: Concept) -> str | None:
    """The first of `names_of`, which reads no setting of the class."""
    return concept.identifier or config.identifier or _told(config, concept)[0]


def _told(config: TrainConfig, concept: Concept) -> tuple[str, str] | tuple[None, None]:
    text = concept.instance_prompt or ""
    return names_in(filled(text, config.words_for(concept, text)), config.class_words(concept) or "") or (None, None)


def names_in(prompt: str, class_prompt: str) -> tuple[str, str] | None:
    """Rare word and class of an instance prompt, by its class prompt or, without one that fits, by the paper's wording;
    None where neither tells."""
    return _beside_class(prompt, class_prompt) or _as_in_the_paper(prompt)


def _beside_class(prompt: str, class_prompt: str) -> tuple[str, str] | None:
    """Of a prompt that says of one subject what the other says of its class.

    >>> _beside_class("a photo of sks teddy bear", "a photo of a teddy bear")
    ('sks', 'teddy bear')
    """
    one, other = ([word for word in text.split() if word.lower() not in ARTICLES] for text in (prompt, class_prompt))
    own = [word for word in one if word not in other]
    if len(one) != len(other) + len(own) or not own or [word for word in one if word in other] != other:
        return None
    first = one.index(own[0])
    after = one[first + len(own) :]
    return (" ".join(own), " ".join(after)) if one[first : first + len(own)] == own and after else None


def _as_in_the_paper(prompt: str) -> tuple[str, str] | None:
    """Of a prompt like "a photo of a sks dog", or "a sks dog"."""
    for template in (TEMPLATE, TEMPLATE.removeprefix("a photo of ")):
        word = class_in(template, prompt)
        if word is not None and not PREPOSITIONS & {*word.lower().split()}:
            before = re.sub(rf"\s+{re.escape(word)}$", "", prompt)
            return before.split()[-1], word
    return None


def without_name(prompt: str, identifier: str) -> str:
    """A prompt without the rare word, which nobody knows but the model that was taught it.

    >>> without_name("a photo of sks dog on sks", "sks")
    'a photo of dog on'
    """
    return " ".join(re.sub(rf"(?<!\S){re.escape(identifier)}(?!\S)", " ", prompt).split()) if identifier else prompt
