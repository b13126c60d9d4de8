"""Folders and files that a setting names are refused before costly work."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from dreamcore.errors import ConfigError, RunError
from dreamcore.io.files import (
    disk_trouble,
    explain_disk_errors,
    folder_in_place,
    free_name,
    numbered,
    usable_file,
    usable_folder,
    wait_for_room,
    write_new,
)


def test_a_folder_is_made_where_it_is_not_there(tmp_path: Path) -> None:
    usable_file(tmp_path / "a" / "b.png", "sheet")
    assert (tmp_path / "a").is_dir()


def test_what_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(ConfigError, match=r"^output_dir: .*file: is a file; expected a folder"):
        usable_folder(file, "output_dir")
    with pytest.raises(ConfigError, match=r"^output_dir: .*below: Not a directory; choose a folder"):
        usable_folder(file / "below", "output_dir")
    with pytest.raises(ConfigError, match=r"^sheet: .*: is a folder; expected the name of a file"):
        usable_file(tmp_path, "sheet")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(ConfigError, match=r"^grid: .*: permission denied; choose a folder"):
        usable_file(tmp_path / "grid.png", "grid")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on the disk"),
        (PermissionError(errno.EPERM, "Operation not permitted"), "permission denied"),
        (ValueError("I/O error: No space left on device (os error 28)"), "no space left on the disk"),
        (ValueError("reset by peer (os error 54)"), None),  # 5 is the disk's, 54 is not
        (ValueError("Permission denied: the model is gated"), None),
        (ConnectionError(errno.ECONNRESET, "Connection reset by peer"), None),
        (OSError("no number at all"), None),
    ],
)
def test_a_disk_error_is_known_by_its_number(error: Exception, words: str | None) -> None:
    assert disk_trouble(error) == words
    with pytest.raises(type(error) if words is None else RunError), explain_disk_errors("writing"):
        raise error


def test_what_was_explained_is_not_explained_again() -> None:
    with pytest.raises(RunError, match="^inner: no space left"), explain_disk_errors("outer"):  # noqa: SIM117
        with explain_disk_errors("inner"):
            raise OSError(errno.ENOSPC, "No space left on device")


def test_nothing_waits_where_there_is_no_full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMBOOTH_ROOM_SECONDS", "60")
    said: list[str] = []
    for error in (OSError(errno.EACCES, "no"), ValueError("no")):

        def fails(error: Exception = error) -> None:
            raise error

        with pytest.raises(type(error)):
            wait_for_room(fails, "writing", said.append)
    assert not said


def test_room_that_is_made_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DREAMBOOTH_ROOM_SECONDS", "60")
    said, tries = list[str](), list[int]()

    def write() -> str:
        tries.append(1)
        if len(tries) < 3:
            raise ValueError("serializing: (os error 28)")
        return "written"

    assert wait_for_room(write, "writing x", said.append) == "written"
    assert said == ["writing x: no space left on the disk; make room within 60 seconds and the run goes on"]


def test_a_new_file_takes_no_others_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(b"old")
    (tmp_path / "a-2.png").symlink_to("nowhere")
    assert write_new(numbered(tmp_path / "a.png"), b"new") == tmp_path / "a-3.png"
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links here")))
    assert write_new(numbered(tmp_path / "a.png"), "newer") == tmp_path / "a-4.png"
    names = {f.name: f.read_bytes() for f in tmp_path.iterdir() if f.is_file()}
    assert names == {"a.png": b"old", "a-3.png": b"new", "a-4.png": b"newer"}
    assert free_name(tmp_path / "a.png") == tmp_path / "a.png-2"


def test_threads_see_the_umask_that_they_know(tmp_path: Path) -> None:
    """The umask of a process is everybody's: taking it away for a moment lets others write files for all to write."""
    before, seen, stop = os.umask(0o027), set[int](), threading.Event()

    def write() -> None:
        while not stop.is_set():
            (tmp_path / "other").unlink(missing_ok=True)
            (tmp_path / "other").touch()
            seen.add((tmp_path / "other").stat().st_mode & 0o777)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for number in range(60):
            with folder_in_place(tmp_path / f"done-{number}", tmp_path / "beside") as folder:
                (folder / "private").touch(0o600)
            assert (tmp_path / f"done-{number}" / "private").stat().st_mode & 0o777 == 0o640
    finally:
        stop.set()
        thread.join()
        os.umask(before)
    assert seen == {0o640}
