"""Images inside the page: small copies as data URIs, without the camera's notes (a place, a name)."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from ..data import ImageFolder, decode
from ..data.decode import decode_bytes
from ..errors import ConfigError
from ..io.files import write_atomically
from ..io.names import SUBJECT

SMALL = 160
"""Images up to this size are kept exactly, and shown pixel by pixel."""
COPIES, COPY_SIDE = 24, 512
"""Photographs of tables and zips that are copied for the report, all subjects' together; their longer side."""


def picture_files(
    folders: Sequence[ImageFolder], run: Path, record: Callable[[list[str]], None] = lambda names: None
) -> list[list[Path]]:
    """The photographs of each subject as files; of those that are rows of a table, or in a zip, some as small copies in
    the run folder.

    Args:
        record: told the names of files in the run folder before they are written.
    """
    found, copies = list[list[Path]](), 0
    for folder in folders:
        found.append([photo.path.resolve() for photo in folder.photos if photo.is_file])
        others = [photo for photo in folder.photos if not photo.is_file]
        for photo in others[: max(1, COPIES // len(folders))]:
            picture = decode_bytes(photo.data(), photo.path, background=folder.background).image
            picture.thumbnail((COPY_SIDE, COPY_SIDE), Image.Resampling.LANCZOS)
            buffer = io.BytesIO()
            picture.save(buffer, "PNG")
            file = run / SUBJECT / f"{copies:02}.png"
            copies += 1
            record([file.relative_to(run).as_posix()])
            file.parent.mkdir(exist_ok=True)
            write_atomically(file, buffer.getvalue())
            found[-1].append(file)
    return found


def load(path: Path, most: int) -> Image.Image | None:
    """The image upright in RGB, its longer side at most `most` pixels; None where it cannot be read."""
    try:
        picture = decode(path)
    except ConfigError:
        return None
    picture.thumbnail((most, most), Image.Resampling.LANCZOS)
    return picture


def data_uri(picture: Image.Image) -> str:
    """PNG for small images, else JPEG: a page with a hundred photographs stays a few megabytes."""
    buffer = io.BytesIO()
    if max(picture.size) <= SMALL:
        picture.save(buffer, "PNG")
        kind = "png"
    else:
        picture.save(buffer, "JPEG", quality=88)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
