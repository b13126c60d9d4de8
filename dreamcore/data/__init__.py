"""Photographs: finding, decoding, checking and cropping them.  NumPy and Pillow only, so alike for every backend."""

from .crop import Crop, from_uint8, to_uint8
from .decode import decode
from .finding import find_images
from .folder import ImageFolder, Photo

__all__ = ["Crop", "ImageFolder", "Photo", "decode", "find_images", "from_uint8", "to_uint8"]
