"""HEIC, AVIF and JPEG XL, as phones and their apps write them: read by plug-ins, loaded only for such a file."""

from __future__ import annotations

import importlib
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps, features

from dreamcore.data import ImageFolder, decode, jpeg_xl
from dreamcore.data.formats import require_decoder
from dreamcore.data.header import read_header
from dreamcore.errors import ConfigError

from .test_decode import close, drawn

TURNS = range(1, 9)


@pytest.fixture
def heif() -> Any:
    plugin = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    require_decoder("HEIF", "this test")
    return plugin


@pytest.fixture
def jxl() -> Any:
    plugin = pytest.importorskip("pillow_jxl", reason="pillow-jxl-plugin is not installed")
    require_decoder("JXL", "this test")
    return plugin


def turned(tag: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = tag
    return exif.tobytes()


def upright(tag: int) -> Image.Image:
    """What a viewer shows of `drawn`, saved as it is with this tag."""
    image = drawn(192, 128)
    image.getexif()[0x0112] = tag
    return ImageOps.exif_transpose(image)


def boxes(data: bytes) -> list[tuple[bytes, bytes]]:
    """(kind, the whole box) of a file of boxes (ISO/IEC 14496-12, 4.2)."""
    found, place = [], 0
    while place < len(data):
        size = int.from_bytes(data[place : place + 4], "big") or len(data) - place
        found.append((data[place + 4 : place + 8], data[place : place + size]))
        place += size
    return found


@pytest.mark.parametrize("tag", TURNS)
def test_a_heic_is_turned_once(heif: Any, tmp_path: Path, tag: int) -> None:
    """Its box `irot` says so beside EXIF, whose tag alone would be of no effect."""
    path = tmp_path / "a.heic"
    drawn(192, 128).save(path, quality=95, exif=turned(tag))
    assert close(decode(path), upright(tag))
    header = read_header(path)
    assert (header.size, header.sure, header.alpha) == (upright(tag).size, True, False)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
@pytest.mark.parametrize("tag", TURNS)
def test_an_avif_is_turned_once(tmp_path: Path, tag: int) -> None:
    path = tmp_path / "a.avif"
    drawn(192, 128).save(path, quality=95, exif=turned(tag))
    assert b"irot" in path.read_bytes() or tag in (1, 2, 4)
    assert close(decode(path), upright(tag)) and read_header(path).size == upright(tag).size


@pytest.mark.parametrize("tag", TURNS)
def test_a_jpeg_xl_is_turned_once(jxl: Any, tmp_path: Path, tag: int) -> None:
    """One made of a JPEG, which comes back as it was; the same without what gives it back, turned by its own header;
    and EXIF's tag beside pixels, which counts for nothing (18181-2, 9.4)."""
    jpeg, path = tmp_path / "a.jpg", tmp_path / "a.jxl"
    drawn(192, 128).save(jpeg, quality=95, exif=turned(tag))
    Image.open(jpeg).save(path, lossless_jpeg=True)
    parts = boxes(path.read_bytes())
    assert b"jbrd" in dict(parts)
    assert close(decode(path), upright(tag)) and read_header(path).size == upright(tag).size
    path.write_bytes(b"".join(box for kind, box in parts if kind != b"jbrd"))
    assert close(decode(path), upright(tag)) and read_header(path).size == upright(tag).size
    drawn(192, 128).save(path, lossless=True, exif=turned(tag))
    assert close(decode(path), drawn(192, 128), 1)


def test_the_size_of_a_jpeg_xl_is_read_from_its_header(jxl: Any) -> None:
    for size in [(64, 40), (40, 40), (1, 1), (1920, 1080), (400, 300), (333, 777), (8193, 2), (256, 128), (513, 300)]:
        for container in (False, True):
            file = io.BytesIO()
            Image.new("RGB", size).save(file, "JXL", lossless=True, effort=1, use_container=container, exif=turned(6))
            assert jpeg_xl.size_of(file) == size
    for damaged in (b"", b"\xff\x0a", b"\xff\x0a" + bytes(5), file.getvalue()[:20], bytes(64)):
        assert jpeg_xl.size_of(io.BytesIO(damaged)) is None


def test_a_jpeg_xl_bomb_is_refused_before_it_is_decoded(jxl: Any, tmp_path: Path) -> None:
    """2^30 × 2^30 pixels: not small; each side of 30 bits, all of them ones; no ratio."""
    side = 3 | (2**30 - 1) << 2
    bits = side << 1 | 0 << 33 | side << 36
    (tmp_path / "a.jxl").write_bytes(b"\xff\x0a" + bits.to_bytes(9, "little") + bytes(50))
    with pytest.raises(ConfigError, match=rf"a\.jxl: {2**30}×{2**30} pixels is too large"):
        decode(tmp_path / "a.jxl")


def test_a_heic_bomb_is_refused(heif: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn(192, 128).save(tmp_path / "a.heic")
    monkeypatch.setattr(sys.modules["dreamcore.data.decode"], "MAX_PIXELS", 1000)
    with pytest.raises(ConfigError, match=r"a\.heic: 192×128 pixels is too large"):
        decode(tmp_path / "a.heic")


def described(path: Path, primaries: int, transfer: int, colour: tuple[int, int, int]) -> Path:
    """One colour, its meaning described by numbers."""
    nclx = {"color_primaries": primaries, "transfer_characteristics": transfer}
    nclx |= {"matrix_coefficients": 0, "full_range_flag": 1}
    Image.new("RGB", (64, 64), colour).save(path, chroma=444, quality=-1, **nclx)
    return path


@pytest.mark.parametrize("colour", [(128, 128, 128), (180, 120, 90), (40, 200, 60), (255, 0, 0)])
def test_display_p3_becomes_srgb(heif: Any, tmp_path: Path, colour: tuple[int, int, int]) -> None:
    """By the matrices of CSS Color Module Level 4, section 20."""
    to_xyz = np.array(
        [
            [608311 / 1250200, 189793 / 714400, 198249 / 1000160],
            [35783 / 156275, 247089 / 357200, 198249 / 2500400],
            [0, 32229 / 714400, 5220557 / 5000800],
        ]
    )
    of_xyz = np.array(
        [
            [12831 / 3959, -329 / 214, -1974 / 3959],
            [-851781 / 878810, 1648619 / 878810, 36519 / 878810],
            [705 / 12673, -2585 / 12673, 705 / 667],
        ]
    )
    numbers = np.array(colour) / 255
    light = np.where(numbers > 0.04045, ((numbers + 0.055) / 1.055) ** 2.4, numbers / 12.92)
    light = np.clip(of_xyz @ to_xyz @ light, 0, 1)
    expected = 255 * np.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, 12.92 * light)
    wide = np.asarray(decode(described(tmp_path / "p3.heic", 12, 13, colour)), float)
    np.testing.assert_allclose(wide, np.broadcast_to(expected, wide.shape), atol=1.01)
    plain = np.asarray(decode(described(tmp_path / "srgb.heic", 1, 13, colour)), float)
    np.testing.assert_allclose(plain, np.broadcast_to(colour, plain.shape), atol=1.01)


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_refused(heif: Any, tmp_path: Path, transfer: int, name: str) -> None:
    path = described(tmp_path / "a.heic", 9, transfer, (90, 90, 90))
    with pytest.raises(ConfigError, match=rf"a\.heic: an HDR image \({name}\).*save it as JPEG"):
        decode(path)


def test_ten_bits_become_eight(heif: Any, tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 64 * 64 * 3).astype("<u2").reshape(64, 64, 3)
    made = heif.from_bytes("RGB;16", (64, 64), values.tobytes())
    made.save(str(tmp_path / "a.heic"), quality=-1, chroma=444)
    assert heif.open_heif(tmp_path / "a.heic", convert_hdr_to_8bit=False).info["bit_depth"] == 10
    np.testing.assert_allclose(np.asarray(decode(tmp_path / "a.heic"), float), values / 257, atol=4)


def test_of_several_images_the_main_one_is_used(heif: Any, tmp_path: Path) -> None:
    colours = ["red", "lime", "blue"]
    first, *others = (Image.new("RGB", (64, 64), colour) for colour in colours)
    first.save(tmp_path / "burst.heic", save_all=True, append_images=others, primary_index=1, quality=95)
    assert close(decode(tmp_path / "burst.heic"), others[0])
    folder = ImageFolder.open(tmp_path, setting="instance_data_dir")
    assert folder.notes == ["burst.heic holds 3 frames or pages: the main one is used"]


def test_transparency_is_laid_over_the_background(heif: Any, jxl: Any, tmp_path: Path) -> None:
    image = Image.new("RGBA", (64, 64), (200, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 32, 64))
    expected = Image.new("RGB", (64, 64), (200, 0, 0))
    expected.paste((0, 0, 255), (0, 0, 32, 64))
    for name, more in (("a.heic", {"quality": -1, "chroma": 444}), ("a.jxl", {"lossless": True})):
        image.save(tmp_path / name, **more)
        assert close(decode(tmp_path / name, (0, 0, 255)), expected, 2) and read_header(tmp_path / name).alpha


@pytest.mark.parametrize("name", ["a.heic", "a.jxl"])
def test_damage_is_named(heif: Any, jxl: Any, tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)).save(path, quality=90)
    data = path.read_bytes()
    rng = np.random.default_rng(1)
    for size in rng.integers(12, len(data) - 1, 20):
        path.write_bytes(data[:size])
        with pytest.raises(ConfigError, match=rf"a\{path.suffix}: "):
            decode(path)
    for _ in range(40):  # what of it can still be read is read
        changed = np.frombuffer(data, np.uint8).copy()
        changed[rng.integers(12, len(data), 4)] ^= rng.integers(1, 256, 4).astype(np.uint8)
        path.write_bytes(changed.tobytes())
        try:
            decode(path)
        except ConfigError as error:
            assert str(path) in str(error)


def test_no_plugin_is_loaded_for_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def nothing(name: str) -> None:
        asked.append(name)
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", nothing)
    for name in ("HEIF", "JXL"):
        monkeypatch.delitem(Image.OPEN, name, raising=False)
    drawn().save(tmp_path / "a.jpg")
    ImageFolder.open(tmp_path, setting="instance_data_dir")
    assert asked == []
    (tmp_path / "b.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.raises(
        ConfigError, match=r"b\.heic: a HEIF image, which needs pillow-heif: pip install '\.\[photos\]'"
    ):
        ImageFolder.open(tmp_path, setting="instance_data_dir")
    assert asked == ["pillow_heif"]
