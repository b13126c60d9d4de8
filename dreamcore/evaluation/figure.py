"""An evaluation as one picture: what was made, each beside the photograph that it is most like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from ..io.lettering import lettering
from .judge import Picture

SIDE, LINE, PAD, GAP = 144, 16, 8, 4
"""Pixels: a picture, a line of text, around a cell, between its two pictures."""
COLUMNS = 4
HEAD = 3 * LINE
CELL = (2 * SIDE + GAP + 2 * PAD, SIDE + 2 * LINE + 2 * PAD)
INK, GREY, PAPER, ALARM = "#1a1a1a", "#6b6b6b", "#ffffff", "#b00020"


@dataclass(frozen=True)
class Pair:
    """A picture and its nearest photograph."""

    picture: Picture
    photograph: Picture
    words: str
    """What it was to show."""
    said: str
    """Its figures, in words."""
    learned_by_heart: bool = False
    """Whether it is nearer to that photograph than any two photographs are to each other."""


@dataclass(frozen=True)
class Part:
    """A subject's."""

    title: str
    measures: str
    pairs: Sequence[Pair]


def figure(parts: Sequence[Part], note: str) -> Image.Image:
    """Pairs in rows of four, a title above each subject's, a note below all; mode RGB, white whatever is around it."""
    heights = [HEAD + -(-len(part.pairs) // COLUMNS) * CELL[1] for part in parts]
    columns = min(COLUMNS, max(len(part.pairs) for part in parts))
    whole = Image.new("RGB", (max(columns, 2) * CELL[0], sum(heights) + 2 * LINE), PAPER)
    draw, top = ImageDraw.Draw(whole), 0
    for part, height in zip(parts, heights, strict=True):
        _write(draw, part.title, (PAD, top + PAD), INK, whole.width - 2 * PAD, 15)
        _write(draw, part.measures, (PAD, top + PAD + LINE + 4), INK, whole.width - 2 * PAD)
        for number, pair in enumerate(part.pairs):
            left = number % COLUMNS * CELL[0]
            _draw_pair(whole, draw, pair, (left, top + HEAD + number // COLUMNS * CELL[1]))
        top += height
    _write(draw, note, (PAD, top + LINE // 4), GREY, whole.width - 2 * PAD)
    return whole


def _draw_pair(whole: Image.Image, draw: ImageDraw.ImageDraw, pair: Pair, at: tuple[int, int]) -> None:
    left, top = at[0] + PAD, at[1] + PAD
    for number, picture in enumerate((pair.picture, pair.photograph)):
        whole.paste(_fitted(picture), (left + number * (SIDE + GAP), top))
    width = 2 * SIDE + GAP
    _write(draw, pair.words, (left, top + SIDE + 2), INK, width)
    _write(draw, pair.said, (left, top + SIDE + 2 + LINE), ALARM if pair.learned_by_heart else GREY, width)


def _fitted(picture: Picture) -> Image.Image:
    """Its middle square, in the size of all."""
    height, width, _ = picture.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    image = Image.fromarray(np.ascontiguousarray(picture[top : top + side, left : left + side]))
    small = side < SIDE
    return image.resize((SIDE, SIDE), Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS)


def _write(draw: ImageDraw.ImageDraw, text: str, at: tuple[int, int], colour: str, width: int, size: int = 11) -> None:
    """One line, shortened to a width."""
    text, font = lettering(text, size)
    while draw.textlength(text, font=font) > width:
        text = text[: max(0, len(text) - 5)] + "..."
    draw.text(at, text, fill=colour, font=font)
