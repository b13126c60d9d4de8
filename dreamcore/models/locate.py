"""Where a model lies: in a folder, on the Hub, or in this package."""

from __future__ import annotations

from pathlib import Path

from ..errors import ConfigError
from ..hub.client import is_repo_id
from ..hub.models import download
from .fields import read_json

TINYWORLD = "tinyworld"
"""The embedded model's name."""


def embedded_model() -> Path:
    """Folder of the embedded model, in diffusers layout."""
    return Path(__file__).parents[1] / "tinyworld" / "model"


def locate(name: str, revision: str | None, variant: str | None) -> Path:
    """A model's folder: one on this machine, the embedded one, or one fetched from the Hub where `name` is an id there.

    Raises:
        ConfigError: none is there, or a revision is given of a folder.
    """
    path = Path(name).expanduser()
    if path.exists():
        if revision is not None:
            raise ConfigError(f"revision: {revision!r} was given, but {name} is a folder on this machine")
        return path
    if name == TINYWORLD:
        if revision is not None:
            raise ConfigError(f"revision: {revision!r} was given, but {name} comes with this library; leave it out")
        return embedded_model()
    if not is_repo_id(name):
        raise ConfigError(f"pretrained_model_name_or_path: {name}: no such folder")
    return download(name, revision, variant)


def locate_autoencoder(name: str, component: str, class_name: str) -> Path:
    """The folder of an autoencoder: `name`, here or on the Hub, or the autoencoder of the pipeline there.

    Args:
        component: what pipelines call theirs.
        class_name: the class that it is to be of.

    Raises:
        ConfigError: none is there, or one of another class.
    """
    path = Path(name).expanduser()
    if not path.exists():
        if not is_repo_id(name):
            raise ConfigError(f"pretrained_vae_model_name_or_path: {name}: no such folder")
        path = download(name, None, None, "pretrained_vae_model_name_or_path")
    for folder in (path, path / component):
        if (folder / "config.json").is_file():
            found = read_json(folder / "config.json").get("_class_name")
            if found != class_name:
                raise ConfigError(
                    f"pretrained_vae_model_name_or_path: {folder} holds a {found}, and this model needs a {class_name}"
                )
            return folder
    raise ConfigError(f"pretrained_vae_model_name_or_path: {path}: no autoencoder (config.json) there")
