"""A contact sheet of a folder: each photograph, the part of it that is trained on, and what was remarked."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance

from ..io.images import contact_sheet
from ..io.lettering import lettering
from .inspection import THUMBNAIL, Inspection, Row
from .masks import Box

LINE = 17
"""Height of a line of text in pixels."""
PAD = 6
WIDTH, HEIGHT = THUMBNAIL + 2 * PAD, THUMBNAIL + 4 * LINE + 3 * PAD
INK, GREY, PAPER, FRAME, ALARM = "#1a1a1a", "#6b6b6b", "#f4f4f4", "#ff8c00", "#b00020"


def draw_sheet(inspection: Inspection, columns: int = 5) -> Image.Image:
    """The sheet, mode RGB: a cell for each thumbnail, with the crop framed, or the middle one where they are random;
    what none can show is dimmed."""
    pairs = zip(inspection.rows, inspection.thumbnails, strict=False)
    cells = [np.asarray(_cell(row, thumbnail, n)) for n, (row, thumbnail) in enumerate(pairs, 1)]
    return Image.fromarray(contact_sheet(cells, min(columns, len(cells))))


def _cell(row: Row, thumbnail: Image.Image, number: int) -> Image.Image:
    cell = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    left, top = (PAD + (THUMBNAIL - side) // 2 for side in thumbnail.size)
    cell.paste(ImageEnhance.Brightness(thumbnail).enhance(0.4), (left, top))
    bright, frame = (_within(box, row.size, thumbnail.size) for box in (row.reach, row.crop))
    cell.paste(thumbnail.crop(bright), (left + bright[0], top + bright[1]))
    draw = ImageDraw.Draw(cell)
    draw.rectangle((left + frame[0], top + frame[1], left + frame[2] - 1, top + frame[3] - 1), outline=FRAME, width=2)
    size, target = (f"{pair[0]} x {pair[1]}" for pair in (row.size, row.target))
    how = "" if row.reach == row.crop else ", random"
    lines = [(f"{number}  {row.name}", INK), (f"{size} > {target}{how}", GREY), (row.prompt or "", GREY)]
    lines.append((", ".join(remark.kind for remark in row.remarks), ALARM))
    for i, (text, colour) in enumerate(lines):
        _write(draw, text, (PAD, THUMBNAIL + 2 * PAD + i * LINE), colour)
    return cell


def _within(box: Box, size: tuple[int, int], thumbnail: tuple[int, int]) -> Box:
    """A box of a photograph in its thumbnail, a pixel wide and high at least."""
    left, top = (min(round(box[i] * thumbnail[i] / size[i]), thumbnail[i] - 1) for i in (0, 1))
    right, bottom = (round(box[2 + i] * thumbnail[i] / size[i]) for i in (0, 1))
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _write(draw: ImageDraw.ImageDraw, text: str, at: tuple[int, int], colour: str) -> None:
    """One line, shortened to the cell's width."""
    text, font = lettering(text, 12)
    while draw.textlength(text, font=font) > THUMBNAIL:
        text = text[: max(0, min(len(text) - 4, 60))] + "..."
    draw.text(at, text, fill=colour, font=font)
