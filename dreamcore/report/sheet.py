"""report.png: the subject's images, and below them what the model drew from the same seeds as it learned."""

from __future__ import annotations

import io
from itertools import chain
from pathlib import Path

from PIL import Image, ImageDraw

from ..io.lettering import lettering
from .collect import RunData
from .facts import facts
from .images import load
from .page import spread

CELL, GAP, MARGIN = 128, 8, 24
COLUMNS = 8
"""Images in a row."""
MOST_ROWS = 8
"""Seeds that are shown."""
PAPER, INK, SOFT = "#ffffff", "#1b1f24", "#57606a"


def render_sheet(data: RunData) -> bytes:
    """The contact sheet as PNG."""
    instance = data.instance_images[:COLUMNS]
    steps = spread(list(data.samples), COLUMNS)
    numbers = sorted(set(chain.from_iterable(data.samples[step] for step in steps)))[:MOST_ROWS]
    sheet = _Sheet()
    sheet.words(data.name, 26, INK)
    sheet.words(str(data.config.get("instance_prompt", "")), 17, INK)
    sheet.words(" · ".join(f"{fact.name}: {fact.value}" for fact in facts(data)[:3]), 14, SOFT)
    if instance:
        sheet.heading("The subject")
        sheet.row(list(instance))
    if steps:
        sheet.heading(f"Same seeds: {data.prompt or 'validation pictures'}")
        sheet.labels(["before" if step == 0 else f"{step:,}" for step in steps])
        for number in numbers:
            sheet.row([data.samples[step].get(number) for step in steps])
    if not instance and not steps:
        sheet.heading("No images in this run folder.")
    sheet.say_what_is_missing()
    return sheet.png()


class _Sheet:
    """An image that grows downwards."""

    def __init__(self) -> None:
        self._missing = False
        self._width = 2 * MARGIN + COLUMNS * (CELL + GAP) - GAP
        self._parts: list[tuple[int, Image.Image]] = []
        self._height = MARGIN

    def words(self, words: str, size: int, colour: str) -> None:
        """One line, cut where the sheet ends."""
        line, font = lettering(words, size)
        if not line:
            return
        self._missing |= line.count("?") > words.count("?") + words.count("？")
        while line and font.getlength(line) > self._width - 2 * MARGIN:
            line = line[:-2].rstrip("…") + "…" if len(line) > 2 else ""
        strip = Image.new("RGB", (self._width, round(size * 1.5)), PAPER)
        ImageDraw.Draw(strip).text((MARGIN, 0), line, fill=colour, font=font)
        self._add(strip)

    def say_what_is_missing(self) -> None:
        """Last of all, what question marks stand for that nobody wrote."""
        if self._missing:
            self._height += 14
            self.words("? stands for letters that no font of this system has; report.html has them", 14, SOFT)

    def heading(self, words: str) -> None:
        self._height += 14
        self.words(words, 17, INK)

    def labels(self, labels: list[str]) -> None:
        strip = Image.new("RGB", (self._width, 20), PAPER)
        for column, label in enumerate(labels):
            at = (MARGIN + column * (CELL + GAP), 0)
            text, font = lettering(label, 14)
            ImageDraw.Draw(strip).text(at, text, fill=SOFT, font=font)
        self._add(strip)

    def row(self, paths: list[Path | None]) -> None:
        strip = Image.new("RGB", (self._width, CELL + GAP), PAPER)
        for column, path in enumerate(paths):
            picture = _fitted(path) if path is not None else None
            if picture is not None:
                x = MARGIN + column * (CELL + GAP) + (CELL - picture.width) // 2
                strip.paste(picture, (x, (CELL - picture.height) // 2))
        self._add(strip)

    def png(self) -> bytes:
        sheet = Image.new("RGB", (self._width, self._height + MARGIN - GAP), PAPER)
        for top, strip in self._parts:
            sheet.paste(strip, (0, top))
        buffer = io.BytesIO()
        sheet.save(buffer, "PNG")
        return buffer.getvalue()

    def _add(self, strip: Image.Image) -> None:
        self._parts.append((self._height, strip))
        self._height += strip.height


def _fitted(path: Path) -> Image.Image | None:
    """The image within a cell: larger ones scaled down, small ones enlarged by a whole number."""
    picture = load(path, CELL)
    if picture is None:
        return None
    factor = CELL // max(picture.size)
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
