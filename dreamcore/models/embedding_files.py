"""Files of new words' embeddings that settings name: a file, or a run's folder that holds one."""

from __future__ import annotations

from pathlib import Path

from ..errors import ConfigError
from ..families.base import short_names
from ..formats.embeddings import Embeddings
from ..io.names import EMBEDDINGS_FILE, LEARNED_FILE, embeddings_name
from .folder import ModelFolder


def embeddings_in(folder: Path) -> Path | None:
    """The file of a run's folder, finished or a checkpoint; None where it has none."""
    names = (embeddings_name(folder), EMBEDDINGS_FILE, LEARNED_FILE)
    return next((folder / name for name in names if (folder / name).is_file()), None)


def open_embeddings(name: str, model: ModelFolder) -> Embeddings:
    """The embeddings that the setting `embeddings` names.

    Raises:
        ConfigError: there are none, or of a form that is not read.
    """
    path = Path(name).expanduser()
    file = embeddings_in(path) if path.is_dir() else path
    if file is None or not file.is_file():
        raise ConfigError(f"embeddings: {name}: no embeddings there; expected a .safetensors file or a run's folder")
    if file.suffix != ".safetensors":
        raise ConfigError(
            f"embeddings: {name}: only .safetensors files are read; a .pt or .bin is a pickle, which could run anything"
        )
    return Embeddings.read(file, short_names(model.text_encoders)[0])
