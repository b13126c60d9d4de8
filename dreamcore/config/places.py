"""Places in prompts for the identifier, the class word and the caption, and presets' prompts that have such places."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

PLACE = re.compile(r"\{(identifier|class|caption)\}")
BRACES = re.compile(r"\{[^{}]*\}")
SETTINGS = {"identifier": "identifier", "class": "class_word"}
"""Place -> the setting that fills it; a caption fills its own."""
CLASS = "{class}"
ARTICLES = ("a", "an", "the")
EXAMPLES = {"identifier": "--identifier sks", "class": "--class dog"}


def places_in(text: str | None) -> frozenset[str]:
    """The settings (identifier, class_word) that words have a place for."""
    return frozenset(SETTINGS[name] for name in PLACE.findall(text or "") if name in SETTINGS)


def place_in(setting: str, text: str | None, allowed: Sequence[str] = ()) -> str | None:
    """What is wrong with words that hold a place which nothing fills there: the setting and the place; else None.

    Args:
        allowed: the names of those places that are filled.
    """
    for found in PLACE.finditer(text or ""):
        if found[1] not in allowed:
            return (
                f"{setting}: {found[0]} in {text!r} would not be filled in, as it is in instance prompts, captions and "
                "their template; write the word itself"
            )
    return None


def lacking(setting: str, text: str | None, words: Mapping[str, str | None]) -> str | None:
    """What is wrong with words that have a place for what is not given; else None.

    Args:
        words: by place, what fills it.
    """
    for name in PLACE.findall(text or ""):
        if name in SETTINGS and words.get(name) is None:
            return (
                f"{setting}: {text!r} asks for the {name}, and none is given; give {SETTINGS[name]} ({EXAMPLES[name]})"
            )
    return None


def filled(text: str, words: Mapping[str, str | None]) -> str:
    """Words with their places filled; a place for what is not given stays as it is.

    >>> filled("a photo of {identifier} {class}", {"identifier": "sks", "class": "dog"})
    'a photo of sks dog'
    """
    return PLACE.sub(lambda place: words.get(place[1]) or place[0], text)


def class_in(template: str, prompt: str) -> str | None:
    """The class that a prompt names where it is like a template, articles aside; None where it is not.

    >>> class_in("a photo of a {identifier} {class}", "a photo of sks teddy bear")
    'teddy bear'
    """
    groups = {"{identifier}": r"\S+", CLASS: r"(?P<word>[^\s,.;:]+(?: [^\s,.;:]+)*)"}
    form = " ".join(groups.get(word, re.escape(word)) for word in _without_articles(template))
    found = re.fullmatch(form, " ".join(_without_articles(prompt))) if CLASS in template else None
    return found["word"] if found else None


def _without_articles(text: str) -> list[str]:
    return [word for word in text.split() if word.lower() not in ARTICLES]


def settle_templates(
    preset: Mapping[str, Any], given: Mapping[str, Any], template: Any
) -> tuple[dict[str, Any], str | None]:
    """A preset's settings beside those that are given, and what is to be said.

    Its instance prompt is taken where the words for its places are there, else the user's is still asked for.  The
    class that its class prompt asks for is read from the user's instance prompt where that is like the preset's.

    Args:
        template: the preset's instance prompt, which a given one has taken the place of.
    """
    values, said = dict(preset), None
    prompt = given.get("instance_prompt")
    if any({**values, **given}.get(name) is None for name in places_in(str(values.get("instance_prompt") or ""))):
        del values["instance_prompt"]
    asked = CLASS in str(values.get("class_prompt", "")) and given.get("class_word") is None
    if asked and isinstance(template, str) and isinstance(prompt, str) and (word := class_in(template, prompt)):
        values["class_word"] = word
        said = f"class_word {word!r}, as in {prompt!r}; --class says otherwise"
    return values, said
