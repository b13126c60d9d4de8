"""One photograph: its words, its size, and where its bytes are: in a file of its own, in a zip or a row of a table."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from ..errors import ConfigError
from . import storage
from .decode import WHITE, Colour, decode_bytes, read_bytes
from .masks import read_mask, require_proportions


@dataclass(frozen=True)
class Photo:
    """One photograph of a folder or table."""

    path: Path
    """Its file, which may be in a zip (storage.py); or for a row the table's file and the row in words, "FILE, row 3",
    counted from 0."""
    caption: str | None
    """Its own words; None where it has none, and the run's prompt serves."""
    size: tuple[int, int]
    """(W, H) upright, after EXIF rotation."""
    sha256: str = ""
    """Of its bytes, in hex; "edges:" and more (`edge_digest`) where a file has not been read in full."""
    mask: Path | None = None
    """File of its mask; its own `path` where that is its alpha channel."""
    mask_sha256: str = ""
    """Of the mask file's bytes, where it is a file of its own."""
    reference: Path | None = None
    """File of its reference image, of which the model is to make it; in words for a row."""
    reference_sha256: str = ""
    """Of the reference's bytes."""
    reference_row: Callable[[], bytes] | None = field(default=None, compare=False, repr=False)
    """Gives the reference's bytes where it is in a row of a table."""
    row: Callable[[], bytes] | None = field(default=None, compare=False, repr=False)
    """Gives its bytes where it is a row of a table; None where it is a file."""

    @property
    def is_file(self) -> bool:
        """Whether it is a file of its own, and neither a row of a table nor in a zip."""
        return self.row is None and storage.member(self.path) is None

    def data(self) -> bytes:
        """Its bytes as they were saved.

        Raises:
            ConfigError: they cannot be read.
        """
        return read_bytes(self.path) if self.row is None else self.row()

    def content(self) -> str:
        """SHA-256 of all of its bytes."""
        partly = not self.sha256 or self.sha256.startswith("edges:")
        return hashlib.sha256(self.data()).hexdigest() if partly else self.sha256

    def read_mask(self) -> Image.Image:
        """Its mask, mode L, of `size`; there must be one.

        Raises:
            ConfigError: as `masks.read_mask`.
        """
        assert self.mask is not None
        data = self.data() if self.mask == self.path else read_bytes(self.mask)
        return read_mask(data, self.mask, self.path, self.size)

    def reference_data(self) -> bytes:
        """Its reference's bytes as they were saved; there must be one.

        Raises:
            ConfigError: they cannot be read, or have changed since they were hashed.
        """
        assert self.reference is not None
        data = read_bytes(self.reference) if self.reference_row is None else self.reference_row()
        if self.reference_sha256 not in ("", hashlib.sha256(data).hexdigest()):
            raise ConfigError(
                f"{self.reference}: the file has changed since the run read it; leave it alone during the run"
            )
        return data

    def read_reference(self, background: Colour = WHITE) -> Image.Image:
        """Its reference, RGB, upright, of its proportions.

        Raises:
            ConfigError: as `reference_data` and `decode_bytes`; or of other proportions than the photograph.
        """
        assert self.reference is not None
        image = decode_bytes(self.reference_data(), self.reference, background=background).image
        require_proportions("reference image", image.size, self.reference, self.path, self.size)
        return image
