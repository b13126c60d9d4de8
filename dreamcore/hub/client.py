"""The Hub's client: whether it is there, and what its refusals mean."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ConfigError

_REPO_ID = re.compile(r"^[\w.-]+/[\w.-]+$")


def is_repo_id(name: str) -> bool:
    """Whether a name can be a Hub id: OWNER/NAME."""
    return bool(_REPO_ID.match(name)) and not name.startswith(".")


def may_be_fetched(name: str) -> bool:
    """Whether a model's name is an id on the Hub, and no folder here."""
    return is_repo_id(name) and not Path(name).exists()


@contextmanager
def with_token(token: str | None) -> Iterator[None]:
    """Let the Hub's client use a token, if one was given, in place of the environment's or the login's."""
    before = os.environ.get("HF_TOKEN")
    if token is not None:
        os.environ["HF_TOKEN"] = token
    try:
        yield
    finally:
        if token is not None and before is None:
            del os.environ["HF_TOKEN"]
        elif before is not None:
            os.environ["HF_TOKEN"] = before


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
