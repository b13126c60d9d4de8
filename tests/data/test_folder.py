"""A folder as a person leaves it: what is used, what is skipped, what is refused, and always in the same order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreamcore.data import Crop, ImageFolder, decode, from_uint8
from dreamcore.errors import ConfigError

from ..support.paths import PHOTOGRAPHS


def picture(path: Path, colour: str = "red", size: tuple[int, int] = (40, 30)) -> Path:
    Image.new("RGB", size, colour).save(path, "JPEG")
    return path


def open_(folder: Path, captions: bool = False) -> ImageFolder:
    return ImageFolder.open(folder, setting="instance_data_dir", captions=captions)


def test_what_people_leave_in_a_folder(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    picture(tmp_path / "no ending", "blue")
    picture(tmp_path / "wrong.txt", "green")
    for name in (".DS_Store", "Thumbs.db", "._a.jpg", "desktop.ini"):
        (tmp_path / name).write_bytes(b"x")
    for name in ("jpg notes.doc", "read.me"):
        (tmp_path / name).write_text("words")
    (tmp_path / "photo.nef").write_bytes(b"II*\0" + bytes(100))
    for name in (".ipynb_checkpoints", "more"):
        (tmp_path / name).mkdir()
        picture(tmp_path / name / "inside.jpg")
    found = open_(tmp_path)
    assert [photo.path.name for photo in found.photos] == ["a.jpg", "no ending", "wrong.txt"]
    notes = " | ".join(found.notes)
    assert "5 hidden files skipped" in notes and "1 sub-folder skipped" in notes and "2 other files skipped" in notes
    assert "photo.nef" in notes


def test_order_is_natural_and_does_not_hang_on_the_disk(tmp_path: Path) -> None:
    names = ["img10.jpg", "B.jpg", "img2.jpg", "a.jpg", "IMG1.jpg", "é.jpg", "img02.jpg"]
    for i, name in enumerate(names):
        picture(tmp_path / name, size=(20 + i, 20))
    got = [photo.path.name for photo in open_(tmp_path).photos]
    assert got == ["a.jpg", "B.jpg", "IMG1.jpg", "img02.jpg", "img2.jpg", "img10.jpg", "é.jpg"]


@pytest.mark.parametrize("case", ["missing", "file", "empty", "foreign"])
def test_folders_that_cannot_be_used(tmp_path: Path, case: str) -> None:
    folder = tmp_path / "photos"
    if case == "file":
        picture(folder)
    elif case != "missing":
        folder.mkdir()
    if case == "foreign":
        (folder / "letter.doc").write_text("words")
    words = {"missing": "does not exist", "file": "not a folder", "empty": "no images", "foreign": "1 other file"}
    with pytest.raises(ConfigError, match=words[case]) as error:
        open_(folder)
    assert "instance_data_dir" in str(error.value) and str(folder) in str(error.value)


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"words", b"\xff\xd8\xff\xe0 cut"])
def test_a_bad_image_is_refused_at_the_start(tmp_path: Path, data: bytes) -> None:
    picture(tmp_path / "a.jpg")
    (tmp_path / "bad.jpg").write_bytes(data)
    with pytest.raises(ConfigError, match=r"bad\.jpg"):
        open_(tmp_path)


def test_all_bad_images_are_told_at_once_but_not_endlessly(tmp_path: Path) -> None:
    for i in range(25):
        (tmp_path / f"bad{i}.jpg").write_bytes(b"")
    with pytest.raises(ConfigError) as error:
        open_(tmp_path)
    lines = str(error.value).splitlines()
    assert len(lines) == 21 and all(f"bad{i}.jpg" in lines[i] for i in range(20)) and lines[-1] == "and 5 more"
    for i in range(1, 25):
        (tmp_path / f"bad{i}.jpg").unlink()
    with pytest.raises(ConfigError) as error:
        open_(tmp_path)
    assert len(str(error.value).splitlines()) == 1


def test_a_dangling_link_with_an_image_name_is_refused(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    (tmp_path / "lost.jpg").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"lost\.jpg"):
        open_(tmp_path)


def test_captions(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg"):
        picture(tmp_path / name)
    assert [photo.caption for photo in open_(tmp_path).photos] == [None, None]
    with pytest.raises(ConfigError, match=r"a\.txt"):
        open_(tmp_path, captions=True)
    (tmp_path / "b.txt").write_bytes(b"\xef\xbb\xbf  ein gr\xc3\xbcner Hund\n")
    found = open_(tmp_path, captions=True)
    assert [photo.caption for photo in found.photos] == [None, "ein grüner Hund"]
    assert any("1 of 2 images have no caption: a.jpg" in note for note in found.notes)
    assert not any("other file" in note for note in found.notes)
    for data, words in ((b" \n", "empty"), (b"\xff\xfe", "UTF-8")):
        (tmp_path / "b.txt").write_bytes(data)
        with pytest.raises(ConfigError, match=words) as error:
            open_(tmp_path, captions=True)
        assert "b.txt" in str(error.value)


def test_fingerprint_sees_every_change(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    picture(tmp_path / "b.jpg", "blue")
    (tmp_path / "a.txt").write_text("one")
    seen = {open_(tmp_path).fingerprint, open_(tmp_path, captions=True).fingerprint}
    (tmp_path / "a.txt").write_text("two")
    seen.add(open_(tmp_path, captions=True).fingerprint)
    (tmp_path / "b.jpg").rename(tmp_path / "c.jpg")
    seen.add(open_(tmp_path).fingerprint)
    picture(tmp_path / "c.jpg", "green")
    seen.add(open_(tmp_path).fingerprint)
    seen.add(open_(tmp_path).limited(1).fingerprint)
    assert len(seen) == 6
    moved = tmp_path.with_name("elsewhere")
    before = open_(tmp_path).fingerprint
    tmp_path.rename(moved)
    assert open_(moved).fingerprint == before
    moved.rename(tmp_path)


def test_limited_says_so(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        picture(tmp_path / name)
    found = open_(tmp_path)
    assert found.limited(3).notes == found.notes
    assert [photo.path.name for photo in found.limited(2).photos] == ["a", "b"]
    assert "1 of 3 images" in found.limited(2).notes[-1]


def test_the_same_file_twice_is_remarked(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    (tmp_path / "a copy.jpg").write_bytes((tmp_path / "a.jpg").read_bytes())
    assert any("a.jpg" in note and "a copy.jpg" in note for note in open_(tmp_path).notes)


def test_pixels_equal_pillows_own_arithmetic(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    found = open_(tmp_path)
    got = found.pixels(0, Crop(30, 30, center_crop=True, random_flip=False), None)
    expected = np.asarray(Image.fromarray(noise).resize((40, 30), Image.Resampling.LANCZOS))[:, 5:35]
    assert got.dtype == np.float32 and got.shape == (3, 30, 30)
    assert np.array_equal(got, from_uint8(expected).transpose(2, 0, 1))
    assert np.array_equal(found.pixels(0, Crop(30, 30, center_crop=True, random_flip=False), None), got)  # cached
    wide = Crop(30, 50, center_crop=True, random_flip=False)
    assert np.array_equal(found.pixels(0, wide, None), open_(tmp_path).pixels(0, wide, None))


def test_a_file_that_changes_during_the_run_is_named(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg")
    found = open_(tmp_path)
    picture(tmp_path / "a.jpg", "blue")
    with pytest.raises(ConfigError, match=r"a\.jpg.*changed"):
        found.pixels(0, Crop(8, 8, center_crop=True, random_flip=False), None)


def test_the_cache_is_bounded_and_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i, colour in enumerate(("red", "green", "blue")):
        picture(tmp_path / f"{i}.jpg", colour)
    crop = Crop(16, 16, center_crop=False, random_flip=True)
    wide = [open_(tmp_path).pixels(i % 3, crop, np.random.default_rng(i)) for i in range(6)]
    monkeypatch.setattr("dreamcore.data.folder.CACHE_BYTES", 1)
    narrow = open_(tmp_path)
    assert all(np.array_equal(w, narrow.pixels(i % 3, crop, np.random.default_rng(i))) for i, w in enumerate(wide))
    assert len(narrow._scaled) == 1


def test_the_cache_lets_go_of_what_was_used_longest_ago(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        picture(tmp_path / name, size=(10, 10))
    monkeypatch.setattr("dreamcore.data.folder.CACHE_BYTES", 2 * 3 * 100)
    found, crop = open_(tmp_path), Crop(10, 10, center_crop=True, random_flip=False)
    for index in (0, 1, 0, 2):
        found.pixels(index, crop, None)
    assert [key[0] for key in found._scaled] == [0, 2]


@pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason="no real photographs beside the repository")
def test_real_photographs() -> None:
    found = open_(PHOTOGRAPHS / "dog")
    assert [photo.path.name for photo in found.photos] == [f"0{i}.jpg" for i in range(5)]
    assert all(decode(photo.path).size == photo.size for photo in found.photos)
    pixels = found.pixels(0, Crop(64, 48, center_crop=False, random_flip=True), np.random.default_rng(0))
    assert pixels.shape == (3, 64, 48) and -1 <= pixels.min() < pixels.max() <= 1 and pixels.std() > 0.1
