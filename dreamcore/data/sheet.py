"""A contact sheet of a folder: each photograph, the part of it that is trained on, and what was remarked."""

from __future__ import annotations

import unicodedata

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from dreamcore.pictures import contact_sheet

from .inspection import THUMBNAIL, Inspection, Row

LINE = 17
"""Height of a line of text in pixels."""
PAD = 6
WIDTH, HEIGHT = THUMBNAIL + 2 * PAD, THUMBNAIL + 4 * LINE + 3 * PAD
INK, GREY, PAPER, FRAME, ALARM = "#1a1a1a", "#6b6b6b", "#f4f4f4", "#ff8c00", "#b00020"


def draw_sheet(inspection: Inspection, columns: int = 5) -> Image.Image:
    """The sheet, mode RGB: a cell for each thumbnail, with the crop framed and the rest dimmed.

    Pillow's own font has few letters: accents are left off, and others appear as question marks.
    """
    pairs = zip(inspection.rows, inspection.thumbnails, strict=False)
    cells = [np.asarray(_cell(row, thumbnail, n)) for n, (row, thumbnail) in enumerate(pairs, 1)]
    return Image.fromarray(contact_sheet(cells, min(columns, len(cells))))


def _cell(row: Row, thumbnail: Image.Image, number: int) -> Image.Image:
    cell = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    left, top = (PAD + (THUMBNAIL - side) // 2 for side in thumbnail.size)
    cell.paste(ImageEnhance.Brightness(thumbnail).enhance(0.4), (left, top))
    fx, fy = thumbnail.width / row.size[0], thumbnail.height / row.size[1]
    crop = [round(v * f) for v, f in zip(row.crop, (fx, fy, fx, fy), strict=True)]
    cell.paste(thumbnail.crop((crop[0], crop[1], crop[2], crop[3])), (left + crop[0], top + crop[1]))
    draw = ImageDraw.Draw(cell)
    draw.rectangle((left + crop[0], top + crop[1], left + crop[2] - 1, top + crop[3] - 1), outline=FRAME, width=2)
    size, target = (f"{pair[0]} x {pair[1]}" for pair in (row.size, row.target))
    lines = [(f"{number}  {row.name}", INK), (f"{size} > {target}", GREY), (row.prompt or "", GREY)]
    lines.append((", ".join(remark.kind for remark in row.remarks), ALARM))
    for i, (text, colour) in enumerate(lines):
        _write(draw, text, (PAD, THUMBNAIL + 2 * PAD + i * LINE), colour)
    return cell


def _write(draw: ImageDraw.ImageDraw, text: str, at: tuple[int, int], colour: str) -> None:
    """One line, shortened to the cell's width."""
    font = ImageFont.load_default(12)
    text = unicodedata.normalize("NFKD", " ".join(text.split()))
    text = "".join(c for c in text if not unicodedata.combining(c)).encode("ascii", "replace").decode()
    while draw.textlength(text, font=font) > THUMBNAIL:
        text = text[: max(0, min(len(text) - 4, 60))] + "..."
    draw.text(at, text, fill=colour, font=font)
