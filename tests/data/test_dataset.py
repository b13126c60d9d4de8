"""Datasets: what `datasets` saved, parquet files, folders of images, local or on a Hub; named by file and row."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dreamcore.config import TrainConfig
from dreamcore.data import Crop, ImageFolder, Table
from dreamcore.data.dataset import choose_files, local_dataset
from dreamcore.errors import ConfigError
from dreamcore.training.training_data import open_photos

from ..support.hub_server import Hub, run_with
from ..support.tables import as_parquet, as_saved, columns
from ..support.tiny import draw_photos

BY_DATASETS = Path(__file__).parent / "saved_by_datasets"
"""What datasets 5.2.0 wrote of three plain images: `DatasetDict.save_to_disk` and `Dataset.to_parquet`."""
COLOURS = [(0, 90, 200), (40, 90, 160), (80, 90, 120)]
SHARDS = ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet")
CROP = Crop(16, 16, center_crop=True, random_flip=False)


def opened(name: Path, said: list[str] | None = None, **settings: Any) -> ImageFolder:
    given = {"pretrained_model_name_or_path": "m", "dataset_name": str(name), "instance_prompt": "a toy"} | settings
    config = TrainConfig.from_mapping(given)
    return open_photos(config, config.subjects()[0], "", (said if said is not None else []).append)


@pytest.mark.parametrize("name", ["dict", "rows.parquet"])
def test_what_datasets_wrote_is_read(name: str) -> None:
    said = list[str]()
    found = opened(BY_DATASETS / name, said, caption_column="text")
    assert [photo.caption for photo in found.photos] == ["a red toy", "a green toy", "a blue toy"]
    assert [photo.size for photo in found.photos] == [(8, 12), (10, 12), (12, 12)]
    for number, colour in enumerate(COLOURS):
        pixels = found.pixels(number, CROP, None)
        assert [round((float(v) + 1) * 127.5) for v in pixels[:, 8, 8]] == list(colour)
    assert said == ([f"{found.folder}: split 'train' is used, and not test"] if name == "dict" else [])


@pytest.mark.parametrize("write", [as_parquet, as_saved])
def test_a_table_is_the_folder_that_it_was_made_of(write: Any, photos: Path, tmp_path: Path) -> None:
    plain = ImageFolder.open(photos, setting="s")
    found = opened(write(photos, tmp_path / "table"))
    assert [p.sha256 for p in found.photos] == [p.sha256 for p in plain.photos]
    assert [p.size for p in found.photos] == [p.size for p in plain.photos]
    assert all(p.caption is None for p in found.photos), "captions were not asked for"
    for number in (3, 0, 4, 1, 2, 1):  # forwards and backwards, over row groups
        assert (found.pixels(number, CROP, None) == plain.pixels(number, CROP, None)).all()
    assert len({p.path for p in found.photos}) == 5 and found.photos[3].path.name.endswith(", row 3")


def test_shards_are_one_table(photos: Path, tmp_path: Path) -> None:
    one = opened(as_parquet(photos, tmp_path / "one"), use_captions=True)
    two = opened(as_parquet(photos, tmp_path / "two", SHARDS), use_captions=True)
    assert [(p.sha256, p.caption) for p in one.photos] == [(p.sha256, p.caption) for p in two.photos]
    assert [p.path.name for p in two.photos][2:4] == [f"{SHARDS[0][5:]}, row 2", f"{SHARDS[1][5:]}, row 0"]


def test_missing_captions(photos: Path, tmp_path: Path) -> None:
    table, said = as_parquet(photos, tmp_path / "table"), list[str]()
    assert [p.caption is None for p in opened(table, said, caption_column="text").photos] == [
        False,
        True,
        True,
        False,
        False,
    ]
    assert "2 of 5 images have no caption: train-00000-of-00001.parquet, row 1, train" in said[0]
    with pytest.raises(ConfigError, match=r"no caption for train-.*, row 1, train-.*, row 2; write one"):
        opened(table, use_captions=True, missing_caption="error")


def test_a_damaged_picture_is_named_by_file_and_row(photos: Path, tmp_path: Path) -> None:
    folder = draw_photos(tmp_path / "photos", count=4)
    (folder / "01.png").write_bytes((folder / "01.png").read_bytes()[:-60])
    (folder / "02.png").write_bytes(b"no image")
    with pytest.raises(ConfigError) as refused:
        opened(as_saved(folder, tmp_path / "table"))
    first, second = str(refused.value).splitlines()
    assert f"{tmp_path}/table/data-00000-of-00001.arrow, row 1: truncated or damaged" in first
    assert "row 2: not an image, judged by its content" in second


def test_a_large_table_is_not_decoded_but_hashed(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = opened(as_parquet(photos, tmp_path / "table"))
    monkeypatch.setattr("dreamcore.data.checking.FULL_CHECK", 0)
    monkeypatch.setattr("dreamcore.data.checking.decode_bytes", None)
    monkeypatch.setattr("dreamcore.data.header.EDGE", 200)  # so that drawn images have a middle
    quick = opened(tmp_path / "table")
    assert quick.photos == whole.photos and quick.fingerprint == whole.fingerprint


def test_alpha_in_a_table_is_a_mask(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    picture = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    picture.paste((255, 0, 0, 255), (10, 10, 30, 30))
    picture.save(folder / "a.png")
    found = opened(as_saved(folder, tmp_path / "table"), masked_loss=True, alpha_color="#0000ff")
    sample = found.sample(0, Crop(40, 40, center_crop=True, random_flip=False), None)
    assert sample.mask is not None and sample.mask.sum() == 400
    assert sample.pixels[:, 0, 0].tolist() == [-1, -1, 1] and sample.pixels[:, 20, 20].tolist() == [1, -1, -1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"image_column": "picture"},
            r"image_column: .* has no column 'picture'; it has 'image', 'text', and images in 'image'",
        ),
        ({"image_column": "text"}, "image_column: column 'text' of .* holds string; expected images, as in 'image'"),
        ({"caption_column": "words"}, "caption_column: .* has no column 'words'.*text in 'text'"),
        ({"dataset_config_name": "red"}, "dataset_config_name: 'red' is not in .*; it has default"),
        ({"dataset_name": "no/such/place"}, "dataset_name: no/such/place: no such folder or file"),
    ],
)
def test_what_is_not_there_is_named(settings: dict[str, Any], message: str, photos: Path, tmp_path: Path) -> None:
    table = as_parquet(photos, tmp_path / "table")
    with pytest.raises(ConfigError, match=message):
        opened(settings.pop("dataset_name", table), **settings)


def test_a_table_given_as_a_folder_is_told_apart(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no images .*; put .*, or name it as dataset_name"):
        ImageFolder.open(as_parquet(photos, tmp_path / "table"), setting="instance_data_dir")


def test_damaged_files_are_named(photos: Path, tmp_path: Path) -> None:
    for table in (as_parquet(photos, tmp_path / "one"), as_saved(photos, tmp_path / "two")):
        (file,) = (f for f in table.rglob("*") if f.suffix in (".parquet", ".arrow"))
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        with pytest.raises(ConfigError, match=rf"{file.name}.*: damaged, or cannot be read"):
            opened(table)


def test_only_the_name_of_a_picture_is_no_picture(tmp_path: Path) -> None:
    from pyarrow import Table as Arrow
    from pyarrow import parquet

    kind = columns(draw_photos(tmp_path / "photos", count=1)).schema.field("image").type
    rows = [{"bytes": None, "path": "a.jpg"}]
    schema = columns(tmp_path / "photos").schema
    assert schema.field("image").type == kind
    parquet.write_table(Arrow.from_pydict({"image": rows, "text": ["a"]}, schema=schema), tmp_path / "rows.parquet")
    with pytest.raises(ConfigError, match=r"rows\.parquet, row 0: holds no image, at most its name"):
        opened(tmp_path / "rows.parquet")


def test_without_pyarrow_its_package_is_named(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = as_parquet(photos, tmp_path / "table")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"needs pyarrow .*; pip install '\.\[parquet\]' in a clone"):
        opened(table)


def test_a_folder_of_images_with_metadata(tmp_path: Path) -> None:
    folder = draw_photos(tmp_path / "set" / "train", count=2)
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "01.png", "words": "a toy in snow"}))
    found = opened(tmp_path / "set", caption_column="words", image_column="image")
    assert [(p.path.name, p.caption) for p in found.photos] == [("00.png", None), ("01.png", "a toy in snow")]
    with pytest.raises(ConfigError, match="image_column: 'picture': .* is a folder of images"):
        opened(tmp_path / "set", image_column="picture")


CARD = """---
license: mit
configs:
- config_name: small
  data_files: small/*.parquet
- config_name: full
  default: true
  data_files:
  - {split: train, path: ["full/part-*", "full/more.parquet"]}
  - {split: test, path: full/test.parquet}
---
# A dataset
"""
TREE = ("full/part-2.parquet", "full/part-10.parquet", "full/more.parquet", "full/test.parquet", "small/a.parquet")


@pytest.mark.parametrize(
    ("names", "card", "config", "files"),
    [
        (TREE, CARD, None, ["full/part-2.parquet", "full/part-10.parquet", "full/more.parquet"]),
        (TREE, CARD, "small", ["small/a.parquet"]),
        (TREE, "# No header", "full", ["full/more.parquet", "full/part-2.parquet", "full/part-10.parquet"]),
        (("train.parquet", "test.parquet"), "", None, ["train.parquet"]),
        (("data/train-0-of-1.parquet", "data/validation-0-of-1.parquet"), "", None, ["data/train-0-of-1.parquet"]),
        (("a/train/0.parquet", "a/test/0.parquet", "b/train/0.parquet"), "", "b", ["b/train/0.parquet"]),
        (("default/train/0.parquet", "other/train/0.parquet"), "", None, ["default/train/0.parquet"]),
        (("trainers.parquet", "README.txt"), "", None, ["trainers.parquet"]),
    ],
)
def test_which_files_are_the_training_split(
    names: tuple[str, ...], card: str, config: str | None, files: list[str]
) -> None:
    found = choose_files([*names, "README.md"], config, lambda name: card, "here")
    assert found.files == files
    assert bool(found.notes) == any(
        "test" in n or "validation" in n for n in names if config is None or n.startswith(config)
    )


@pytest.mark.parametrize(
    ("names", "card", "message"),
    [
        (("a/0.parquet", "b/0.parquet"), "", "dataset_config_name: here has several: a, b; name one"),
        (("validation.parquet", "test.parquet"), "", "has splits test, validation and no 'train'"),
        (("a.parquet",), "---\nconfigs: [{data_files: 3}]\n---", "here/README.md: its header is damaged"),
        (("a.parquet",), "---\nconfigs: [{config_name: x, data_files: b*}]\n---", "names no files that are there"),
        (("a.arrow", "state.json"), '{"_data_files": [{"filename": "b.arrow"}]}', "names b.arrow, not there"),
        (("train-00000-of-00002-abc.parquet",), "", "holds 1 of 2 files train-…; fetch it anew"),
        (("a.arrow", "state.json"), "no json", "state.json: not JSON"),
    ],
)
def test_descriptions_that_do_not_fit(names: tuple[str, ...], card: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_files([*names, "README.md"], None, lambda name: card, "here")


def test_memory_does_not_grow_with_the_table(tmp_path: Path) -> None:
    """48 MiB of images in groups of 4 MiB leave pyarrow with a few groups' worth at most."""
    import pyarrow
    from pyarrow import parquet

    pictures = [os.urandom(1 << 20) for _ in range(48)]
    parquet.write_table(pyarrow.table({"image": pictures}), tmp_path / "a.parquet", row_group_size=4)
    table = local_dataset(tmp_path / "a.parquet", None)
    before = pyarrow.total_allocated_bytes()
    for row, picture in zip(Table(table.root, table.files, "image", None).rows(), pictures, strict=True):
        assert row.data() == picture
        assert pyarrow.total_allocated_bytes() - before < 16 << 20
    assert pyarrow.total_allocated_bytes() - before < 1 << 20, "and all of it is freed"


OPEN = """
import sys
import dreamcore.hub.datasets as hubdata
from dreamcore.config import TrainConfig
from dreamcore.errors import ConfigError
from dreamcore.training.training_data import open_photos
name, hubdata.KEPT_BYTES, more = sys.argv[1], int(sys.argv[2]), dict(word.split("=") for word in sys.argv[3:])
given = {"pretrained_model_name_or_path": "m", "dataset_name": name, "instance_prompt": "a toy"} | more
try:
    config = TrainConfig.from_mapping(given)
    found = open_photos(config, config.subjects()[0], "", print)
    print(*(f"{photo.caption} {photo.sha256}" for photo in found.photos), sep="\\n")
except ConfigError as error:
    print("refused:", error)
"""


@pytest.fixture
def hub(photos: Path, tmp_path: Path) -> Iterator[Hub]:
    folder = as_parquet(photos, tmp_path / "repo", SHARDS)
    (folder / "README.md").write_text("# no header")
    (folder / "data" / "test-00000-of-00001.parquet").write_bytes(b"not needed")
    hub = Hub(folder, "datasets")
    yield hub
    hub.close()


def test_a_dataset_of_the_hub_is_fetched_once(hub: Hub, photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub", reason="no client of the Hub is installed")
    expected = [f"{p.caption} {p.sha256}" for p in opened(hub.folder, use_captions=True).photos]
    words = ("someone/tiny", str(1 << 30), "caption_column=text")
    note, missing, *found = run_with(hub.endpoint, tmp_path / "home", OPEN, *words).splitlines()
    assert found == expected and "split 'train' is used, and not test" in note and "2 of 5" in missing
    assert sorted(hub.asked) == ["README.md", *SHARDS], "nothing of the test split"
    assert run_with(hub.endpoint, tmp_path / "home", OPEN, *words).splitlines()[2:] == expected
    assert len(hub.asked) == 3, "from the cache, the second time"
    gone = run_with("http://127.0.0.1:9", tmp_path / "home", OPEN, *words).splitlines()
    assert gone[-5:] == expected, "the cache serves without a network"
    assert "Hub cannot be reached" in run_with("http://127.0.0.1:9", tmp_path / "empty", OPEN, *words)
    assert "no such dataset on the Hub" in run_with(hub.endpoint, tmp_path / "home", OPEN, "someone/else", "1")


def test_a_large_dataset_of_the_hub_is_streamed(hub: Hub, photos: Path, tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub", reason="no client of the Hub is installed")
    expected = [f"{p.caption} {p.sha256}" for p in opened(hub.folder, use_captions=True).photos]
    found = run_with(hub.endpoint, tmp_path / "home", OPEN, "someone/tiny", "0", "caption_column=text").splitlines()
    assert found[-5:] == expected and "streamed from the Hub" in found[1]
    assert hub.asked == ["README.md"] and {name for name, _ in hub.ranges} == set(SHARDS)
    assert not list((tmp_path / "home").rglob("*.parquet")), "on this machine nothing is kept"
