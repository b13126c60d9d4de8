"""Photographs: finding, decoding, checking and cropping them.  NumPy and Pillow only, so alike for every backend."""

from .captions import CaptionSource
from .crop import Crop, from_uint8, to_uint8
from .decode import decode
from .finding import find_images
from .folder import ImageFolder, Photo
from .wording import Wording

__all__ = [
    "CaptionSource",
    "Crop",
    "ImageFolder",
    "Photo",
    "Wording",
    "decode",
    "find_images",
    "from_uint8",
    "to_uint8",
]
