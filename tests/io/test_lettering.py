"""Words in pictures are never drawn as boxes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from dreamcore.io import lettering as module
from dreamcore.io.lettering import MISSING, lettering


def drawn(text: str, font: module.Font) -> np.ndarray:
    picture = Image.new("L", (200, 30))
    ImageDraw.Draw(picture).text((0, 0), text, fill=255, font=font)
    return np.asarray(picture)


def test_plain_words_are_in_pillows_own_font() -> None:
    text, font = lettering("  a photo of\nsks dog … ", 14)
    assert text == "a photo of sks dog …"
    assert (drawn(text, font) == drawn(text, ImageFont.load_default(14))).all()


def test_letters_that_no_font_has_are_question_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_system_fonts", lambda size: ())
    text, font = lettering("一张 sks 小狗, café", 14)
    assert text == "?? sks ??, cafe"
    box = drawn(MISSING, font)
    assert all((drawn(letter, font) != box).any() for letter in text if letter != " ")


def test_a_font_of_the_system_takes_over_where_it_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    made = lettering("λόγος", 14)
    has = {font.path for font in module._system_fonts(14) if not module._lacks(font, "λόγος")}  # type: ignore[union-attr]
    if not has:
        pytest.skip("this system has no font with Greek letters")
    assert made[0] == "λόγος" and made[1].path in has  # type: ignore[union-attr]
    assert (drawn("λ", made[1]) != drawn("γ", made[1])).any()


def test_names_that_are_no_fonts_here_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SYSTEM_FONTS", ("no such font.ttf",))
    module._system_fonts.cache_clear()
    try:
        assert lettering("小狗", 13)[0] == "??"
    finally:
        module._system_fonts.cache_clear()
