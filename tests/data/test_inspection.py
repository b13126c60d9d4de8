"""What is remarked about photographs, and nothing else: each warning appears where it should and only there."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from dreamcore.data import Crop, ImageFolder, bucket_crops, bucket_shapes, decode
from dreamcore.data.inspection import FEW, MANY, Inspection, inspect
from dreamcore.data.measures import (
    BLURRED,
    HASH_BITS,
    NEAR_BITS,
    SAME_SURROUNDINGS,
    SAME_VIEW,
    blur,
    median_distance,
    median_likeness,
    near_duplicates,
    perceptual_hash,
    structure,
    surroundings,
)
from dreamcore.data.sheet import draw_sheet

from ..support.paths import PHOTOGRAPHS

real = pytest.mark.skipif(not PHOTOGRAPHS.is_dir(), reason="no real photographs beside the repository")
SQUARE = Crop(128, 128, center_crop=True, random_flip=False)


def scene(seed: int, width: int = 160, height: int = 160) -> Image.Image:
    """Discs of many sizes with fine grain: as different from another seed's as two photographs, and sharp."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.full((height, width, 3), rng.integers(0, 256, 3), float)
    for _ in range(40):
        inside = (x - rng.integers(width)) ** 2 + (y - rng.integers(height)) ** 2 < rng.integers(4, 50) ** 2
        pixels[inside] = rng.integers(0, 256, 3)
    return Image.fromarray(np.clip(pixels + rng.normal(0, 6, pixels.shape), 0, 255).astype(np.uint8))


def inspected(folder: Path, crop: Crop = SQUARE, masks: bool = False, **more: object) -> Inspection:
    found = ImageFolder.open(folder, setting="s", masks=masks)
    return inspect(found, [crop] * len(found), **more)  # type: ignore[arg-type]


def kinds(inspection: Inspection) -> dict[str, list[str]]:
    return {row.name: [remark.kind for remark in row.remarks] for row in inspection.rows}


def test_good_photographs_are_not_remarked(tmp_path: Path) -> None:
    for seed in range(4):
        scene(seed).save(tmp_path / f"{seed}.png")
    report = inspected(tmp_path)
    assert report.remarks == () and all(row.remarks == () for row in report.rows)


def test_too_small_blurred_and_little_used(tmp_path: Path) -> None:
    scene(0).save(tmp_path / "good.png")
    scene(1, 64, 80).save(tmp_path / "small.png")
    scene(2).filter(ImageFilter.GaussianBlur(2)).save(tmp_path / "soft.png")
    scene(3, 500, 160).save(tmp_path / "wide.png")
    report = inspected(tmp_path)
    assert kinds(report) == {
        "good.png": [],
        "small.png": ["too small"],
        "soft.png": ["blurred"],
        "wide.png": ["little used"],
    }
    rows = {row.name: row for row in report.rows}
    assert rows["small.png"].enlarged == 2 and "64×80 is enlarged 2.0 times" in rows["small.png"].remarks[0].text
    assert rows["wide.png"].crop == (170, 0, 330, 160) and "32%" in rows["wide.png"].remarks[0].text


def test_buckets_are_shown_and_waste_less(tmp_path: Path) -> None:
    scene(3, 320, 160).save(tmp_path / "wide.png")
    found = ImageFolder.open(tmp_path, setting="s")
    crops = bucket_crops([p.size for p in found.photos], SQUARE, bucket_shapes(128, 128, 16))
    row = inspect(found, crops).rows[0]
    assert row.target == (160, 96) and row.crop == (26, 0, 294, 160) and row.remarks == ()


def test_subject_at_the_border(tmp_path: Path) -> None:
    for i, box in enumerate([(40, 40, 90, 90), (0, 40, 90, 90)]):
        scene(i, 320, 160).save(tmp_path / f"{i}.png")
        mask = Image.new("L", (320, 160))
        mask.paste(255, box)
        mask.save(tmp_path / f"{i}-mask.png")
    report = inspected(tmp_path, Crop(128, 128, True, False, subject=True), masks=True)
    assert kinds(report) == {"0.png": [], "1.png": ["at the border"]}
    assert report.rows[0].crop[0] <= 40  # the crop went to the subject


@pytest.mark.parametrize("box", [(20, 60, 300, 90), (100, 20, 130, 300)])
def test_a_cut_is_noticed_on_either_axis(tmp_path: Path, box: tuple[int, int, int, int]) -> None:
    size = (320, 160) if box[2] > 200 else (160, 320)
    scene(0, *size).save(tmp_path / "a.png")
    mask = Image.new("L", size)
    mask.paste(255, box)
    mask.save(tmp_path / "a-mask.png")
    assert kinds(inspected(tmp_path, masks=True)) == {"a.png": ["subject cut"]}


def test_prompts_and_tokens(tmp_path: Path) -> None:
    scene(0).save(tmp_path / "a.png")
    report = inspected(tmp_path, prompts=["one two three"], count_tokens=lambda words: len(words.split()), window=2)
    assert report.rows[0].tokens == 3 and kinds(report) == {"a.png": ["long prompt"]}
    assert inspected(tmp_path).rows[0].prompt is None


def test_few_and_many(tmp_path: Path) -> None:
    for i in range(MANY + 1):
        scene(i, 24, 24).save(tmp_path / f"{i}.png")
        if i + 1 in (FEW - 1, FEW, MANY, MANY + 1):
            found = {remark.kind for remark in inspected(tmp_path, Crop(16, 16, True, False)).remarks} - {
                "near-duplicate"
            }
            assert found == {FEW - 1: {"few"}, MANY + 1: {"many"}}.get(i + 1, set())


def changed(image: Image.Image) -> list[Image.Image]:
    """Copies that a person would call the same image."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=30)
    w, h = image.size
    smaller, brighter = (
        image.resize((w // 2, h // 3)),
        image.point([min(255, int(v * 1.15 + 8)) for v in range(256)] * 3),
    )
    return [Image.open(buffer), smaller, brighter, image.crop((w // 80, h // 80, w - w // 80, h - h // 80))]


def test_near_duplicates_are_found(tmp_path: Path) -> None:
    for seed in range(4):
        scene(seed).save(tmp_path / f"{seed}.png")
    changed(scene(1))[0].save(tmp_path / "again.jpg")
    scene(2).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "mirror.png")
    texts = [remark.text for remark in inspected(tmp_path).remarks if remark.kind == "near-duplicate"]
    assert len(texts) == 2
    assert texts[0].startswith("again.jpg is nearly 1.png,") and texts[1].startswith(
        "mirror.png is nearly 2.png mirrored"
    )


def test_near_duplicates_by_hand() -> None:
    assert perceptual_hash(scene(0)).shape == (HASH_BITS,)
    rng = np.random.default_rng(0)
    hashes = rng.random((1500, HASH_BITS)) < 0.5
    hashes[1400], hashes[1300] = hashes[3], hashes[1200]
    hashes[1400, :NEAR_BITS] ^= True
    hashes[1300, : NEAR_BITS + 1] ^= True
    assert near_duplicates(hashes) == [(3, 1400)]  # across blocks; one bit more is too many


def test_one_background(tmp_path: Path) -> None:
    place = scene(99)
    for seed in range(4):
        picture = place.copy()
        picture.paste(scene(seed, 90, 90), (20 + 10 * seed, 50 - 8 * seed))
        picture.save(tmp_path / f"{seed}.png")
    assert [remark.kind for remark in inspected(tmp_path).remarks] == ["one background"]


def test_one_pose(tmp_path: Path) -> None:
    """One subject at about one place and size in four scenes; and four subjects there."""
    for number in range(4):
        for name, subject in (("one", scene(99, 120, 120)), ("four", scene(90 + number, 120, 120))):
            picture = scene(number)
            picture.paste(subject.point([int(v * (0.8 + 0.1 * number)) for v in range(256)] * 3), (19 + number, 20))
            (tmp_path / name).mkdir(exist_ok=True)
            picture.save(tmp_path / name / f"{number}.png")
    (remark,) = inspected(tmp_path / "one").remarks
    assert remark.kind == "one pose" and "add images from other sides" in remark.text
    assert inspected(tmp_path / "four").remarks == ()


def test_structure_by_hand() -> None:
    """An upright edge has gradients of direction 0 alone, and a level one those of direction 4 of 8."""
    edge = np.zeros((64, 64), np.uint8)
    edge[:, 28:] = 200
    for values, direction in ((edge, 0), (edge.T, 4)):
        fields = structure(Image.fromarray(np.ascontiguousarray(values)))
        assert fields.sum() == fields[..., direction].sum() == pytest.approx(64 * 200)
        assert (fields.sum((0, 2) if direction == 0 else (1, 2)) > 0).tolist() == [False] * 3 + [True] + [False] * 4


@real
@pytest.mark.parametrize("subject", ["cat", "dog", "rc_car", "teapot"])
def test_real_photographs_moved_a_little_are_one_pose(subject: str) -> None:
    images = [decode(file) for file in sorted((PHOTOGRAPHS / subject).glob("*.jpg"))]
    assert median_likeness(np.stack([structure(image) for image in images])) < SAME_VIEW - 0.1
    w, h = images[0].size
    moved = [images[0].crop((k * w // 40, 0, w, h - k * h // 40)) for k in range(4)]
    assert median_likeness(np.stack([structure(image) for image in moved])) > SAME_VIEW + 0.1


def test_camera_shake_in_one_direction_is_blur() -> None:
    image = scene(0, 256, 256)
    values = np.asarray(image, float)
    for axis in (0, 1):
        shaken = np.mean([np.roll(values, shift, axis) for shift in range(9)], 0)
        assert blur(Image.fromarray(shaken.astype(np.uint8)), 256) > BLURRED > blur(image, 256)


def test_blur_does_not_depend_on_brightness_and_grows() -> None:
    image = scene(0, 256, 256)
    values = [blur(image.filter(ImageFilter.GaussianBlur(radius)), 256) for radius in (0, 1, 2, 4)]
    assert values == sorted(values) and values[0] < 0.4 < BLURRED < values[2]
    assert blur(image.point([v // 2 for v in range(256)] * 3), 256) == pytest.approx(values[0], abs=0.03)
    assert blur(Image.new("RGB", (100, 100)), 64) == 1 and blur(Image.new("RGB", (5, 5)), 64) == 0


def test_table_and_json_agree(tmp_path: Path) -> None:
    scene(0, 300, 200).save(tmp_path / "a.png")
    report = inspected(tmp_path, prompts=["a photo"])
    head, rows = report.table()
    assert len(head) == len(rows[0])
    cells = dict(zip(head, rows[0], strict=True))
    assert cells["image"] == "a.png" and cells["size"] == "300×200" and cells["crop"] == "200×200+50+0"
    data = json.loads(json.dumps(report.as_dict()))
    assert data["images"][0]["name"] == "a.png" and data["images"][0]["crop"] == [50, 0, 250, 200]
    assert data["remarks"][0]["kind"] == "few"


def test_sheet_shows_every_picture_and_its_crop(tmp_path: Path) -> None:
    for i, colour in enumerate(("red", "lime", "blue")):
        Image.new("RGB", (300, 150), colour).save(tmp_path / f"ein Bild für {i} ファイル with a very long name.png")
    report = inspected(tmp_path, prompts=["a photo\nof sks dog, " * 20] * 3)
    sheet = draw_sheet(report, columns=2)
    colours = {colour: count for count, colour in sheet.getcolors(1 << 20) or []}
    area = 96 * 96  # the square crop of a 192×96 thumbnail
    for whole, dim in (((255, 0, 0), (102, 0, 0)), ((0, 255, 0), (0, 102, 0)), ((0, 0, 255), (0, 0, 102))):
        assert 0.85 * area < colours[whole] <= area and colours[dim] == area
    assert sheet.width < 2 * 220 and sheet.height > 2 * 192  # two columns, two rows


@real
@pytest.mark.parametrize("subject", ["cat", "dog", "rc_car", "teapot"])
def test_real_photographs_raise_no_false_alarm(subject: str) -> None:
    found = ImageFolder.open(PHOTOGRAPHS / subject, setting="s")
    report = inspect(found, [Crop(512, 512, True, False)] * len(found))
    assert report.remarks == () and not any(row.remarks for row in report.rows)


@real
def test_real_photographs_changed_are_caught() -> None:
    images = [decode(file) for file in sorted(PHOTOGRAPHS.glob("*/0[0-2].jpg"))]
    hashes = [perceptual_hash(image) for image in images]
    for image, own in zip(images, hashes, strict=True):
        assert all((perceptual_hash(copy) != own).sum() <= NEAR_BITS for copy in changed(image))
        assert blur(image.filter(ImageFilter.GaussianBlur(image.width / 256))) > BLURRED
    distances = [(a != b).sum() for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(distances) > NEAR_BITS
    rings = np.stack([surroundings(image) for image in images])
    assert all(median_distance(rings[i : i + 3]) > SAME_SURROUNDINGS for i in range(0, len(rings), 3))
