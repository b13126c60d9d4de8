"""Folders of many images are indexed by a quick look, sub-folders only on request."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import dreamcore.data.header as header
from dreamcore.data import Crop, ImageFolder, decode
from dreamcore.data.decode import decode_bytes
from dreamcore.data.header import edge_digest, read_header
from dreamcore.errors import ConfigError


def noise(width: int = 300, height: int = 200) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def rotated() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def saved(path: Path, **more: object) -> Path:
    try:
        noise().save(path, **more)  # type: ignore[arg-type]
    except (KeyError, OSError) as error:
        pytest.skip(f"this Pillow cannot write {path.name}: {error}")
    return path


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.gif", "a.tiff", "a.bmp", "a.avif", "a.jp2", "a.ppm"])
def test_the_quick_look_agrees_with_the_decoder(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header, "EDGE", 2000)  # so that these small files have a middle
    path = saved(tmp_path / name, **({"exif": rotated()} if name in ("a.jpg", "a.png", "a.webp", "a.tiff") else {}))
    data = path.read_bytes()
    quick = read_header(path)
    assert quick.sure == (name not in ("a.jp2", "a.ppm", "a.tiff"))  # those are decoded in full
    assert not quick.sure or quick.size == decode(path).size
    assert quick.digest == edge_digest(data)
    path.write_bytes(data[: len(data) * 2 // 3])
    try:
        assert not read_header(path).sure
    except ConfigError as error:  # TIFF keeps its header at the end
        assert str(path) in str(error)


def test_a_tiff_that_is_upright_needs_no_decoding(tmp_path: Path) -> None:
    for name, compression in (("a.tif", None), ("b.tif", "tiff_lzw")):
        path = saved(tmp_path / name, compression=compression)
        assert read_header(path)._replace(digest="") == ((300, 200), "", True, False)


@pytest.mark.parametrize("name", ["a.tif", "a.webp", "a.gif", "a.png", "a.bmp"])
def test_a_lost_end_is_noticed(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path / name)
    assert read_header(path).sure
    path.write_bytes(path.read_bytes()[:-100])
    try:
        assert not read_header(path).sure
    except ConfigError as error:  # Pillow's own check
        assert name == "a.webp" and str(path) in str(error)


def test_a_thumbnails_end_is_not_the_photographs(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jpg", quality=30, exif=b"Exif\0\0" + b"thumbnail \xff\xd8 \xff\xd9")
    path.write_bytes(path.read_bytes()[:-100])
    assert not read_header(path).sure


def test_boxes_of_a_heif_file() -> None:
    def box(size: int, more: bytes = b"") -> bytes:
        return size.to_bytes(4, "big") + b"mdat" + more

    whole = box(12, b"abcd") + box(1, (20).to_bytes(8, "big") + b"wxyz")
    for data, complete in ((whole, True), (whole[:-1], False), (whole + box(0, b"rest"), True), (box(4), False)):
        assert header._boxes_complete(io.BytesIO(data), len(data)) == complete


def test_exif_behind_the_pixels_of_a_png_is_not_missed(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.png", exif=rotated())
    data = path.read_bytes()
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    path.write_bytes(data[:start] + data[end:-12] + data[start:end] + data[-12:])
    assert decode(path).size == (200, 300) and not read_header(path).sure


def test_a_large_folder_is_indexed_without_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(header, "EDGE", 2000)
    monkeypatch.setattr("dreamcore.data.checking.FULL_CHECK", 3)
    first = saved(tmp_path / "0.jpg", quality=95, exif=rotated())
    for i in range(1, 4):
        os.link(first, tmp_path / f"{i}.jpg")
    damaged = bytearray(first.read_bytes())
    middle = slice(len(damaged) // 2, len(damaged) // 2 + 4)
    damaged[middle] = b"\xff\xd9\xff\xd9"
    decoded = list[Path]()

    def counting(data: bytes, path: Path, **more: object) -> object:
        decoded.append(path)
        return decode_bytes(data, path, **more)  # type: ignore[arg-type]

    monkeypatch.setattr("dreamcore.data.folder.decode_bytes", counting)
    monkeypatch.setattr("dreamcore.data.checking.decode_bytes", counting)
    found = ImageFolder.open(tmp_path, setting="s")
    assert not decoded and [photo.size for photo in found.photos] == [(200, 300)] * 4
    assert any("4 images: headers" in note for note in found.notes)
    crop = Crop(20, 20, center_crop=True, random_flip=False)
    assert found.pixels(2, crop, None).shape == (3, 20, 20) and decoded == [tmp_path / "2.jpg"]
    (tmp_path / "3.jpg").unlink()
    (tmp_path / "3.jpg").write_bytes(first.read_bytes()[:-1] + b"\xd8")
    with pytest.raises(ConfigError, match=r"3\.jpg"):
        found.pixels(3, crop, None)


def test_a_large_folder_still_refuses_a_truncated_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dreamcore.data.checking.FULL_CHECK", 0)
    buffer = io.BytesIO()
    noise(900, 700).save(buffer, "JPEG", quality=95)
    assert len(buffer.getvalue()) > 3 * header.EDGE
    (tmp_path / "cut.jpg").write_bytes(buffer.getvalue()[:-1000])
    with pytest.raises(ConfigError, match=r"cut\.jpg.*truncated"):
        ImageFolder.open(tmp_path, setting="s")


def test_sub_folders_on_request(tmp_path: Path) -> None:
    for name in ("b/2.jpg", "a/10.jpg", "a/9.jpg", "z.jpg", ".hidden/x.jpg", "checkpoint-500/x.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        saved(tmp_path / name)
    assert [p.path.name for p in ImageFolder.open(tmp_path, setting="s").photos] == ["z.jpg"]
    (tmp_path / "b" / "round").symlink_to(tmp_path, target_is_directory=True)
    found = ImageFolder.open(tmp_path, setting="s", sub_folders=True)
    assert [p.path.relative_to(tmp_path).as_posix() for p in found.photos] == [
        "a/9.jpg",
        "a/10.jpg",
        "b/2.jpg",
        "z.jpg",
    ]
    assert {"1 hidden file skipped", "2 sub-folders skipped"} <= set(found.notes)
    assert found.fingerprint != ImageFolder.open(tmp_path, setting="s").fingerprint


def test_an_animation_is_remarked(tmp_path: Path) -> None:
    noise().save(tmp_path / "a.gif", save_all=True, append_images=[noise().rotate(90), noise().rotate(180)])
    noise().save(tmp_path / "b.png")
    noise().save(tmp_path / "stereo.mpo", save_all=True, append_images=[noise().rotate(90)])  # a JPEG with a second one
    notes = ImageFolder.open(tmp_path, setting="s").notes
    assert notes == ["a.gif holds 3 frames or pages: the first is used"]


def test_masks_are_not_photographs(tmp_path: Path) -> None:
    saved(tmp_path / "dog.jpg")
    Image.new("L", (300, 200)).save(tmp_path / "dog-mask.png")
    saved(tmp_path / "gas-mask.png")  # no "gas" beside it: a photograph
    assert [p.path.name for p in ImageFolder.open(tmp_path, setting="s").photos] == ["dog.jpg", "gas-mask.png"]
