"""Every kind of image file becomes the same upright sRGB image, or an error that names it."""

from __future__ import annotations

import importlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from dreamcore.data import decode
from dreamcore.data.formats import sniff
from dreamcore.errors import ConfigError


def drawn(width: int = 48, height: int = 32) -> Image.Image:
    """Smooth, with no symmetry: red grows to the right, green downwards, and one corner is blue."""
    y, x = np.mgrid[0:height, 0:width]
    blue = np.where((x < width // 4) & (y < height // 4), 255, 0)
    return Image.fromarray(np.stack([x * 255 // width, y * 255 // height, blue], -1).astype(np.uint8))


def close(a: Image.Image, b: Image.Image, most: float = 12) -> bool:
    return a.size == b.size and float(np.abs(np.asarray(a, float) - np.asarray(b, float)).mean()) < most


@pytest.mark.parametrize(
    "name", ["a.jpg", "a.png", "a.webp", "a.bmp", "a.tiff", "a.gif", "a.ppm", "a.jp2", "a.avif", "a.mpo"]
)
def test_formats(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    try:
        drawn().save(path, quality=95)
    except (KeyError, OSError) as error:
        pytest.skip(f"this Pillow cannot write {name}: {error}")
    (tmp_path / "renamed.txt").write_bytes(path.read_bytes())
    for file in (path, tmp_path / "renamed.txt"):
        image = decode(file)
        assert image.mode == "RGB" and close(image, drawn())


@pytest.mark.parametrize("tag", range(1, 9))
def test_orientation(tmp_path: Path, tag: int) -> None:
    path = tmp_path / "a.png"
    exif = Image.Exif()
    exif[0x0112] = tag
    drawn().save(path, exif=exif)
    with Image.open(path) as raw:
        expected = np.asarray(ImageOps.exif_transpose(raw))
    assert np.array_equal(np.asarray(decode(path)), expected)


def test_damaged_exif_keeps_the_picture(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    drawn().save(path, exif=b"Exif\0\0II*\0\xff\xff\xff\x7f garbage")
    assert np.array_equal(np.asarray(decode(path)), np.asarray(drawn()))


def test_alpha_over_white(tmp_path: Path) -> None:
    rgba = np.zeros((4, 4, 4), np.uint8)  # black, and transparent on the left, half so at the right
    rgba[:, 2:, 3] = 128
    path = tmp_path / "a.png"
    for image in (Image.fromarray(rgba), Image.fromarray(rgba[..., [0, 3]])):  # RGBA, LA
        image.save(path)
        pixels = np.asarray(decode(path))
        assert (pixels[:, :2] == 255).all() and (np.abs(pixels[:, 2:].astype(int) - 127) <= 1).all()


@pytest.mark.parametrize("mode", ["P", "L", "RGB", "1"])
def test_key_colour_is_transparent(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, (4, 2), 0 if mode != "RGB" else (0, 0, 0))
    image.putpixel((3, 1), 1 if mode != "RGB" else (9, 9, 9))
    if mode == "P":
        image.putpalette([0, 0, 0, 200, 10, 10])
    path = tmp_path / "a.png"
    image.save(path, transparency=0 if mode != "RGB" else (0, 0, 0))
    pixels = np.asarray(decode(path))
    assert (pixels[0] == 255).all()
    assert tuple(pixels[1, 3]) == {"P": (200, 10, 10), "L": (1, 1, 1), "RGB": (9, 9, 9), "1": (255, 255, 255)}[mode]


def test_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)
    for name, image in (("a.png", Image.fromarray(ramp)), ("a.tif", Image.fromarray(ramp.astype(np.int32)))):
        image.save(tmp_path / name)
        pixels = np.asarray(decode(tmp_path / name))
        assert np.array_equal(pixels[..., 0].ravel(), np.arange(256)) and (pixels[..., 0] == pixels[..., 2]).all()
    Image.fromarray((ramp / 65535).astype(np.float32)).save(tmp_path / "f.tif")
    assert np.array_equal(np.asarray(decode(tmp_path / "f.tif"))[..., 0].ravel(), np.arange(256))


def test_sixteen_bit_colour(tmp_path: Path) -> None:
    """A PNG written by hand, since Pillow writes no 16-bit colour."""
    row = b"\0" + struct.pack(">6H", 65535, 0, 32896, 257, 514, 771)
    chunks = [(b"IHDR", struct.pack(">2I5B", 2, 1, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(row)), (b"IEND", b"")]
    data = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    assert np.asarray(decode(tmp_path / "a.png")).tolist() == [[[255, 0, 128], [1, 2, 3]]]


def test_cmyk(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    drawn().convert("CMYK").save(path, quality=95)
    assert close(decode(path), drawn(), 6)


def test_profile_is_converted(tmp_path: Path) -> None:
    """A linear-light profile: half of the light is 188 in sRGB, 255·(1.055·0.5^(1/2.4) − 0.055), IEC 61966-2-1."""
    curve = _with_linear_curves(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    Image.new("RGB", (4, 4), (128, 128, 128)).save(tmp_path / "linear.png", icc_profile=curve)
    Image.new("RGBA", (4, 4), (128, 128, 128, 255)).save(tmp_path / "alpha.png", icc_profile=curve)
    Image.new("RGB", (4, 4), (128, 128, 128)).save(tmp_path / "broken.png", icc_profile=b"no profile at all")
    assert np.abs(np.asarray(decode(tmp_path / "linear.png"), int) - 188).max() <= 1
    assert np.abs(np.asarray(decode(tmp_path / "alpha.png"), int) - 188).max() <= 1
    assert (np.asarray(decode(tmp_path / "broken.png")) == 128).all()


def _with_linear_curves(profile: bytes) -> bytes:
    """LittleCMS' sRGB profile with its three tone curves made linear and its name changed."""
    data = bytearray(profile.replace("sRGB".encode("utf-16-be"), "line".encode("utf-16-be")))
    count = struct.unpack(">I", data[128:132])[0]
    for i in range(count):
        tag, offset, size = struct.unpack(">4sII", data[132 + 12 * i : 144 + 12 * i])
        if tag in (b"rTRC", b"gTRC", b"bTRC"):  # a parametric curve: type 0 is y = x^g
            data[offset : offset + size] = (b"para" + bytes(4) + struct.pack(">HHi", 0, 0, 1 << 16)).ljust(size, b"\0")
    return bytes(data)


def test_animation_gives_its_first_frame(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert (np.asarray(decode(path)) == (255, 0, 0)).all()


def bomb(side: int) -> bytes:
    header = struct.pack(">2I5B", side, side, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    data = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + data


def photograph() -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"<html>404</html>", "not an image"),
        (photograph()[:-3000], "truncated"),
        (photograph()[:100], "damaged"),
        (bomb(100_000), "too large"),
        (bomb(11_000), "11000×11000 pixels is too large"),
    ],
)
def test_bad_files_are_refused_by_name(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "my photo.jpg"
    path.write_bytes(data)
    with pytest.raises(ConfigError, match=words) as error:
        decode(path)
    assert str(path) in str(error.value)


def test_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.jpg"):
        decode(tmp_path / "nowhere.jpg")


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIF"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", "AVIF"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom", None),
        (b"\xff\x0a\xfa", "JXL"),
        (b"BM is how this letter begins, and it is no bitmap", None),
        (b"P3 is a chip", None),
        (b"", None),
    ],
)
def test_sniff(head: bytes, kind: str | None) -> None:
    assert sniff(head) == kind


@pytest.mark.parametrize(
    ("kind", "head", "package"),
    [
        (
            "JXL",
            b"\xff\x0a\xfa",
            r"a JXL image, which needs pillow-jxl-plugin: pip install '.\[photos\]'.*save it as JPEG",
        ),
        ("HEIF", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "pillow-heif: pip install"),
        (
            "AVIF",
            b"\0\0\0\x18ftypavif\0\0\0\0mif1avif",
            r"an AVIF image.*pillow-avif-plugin: pip install '.\[photos\]'",
        ),
        ("QOI", b"qoif", "save it as JPEG or PNG"),
    ],
)
def test_a_missing_plugin_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, head: bytes, package: str
) -> None:
    def nothing(name: str) -> None:
        raise ImportError(name)

    Image.init()
    monkeypatch.delitem(Image.OPEN, kind, raising=False)
    monkeypatch.setattr(importlib, "import_module", nothing)
    (tmp_path / "my photo").write_bytes(head)
    with pytest.raises(ConfigError, match=package) as error:
        decode(tmp_path / "my photo")
    assert "my photo" in str(error.value)


def test_a_jpeg_of_endless_passes_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    drawn().save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data.rindex(b"\xff\xda")
    (tmp_path / "a.jpg").write_bytes(data[:-2] + data[last:-2] * 2000 + data[-2:])
    with pytest.raises(ConfigError, match=r"a\.jpg.*passes"):
        decode(tmp_path / "a.jpg")
