"""Checkpoints: complete or absent, verified when read, portable between backends.

`checkpoint-N/` holds the trained weights as diffusers publishes them, `optimizer.safetensors` with the optimizer's
state under names such as `COMPONENT.PARAMETER.exp_avg`, for LoRA the raw factors, and `state.json` with the counters,
the settings, the identity of data and model, and the SHA-256 of every file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..errors import ConfigError, RunError
from ..formats.later import Later
from ..io.files import explain_disk_errors, folder_in_place, wait_for_room
from ..io.hashing import file_sha256
from ..io.names import RECORDS, STATE_FILE

FORMAT = 1
LITTER = (".DS_Store", "Thumbs.db", "desktop.ini")
"""Files that file managers drop into every folder that they show."""
_NAME = re.compile(r"^checkpoint-(\d+)$")


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """(update, folder) of the checkpoints in a run folder, oldest first."""
    if not folder.is_dir():
        return []
    found = [(int(m[1]), f) for f in folder.iterdir() if (m := _NAME.match(f.name)) and f.is_dir()]
    return sorted(found)


def save(
    run_folder: Path,
    update: int,
    write: Callable[[Path], None],
    state: Mapping[str, Any],
    limit: int | None,
    say: Callable[[str], None] = lambda text: None,
    record: Callable[[list[str]], None] = lambda names: None,
) -> Path:
    """Write `checkpoint-UPDATE`, then remove the oldest beyond `limit`.

    Args:
        write: writes the backend's files into the folder it is given.
        state: what `state.json` holds besides the files' hashes.
        say: told that a full disk is waited for, and which old checkpoints stay.
        record: told the names of the files, relative to the run's folder, before they appear there.

    Raises:
        RunError: the disk is full or cannot be written; every earlier checkpoint is intact.
    """
    target = begin(run_folder, update, write, state, Later(0), say, record)(say)
    prune(run_folder, update, limit, say)
    return target


def begin(
    run_folder: Path,
    update: int,
    write: Callable[[Path], None],
    state: Mapping[str, Any],
    later: Later,
    say: Callable[[str], None] = lambda text: None,
    record: Callable[[list[str]], None] = lambda names: None,
) -> Callable[[Callable[[str], None]], Path]:
    """Take what belongs into `checkpoint-UPDATE`, as it is now.

    Args:
        later: takes files that `write` writes.

    Returns:
        What makes the checkpoint whole, on any thread, once; it takes whom to tell that a full disk is waited for.

    Raises:
        RunError: the disk is full or cannot be written; every earlier checkpoint is intact.  So does what is returned.
    """
    target = run_folder / f"checkpoint-{update}"

    def attempt() -> tuple[Path, ExitStack]:
        with ExitStack() as stack:
            folder = stack.enter_context(folder_in_place(target, run_folder / RECORDS / target.name))
            with later.taking():
                write(folder)
            there = [*(f for f in folder.rglob("*") if f.is_file()), *later.files]
            record([f"{target.name}/{f.relative_to(folder).as_posix()}" for f in (*there, folder / STATE_FILE)])
            return folder, stack.pop_all()

    with explain_disk_errors(f"writing {target}"):
        folder, opened = wait_for_room(attempt, f"writing {target}", say)

    def rest() -> None:
        later.write()
        vouch(folder, {"format": FORMAT, "update": update, **state, "files": hashes(folder, later.sha256)})

    def finish(say: Callable[[str], None]) -> Path:
        with explain_disk_errors(f"writing {target}"), opened:
            wait_for_room(rest, f"writing {target}", say)
        return target

    return finish


def hashes(folder: Path, known: Mapping[Path, str] = MappingProxyType({})) -> dict[str, Any]:
    """What `state.json` says of the files in a checkpoint; of some the SHA-256 is known."""
    return {
        str(f.relative_to(folder)): {"size": f.stat().st_size, "sha256": known.get(f) or file_sha256(f)}
        for f in sorted(folder.rglob("*"))
        if f.is_file()
    }


def vouch(folder: Path, content: Mapping[str, Any]) -> list[str]:
    """Write a checkpoint's `state.json`, which makes it whole; returns the names of all its files."""
    (folder / STATE_FILE).write_text(_vouched(content), encoding="utf-8")
    return [*content["files"], STATE_FILE]


def prune(run_folder: Path, update: int, limit: int | None, say: Callable[[str], None] = lambda text: None) -> None:
    """Remove the oldest checkpoints up to `update` beyond the newest `limit`; None keeps all."""
    if limit is None:
        return
    old = [folder for n, folder in list_checkpoints(run_folder) if n <= update]
    for folder in old[: max(0, len(old) - limit)]:
        _drop(folder, run_folder, say)


def drop(run_folder: Path, update: int, say: Callable[[str], None]) -> None:
    """Remove the checkpoint written after `update`."""
    for folder in (folder for n, folder in list_checkpoints(run_folder) if n == update):
        _drop(folder, run_folder, say)


def _drop(folder: Path, run_folder: Path, say: Callable[[str], None]) -> None:
    if foreign := _foreign_files(folder):
        some = ", ".join(foreign[:3])
        say(f"{folder} is kept beyond checkpoints_total_limit: it is damaged, or no run has written {some}")
    else:
        _remove(folder, run_folder / RECORDS)


def _foreign_files(folder: Path) -> list[str]:
    """Files of a checkpoint that it did not have when it was written; all of them where it does not say."""
    try:
        written = {STATE_FILE, *read_state(folder)["files"]}
    except (RunError, KeyError):
        written = set()
    return sorted({str(f.relative_to(folder)) for f in files_in(folder)} - written)


def files_in(folder: Path) -> list[Path]:
    """The files of a checkpoint, but for what file managers drop everywhere."""
    return [f for f in sorted(folder.rglob("*")) if not f.is_dir() and f.name not in LITTER]


def litter_in(folder: Path) -> list[Path]:
    """What file managers have dropped into a checkpoint."""
    return [f for f in folder.rglob("*") if f.name in LITTER]


def _remove(folder: Path, records: Path) -> None:
    """Remove a checkpoint so that a crash half-way leaves none that looks whole."""
    records.mkdir(exist_ok=True)
    going = records / f"{folder.name}.old"
    shutil.rmtree(going, ignore_errors=True)
    os.replace(folder, going)
    shutil.rmtree(going)


def verify(folder: Path) -> dict[str, Any]:
    """The state of a checkpoint whose every file is as it was written.

    Raises:
        RunError: naming the file that is missing, truncated or altered.
    """
    file = folder / STATE_FILE
    if not file.is_file():
        raise RunError(f"{file}: missing; this is no whole checkpoint")
    state = read_state(folder)
    if state.get("format") != FORMAT:
        raise RunError(f"{file}: format {state.get('format')!r} is not known; expected {FORMAT}")
    for name, wanted in state["files"].items():
        file = folder / name
        if not file.is_file():
            raise RunError(f"{file}: missing; the checkpoint is damaged")
        if file.stat().st_size != wanted["size"]:
            raise RunError(
                f"{file}: {file.stat().st_size} bytes where {wanted['size']} were written; the checkpoint is damaged"
            )
        if file_sha256(file) != wanted["sha256"]:
            raise RunError(f"{file}: altered since it was written (SHA-256 differs); the checkpoint is damaged")
    return state


def _vouched(content: Mapping[str, Any]) -> str:
    """JSON that holds the SHA-256 of the rest of itself."""
    digest = hashlib.sha256(json.dumps(content, indent=1).encode()).hexdigest()
    return json.dumps({**content, "sha256": digest}, indent=1)


def read_state(folder: Path) -> dict[str, Any]:
    """What a checkpoint says of itself, as it was written.

    Raises:
        RunError: it is missing, or altered.
    """
    file = folder / STATE_FILE
    try:
        text = file.read_text(encoding="utf-8")
        content = {k: v for k, v in json.loads(text).items() if k != "sha256"}
    except (OSError, ValueError, AttributeError) as error:
        raise RunError(f"{file}: damaged ({error}); this is no whole checkpoint") from None
    if text != _vouched(content):
        raise RunError(f"{file}: altered since it was written; this is no whole checkpoint")
    return content


def find(resume: str, run_folder: Path, say: Callable[[str], None]) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint to resume from and its state; None where `latest` finds none.

    Args:
        resume: `latest`, a name in the run folder, or a path.
        say: receives what the user should know (a damaged checkpoint passed over).

    Raises:
        ConfigError: no such checkpoint.
        RunError: the named checkpoint is damaged.
    """
    if resume != "latest":
        inside = run_folder / resume
        folder = inside if inside.is_dir() else Path(resume).expanduser()
        if not folder.is_dir():
            names = ", ".join(f.name for _, f in list_checkpoints(run_folder)) or "none"
            raise ConfigError(
                f"resume_from_checkpoint: {resume}: no such folder in {run_folder} (checkpoints there: {names}) and no "
                "such path"
            )
        if not (folder / STATE_FILE).exists() and (found := list_checkpoints(folder)):
            raise ConfigError(
                f"resume_from_checkpoint: {resume}: is the folder of a run; give a checkpoint in it: {found[-1][1]}"
            )
        return folder, verify(folder)
    for _, folder in reversed(list_checkpoints(run_folder)):
        try:
            return folder, verify(folder)
        except RunError as error:
            say(f"{error}; trying the one before")
    return None


def check_resumable(old: Mapping[str, Any], new: Mapping[str, Any], may_change: set[str]) -> None:
    """Refuse, by name, settings whose change would make the resumed run another run.

    Args:
        old: all settings of the checkpoint's run.
        new: all settings of this run.
        may_change: names that may differ; `config.base.setting` marks them.

    Raises:
        ConfigError: naming each setting with its old and new value.
    """
    changed = [
        f"{name}: was {old[name]!r}, is now {new[name]!r}"
        for name in new
        if name in old and name not in may_change and old[name] != new[name]
    ]
    if changed:
        raise ConfigError(
            "resume_from_checkpoint: these settings cannot change in the middle of a run:\n  " + "\n  ".join(changed)
        )
