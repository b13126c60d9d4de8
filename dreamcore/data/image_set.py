"""Which images a sample is one of: its concept's photographs, or the class images that they bring with them."""

from __future__ import annotations

from typing import NamedTuple

INSTANCE, CLASS, PRESERVED = 0, 1, 2
"""Kinds of images: the subject's photographs, and the class images of prior preservation; and of rows besides: a
photograph under words for its class, to which the model is to answer as it does without what is trained."""


class ImageSet(NamedTuple):
    """A concept's images of one kind."""

    concept: int
    """Its place in the list of concepts."""
    kind: int
    """`INSTANCE` or `CLASS`; of words alone, `PRESERVED` too."""
