"""A zip in place of a folder: the same photographs, words and masks, by the same names; and none that does harm."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dreamcore
from dreamcore.data import Crop, ImageFolder, archive, find_images, storage
from dreamcore.errors import ConfigError
from dreamcore.hub.datasets import find_dataset

from ..support.tiny import draw_photos

Write = Callable[[zipfile.ZipFile, bytes], None]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photographs, one with words and one with a mask, and what systems leave."""
    folder = draw_photos(tmp_path / "dog", count=3)
    (folder / "00.txt").write_text("\ufeffon grass\r\n", encoding="utf-8")
    size = Image.open(folder / "01.png").size
    mask = np.zeros(size[::-1], np.uint8)
    mask[5:20, 8:30] = 255
    Image.fromarray(mask).save(folder / "01-mask.png")
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "film.mov").write_bytes(b"\0\0\0\x14ftypqt  " + bytes(8))
    return folder


def zipped(folder: Path, file: Path, inside: str = "", *, deflated: bool = False) -> Path:
    """The files of a folder in a zip, under a folder in there."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED) as made:
        for path in sorted(folder.rglob("*")):
            made.write(path, inside + path.relative_to(folder).as_posix())
    return file


def opened(path: Path, **settings: bool) -> ImageFolder:
    return ImageFolder.open(path, setting="instance_data_dir", **{"captions": True, "masks": True, **settings})


@pytest.mark.parametrize("inside", ["", "dog/", "Takeout/Google Photos/Rex/"])
@pytest.mark.parametrize("full", [True, False], ids=["few", "many"])
def test_a_zip_is_the_folder_that_it_was_made_of(
    photos: Path, tmp_path: Path, inside: str, full: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not full:
        monkeypatch.setattr("dreamcore.data.checking.FULL_CHECK", 1)
    file = zipped(photos, tmp_path / "photos.zip", inside, deflated=full)
    with zipfile.ZipFile(file, "a") as made:
        made.writestr(f"__MACOSX/{inside}._00.png", b"x")
        if inside.startswith("T"):
            made.writestr("Takeout/archive_browser.html", "<html>")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    ours, theirs = opened(file), opened(photos)
    assert ours.fingerprint == theirs.fingerprint
    assert [one.notes for one in (ours, theirs)] == [theirs.notes] * 2
    assert ours.folder == file / inside and ours.photos[0].path == file / inside / "00.png"
    assert [photo.caption for photo in ours.photos] == ["on grass", None, None]
    crop = Crop(32, 32, True, False)
    for number in range(3):
        one, other = (folder.sample(number, crop, None) for folder in (ours, theirs))
        np.testing.assert_array_equal(one.pixels, other.pixels)
        assert (one.mask is None) == (other.mask is None) == (number != 1)
    after = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert after == before, "nothing is written beside them"


def test_several_folders_are_asked_about(photos: Path, tmp_path: Path) -> None:
    file = zipped(photos, tmp_path / "two.zip", "cat/")
    with zipfile.ZipFile(file, "a") as made:
        made.write(photos / "00.png", "dog/00.png")
    with pytest.raises(ConfigError, match=r"instance_data_dir: .*name one, or give --sub_folders: .*cat, .*dog"):
        opened(file)
    assert len(opened(file / "cat").photos) == 3
    assert len(opened(file, sub_folders=True).photos) == 4
    with zipfile.ZipFile(file, "a") as made:
        made.write(photos / "00.png", "00.png")
    alone = ImageFolder.open(file, setting="instance_data_dir")
    assert [photo.path for photo in alone.photos] == [file / "00.png"] and "2 sub-folders skipped" in alone.notes
    with pytest.raises(ConfigError, match=r"two\.zip/bird does not exist"):
        opened(file / "bird")


def test_metadata_and_names_in_zips(photos: Path, tmp_path: Path) -> None:
    (photos / "00.txt").unlink()
    (photos / "metadata.jsonl").write_text('{"file_name": "02.png", "text": "asleep"}\n')
    (photos / "metadata.json").write_text("{}")
    file = zipped(photos, tmp_path / "photos.zip", "dog/")
    found = opened(file)
    assert [photo.caption for photo in found.photos] == [None, None, "asleep"]
    assert any("metadata.json is not read" in note for note in found.notes)
    dataset = find_dataset(str(file), None)
    assert (dataset.root, dataset.files) == (file, [])
    with pytest.raises(ConfigError, match=r"dataset_config_name: 'plain': .*photos\.zip holds images"):
        find_dataset(str(file), "plain")


def test_names_that_macos_and_windows_write(photos: Path, tmp_path: Path) -> None:
    data = (photos / "00.png").read_bytes()
    file = tmp_path / "photos.zip"
    with zipfile.ZipFile(file, "w") as made:
        made.writestr("Fotos\\K\u00e4the.png", data)
    assert file.read_bytes().count("K\u00e4the".encode()) == 2, "UTF-8, which its flag says"
    plain = file.read_bytes().replace(b"PK\x03\x04\x14\0\0\x08", b"PK\x03\x04\x14\0\0\0")
    plain = plain.replace(b"PK\x01\x02\x14\x03\x14\0\0\x08", b"PK\x01\x02\x14\x03\x14\0\0\0")
    assert plain != file.read_bytes()
    for content in (file.read_bytes(), plain):  # as Windows writes it; and macOS, which does not set the flag
        file.write_bytes(content)
        archive._opened.cache_clear()
        assert find_images(file, "x")[0] == [file / "Fotos" / "K\u00e4the.png"]


def _link(made: zipfile.ZipFile, data: bytes) -> None:
    info = zipfile.ZipInfo("b.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    made.writestr(info, "/etc/passwd")
    made.writestr("a.png", data)


def test_links_are_never_followed(photos: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        _link(made, (photos / "00.png").read_bytes())
    images, notes = find_images(tmp_path / "a.zip", "x")
    assert images == [tmp_path / "a.zip" / "a.png"] and notes == ["1 link skipped"]


@pytest.mark.parametrize("name", ["../a.png", "dog/../../a.png", "/tmp/a.png", "..\\a.png", "C:\\a.png"])
def test_no_name_leads_out(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as made:
        made.writestr(name, b"x")
    with pytest.raises(ConfigError, match=r"a\.zip: .*a name that leads out of the zip"):
        find_images(tmp_path / "a.zip", "x")


def test_damage_is_named(photos: Path, tmp_path: Path) -> None:
    whole = zipped(photos, tmp_path / "whole.zip").read_bytes()
    file = tmp_path / "photos.zip"
    for content in (b"", b"words", whole[:-30], whole[: len(whole) // 2], b"Rar!\x1a\x07\0" + bytes(100)):
        file.write_bytes(content)
        with pytest.raises(ConfigError, match=r"photos\.zip: a truncated or damaged zip, or none \(.*again"):
            opened(file)
    at = whole.index((photos / "02.png").read_bytes()) + 60
    file.write_bytes(whole[:at] + b"damage" + whole[at + 6 :])
    with pytest.raises(ConfigError, match=r"photos\.zip/02\.png: damaged in the zip: Bad CRC"):
        opened(file)


def test_declared_lengths_are_checked(tmp_path: Path) -> None:
    """The list of files says 10 bytes fewer, or more, than there are."""
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.bmp")
    data = (tmp_path / "a.bmp").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("a.bmp", data)
    content = (tmp_path / "a.zip").read_bytes()
    place = content.index(b"PK\x01\x02") + 24
    for length in (len(data) - 10, len(data) + 10):
        (tmp_path / f"{length}.zip").write_bytes(content[:place] + struct.pack("<I", length) + content[place + 4 :])
        with pytest.raises(ConfigError, match=r"a\.bmp: damaged in the zip"):
            opened(tmp_path / f"{length}.zip", captions=False)


def test_encrypted_and_strangely_compressed_zips(photos: Path, tmp_path: Path) -> None:
    content = bytearray(zipped(photos, tmp_path / "a.zip").read_bytes())
    at = content.index(b"PK\x01\x02")
    locked, strange = bytearray(content), bytearray(content)
    locked[at + 8] |= 1
    strange[at + 10] = 9  # Deflate64
    for changed, words in ((locked, "is encrypted; unpack it with its password"), (strange, "by a method.*unpack it")):
        (tmp_path / "a.zip").write_bytes(changed)
        archive._opened.cache_clear()
        with pytest.raises(ConfigError, match=rf"a\.zip: .*{words}"):
            opened(tmp_path / "a.zip")


def test_bombs_are_refused_before_anything_is_read(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = zipped(photos, tmp_path / "a.zip")
    for name, limit in (("MAX_FILES", 2), ("MAX_TOTAL", 1000)):
        with monkeypatch.context() as patch:
            patch.setattr(archive, name, limit)
            archive._opened.cache_clear()
            with pytest.raises(ConfigError, match=r"a\.zip: 7 files of .* are too much"):
                opened(file)
    with monkeypatch.context() as patch:
        patch.setattr(archive, "MAX_DIRECTORY", 100)
        archive._opened.cache_clear()
        with pytest.raises(ConfigError, match=r"a\.zip: .*a list of files of \d+ bytes"):
            opened(file)
    monkeypatch.setattr(storage, "MAX_BYTES", 100)
    archive._opened.cache_clear()
    with pytest.raises(ConfigError, match=r"a\.zip/00\.png: .* too large"):
        opened(file, captions=False)


def test_files_that_share_their_bytes(photos: Path, tmp_path: Path) -> None:
    """As in Fifield's bomb (USENIX WOOT 2019), of which 10 MB come to 281 TB."""
    file = tmp_path / "a.zip"
    with zipfile.ZipFile(file, "w") as made:
        made.write(photos / "00.png", "0.png")
        made.write(photos / "00.png", "1.png")
    content = bytearray(file.read_bytes())
    second = content.index(b"PK\x01\x02", content.index(b"PK\x01\x02") + 4)
    content[second + 42 : second + 46] = struct.pack("<I", 0)
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"a\.zip: 0\.png and 1\.png share their bytes"):
        opened(file)


def test_a_zip_that_changes_or_goes_is_noticed(photos: Path, tmp_path: Path) -> None:
    file = zipped(photos, tmp_path / "a.zip")
    found, crop = opened(file), Crop(32, 32, True, False)
    os.replace(zipped(draw_photos(tmp_path / "other", 3, seed=1), tmp_path / "b.zip"), file)
    with pytest.raises(ConfigError, match=r"a\.zip/00\.png: the file has changed"):
        found.sample(0, crop, None)
    file.unlink()
    with pytest.raises(ConfigError, match=r"a\.zip/02\.png: cannot be read: No such file"):
        found.sample(2, crop, None)


def test_what_is_no_folder_and_no_zip(photos: Path) -> None:
    with pytest.raises(ConfigError, match=r"00\.png is not a folder; expected a folder with images, or a \.zip"):
        opened(photos / "00.png")


def test_data_looks_into_a_zip(photos: Path, tmp_path: Path) -> None:
    file = zipped(photos, tmp_path / "photos.zip", "dog/")
    shutil.rmtree(photos)
    report = dreamcore.data_report(instance_data_dir=str(file), sheet=str(tmp_path / "sheet.png"))
    assert report.folders == [file / "dog"] and len(report.inspections[0].rows) == 3
    with pytest.raises(ConfigError, match=r"sheet: .*photos\.zip"):
        dreamcore.data_report(instance_data_dir=str(file), sheet=str(file / "sheet.png"))
