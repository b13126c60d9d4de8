"""Which images a sample is one of: its concept's photographs, or the class images that they bring with them."""

from __future__ import annotations

from typing import NamedTuple

INSTANCE, CLASS = 0, 1
"""Kinds of images: the subject's photographs, and the class images of prior preservation."""


class ImageSet(NamedTuple):
    """A concept's images of one kind."""

    concept: int
    """Its place in the list of concepts."""
    kind: int
    """`INSTANCE` or `CLASS`."""
