"""Publishing a finished run on the Hugging Face Hub.

Only names on an allow-list go up (`selection`), in one commit, so that a page shows a whole model or the earlier one.
Large files arrive before the commit and are kept by the Hub: the same call again goes on where one has broken off.
The token comes from HF_TOKEN or the login, and is never said.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import ConfigError, RunError
from ..io.files import AGAIN
from ..io.names import MODEL_CARD
from ..io.progress import progress
from .selection import published_files, replaced_files, without_places
from .transfers import without_bars

TOKENS = "https://huggingface.co/settings/tokens"
"""Where tokens are made."""
_NAME = re.compile(r"(?!.*(?:--|\.\.))(?!.*\.git$)(?:\b[\w.-]+\b/)?\b[\w.-]{1,96}\b", re.ASCII)
"""Ids that the Hub takes: huggingface_hub's `validate_repo_id`."""


class PushError(RunError):
    """A finished model could not be published; nothing of it is lost, and the same call publishes it."""


def check_access(folder: Path, repo_id: str | None, *, private: bool) -> str:
    """Make sure, before anything costly is done, that a run can be published: make its repository where there is none.

    Args:
        folder: of the run, which gives the repository its name where `repo_id` is None.
        repo_id: OWNER/NAME, or a name under the token's account.
        private: nobody but the account is to see it; what is private stays so in any case.

    Returns:
        OWNER/NAME.

    Raises:
        ConfigError: huggingface_hub or a token is missing, the Hub cannot be reached or refuses, the repository is
            somebody else's, or it is public and was to be private.
    """
    name = repository_name(folder, repo_id)
    token = _token()
    from huggingface_hub import CommitOperationAdd, HfApi

    api, kwargs = HfApi(token=True), {"private": True} if private else {}  # else as its owner has set for new ones
    account = name.partition("/")[0]
    try:
        account = str(api.whoami()["name"])
        name = name if "/" in name else f"{account}/{name}"
        if (there := _about(api, name)) is None:
            api.create_repo(name, exist_ok=True, **kwargs)
        elif private and not there.private:
            raise ConfigError(
                f"hub_private_repo: {name} is on the Hub already, and public; make it private in its settings there, "
                "or give another hub_model_id"
            )
        # The Hub asks whether one may write before it asks for large files; this small one is not sent.
        api.preupload_lfs_files(name, [CommitOperationAdd(MODEL_CARD, b"-")])
    except ConfigError:
        raise
    except Exception as error:  # each version of the client raises its own types
        refusal = ConfigError(_without(token, _refused(error, name, account)))
    else:
        return name
    raise refusal


def push(
    folder: Path,
    repo_id: str | None,
    *,
    private: bool,
    card: Callable[[str], str],
    say: Callable[[str], None],
    updates: int | None = None,
    again: str = AGAIN,
) -> str:
    """Publish a finished run: its model, its last sample images and its card.

    Args:
        folder: of the run; nothing in it is changed.
        repo_id, private: as for `check_access`.
        card: contents of README.md, of OWNER/NAME.
        say: told what is uploaded, and that it is there.
        updates: that the run made; images of later ones are left out.
        again: how to repeat it, for the message of an error.

    Returns:
        The page's address.

    Raises:
        ConfigError: the folder holds no finished model.
        PushError: the Hub cannot be reached, refuses, or the upload has broken off.
    """
    files = published_files(folder, updates)
    with _repeatable(folder, again):
        name = check_access(folder, repo_id, private=private)
        token = _token()
        try:
            address = _upload(name, files, card(name), say)
        except Exception as error:  # as above
            failure = _without(token, _refused(error, name, name.partition("/")[0]))
        else:
            say(f"published: {address}")
            return address
        raise ConfigError(failure)


def _upload(name: str, files: Mapping[str, Path], card: str, say: Callable[[str], None]) -> str:
    """Upload everything in one commit, in which goes what an earlier one has left; returns the page's address."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    api = HfApi(token=True)
    address = f"{api.endpoint}/{name}"
    size = sum(file.stat().st_size for file in files.values())
    say(f"uploading {len(files) + 1} files, {size / 2**20:,.1f} MiB, to {address}")
    there = [file.rfilename for file in api.model_info(name).siblings or ()]
    gone = [CommitOperationDelete(file) for file in replaced_files(there, files)]
    new = [CommitOperationAdd(file, without_places(path)) for file, path in files.items()]
    operations = [*gone, *new, CommitOperationAdd(MODEL_CARD, card.encode())]
    with without_bars(), progress(f"uploading to {address}", size, "bytes") as step:
        for operation, path in zip(new, files.values(), strict=True):
            api.preupload_lfs_files(name, [operation])  # large files, one by one, so that it is seen how far it is
            step(path.stat().st_size)
        api.create_commit(name, operations, commit_message="Upload a model trained with DreamBooth")
    return address


@contextmanager
def _repeatable(folder: Path, again: str) -> Iterator[None]:
    """Say of a failure that it costs nothing; without its cause, whose words may hold the token."""
    try:
        yield
    except ConfigError as error:
        failure = PushError(f"{error}. The finished model is whole, in {folder}; to publish it, {again}")
    else:
        return
    raise failure


def repository_name(folder: Path, repo_id: str | None) -> str:
    """The id that is asked for, as far as it is known without the Hub."""
    name = repo_id if repo_id is not None else folder.expanduser().resolve().name
    if not _NAME.fullmatch(name):
        said = f"hub_model_id: {name}" if repo_id is not None else f"push_to_hub: the folder's name, {name!r},"
        raise ConfigError(
            f"{said} is no name for a repository: up to 96 of a-z, A-Z, 0-9, '-', '_' and '.', no '--' or '..'; "
            f"{'give OWNER/NAME' if repo_id is not None else 'give hub_model_id'}"
        )
    return name


def _token() -> str:
    """The token; for nothing but to know that it is there and to keep it out of messages."""
    remedy = (
        f"set HF_TOKEN to a token with write access ({TOKENS}), or log in (`hf auth login`, or `huggingface-cli login`)"
    )
    try:
        from huggingface_hub import get_token
    except ImportError:
        raise ConfigError("push_to_hub: huggingface_hub is not installed; pip install huggingface_hub") from None
    try:
        token = get_token()
    except Exception as error:  # newer clients ask elsewhere for one
        raise ConfigError(f"push_to_hub: no token of the Hub: {type(error).__name__}; {remedy}") from None
    if not token:
        raise ConfigError(f"push_to_hub: no token of the Hub; {remedy}")
    if not re.fullmatch(r"[!-~]+", token):
        raise ConfigError(f"push_to_hub: {_source()} holds characters that no token has; {remedy}")
    return str(token)


def _source() -> str:
    """Where the token comes from."""
    known = [name for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if os.environ.get(name)]
    return f"the token in {known[0]}" if known else "the token that was logged in with"


def _about(api: Any, name: str) -> Any:
    """What the Hub says of a repository; None where there is none, or none that the token may see."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return api.model_info(name)
    except RepositoryNotFoundError:
        return None


def _refused(error: BaseException, name: str, account: str) -> str:
    """What the Hub's refusal, or its silence, means."""
    status, cause = _status(error), _cause(error)
    if status == 401:
        return f"push_to_hub: {_source()} is not one that the Hub knows; make another one with write access ({TOKENS})"
    if status in (403, 404):
        owner, _, base = name.rpartition("/")
        if owner not in ("", account):
            return (
                f"hub_model_id: {name}: {account}, whose token this is, may not write there; give {account}/{base}, "
                f"or a token that may write in {owner}"
            )
        return f"push_to_hub: {_source()} may not write to {name}; make one with write access ({TOKENS})"
    said = f"{type(cause).__name__}: {(str(cause) or 'no more is known').strip().splitlines()[0]}"
    if getattr(cause, "filename", None):
        return f"push_to_hub: {name}: a file could not be read ({said})"
    if status is not None:
        return f"push_to_hub: {name}: the Hub answers {status} ({said})"
    if type(cause).__name__ == "OfflineModeIsEnabled":
        return "push_to_hub: HF_HUB_OFFLINE is set; unset it, or leave push_to_hub out"
    return f"push_to_hub: {name}: the Hub cannot be reached, or the line broke ({said})"


def _cause(error: BaseException) -> BaseException:
    """What lies behind an error that the client has put into words."""
    while type(error) is RuntimeError and error.__cause__ is not None:
        error = error.__cause__
    return error


def _status(error: BaseException) -> int | None:
    """The status of the Hub's answer, where there was one."""
    response = getattr(_cause(error), "response", None)
    return None if response is None else int(response.status_code)


def _without(token: str, text: str) -> str:
    return text.replace(token, "…")
