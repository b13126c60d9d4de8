"""One bar for all that is fetched from the Hub or sent there, in place of its client's one for each file.

Each version of the client shows something else, and none says how long it will take in all.  So its own bars are
switched off, and what has arrived is read from its cache, where every version lets files grow.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from ..io.progress import Work, progress

SECONDS = 0.5
"""Between two looks at the cache."""


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep the client from showing bars, unless HF_HUB_DISABLE_PROGRESS_BARS asks for them."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS") or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


@contextmanager
def fetching(repo: str, kind: str, revision: str | None, sizes: Mapping[str, int], cache: str | None) -> Iterator[None]:
    """Show how much has arrived of files that are fetched within.

    Args:
        repo: OWNER/NAME.
        kind: model or dataset.
        revision: the commit.
        sizes: file -> its bytes.
        cache: folder in place of the Hub's own cache.
    """
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.file_download import repo_folder_name

    where = {"revision": revision, "repo_type": kind, "cache_dir": cache}
    here = {file for file in sizes if isinstance(try_to_load_from_cache(repo, file, **where), str)}
    missing = sum(size for file, size in sizes.items() if file not in here)
    with without_bars():
        if not missing:
            yield
            return
        blobs = Path(cache or constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type=kind) / "blobs"
        with progress(f"downloading {repo}", missing, "bytes") as step, _watched(blobs, step):
            yield


@contextmanager
def _watched(folder: Path, step: Work) -> Iterator[None]:
    """Let work come as far as a folder grows."""
    before, over = _held(folder), threading.Event()

    def look() -> None:
        while not over.wait(SECONDS):
            step.reached(min(step.total or 0, max(0, _held(folder) - before)))

    watcher = threading.Thread(target=look, daemon=True)
    if step.is_shown:
        watcher.start()
    try:
        yield
    finally:
        over.set()
        if step.is_shown:
            watcher.join()
            step.reached(min(step.total or 0, max(0, _held(folder) - before)))


def _held(folder: Path) -> int:
    """Bytes of the files in a folder, those that are still arriving among them."""
    held = 0
    with suppress(OSError):  # there is no such folder yet
        for file in folder.iterdir():
            with suppress(OSError):  # it has just got its name
                held += file.stat().st_size
    return held
