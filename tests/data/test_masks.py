"""Masks are found, checked, and cut exactly as their photographs are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dreamcore.data import Crop, ImageFolder, latent_weights
from dreamcore.data.masks import read_mask, scaled_box, subject_box
from dreamcore.errors import ConfigError


def red_square(path: Path, box: tuple[int, int, int, int], size: tuple[int, int] = (80, 40), **more: object) -> Path:
    """An image that is red exactly where its mask is white."""
    image = Image.new("RGB", size)
    image.paste((255, 0, 0), box)
    image.save(path, **more)  # type: ignore[arg-type]
    return path


def mask_file(path: Path, box: tuple[int, int, int, int], size: tuple[int, int] = (80, 40)) -> Path:
    mask = Image.new("L", size)
    mask.paste(255, box)
    mask.save(path)
    return path


def test_mask_and_picture_are_cut_alike(tmp_path: Path) -> None:
    red_square(tmp_path / "a.png", (50, 5, 70, 25))
    mask_file(tmp_path / "a-mask.png", (50, 5, 70, 25))
    found = ImageFolder.open(tmp_path, setting="s", masks=True)
    assert found.notes == [] and found.photos[0].mask == tmp_path / "a-mask.png"
    for seed in range(20):
        crop = Crop(20, 20, False, True, subject=seed % 2 == 0)
        pixels, mask, *_ = found.sample(0, crop, np.random.default_rng(seed))
        assert mask is not None and mask.dtype == np.float32 and mask.shape == (20, 20)
        assert np.abs((pixels[0] + 1) / 2 - mask).max() < 0.02
        assert np.array_equal(pixels, found.pixels(0, crop, np.random.default_rng(seed)))
        if crop.subject:
            assert mask.sum() == pytest.approx(100, rel=0.1)  # the whole of it: 20×20 of 40 rows is 10×10 of 20


def test_alpha_is_a_mask(tmp_path: Path) -> None:
    rgba = np.zeros((8, 16, 4), np.uint8)
    rgba[2:6, 4:8] = (255, 0, 0, 255)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    Image.new("RGB", (16, 8)).save(tmp_path / "b.png")
    found = ImageFolder.open(tmp_path, setting="s", masks=True)
    assert found.photos[0].mask == tmp_path / "a.png" and found.photos[1].mask is None
    assert any("1 of 2 images have no mask" in note and "b.png" in note for note in found.notes)
    mask = found.sample(0, Crop(8, 8, True, False, subject=True), None).mask
    assert mask is not None and np.array_equal(mask > 0.5, np.pad(np.ones((4, 4), bool), 2))
    assert found.sample(1, Crop(8, 8, True, False), None).mask is None
    assert found.fingerprint != ImageFolder.open(tmp_path, setting="s").fingerprint
    assert all(photo.mask is None for photo in ImageFolder.open(tmp_path, setting="s").photos)


def test_the_quick_look_finds_alpha_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rgba = np.full((8, 16, 4), 255, np.uint8)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    Image.fromarray(rgba).quantize(4).save(tmp_path / "b.png", transparency=1)
    monkeypatch.setattr("dreamcore.data.checking.FULL_CHECK", 0)
    found = ImageFolder.open(tmp_path, setting="s", masks=True)
    assert [photo.mask for photo in found.photos] == [tmp_path / "a.png", tmp_path / "b.png"]


def test_fingerprint_sees_the_mask(tmp_path: Path) -> None:
    red_square(tmp_path / "a.png", (0, 0, 20, 20))
    mask_file(tmp_path / "a-mask.png", (0, 0, 20, 20))
    before = ImageFolder.open(tmp_path, setting="s", masks=True).fingerprint
    mask_file(tmp_path / "a-mask.png", (0, 0, 21, 20))
    assert ImageFolder.open(tmp_path, setting="s", masks=True).fingerprint != before


def test_a_mask_follows_the_photographs_rotation(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = red_square(tmp_path / "a.png", (0, 0, 20, 20), exif=exif)  # upright it is 40×80, red at the top right
    mask = mask_file(tmp_path / "m.png", (10, 0, 20, 10), size=(20, 40))  # drawn on the upright image, half size
    assert subject_box(read_mask(mask.read_bytes(), mask, photo, (40, 80))) == (20, 0, 40, 20)


def test_a_transparent_mask_file(tmp_path: Path) -> None:
    """A cut-out on transparent ground, as drawing programs write it, serves as a mask too."""
    photo = red_square(tmp_path / "a.png", (0, 0, 20, 20))
    rgba = np.zeros((40, 80, 4), np.uint8)
    rgba[..., :3] = 255
    rgba[:20, :20, 3] = 255
    Image.fromarray(rgba).save(tmp_path / "m.png")
    assert subject_box(read_mask((tmp_path / "m.png").read_bytes(), tmp_path / "m.png", photo, (80, 40))) == (
        0,
        0,
        20,
        20,
    )


@pytest.mark.parametrize(
    ("size", "box", "words"),
    [((80, 41), (0, 0, 9, 9), ""), ((60, 40), (0, 0, 9, 9), "60×40"), ((80, 40), None, "nothing")],
)
def test_masks_that_do_not_fit(
    tmp_path: Path, size: tuple[int, int], box: tuple[int, int, int, int] | None, words: str
) -> None:
    red_square(tmp_path / "a.png", (0, 0, 20, 20))
    mask_file(tmp_path / "a-mask.png", box or (0, 0, 0, 0), size)
    if words:
        with pytest.raises(ConfigError, match=words) as error:
            ImageFolder.open(tmp_path, setting="s", masks=True)
        assert "a-mask.png" in str(error.value)
    else:
        ImageFolder.open(tmp_path, setting="s", masks=True)  # one pixel is a rounding


def test_scaled_box_rounds_outwards() -> None:
    assert scaled_box((1, 1, 2, 2), (3, 3), (10, 10)) == (3, 3, 7, 7)
    assert scaled_box((0, 0, 3, 3), (3, 3), (10, 10)) == (0, 0, 10, 10)
    assert scaled_box((1, 1, 2, 2), (4, 4), (8, 8)) == (2, 2, 4, 4)


def test_latent_weights_by_hand() -> None:
    mask = np.zeros((4, 4), np.float32)
    mask[:2, :2] = 1
    mask[2, 2] = 1  # a quarter of its field
    assert np.allclose(latent_weights(mask, (2, 2), 0.0), [[[3.2, 0], [0, 0.8]]])
    assert np.allclose(latent_weights(mask, (2, 2), 1.0), 1)
    half = latent_weights(mask, (2, 2), 0.5)
    assert half.shape == (1, 2, 2) and half.dtype == np.float32
    assert half.mean() == pytest.approx(1) and half[0, 0, 0] == pytest.approx(2 * half[0, 0, 1])
    assert (latent_weights(np.zeros((4, 4), np.float32), (2, 2), 0.0) == 0).all()
