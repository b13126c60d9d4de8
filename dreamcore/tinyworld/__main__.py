"""Draw the images that teach a subject; judge the images of the run that was taught it.

python -m dreamcore.tinyworld FOLDER [--subject NAME]
python -m dreamcore.tinyworld RUN --score [--subject NAME]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from ..errors import ConfigError
from ..io.files import usable_folder
from ..io.images import png_bytes
from ..io.names import REPORT
from . import QUICKSTART, SUBJECTS, Subject
from .scenes import WIDE
from .vocabulary import PLACES

IDENTIFIER = "sks"
"""The rare word that stands for the subject in its captions."""


def write_subject(folder: Path, name: str = QUICKSTART, seed: int = 0) -> None:
    """Write 0.png … 4.png of a subject, one in each place, and beside each a caption that names the place."""
    write_pictures(folder, SUBJECTS[name], seed)


def write_pictures(folder: Path, subject: Subject, seed: int = 0) -> None:
    """`write_subject` of a subject that may have no name.

    Raises:
        ConfigError: another file has one of these names.

    Taught by one prompt for all five, the miniature takes the places for the subject's, and no longer heeds them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = dict[Path, bytes]()
    for number, (place, picture) in enumerate(zip(PLACES, subject.pictures(len(PLACES), seed, WIDE), strict=True)):
        files[folder / f"{number}.png"] = png_bytes(np.asarray(picture))
        files[folder / f"{number}.txt"] = f"a photo of a {IDENTIFIER} {subject.kind} {place}\n".encode()
    for file, content in files.items():
        if file.exists() and file.read_bytes() != content:
            raise ConfigError(f"folder: {file} is there already, and another one; choose another folder")
    for file, content in files.items():
        file.write_bytes(content)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m dreamcore.tinyworld", formatter_class=argparse.RawDescriptionHelpFormatter, description=__doc__
    )
    parser.add_argument("folder", type=Path, help="for five images of the subject; with --score, a run's folder")
    parser.add_argument("--subject", choices=tuple(SUBJECTS), default=QUICKSTART)
    parser.add_argument("--score", action="store_true", help="judge the run's images and say so in its report")
    args = parser.parse_args()
    try:
        if not args.score:
            usable_folder(args.folder, "folder")
            write_subject(args.folder, args.subject)
            return
        from .scores import add_to_report

        for name, words in add_to_report(args.folder, SUBJECTS[args.subject]).items():
            print(f"{name}: {words}")
    except ConfigError as error:
        sys.exit(str(error))
    print(f"report: {args.folder / REPORT}")


if __name__ == "__main__":
    main()
