"""Subjects to teach: no word names their colours, and nothing of their class wears their pattern in training in a
colour near theirs."""

from __future__ import annotations

from dataclasses import dataclass

from PIL import Image

from .draws import Draws
from .scenes import SIZE, Scene, draw
from .vocabulary import PLACES, RGB

TEAL: RGB = (20, 176, 170)
PINK: RGB = (242, 92, 168)
LIME: RGB = (168, 222, 58)
MAROON: RGB = (116, 24, 52)
SKY: RGB = (112, 202, 244)
CHOCOLATE: RGB = (110, 66, 38)
LAVENDER: RGB = (190, 162, 236)
PEACH: RGB = (252, 186, 146)


@dataclass(frozen=True)
class Subject:
    """One particular thing."""

    kind: str
    body: RGB
    pattern: str
    second: RGB

    def scene(self, place: str) -> Scene:
        return Scene(self.kind, self.body, self.pattern, self.second, place)

    def draw(self, place: str, seed: int, index: int = 0, width: int = SIZE) -> Image.Image:
        """The subject in a place, RGB, 64 pixels high."""
        return draw(self.scene(place), Draws(seed, index), width)

    def pictures(self, count: int = 5, seed: int = 0, width: int = SIZE) -> list[Image.Image]:
        """`count` images, each in the next place."""
        return [self.draw(PLACES[i % len(PLACES)], seed, i, width) for i in range(count)]


SUBJECTS: dict[str, Subject] = {
    "zigzag-mug": Subject("mug", TEAL, "zigzag", PINK),
    "chequered-car": Subject("car", LIME, "chequers", MAROON),
    "barred-fish": Subject("fish", PEACH, "bars", TEAL),
    "diamond-house": Subject("house", LAVENDER, "diamonds", CHOCOLATE),
    "halved-star": Subject("star", SKY, "halves", CHOCOLATE),
    "diagonal-boat": Subject("boat", PINK, "diagonals", LIME),
    "ringed-bird": Subject("bird", MAROON, "rings", SKY),
}

QUICKSTART = "zigzag-mug"
"""The quickstart's subject; it and the car may help in choosing settings, the others are only measured."""
