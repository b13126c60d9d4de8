"""What the photographs are, what they show, and the word that will name it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...backends.installed import choose_backend
from ...config.identifiers import IdentifiersConfig
from ...config.names import nearest
from ...config.places import ARTICLES, BRACES, places_in
from ...config.teach import TeachConfig
from ...data import storage
from ...data.captions import read_captions
from ...data.finding import look
from ...data.formats import image_name
from ...errors import ConfigError, RunError
from ...io.names import INDEX, ONE_FILE
from ...models.folder import ModelFolder
from ...placement.machine import find_machine
from ...text.rare_tokens import CUSTOMARY, known_word
from ...text.tokenizer import Tokenizer
from ..identifiers import identifiers
from .choices import Choices

Ask = Callable[[str], str]
"""Asks in a terminal and returns the answer."""
LONGEST_CLASS = 4
"""Words."""
ATTEMPTS = 3
CAPTIONED = "{identifier} {class}, {caption}"


def photographs(config: TeachConfig) -> Path:
    """The folder of photographs, which may be a zip.

    Raises:
        ConfigError: none is there; with what was meant, where that can be told.
    """
    assert config.instance_data_dir is not None, "`contradictions` asks for it"
    named, word = config.instance_data_dir, config.class_word
    path = Path(named).expanduser()
    setting = f"instance_data_dir: {named}"
    if storage.is_folder(path):
        if (path / INDEX).is_file():
            raise ConfigError(f"{setting} is a model; photographs come first, and a model as --model {named}")
        return path
    if path.is_file():
        if path.suffix.lower() in ONE_FILE:
            raise ConfigError(f"{setting} is a model; photographs come first, and a model as --model {named}")
        if image_name(path.name):
            raise ConfigError(f"{setting} is one photograph; give the folder that it lies in: {path.parent}")
        raise ConfigError(f"{setting} is no folder; give a folder of photographs, or a .zip of one")
    near = _nearest_folder(path)
    if near is None and word is not None and Path(word).expanduser().is_dir():
        raise ConfigError(f"{setting}: no such folder, but {word} is one: dreambooth teach {word} --class {named}")
    hint = f"did you mean {near}?" if near else "put the photographs into a folder, and give its name"
    raise ConfigError(f"{setting}: no such folder; {hint}")


def _nearest_folder(path: Path) -> Path | None:
    """The folder that a path misspells."""
    found = Path(path.anchor)
    for part in path.parts[bool(path.anchor) :]:
        names = [one.name for one in found.iterdir() if one.is_dir()]
        near = part if part in (*names, "..") else nearest(part, names)
        if near is None:
            return None
        found /= near
    return found


def class_of(config: TeachConfig, ask: Ask | None) -> str:
    """What the photographs show, asked for where that is not given.

    Raises:
        ConfigError: it is not given and cannot be asked for, or is no such word.
    """
    for _ in range(ATTEMPTS):
        word = config.class_word
        if word is None:
            if ask is None:
                raise ConfigError(
                    "class_word: what do the photographs show?  Say it in a word or two: "
                    f"dreambooth teach {config.instance_data_dir} --class dog"
                )
            word = ask("What do the photographs show?  A word or two, such as dog, or toy car: ")
        words = word.split()
        words = words[1:] if words and words[0].lower() in ARTICLES else words
        if (wrong := _wrong_class(words, config)) is None:
            return " ".join(words)
        if config.class_word is not None or ask is None:
            raise ConfigError(wrong)
    raise ConfigError(wrong)


def _wrong_class(words: Sequence[str], config: TeachConfig) -> str | None:
    text = " ".join(words)
    if not words:
        return "class_word: nothing was said; a word or two of what the photographs show: --class dog"
    if "/" in text or "\\" in text:
        return f"class_word: {text!r} is a place; say what {config.instance_data_dir} shows, in a word: --class dog"
    if len(words) > LONGEST_CLASS or BRACES.search(text):
        return f"class_word: {text!r} is no class; expected a word or two of what it is one of: dog, toy car, person"
    return None


def captions_of(photos: Path, *, sub_folders: bool) -> list[str | None]:
    """The words that lie beside each photograph, if any do."""
    found = look(photos, "instance_data_dir", sub_folders=sub_folders)
    if not found.captions:
        return []
    words = read_captions(found.images, found.folder)[0]
    return [words.get(image) for image in found.images] if words else []


def choose_words(choices: Choices, class_word: str, captions: Sequence[str | None]) -> None:
    """Choose the class and how captions are used; the identifier is for `choose_identifier`."""
    choices.choose("class_word", class_word, "what the photographs show, as you said")
    if "instance_prompt" not in choices.values:
        choices.choose("instance_prompt", "a photo of {identifier} {class}", "as in the paper, section 3.1")
    if not captions:
        choices.choose("use_captions", False, "no words lie beside the photographs")
        return
    choices.choose("use_captions", True, "words lie beside the photographs")


def choose_identifier(
    choices: Choices, class_word: str, captions: Sequence[str | None], model: ModelFolder, say: Callable[[str], None]
) -> None:
    """Choose the word that names the subject, where the prompts have a place for one, and the captions' template."""
    tokenizer = Tokenizer.known(model)
    own = named_in(captions, class_word)
    rare = own is not None and (tokenizer is None or known_word(tokenizer, own) is None)
    if rare and choices.given.get("identifier", own) == own:
        choices.choose("identifier", own, f"the captions name the subject so: {own} {class_word}")
        return
    if captions and choices.now("use_captions"):
        choices.choose("caption_template", CAPTIONED, "the captions do not name the subject")
    texts = [choices.now("instance_prompt"), choices.now("caption_template") if choices.now("use_captions") else None]
    if "identifier" in choices.given or not any("identifier" in places_in(text) for text in texts):
        return
    say(f"looking for a word that {choices.now('pretrained_model_name_or_path')} hardly knows ...")
    word = _rarest(choices.given, str(choices.now("pretrained_model_name_or_path")), class_word)
    if word is not None:
        choices.choose("identifier", word, "of the model's rare words, the one that means least to it beside the class")
    else:
        choices.choose("identifier", CUSTOMARY[0], "the customary word; no rare word of the model's own was found")


def named_in(captions: Sequence[str | None], class_word: str) -> str | None:
    """The one word that stands before the class in every caption; None where there is none.

    >>> named_in(["a photo of a sks mug on grass", "sks mug at night"], "mug")
    'sks'
    """
    pattern = re.compile(rf"([^\s,.;:]+) {re.escape(class_word)}\b", re.IGNORECASE)
    found = {match[1] if text and (match := pattern.search(text)) else None for text in captions}
    word = found.pop() if len(found) == 1 else None
    return None if word is None or word.lower() in ARTICLES else word


def _rarest(given: Mapping[str, Any], model: str, class_word: str) -> str | None:
    """The first of `dreambooth identifiers`; on a device in a process of its own, which leaves all memory free."""
    known = IdentifiersConfig.model_fields.keys() - {"seed"}
    values = {name: value for name, value in given.items() if name in known and value is not None}
    values |= {"pretrained_model_name_or_path": model, "class_word": class_word, "num_identifiers": 1}
    config = IdentifiersConfig.from_mapping(values)
    if find_machine(choose_backend(config.backend), config.device).on_host:
        try:
            found = [one.word for one in identifiers(config)]
        except (ConfigError, RunError):  # a model without a vocabulary that is understood
            return None
        return found[0] if found else None
    flags = [f"--{name}={_typed(value)}" for name, value in values.items()]
    command = [sys.executable, "-m", "dreamcore.cli", "identifiers", *flags, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return str(json.loads(done.stdout)[0]["word"])
    except (ValueError, LookupError, TypeError):
        return None


def _typed(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
