"""Folders and files that a setting names are refused before costly work."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dreamcore.errors import ConfigError
from dreamcore.files import usable_file, usable_folder


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
