"""Models of the Hub: which are on this machine, and how much would be fetched of another one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..io.names import INDEX
from .client import answered, refused
from .models import needed_files, successor

PATIENCE = 10.0
"""Seconds until the Hub counts as out of reach."""


@dataclass(frozen=True)
class Fetch:
    """What would be fetched.

    Args:
        bytes: that are not here yet.
        folder: the cache that they go to.
    """

    bytes: int
    folder: Path


def to_fetch(
    repo: str,
    revision: str | None = None,
    variant: str | None = None,
    cache: str | None = None,
    setting: str = "pretrained_model_name_or_path",
) -> Fetch | None:
    """What `models.download` would fetch of a model; None where the Hub cannot be asked.

    Raises:
        ConfigError: it has no such model, or it is gated.
    """
    try:
        from huggingface_hub import HfApi, try_to_load_from_cache
    except ImportError:
        return None
    try:
        info = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=PATIENCE)
    except Exception as error:  # no network: each version of the client raises its own types
        if answered(error):
            name, missing = f"{setting}: {repo}", f"revision: {revision!r} does not exist in {repo}"
            raise refused(error, name, "model", successor(repo), missing) from None
        return None
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    wanted = [name for name in dict.fromkeys(needed_files(list(sizes), variant)) if name in sizes]
    here = {name for name in wanted if isinstance(try_to_load_from_cache(repo, name, cache, info.sha), str)}
    return Fetch(sum(sizes[name] for name in wanted if name not in here), cache_folder(cache))


def cache_folder(cache: str | None = None) -> Path:
    """Where models from the Hub are kept."""
    if cache is not None:
        return Path(cache).expanduser()
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def cached_models(cache: str | None = None) -> Iterator[tuple[str, Path]]:
    """(id, folder) of each pipeline that is in the Hub's cache on this machine, by their ids' order."""
    try:
        folders = sorted(cache_folder(cache).glob("models--*--*"))
    except (ImportError, OSError):
        return
    for folder in folders:
        owner, _, name = folder.name.removeprefix("models--").partition("--")
        found = [one.parent for one in (folder / "snapshots").glob(f"*/{INDEX}")]
        main = folder / "refs" / "main"
        named = folder / "snapshots" / main.read_text().strip() if main.is_file() else None
        if named in found:
            yield f"{owner}/{name}", named
        elif found:
            yield f"{owner}/{name}", max(found, key=lambda one: one.stat().st_mtime)
