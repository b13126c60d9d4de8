"""`python -m dreamcore.tinyworld FOLDER` writes five pictures of the quickstart's subject, for `dreambooth train`."""

from __future__ import annotations

import sys
from pathlib import Path

from . import QUICKSTART, SUBJECTS


def write_subject(folder: Path, name: str = QUICKSTART) -> None:
    """Write 0.png … 4.png of a subject, one in each place."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, picture in enumerate(SUBJECTS[name].pictures(5)):
        picture.save(folder / f"{number}.png")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m dreamcore.tinyworld FOLDER")
    write_subject(Path(sys.argv[1]))
