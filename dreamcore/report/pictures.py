"""Pictures inside the page: small copies as data URIs, without the camera's notes (a place, a name)."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from dreamcore.data import decode
from dreamcore.errors import ConfigError

SMALL = 160
"""Pictures up to this size are kept exactly, and shown pixel by pixel."""


def load(path: Path, most: int) -> Image.Image | None:
    """The picture upright in RGB, its longer side at most `most` pixels; None where it cannot be read."""
    try:
        picture = decode(path)
    except ConfigError:
        return None
    picture.thumbnail((most, most), Image.Resampling.LANCZOS)
    return picture


def data_uri(picture: Image.Image) -> str:
    """PNG for small pictures, else JPEG: a page with a hundred photographs stays a few megabytes."""
    buffer = io.BytesIO()
    if max(picture.size) <= SMALL:
        picture.save(buffer, "PNG", optimize=True)
        kind = "png"
    else:
        picture.save(buffer, "JPEG", quality=88)
        kind = "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
