"""The card of a finished model in its run's folder, README.md: what it is, how it looks, how others load it."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..config import read_config_file
from ..errors import ConfigError
from ..formats.embeddings import Embeddings
from ..hub.card import Learned, Local, model_card
from ..hub.seal import is_card, is_untouched, sealed
from ..hub.selection import last_samples
from ..io.files import numbered, write_atomically
from ..io.names import CONFIG, INDEX, LORA_FILE, MODEL_CARD, embeddings_name, lora_name
from ..runs.manifest import Manifest
from ..runs.next_steps import next_steps, told
from ..runs.status import read_status


def write_card(folder: Path, manifest: Manifest | None, pipeline: str | None = None) -> Path | None:
    """Write the card of a run that has finished; one that somebody has written, or edited, stays as it is.

    Args:
        manifest: the run's records; None where it keeps none.
        pipeline: class of the base model's pipeline; None: as far as the folder tells it.

    Returns:
        Its file; None where there is no finished model, or no configuration, or the card has been edited.

    Raises:
        OSError: the disk is full, or cannot be written.
    """
    whole = (folder / INDEX).is_file()
    try:
        settings = read_config_file(folder / CONFIG)
    except ConfigError:
        return None
    if not whole and not (folder / LORA_FILE).is_file() and not (folder / embeddings_name(folder)).is_file():
        return None
    place = next(place for place in numbered(folder / MODEL_CARD) if is_card(place) or not os.path.lexists(place))
    if os.path.lexists(place) and not is_untouched(place):
        return None
    text = _card(folder, settings, _pipeline(folder) if pipeline is None else pipeline, whole)
    if manifest is not None:
        manifest.own([place.name])
    write_atomically(place, sealed(text))
    return place


def _card(folder: Path, settings: dict[str, Any], pipeline: str, whole: bool) -> str:
    status = read_status(folder)
    name, updates, lora = folder.resolve().name, status.update if status else None, lora_name(folder)
    steps = next_steps(folder, called=Path(name))
    tells_of_folders = bool(settings.get("validation_images") or settings.get("skip_save_text_encoder"))
    return model_card(
        name,
        pipeline,
        settings,
        last_samples(folder, updates),
        updates,
        lora if not whole and (folder / lora).is_file() else None,
        Local("" if tells_of_folders else steps.generate, steps.convert),
        learned_words(folder),
    )


def learned_words(folder: Path) -> Learned | None:
    """What a card says of the new words in a run's folder; None where it has none."""
    file = folder / embeddings_name(folder)
    with suppress(ConfigError, OSError, ValueError):
        found = Embeddings.read(file)
        return Learned(file.name, found.words, list(found.rows))
    return None


def _pipeline(folder: Path) -> str:
    """The class of the base model's pipeline; empty where nothing says it."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        content: Any = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        return str(content["_class_name"])
    with suppress(OSError, ValueError):
        return str(told(folder).get("pipeline", ""))
    return ""
