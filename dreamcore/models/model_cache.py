"""Folders that are made of something else, once, in a cache beside the Hub's: they are there whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from ..io.files import AGAIN, explain_disk_errors, folder_in_place
from ..io.hashing import own_cache

LOCK_SECONDS = 3600
"""Another process that makes the same folder is waited for so long."""


def made_once(said: list[Any], fill: Callable[[Path], object]) -> Path:
    """The folder that follows from what is said (in XDG_CACHE_HOME or ~/.cache, /dreambooth/models), however many
    processes ask for it at once.

    Args:
        said: all that it depends on.
        fill: makes it, given an empty folder.

    Raises:
        RunError: the cache cannot be written.
    """
    name = hashlib.sha256(json.dumps(said).encode()).hexdigest()[:40]
    target = own_cache("models") / name
    if not target.exists():
        with explain_disk_errors(f"{target}", AGAIN):
            target.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(target.with_name(f"{name}.lock"), timeout=LOCK_SECONDS):
                if not target.exists():
                    with folder_in_place(target, target.with_name(f".{name}.part")) as folder:
                        fill(folder)
    return target
