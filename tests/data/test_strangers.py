"""What strangers' folders hold: read, or refused in words that say what lies there."""

from __future__ import annotations

import json
import os
import zlib
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dreamcore.data import Crop, ImageFolder
from dreamcore.data.decode import decode
from dreamcore.data.inspection import inspect
from dreamcore.data.sheet import draw_sheet
from dreamcore.errors import ConfigError
from dreamcore.text.wording import Wording


def save(folder: Path, *names: str, size: tuple[int, int] = (32, 32)) -> Path:
    folder.mkdir(exist_ok=True)
    for number, name in enumerate(names):
        Image.new("RGB", size, (number, 0, 0)).save(folder / name)
    return folder


def captions(folder: Path) -> list[str | None]:
    return [photo.caption for photo in ImageFolder.open(folder, setting="s", captions=True).photos]


def test_words_in_a_file_of_capital_ending(tmp_path: Path) -> None:
    folder = save(tmp_path / "in", "00.png")
    (folder / "00.TXT").write_text("a dog")
    assert captions(folder) == ["a dog"]


def test_a_line_separator_within_a_caption(tmp_path: Path) -> None:
    folder = save(tmp_path / "in", "00.png", "01.png")
    (folder / "metadata.csv").write_text('file_name,text\n00.png,a dog\u2028on grass\n01.png,"b\nc"\n', "utf-8")
    assert captions(folder) == ["a dog\u2028on grass", "b\nc"]


def test_metadata_that_joins_nothing_is_named(tmp_path: Path) -> None:
    folder = save(tmp_path / "in", "00.png")
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "train/00.png", "text": "a dog"}))
    with pytest.raises(ConfigError, match=r"it holds none \(metadata of images .*train/00\.png.* called 00\.png"):
        captions(folder)
    (folder / "metadata.jsonl").rename(folder / "metadata.json")
    with pytest.raises(ConfigError, match=r"metadata\.json is not read; expected metadata\.jsonl"):
        captions(folder)


def test_captions_that_are_not_used_are_remarked(tmp_path: Path) -> None:
    folder = save(tmp_path / "in", "00.png", "01.png")
    assert ImageFolder.open(folder, setting="s").notes == []
    (folder / "00.txt").write_text("a dog")
    (note,) = ImageFolder.open(folder, setting="s").notes
    assert note == "1 file of captions lies there and is not used: --use_captions takes it"


def test_names_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "in", "00.png")
    (folder / "00.png").rename(folder / os.fsdecode(b"h\xfcnd.png"))
    with pytest.raises(ConfigError, match=r"s: .*: names that are not UTF-8: h\\udcfcnd\.png; rename") as refused:
        ImageFolder.open(folder, setting="s")
    str(refused.value).encode("utf-8")


def test_a_png_with_long_texts(tmp_path: Path) -> None:
    """As ComfyUI writes its workflows; and a text that would unfold to more than memory is left alone."""
    text = PngInfo()
    text.add_text("workflow", "x" * (3 << 20), zip=True)
    Image.new("RGB", (8, 8), "red").save(tmp_path / "comfy.png", pnginfo=text)
    assert decode(tmp_path / "comfy.png").getpixel((0, 0)) == (255, 0, 0)
    plain = save(tmp_path / "in", "00.png") / "00.png"
    packer = zlib.compressobj(9)
    content = b"bomb\0\0" + b"".join(packer.compress(bytes(1 << 20)) for _ in range(200)) + packer.flush()
    chunk = len(content).to_bytes(4, "big") + b"zTXt" + content + zlib.crc32(b"zTXt" + content).to_bytes(4, "big")
    data = plain.read_bytes()
    (tmp_path / "bomb.png").write_bytes(data[:33] + chunk + data[33:])
    with pytest.raises(ConfigError, match=r"bomb\.png: .*too large"):
        decode(tmp_path / "bomb.png")


def test_more_pixels_than_pillow_opens(tmp_path: Path) -> None:
    Image.new("1", (14000, 14000)).save(tmp_path / "big.png")
    with pytest.raises(ConfigError, match=r"big\.png: 196 megapixels is too large; at most 120 megapixels") as refused:
        decode(tmp_path / "big.png")
    assert "DOS" not in str(refused.value)


@pytest.mark.parametrize("size", [(1, 400), (400, 1), (3, 2000)])
def test_a_strip(size: tuple[int, int], tmp_path: Path) -> None:
    folder = ImageFolder.open(save(tmp_path / "in", "00.png", size=size), setting="s")
    for center in (True, False):
        sheet = draw_sheet(inspect(folder, [Crop(16, 16, center, False)]))
        assert sheet.width > 192


def test_a_place_for_the_caption_in_an_instance_prompt() -> None:
    with pytest.raises(ConfigError, match=r"dog': has a place for the caption, which only caption_template"):
        Wording("a {caption} dog").prompt(None)
