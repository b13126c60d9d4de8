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
"""Photographs of a table that are copied for the report, and their longer side in pixels."""


def picture_files(
    folders: Sequence[ImageFolder], run: Path, record: Callable[[list[str]], None] = lambda names: None
) -> list[Path]:
    """The subject's photographs as files; small copies in the run folder of those that are rows of a table.

    Args:
        record: told the names of files in the run folder before they are written.
    """
    files = list[Path]()
    for folder in folders:
        for photo in folder.photos:
            if photo.row is None:
                files.append(photo.path.resolve())
            elif len(files) < COPIES:
                picture = decode_bytes(photo.data(), photo.path, background=folder.background).image
                picture.thumbnail((COPY_SIDE, COPY_SIDE), Image.Resampling.LANCZOS)
                buffer = io.BytesIO()
                picture.save(buffer, "PNG")
                files.append(run / SUBJECT / f"{len(files):02}.png")
                record([files[-1].relative_to(run).as_posix()])
                files[-1].parent.mkdir(exist_ok=True)
                write_atomically(files[-1], buffer.getvalue())
    return files


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
        picture.save(buffer, "PNG", optimize=True)
        kind = "png"
    else:
        picture.save(buffer, "JPEG", quality=88)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
