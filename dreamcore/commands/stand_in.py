"""Scripts in the place of another trainer's: the same names, started by the same launchers, running this program."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..config.compat import SYSTEMS
from ..errors import ConfigError
from ..io.files import explain_disk_errors, numbered, usable_folder, write_atomically

MARK = "# A stand-in by `dreambooth stand-in`"
TEXT = (
    MARK
    + """ for {of}; the original, where there was one, is beside it.
import os
import sys

here = os.path.dirname(os.path.abspath(__file__))  # holds modules of other packages' names
sys.path[:] = [place for place in sys.path if os.path.abspath(place or os.curdir) != here]
from dreamcore.cli.main import main  # noqa: E402

sys.exit(main([{name!r}, *sys.argv[1:]{more}]))
"""
)


def stand_in(folder: Path, like: str | None) -> Iterator[str]:
    """Write stand-ins for the scripts in `folder` whose names are known; where there is none, for all of the trainer
    `like`, into a new folder if need be.

    Yields:
        A line for each file.

    Raises:
        ConfigError: no such folder, or nothing there to stand in for and no trainer named.
    """
    if like is not None and like not in SYSTEMS:
        raise ConfigError(f"like: {like!r} is not known; expected one of {', '.join(SYSTEMS)}")
    if like is not None:
        usable_folder(folder, "stand-in")
    elif not folder.is_dir():
        raise ConfigError(f"stand-in: {folder}: no such folder; expected the folder of another trainer's scripts")
    known = {name for one in ([SYSTEMS[like]] if like else SYSTEMS.values()) for name in one.scripts}
    there = sorted(name for name in known if (folder / name).is_file())
    if not there and like is None:
        raise ConfigError(
            f"stand-in: {folder}: holds none of the scripts that are known ({', '.join(sorted(known))}); --like NAME "
            "writes all of a trainer's"
        )
    more = f', "--like={like}"' if like else ""
    for name in there or sorted(known):
        file = folder / name
        with explain_disk_errors(f"writing {file}"):
            kept = _keep(file)
            write_atomically(file, TEXT.format(of=name, name=name, more=more))
        yield f"{file}" + (f" (the original: {kept.name})" if kept else "")


def _keep(file: Path) -> Path | None:
    """Rename what is there, unless it is a stand-in, to a name that is free."""
    if not file.is_file() or file.read_text(encoding="utf-8", errors="replace").startswith(MARK):
        return None
    kept = next(place for place in numbered(file.with_name(f"{file.name}.orig")) if not place.exists())
    return file.rename(kept)
