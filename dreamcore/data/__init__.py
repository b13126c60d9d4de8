"""Photographs: finding, decoding, checking and cropping them.  NumPy and Pillow only, so alike for every backend."""

from .buckets import bucket_crops, bucket_shapes
from .captions import CaptionSource
from .crop import Crop, CropRecord, from_uint8, to_uint8
from .decode import WHITE, Colour, decode
from .finding import find_images
from .folder import ImageFolder, TrainingImage
from .masks import latent_weights
from .photo import Photo
from .table import Table

__all__ = [
    "WHITE",
    "CaptionSource",
    "Colour",
    "Crop",
    "CropRecord",
    "ImageFolder",
    "Photo",
    "Table",
    "TrainingImage",
    "bucket_crops",
    "bucket_shapes",
    "decode",
    "find_images",
    "from_uint8",
    "latent_weights",
    "to_uint8",
]
