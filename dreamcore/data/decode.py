"""One way from a file to upright sRGB pixels, whatever a camera, a phone or a drawing program wrote.

Masks: the alpha channel is laid over a colour here.  Where it is to serve as a mask (masks.py), it is taken from
`decode_bytes(..., keep_alpha=True)`, so that image and mask are turned alike.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

from ..errors import ConfigError
from . import colours, jpeg_xl, storage
from .formats import HEAD_BYTES, require_decoder, sniff

MAX_PIXELS = 120_000_000
"""Largest image that is decoded (a 102-megapixel camera's fits); a decompression bomb does not get that far."""
MAX_SCANS = 1000
"""Most passes of a progressive JPEG; cameras write about ten, and a file made to hang its reader tens of thousands."""

Colour = tuple[int, int, int]
"""RGB, 0…255."""
WHITE: Colour = (255, 255, 255)

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""EXIF orientation (tag 0x0112) -> what makes the image upright."""


class Decoded(NamedTuple):
    """An image and what its file was like."""

    image: Image.Image
    """Upright, in sRGB: RGB, or RGBA where alpha was asked for and there is some."""
    kind: str
    """Pillow's name of the format."""
    mode: str
    """Pillow's name of the pixels' form in the file: RGB, L, P, CMYK, I;16 ..."""
    orientation: int
    """EXIF orientation, 1…8; 1 is upright."""
    frames: int
    """Frames of an animation or pages of a document; 1 for a still image."""


def decode(path: str | Path, background: Colour = WHITE) -> Image.Image:
    """The image in a file, upright, in sRGB, mode RGB, alpha laid over `background`; an animation's first frame.

    Raises:
        ConfigError: the file is missing, empty, truncated, damaged, too large or of a format without decoder.
    """
    path = Path(path)
    return decode_bytes(read_bytes(path), path, background=background).image


def read_bytes(path: Path) -> bytes:
    """A file's contents.

    Raises:
        ConfigError: it cannot be read, or is too large (`storage.read`).
    """
    try:
        return storage.read(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error


def open_image(source: BinaryIO, path: Path) -> tuple[Image.Image, str]:
    """The image in an open file with its header read and its pixels not, and the name of its format.

    Its size is that before EXIF rotation.

    Raises:
        ConfigError: as `decode`.
    """
    head = source.read(HEAD_BYTES)
    source.seek(0)
    if not head:
        raise ConfigError(f"{path}: the file is empty; replace it or take it away")
    kind = sniff(head)
    if kind is None:
        raise ConfigError(f"{path}: not an image, judged by its content; replace it or take it away")
    require_decoder(kind, path)
    if kind == "JXL" and (size := jpeg_xl.size_of(source)) and size[0] * size[1] > MAX_PIXELS:
        raise _too_large(path, f"{size[0]}×{size[1]} pixels")  # opening it decodes every pixel
    try:
        with _patient():
            image = Image.open(source, formats=[kind])
    except Image.DecompressionBombError as error:
        pixels = re.search(r"\d+", str(error))  # Pillow says how many, and nothing of width and height
        raise _too_large(path, f"{int(pixels[0]) // 10**6} megapixels" if pixels else "it") from error
    except Exception as error:  # decoders raise anything on damaged files: KeyError, struct.error ...
        raise _damaged(path, error) from error
    if image.width * image.height > MAX_PIXELS:
        raise _too_large(path, f"{image.width}×{image.height} pixels")
    if (hdr := colours.high_range(image)) is not None:
        raise ConfigError(f"{path}: an HDR image ({hdr}), whose colours no model knows; save it as JPEG or PNG")
    return image, kind


def decode_bytes(data: bytes, path: Path, *, keep_alpha: bool = False, background: Colour = WHITE) -> Decoded:
    """`decode` for a file's contents; `path` serves for messages.  With `keep_alpha`, RGBA where there is alpha."""
    image, kind = open_image(io.BytesIO(data), path)
    if image.info.get("progressive") and data.count(b"\xff\xda") > MAX_SCANS:
        raise ConfigError(f"{path}: a progressive JPEG of more than {MAX_SCANS} passes; save it anew, or take it away")
    mode, frames = image.mode, _frames(image, kind)
    try:
        with _patient():
            image.load()
            turn = orientation(image)
            image = _to_srgb(image)
    except Exception as error:  # as above
        raise _damaged(path, error) from error
    if image.mode == "RGBA" and not keep_alpha:
        over = Image.new("RGB", image.size, background)
        over.paste(image, mask=image.getchannel("A"))
        image = over
    return Decoded(image.transpose(_UPRIGHT[turn]) if turn > 1 else image, kind, mode, turn, frames)


@contextmanager
def _patient() -> Iterator[None]:
    """Pillow without its warnings (at 89 megapixels; the limit here is `MAX_PIXELS`), and with room for the texts that
    drawing programs write into PNGs: each may be as long as Pillow lets all of them be, 64 MiB."""
    least = PngImagePlugin.MAX_TEXT_CHUNK
    PngImagePlugin.MAX_TEXT_CHUNK = max(least, PngImagePlugin.MAX_TEXT_MEMORY)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        PngImagePlugin.MAX_TEXT_CHUNK = least


def _frames(image: Image.Image, kind: str) -> int:
    """Counted before the pixels are read: counting later would move a GIF off its first frame."""
    if kind == "JPEG":  # a stereo pair or a preview beside the photograph (MPO) is no animation
        return 1
    try:
        with _patient():
            return int(getattr(image, "n_frames", 1))
    except Exception:  # damage behind the first frame, which alone is used
        return 1


def orientation(image: Image.Image) -> int:
    """EXIF orientation 1…8; 1 (upright) where there is none or the EXIF data are damaged.

    What HEIF and JPEG XL say of it by themselves has been done, and EXIF's word does not count beside it: pillow-heif
    takes it away, JPEG XL's plug-in leaves it (but where it gives back the JPEG that the file was made of).
    """
    if image.format == "JXL" and not getattr(image, "jpeg", False):
        return 1
    try:
        value = image.getexif().get(0x0112, 1)
    except Exception:  # damaged metadata do not spoil the pixels
        return 1
    return value if value in _UPRIGHT else 1


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(W, H) after EXIF rotation."""
    return (image.height, image.width) if orientation(image) >= 5 else image.size


def _to_srgb(image: Image.Image) -> Image.Image:
    """RGB or RGBA in sRGB from any mode; an image without a profile is taken for sRGB (naive CMYK)."""
    profile, primaries = image.info.get("icc_profile"), colours.wide(image)
    if image.mode.startswith(("I", "F")):
        image = _to_grey8(image)
    alpha = None
    if image.has_transparency_data or image.mode in ("LA", "PA", "La", "RGBA", "RGBa"):
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    elif image.mode == "1" or image.mode == "P":
        image = image.convert("RGB")
    if primaries is not None:
        image = colours.to_srgb(image.convert("RGB"), primaries)
    elif profile:
        image = _convert_profile(image.convert("RGB") if alpha is not None else image, profile)
    if image.mode not in ("RGB", "RGBA"):
        image = image.convert("RGB")
    if alpha is not None:
        image = image.convert("RGBA")
        image.putalpha(alpha)
    return image


def _to_grey8(image: Image.Image) -> Image.Image:
    """16-bit and float grey to 8 bits, scaled (Pillow's own conversion clips, and a photograph turns white)."""
    values = np.asarray(image).astype(np.float64)
    if image.mode == "F":
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise ValueError("floating-point pixels outside 0…1")
        values *= 255
    else:
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("whole-number pixels beyond 16 bits")
        values /= 257
    grey = Image.fromarray(np.rint(values).astype(np.uint8))
    grey.info = dict(image.info)
    grey.info.pop("transparency", None)  # a 16-bit key colour, which 8 bits cannot tell apart
    return grey


def _convert_profile(image: Image.Image, profile: bytes) -> Image.Image:
    """The image's colours from its embedded profile to sRGB; unchanged where the profile is sRGB or unusable."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "srgb" in ImageCms.getProfileDescription(source).lower():
            return image
        result = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except Exception:  # a damaged profile, one of another colour space, or Pillow built without LittleCMS
        return image
    return image if result is None else result


def _damaged(path: Path, error: Exception) -> ConfigError:
    return ConfigError(f"{path}: truncated or damaged: {error}; replace it or take it away")


def _too_large(path: Path, what: str) -> ConfigError:
    return ConfigError(
        f"{path}: {what} is too large; at most {MAX_PIXELS // 10**6} megapixels are decoded, scale it down"
    )
