"""The run's prompts: from captions, templates and instance prompts to the numbered list that a backend embeds."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..config import TrainConfig
from ..config.concepts import Concept
from ..config.places import filled, places_in
from ..data import ImageFolder
from ..data.image_set import ImageSet
from ..diffusion.randomness import wording_of_variant
from ..errors import ConfigError
from ..io.text import is_chinese
from .wording import Wording


@dataclass(frozen=True)
class PromptTable:
    """The run's prompts, and which of them belong to which image."""

    prompts: list[str]
    of_image: Mapping[ImageSet, list[list[int]]]
    """Indices into `prompts` of each image's wordings, of which each sample draws one."""
    empty: int | None = None
    """Index of the empty prompt, where captions are dropped out."""

    @classmethod
    def collect(
        cls, of_image: Mapping[ImageSet, Sequence[Sequence[str]]], others: Sequence[str], *, empty: bool
    ) -> PromptTable:
        """Number the distinct prompts of the images, and `others`."""
        texts = [text for images in of_image.values() for wordings in images for text in wordings]
        numbers = {text: i for i, text in enumerate(dict.fromkeys([*texts, *others, *([""] if empty else [])]))}
        numbered = {
            key: [[numbers[text] for text in wordings] for wordings in images] for key, images in of_image.items()
        }
        return cls(list(numbers), numbered, numbers[""] if empty else None)


def instance_prompts(config: TrainConfig, concept: Concept, folder: ImageFolder, number: int = 0) -> list[list[str]]:
    """The wordings of each photograph: of its caption, or the instance prompt.

    There are several where tags are shuffled: a backend learns its prompts once, so their orders are drawn beforehand.

    Args:
        number: the concept's place in the list, which keys the draws.

    Raises:
        ConfigError: photographs without words, by name; a template that cannot be filled.
    """
    captions = [photo.caption for photo in folder.photos]
    wordless = [p.path.name for p in folder.photos if p.caption is None]
    if wordless and concept.instance_prompt is None:
        raise ConfigError(
            f"instance_prompt: needed for the images without a caption file: {', '.join(wordless[:5])}"
            + (f" and {len(wordless) - 5} more" if len(wordless) > 5 else "")
        )
    whole, wording = _wordings(config, concept, folder)
    if wording is None:
        return [[whole.prompt(None)]] * len(captions)
    shuffles = config.shuffle_tags
    count = config.caption_variants if shuffles else 1

    def wordings(image: int, caption: str | None) -> list[str]:
        if caption is None:
            return [whole.prompt(None)]
        draws = (wording_of_variant(config.seed, image, v, number) for v in range(count))
        return list(dict.fromkeys(wording.prompt(caption, draw) for draw in draws))

    return [wordings(image, caption) for image, caption in enumerate(captions)]


def preserved_prompts(
    config: TrainConfig, concept: Concept, folder: ImageFolder, prompts: Sequence[Sequence[str]]
) -> list[list[str]]:
    """Each photograph's wordings about the class in the subject's place, under which the model's own answers are kept.

    That is the class prompt; of captions, what they say with the class word where the identifier stands, as ai-toolkit
    has it (diff_output_preservation).  None where the concept has no words for its class.

    Args:
        prompts: the photographs' wordings.

    Raises:
        ConfigError: a caption without the identifier, which would be taught and kept at once.
    """
    whole = config.class_words(concept)
    identifier = concept.identifier or config.identifier if config.captioned else None
    if whole is None and identifier is None:
        return []
    word = (concept.class_word or config.class_word or "") if identifier else ""

    def about_class(photo: str, captioned: bool, text: str) -> str:
        if whole is not None and not captioned:
            return whole
        said = _without_identifier(text, identifier, word) if identifier else text
        if said != text:
            return said
        if whole is None:
            raise ConfigError(
                f"diff_output_preservation: {photo}: {text!r} has no {identifier!r} that the class could take the "
                "place of; give a class_prompt, or put it there"
            )
        return whole

    return [
        [about_class(photo.path.name, photo.caption is not None, text) for text in wordings]
        for photo, wordings in zip(folder.photos, prompts, strict=True)
    ]


def _without_identifier(text: str, identifier: str, word: str) -> str:
    """
    >>> _without_identifier("sks dog in snow, by sks", "sks", "dog")
    'dog in snow, by dog'
    """
    ending = rf"(?:\s+{re.escape(word)}(?!\w))?" if word else r"\s*"
    return re.sub(rf"(?<!\w){re.escape(identifier)}(?!\w){ending}", lambda _: word, text).strip()


def subject_words(config: TrainConfig, concept: Concept, folder: ImageFolder, prompts: Sequence[Sequence[str]]) -> str:
    """A concept's words for images of it: its instance prompt, or the first of its photographs' `prompts`."""
    return prompts[0][0] if concept.instance_prompt is None else _wordings(config, concept, folder)[0].prompt(None)


def _wordings(config: TrainConfig, concept: Concept, folder: ImageFolder) -> tuple[Wording, Wording | None]:
    """Of photographs without a caption, and of those with one, if captions are used."""
    words = _fillings(config, concept, _texts(config, concept, folder))
    whole = Wording(concept.instance_prompt or "", *words)
    if not config.captioned:
        return whole, None
    shuffles = config.shuffle_tags
    wording = Wording(config.caption_template, *words, shuffles, config.keep_tags if shuffles else 0)
    wording.check("caption_template")
    return whole, wording


def _texts(config: TrainConfig, concept: Concept, folder: ImageFolder) -> list[str]:
    """Whatever may have places to be filled: prompts, captions, template."""
    prompts = [concept.instance_prompt, concept.class_prompt, config.validation_prompt]
    if config.validation_prompt is not None and not config.skip_final_inference:
        prompts.append(config.final_validation_prompt)
    texts = [text for text in (*prompts, *(photo.caption for photo in folder.photos)) if text is not None]
    return [*texts, config.caption_template] if config.captioned else texts


def places(config: TrainConfig, concepts: Sequence[tuple[Concept, ImageFolder]]) -> frozenset[str]:
    """Which settings some text has a place for: `identifier`, `class_word`, where a concept brings none of its own."""
    found = {"identifier", "class_word"} if config.preserves_output and config.captioned else set[str]()
    for concept, folder in concepts:
        texts = _texts(config, concept, folder)
        found |= {name for text in texts for name in places_in(text) if not getattr(concept, name)}
    return frozenset(found)


INSTANCE_PROMPT = "{instance_prompt}"
"""In a validation prompt: the first concept's words."""


def validation_words(config: TrainConfig, concept: Concept, prompt: str, subject: Callable[[], str]) -> str:
    """A validation prompt with its places filled.

    Args:
        concept: the first one.
        subject: gives its words, should they be asked for.
    """
    if INSTANCE_PROMPT in prompt:
        prompt = prompt.replace(INSTANCE_PROMPT, subject())
    return filled(prompt, config.words_for(concept, prompt))


def _fillings(config: TrainConfig, concept: Concept, texts: Sequence[str]) -> tuple[str | None, str | None]:
    """Identifier and class, where some text has a place for them."""
    identifier = class_word = None
    if any("{identifier}" in text for text in texts):
        identifier = concept.identifier or config.identifier
    if any("{class}" in text for text in texts):
        class_word = concept.class_word or config.class_word
    for name in ("identifier", "class_word"):
        value = getattr(concept, name)
        replaced = config.preserves_output and config.captioned
        if value is not None and value not in (identifier, class_word) and not replaced:
            raise ConfigError(f"concepts: {name}={value!r}: given, but no prompt has a place for it. Remove it.")
    return identifier, class_word


def identifier_words(config: TrainConfig, concept: Concept, folder: ImageFolder) -> list[str]:
    """The words that can name the subject: those of the instance prompt, and of what stands around every caption, that
    neither the class prompt nor the word for the class has."""
    wordings = [wording for wording in _wordings(config, concept, folder) if wording is not None]
    said = [wording.own_words() for wording in wordings]
    known = _split(f"{config.class_words(concept) or ''} {wordings[0].class_word or ''}")
    return list(dict.fromkeys(word for text in said for word in _split(text) if word not in known))


def _split(text: str) -> list[str]:
    """Its words without punctuation; Chinese characters, which nothing parts, are words of their own."""
    parted = "".join(f" {letter} " if is_chinese(letter) else letter for letter in text)
    ends = string.punctuation + "".join(letter for letter in set(text) if unicodedata.category(letter)[0] == "P")
    return [word for word in (part.strip(ends) for part in parted.split()) if word]
