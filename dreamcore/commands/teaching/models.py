"""Which model learns: the one that is named, one that is on this machine, the usual one, or the embedded miniature."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...config.teach import TeachConfig
from ...errors import ConfigError
from ...hub.client import may_be_fetched
from ...hub.sizes import Fetch, cached_models, to_fetch
from ...models.folder import ModelFolder
from ...models.locate import TINYWORLD
from ...tinyworld.vocabulary import CLASSES
from .choices import default_model, preset_of, preset_of_id
from .words import ATTEMPTS, Ask

SPARE = 1 << 30
"""Bytes of a disk that are left free when a model is fetched onto it."""


@dataclass(frozen=True)
class Chosen:
    """The model that learns.

    Args:
        name: as settings name it.
        why: it was chosen.
        folder: None until it is fetched.
        fetch: what has to be.
    """

    name: str
    why: str
    folder: ModelFolder | None
    fetch: Fetch | None = None

    @property
    def preset(self) -> str:
        """The preset for it."""
        return preset_of_id(self.name) if self.folder is None else preset_of(self.folder)

    def here(self, config: TeachConfig) -> ModelFolder:
        """The model, fetched where it is not here."""
        return self.folder if self.folder is not None else _open(config, self.name)


def choose_model(config: TeachConfig, class_word: str, backend: str, ask: Ask | None) -> Chosen:
    """The model that learns.

    Raises:
        ConfigError: there is none by that name; or none but the embedded one, which does not know the class.
    """
    name = config.pretrained_model_name_or_path
    if name is not None:
        return _found(config, name, "as you named it", class_word)
    here = list(_on_this_machine(config, backend))
    if here:
        return _offered(config, here, class_word, ask)
    name = default_model()
    fetch = to_fetch(name, config.revision, config.variant, config.cache_dir)
    if fetch is not None:
        return _fetched(config, name, "the usual one, as none is named and none is on this machine", fetch)
    why = "no model is named, none is on this machine, and the Hugging Face Hub cannot be reached"
    return _embedded(config, class_word, f"{why}: it comes with this program, and draws 64 × 64 pixels")


def _found(config: TeachConfig, name: str, why: str, class_word: str) -> Chosen:
    if name == TINYWORLD and not Path(name).exists():
        return _embedded(config, class_word, why)
    if may_be_fetched(name) and (fetch := to_fetch(name, config.revision, config.variant, config.cache_dir)):
        return _fetched(config, name, why, fetch)
    return Chosen(name, why, _open(config, name))


def _fetched(config: TeachConfig, name: str, why: str, fetch: Fetch) -> Chosen:
    if fetch.bytes == 0:
        return Chosen(name, why, _open(config, name))
    free = _free(fetch.folder)
    if free is not None and free < fetch.bytes + SPARE:
        raise ConfigError(
            f"pretrained_model_name_or_path: {name}: {size(fetch.bytes)} to download, and {fetch.folder} has "
            f"{size(free)} free; make room there, or set HF_HOME to a folder on another disk"
        )
    return Chosen(name, why, None, fetch)


def _embedded(config: TeachConfig, class_word: str, why: str) -> Chosen:
    if class_word not in CLASSES:
        raise ConfigError(
            f"class_word: {class_word!r} is nothing that the embedded model {TINYWORLD} knows, which is a miniature of "
            f"{', '.join(CLASSES)} ({why}); name a model with --model: its folder or file, or with a connection its id "
            f"on the Hugging Face Hub, such as {default_model()}"
        )
    return Chosen(TINYWORLD, why, _open(config, TINYWORLD))


def _open(config: TeachConfig, name: str) -> ModelFolder:
    return ModelFolder.of(config.model_copy(update={"pretrained_model_name_or_path": name}))


def _on_this_machine(config: TeachConfig, backend: str) -> Iterator[str]:
    """The ids of models in the Hub's cache that are whole and can be taught on a backend; the usual one first."""
    usual = default_model()
    for name, folder in sorted(cached_models(config.cache_dir), key=lambda found: (found[0] != usual, found[0])):
        with suppress(ConfigError):
            family = ModelFolder.open(str(folder)).family
            if backend not in family.absent and not family.upscales:
                yield name


def _offered(config: TeachConfig, here: list[str], class_word: str, ask: Ask | None) -> Chosen:
    """One of the models on this machine, asked for where there is somebody to answer."""
    usual = default_model()
    options = [(name, "on this machine") for name in here]
    options += [(usual, "the usual one, to be downloaded")] * (usual not in here)
    options += [(TINYWORLD, "the embedded miniature, 64 × 64 pixels: for a try")] * (class_word in CLASSES)
    if ask is None:
        return _found(config, here[0], "the first of the models on this machine; --model names another", class_word)
    if len(options) == 1:
        return _found(config, here[0], "the one that is on this machine", class_word)
    lines = [f"  {number}  {name}  ({what})" for number, (name, what) in enumerate(options, 1)]
    question = "\n".join(["Which model?", *lines, f"A number, 1 to {len(options)} [1]: "])
    for _ in range(ATTEMPTS):
        answer = ask(question).strip() or "1"
        if answer.isdecimal() and 0 < int(answer) <= len(options):
            return _found(config, options[int(answer) - 1][0], "as you chose", class_word)
        question = f"{answer!r} is no number of these; 1 to {len(options)}: "
    raise ConfigError("pretrained_model_name_or_path: none was chosen; name one with --model")


def _free(folder: Path) -> int | None:
    """Bytes free on the disk that a folder is, or will be, on."""
    there = next((one for one in (folder, *folder.parents) if one.exists()), None)
    with suppress(OSError):
        return shutil.disk_usage(there).free if there is not None else None
    return None


def size(count: float) -> str:
    """Bytes in words, as disks and downloads are counted.

    >>> size(4_270_000_000)
    '4.3 GB'
    """
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.0f} MB"
