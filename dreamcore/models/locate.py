"""Where a model lies: in a folder, on the Hub, or in this package."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import ConfigError
from ..hub.client import is_repo_id
from ..hub.models import download
from ..io.names import ONE_FILE
from .fields import read_json
from .single_file import open_part, open_single_file

TINYWORLD = "tinyworld"
"""The embedded model's name."""


def embedded_model() -> Path:
    """Folder of the embedded model, in diffusers layout."""
    return Path(__file__).parents[1] / "tinyworld" / "model"


def locate(
    name: str,
    revision: str | None,
    variant: str | None,
    cache: str | None = None,
    original_config: str | None = None,
    version: str | None = None,
    allow_pickle: bool = False,
) -> Path:
    """A model's folder: one on this machine, the embedded one, or one fetched from the Hub where `name` is an id there;
    of a model in one file, the folder that it becomes.

    Args:
        cache: folder for what is fetched, in place of the Hub's own.
        original_config: of one file, the YAML file or the folder that describes it.
        version: of one file, which Stable Diffusion it is.
        allow_pickle: whether one file may be pickled.

    Raises:
        ConfigError: none is there, or a revision is given of a folder.
    """
    path = Path(name).expanduser()
    if path.is_file() or (path.suffix in ONE_FILE and not path.exists() and not is_repo_id(name)):
        if revision is not None:
            raise ConfigError(f"revision: {revision!r} was given, but {name} is a file on this machine")
        described = Path(original_config).expanduser() if original_config is not None else None
        said = version
        if path.suffix == ".ckpt" and described is None:
            said = version or os.environ.get("SD_VERSION")  # as MindONE's scripts do
        return open_single_file(path, original_config=described, version=said, allow_pickle=allow_pickle)
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
    return download(name, revision, variant, cache=cache)


def locate_part(
    setting: str,
    name: str,
    component: str,
    class_name: str,
    cache: str | None = None,
    described: Path | None = None,
    allow_pickle: bool = False,
) -> Path:
    """The folder of a network to use in place of a model's own: `name`, here or on the Hub, or the one of the pipeline
    there, or what one file with that network becomes.

    Args:
        setting: that names it.
        component: what pipelines call theirs.
        class_name: the class that it is to be of.
        cache: as for `locate`.
        described: the model's folder, whose configuration a network in one file has.
        allow_pickle: as for `locate`.

    Raises:
        ConfigError: none is there, or one of another class.
    """
    path = _part(setting, name, cache)
    if path.is_file() and described is not None:
        return open_part(path, component, described, allow_pickle=allow_pickle)
    for folder in (path, path / component):
        if (folder / "config.json").is_file():
            found = read_json(folder / "config.json").get("_class_name")
            if found != class_name:
                raise ConfigError(f"{setting}: {folder} holds a {found}, and this model needs a {class_name}")
            return folder
    raise ConfigError(f"{setting}: {path}: no {class_name} (config.json) there")


def locate_tokenizer(name: str, component: str, cache: str | None = None) -> Path:
    """The folder of a tokenizer, by `tokenizer_name`; arguments and errors as for `locate_part`."""
    path = _part("tokenizer_name", name, cache)
    for folder in (path, path / component):
        if any((folder / file).is_file() for file in ("vocab.json", "tokenizer.json", "vocab.txt", "spiece.model")):
            return folder
    raise ConfigError(f"tokenizer_name: {path}: no tokenizer (vocab.json or tokenizer.json) there")


def locate_transformer(setting: str, name: str, component: str, cache: str | None = None) -> tuple[Path, str]:
    """The folder of a network or tokenizer of transformers' that a pipeline is published without, and its class;
    arguments and errors as for `locate_part`."""
    path, tokenizer = _part(setting, name, cache), component.startswith("tokenizer")
    file = "tokenizer_config.json" if tokenizer else "config.json"
    for folder in (path, path / component):
        if (folder / file).is_file():
            said = read_json(folder / file)
            return folder, str(said.get("tokenizer_class") if tokenizer else (said.get("architectures") or [None])[0])
    raise ConfigError(f"{setting}: {path}: no {component} ({file}) there")


def _part(setting: str, name: str, cache: str | None) -> Path:
    path = Path(name).expanduser()
    if path.exists():
        return path
    if not is_repo_id(name):
        raise ConfigError(f"{setting}: {name}: no such folder")
    return download(name, None, None, setting, cache)
