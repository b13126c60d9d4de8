"""Datasets from the Hugging Face Hub: small ones are fetched and kept by its cache, large ones streamed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..data.dataset import DESCRIPTIONS, Dataset, choose_files, local_dataset
from ..data.table import TableFile
from ..errors import ConfigError
from .client import answered, is_repo_id, refused, require_client
from .transfers import fetching, without_bars

KEPT_BYTES = 8 << 30
"""Datasets up to this size are fetched; of a larger one, parts of its files are read when an image is asked for."""
BLOCK = 8 << 20
"""Bytes of a streamed file that are asked for at a time."""


def find_dataset(name: str, config: str | None, cache: str | None = None) -> Dataset:
    """A dataset on this machine, or else on the Hub.

    Args:
        name: a folder, a file, or OWNER/NAME.
        config: which of its configurations; None for the default one.
        cache: folder for what is fetched, in place of the Hub's own cache.

    Raises:
        ConfigError: it is not there, cannot be reached, or its description does not fit its files.
    """
    path = Path(name).expanduser()
    if path.exists():
        return local_dataset(path, config)
    if not is_repo_id(name):
        raise ConfigError(f"dataset_name: {name}: no such folder or file, and no id of a dataset on the Hub")
    setting = f"dataset_name: {name}"
    require_client(setting)
    from huggingface_hub import snapshot_download

    try:
        return _fetched(name, config, cache)
    except ConfigError:
        raise
    except Exception as error:  # each version of the client raises its own types
        if answered(error):
            raise refused(error, setting, "dataset") from None
        try:
            # no file is asked for, as the client would miss those of other splits; `choose_files` misses shards
            here = {"repo_type": "dataset", "local_files_only": True, "cache_dir": cache}
            cached = Path(snapshot_download(name, allow_patterns="-", **here))
        except Exception:
            raise refused(error, setting, "dataset") from None
    return local_dataset(cached, config)


def _fetched(repo: str, config: str | None, cache: str | None) -> Dataset:
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download

    about = HfApi().dataset_info(repo, files_metadata=True)
    sizes = {s.rfilename: int(s.size or 0) for s in about.siblings or ()}

    def read(name: str) -> str:
        with without_bars():
            file = Path(hf_hub_download(repo, name, repo_type="dataset", cache_dir=cache))
        return file.read_text("utf-8", "replace")

    chosen = choose_files(list(sizes), config, read, repo)
    total = sum(sizes[name] for name in chosen.files)
    if total > KEPT_BYTES and all(name.lower().endswith(".parquet") for name in chosen.files):
        note = f"{total / 2**30:.1f} GiB: streamed from the Hub, and not kept on this machine"
        files = [TableFile(Path(repo) / name, _opener(f"datasets/{repo}@{about.sha}/{name}")) for name in chosen.files]
        return Dataset(Path(repo), files, [*chosen.notes, note])
    only = (
        [*chosen.files, *(name for name in sizes if name.rpartition("/")[2] in DESCRIPTIONS)] if chosen.files else None
    )
    wanted = {name: size for name, size in sizes.items() if only is None or name in only}
    with fetching(repo, "dataset", about.sha, wanted, cache):
        folder = Path(snapshot_download(repo, repo_type="dataset", allow_patterns=only, cache_dir=cache))
    return Dataset(folder, [TableFile(folder / name) for name in chosen.files], chosen.notes)


def _opener(place: str) -> Callable[[], Any]:
    def opened() -> Any:
        from huggingface_hub import HfFileSystem

        return HfFileSystem().open(place, "rb", block_size=BLOCK)

    return opened
