"""Which files a dataset consists of: on this machine, or in a repository of the Hub, whose files are named alike.

A dataset is what `datasets` saves to disk (state.json or dataset_dict.json), or parquet or Arrow files whose
configurations are in the README's header or in sub-folders, or else a folder of images with metadata (`imagefolder`).
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from .archive import looks_zipped
from .finding import natural_key
from .formats import hidden_name
from .table import ENDINGS, TableFile

CARD = "README.md"
STATE, SPLITS = "state.json", "dataset_dict.json"
DESCRIPTIONS = (CARD, STATE, SPLITS)
"""Names of the small files that say which others belong to a dataset."""
TRAIN = "train"
_SPLIT = re.compile(r"(?:^|[-._ 0-9/])(train|training|validation|valid|val|dev|test|testing|eval)(?=[-._ 0-9/]|$)")
_SHARD = re.compile(r"(.*)-(\d{5})-of-(\d{5})[^/]*")

_Groups = dict[str, dict[str, list[str]]]
"""Configuration -> split -> files."""


@dataclass(frozen=True)
class Dataset:
    """A dataset to be opened."""

    root: Path
    """The folder that its files lie in; what messages call it."""
    files: list[TableFile]
    """None of them where it is a folder of images."""
    notes: list[str]


def local_dataset(path: Path, config: str | None) -> Dataset:
    """The dataset in a folder, the images in a zip, or the table in a file.

    Raises:
        ConfigError: as `choose_files`; or a file is no table.
    """
    if looks_zipped(path):
        _refuse_configuration(config, str(path))
        return Dataset(path, [], [])
    if path.is_file():
        if path.suffix.lower() not in ENDINGS:
            endings = " or ".join(ENDINGS)
            raise ConfigError(f"dataset_name: {path}: expected a folder, a .zip, or a file ending in {endings}")
        if config is not None:
            raise ConfigError(f"dataset_config_name: {config!r}: {path} is one file; leave it out")
        return Dataset(path.parent, [TableFile(path)], [])
    files = (f.relative_to(path) for f in path.rglob("*") if f.is_file())
    names = [f.as_posix() for f in files if not any(hidden_name(part) for part in f.parts)]
    chosen = choose_files(names, config, lambda name: (path / name).read_text("utf-8", "replace"), str(path))
    return Dataset(path, [TableFile(path / name) for name in chosen.files], chosen.notes)


@dataclass(frozen=True)
class Chosen:
    """The files to train on."""

    files: list[str]
    """Names of parquet or Arrow files; none where the dataset is a folder of images."""
    notes: list[str]


def choose_files(names: Sequence[str], config: str | None, read: Callable[[str], str], where: str) -> Chosen:
    """The files of a dataset's training split.

    Args:
        names: of all of its files, relative, with "/".
        config: the configuration's name; None for the default one.
        read: gives the text of a file among `DESCRIPTIONS`.
        where: the dataset, for messages.

    Raises:
        ConfigError: there is no such configuration, or several and none is named; a description is damaged.
    """
    tables = sorted((n for n in names if n.lower().endswith(ENDINGS)), key=natural_key)
    if not tables:
        _refuse_configuration(config, where)
        return Chosen([], [])
    saved = _saved_to_disk(names, read, where)
    if saved is not None:
        if config is not None:
            raise ConfigError(f"dataset_config_name: {config!r}: {where} was saved to disk as one; leave it out")
        return saved
    groups, default = _of_card(tables, names, read, where)
    groups = groups or _of_folders(tables)
    splits = groups[_named(list(groups), config, default, where)]
    split, notes = _split([name for name, files in splits.items() if files], where)
    _check_shards(splits[split], where)
    return Chosen(splits[split], notes)


def _refuse_configuration(config: str | None, where: str) -> None:
    """Refuse the name of a configuration for a folder of images."""
    if config is not None:
        raise ConfigError(f"dataset_config_name: {config!r}: {where} holds images and no configurations; leave it out")


def _saved_to_disk(names: Sequence[str], read: Callable[[str], str], where: str) -> Chosen | None:
    """What `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote."""
    prefix, notes = "", list[str]()
    if SPLITS in names:
        splits = [str(name) for name in _json(read(SPLITS), f"{where}/{SPLITS}").get("splits", [])]
        split, notes = _split(splits, where)
        prefix = f"{split}/"
    if prefix + STATE not in names:
        return None
    state = _json(read(prefix + STATE), f"{where}/{prefix}{STATE}")
    files = [prefix + str(entry.get("filename")) for entry in state.get("_data_files", []) if isinstance(entry, dict)]
    gone = [file for file in files if file not in names]
    if gone or not files:
        raise ConfigError(f"dataset_name: {where}: {prefix}{STATE} names {', '.join(gone) or 'no files'}, not there")
    return Chosen(files, notes)


def _of_card(
    tables: Sequence[str], names: Sequence[str], read: Callable[[str], str], where: str
) -> tuple[_Groups, str | None]:
    """What the README's header lists, nothing where it does not; and which configuration it calls the default."""
    header = re.match(r"---\n(.*?)\n---", read(CARD), re.DOTALL) if CARD in names else None
    if header is None:
        return {}, None
    import yaml

    try:
        configs = [one for one in yaml.safe_load(header[1]).get("configs") or [] if "data_files" in one]
        default = next((str(one["config_name"]) for one in configs if one.get("default") is True), None)
        return {str(one["config_name"]): _patterns(one, tables) for one in configs}, default
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"dataset_name: {where}/{CARD}: its header is damaged: {error}") from None


def _patterns(config: Mapping[str, Any], tables: Sequence[str]) -> dict[str, list[str]]:
    listed = config["data_files"]
    entries = listed if isinstance(listed, list) else [listed]
    found: dict[str, list[str]] = {}
    for entry in entries:
        split, paths = (entry["split"], entry["path"]) if isinstance(entry, dict) else (TRAIN, entry)
        base = f"{str(config['data_dir']).strip('/')}/" if config.get("data_dir") else ""
        for path in paths if isinstance(paths, list) else [paths]:
            pattern = base + path.removeprefix("./")
            found.setdefault(str(split), []).extend(name for name in tables if fnmatch.fnmatchcase(name, pattern))
    return found


def _of_folders(tables: Sequence[str]) -> _Groups:
    """What names alone tell: CONFIG/train-0.parquet, data/train-0.parquet, train/0.parquet."""
    found: _Groups = {}
    for name in tables:
        top, _, rest = name.partition("/")
        config = top if rest and top != "data" and not _SPLIT.search(top) else "default"
        split = _SPLIT.search(name)
        word = "train" if split is None or split[1].startswith("train") else split[1]
        found.setdefault(config, {}).setdefault(word, []).append(name)
    return found


def _named(configs: Sequence[str], config: str | None, default: str | None, where: str) -> str:
    """The configuration that is asked for, or the default one."""
    if config is not None and config not in configs:
        raise ConfigError(f"dataset_config_name: {config!r} is not in {where}; it has {', '.join(configs)}")
    found = config or default or ("default" if "default" in configs else None)
    if found is None and len(configs) > 1:
        raise ConfigError(f"dataset_config_name: {where} has several: {', '.join(configs)}; name one")
    return found or configs[0]


def _split(splits: Sequence[str], where: str) -> tuple[str, list[str]]:
    """The split to train on, and what is said of the others."""
    if not splits:
        raise ConfigError(f"dataset_name: {where}: its description names no files that are there")
    chosen = TRAIN if TRAIN in splits else splits[0]
    if len(splits) > 1 and chosen != TRAIN:
        raise ConfigError(
            f"dataset_name: {where}: has splits {', '.join(splits)} and no {TRAIN!r}; name one of its files"
        )
    others = [name for name in splits if name != chosen]
    return chosen, [f"split {chosen!r} is used, and not {', '.join(others)}"] if others else []


def _check_shards(files: Sequence[str], where: str) -> None:
    """Refuse a table of which a part is missing: NAME-00001-of-00003.parquet says how many there are."""
    for name in files:
        match = _SHARD.fullmatch(name)
        if match is None:
            continue
        shards = {shard[2] for file in files if (shard := _SHARD.fullmatch(file)) and shard[1] == match[1]}
        if len(shards) < int(match[3]):
            raise ConfigError(
                f"dataset_name: {where}: holds {len(shards)} of {int(match[3])} files {match[1]}-…; fetch it anew"
            )


def _json(text: str, where: str) -> Mapping[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"dataset_name: {where}: not JSON: {error}") from None
    return value if isinstance(value, dict) else {}
