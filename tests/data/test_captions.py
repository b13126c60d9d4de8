"""Words of the photographs from every place where people put them, and the prompts made of them."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from dreamcore.data import ImageFolder
from dreamcore.data.captions import words_of_name
from dreamcore.errors import ConfigError
from dreamcore.text.wording import Wording, shuffle_tags


def folder_of(tmp_path: Path, *names: str) -> Path:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name, "JPEG")
    return tmp_path


def captions(folder: Path, **more: object) -> list[str | None]:
    options = {"captions": True} | more
    return [photo.caption for photo in ImageFolder.open(folder, setting="s", **options).photos]  # type: ignore[arg-type]


def test_caption_ending(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "a.jpg", "b.jpg")
    (folder / "a.caption").write_text("one\n")
    (folder / "b.txt").write_text(" two")
    assert captions(folder) == ["one", "two"]
    (folder / "b.caption").write_text("three")
    with pytest.raises(ConfigError, match=r"b\.jpg.*two captions"):
        captions(folder)


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_metadata(tmp_path: Path, ending: str) -> None:
    composed, decomposed = (unicodedata.normalize(form, "é.jpg") for form in ("NFC", "NFD"))
    folder = folder_of(tmp_path, "a.jpg", decomposed, "in/c.jpg")
    rows = [("a.jpg", 'a "dog", red'), (composed, "é"), ("in/c.jpg", "c"), ("gone.jpg", "x")]
    if ending == "jsonl":
        text = "\n".join(json.dumps({"file_name": f, "text": t, "more": 1}) for f, t in rows) + "\n\n"
    else:
        text = "file_name,text\n" + "\n".join(f'{f},"{t.replace(chr(34), chr(34) * 2)}"' for f, t in rows)
    (folder / f"metadata.{ending}").write_text(text, encoding="utf-8")
    found = ImageFolder.open(folder, setting="s", captions=True, sub_folders=True)
    assert {p.path.name: p.caption for p in found.photos} == {"a.jpg": 'a "dog", red', decomposed: "é", "c.jpg": "c"}
    assert any("gone.jpg" in note for note in found.notes) and not any("other file" in note for note in found.notes)


def test_metadata_in_a_sub_folder(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "a.jpg", "in/a.jpg")
    (folder / "in" / "metadata.jsonl").write_text('{"file_name": "a.jpg", "caption": "inner"}')
    assert captions(folder, sub_folders=True, caption_column="caption") == [None, "inner"]


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("metadata.jsonl", '{"file_name": "a.jpg", "text": "x"}\n{"file_name"', "line 2: not JSON"),
        ("metadata.jsonl", '["a.jpg"]', "line 1: expected an object"),
        ("metadata.jsonl", '{"file_name": "a.jpg", "caption": "x"}', "line 1: has no 'text'.*'caption'"),
        ("metadata.jsonl", '{"file_name": "a.jpg", "text": 3}', "text is 3"),
        ("metadata.jsonl", '{"file_name": "a.jpg", "text": " "}', "line 1: the caption is empty"),
        ("metadata.jsonl", '{"file_name": "../a.jpg", "text": "x"}', "inside the folder"),
        (
            "metadata.jsonl",
            '{"file_name": "a.jpg", "text": "x"}\n{"file_name": "a.jpg", "text": "y"}',
            "line 2.*second",
        ),
        ("metadata.csv", "name,text\na.jpg,x", "line 2: has no 'file_name'"),
        ("metadata.csv", "file_name,text\na.jpg", "text is None"),
        ("metadata.csv", 'file_name,text\na.jpg,"x', "not CSV"),
        ("a.txt", "", "empty"),
    ],
)
def test_bad_captions_are_named(tmp_path: Path, name: str, text: str, words: str) -> None:
    folder = folder_of(tmp_path, "a.jpg")
    (folder / name).write_text(text)
    with pytest.raises(ConfigError, match=words) as error:
        captions(folder)
    assert name in str(error.value)


def test_two_sources_must_agree(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "a.jpg")
    (folder / "a.txt").write_text("one")
    (folder / "metadata.jsonl").write_text('{"file_name": "a.jpg", "text": "one"}')
    assert captions(folder) == ["one"]
    (folder / "a.txt").write_text("two")
    with pytest.raises(ConfigError, match=r"two captions.*a\.txt.*metadata\.jsonl"):
        captions(folder)
    assert captions(folder, captions="files") == ["two"] and captions(folder, captions="metadata") == ["one"]
    (folder / "metadata.csv").write_text("file_name,text\na.jpg,one")
    with pytest.raises(ConfigError, match=r"metadata\.jsonl and metadata\.csv"):
        captions(folder)


def test_a_missing_caption_is_an_error_where_asked(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "a.jpg", "b.jpg")
    (folder / "a.txt").write_text("one")
    assert captions(folder) == ["one", None]
    with pytest.raises(ConfigError, match=r"b\.jpg"):
        captions(folder, every_caption=True)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("red_mug-on grass (2).jpg", "red mug on grass"),
        ("a dog_003.png", "a dog"),
        ("ein_grüner  Hund.jpg", "ein grüner Hund"),
        ("route 66 sign.jpg", "route 66 sign"),
    ],
)
def test_file_names_as_captions(tmp_path: Path, name: str, words: str) -> None:
    assert words_of_name(Path(name)) == words
    assert captions(folder_of(tmp_path, name), captions="file_names") == [words]


def test_a_name_without_words_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"2024-01\.jpg"):
        captions(folder_of(tmp_path, "2024-01.jpg"), captions="file_names")


def test_templates() -> None:
    wording = Wording("a photo of {identifier} {class}, {caption}", identifier="sks", class_word="dog")
    wording.check("caption_template")
    assert wording.prompt("on grass") == "a photo of sks dog, on grass"
    assert wording.prompt("the {class} of {{gold}}") == "a photo of sks dog, the dog of {{gold}}"
    assert Wording(identifier="{class}", class_word="dog").prompt("{identifier}") == "{class}"  # filled once only
    assert Wording("just words").prompt(None) == "just words"


@pytest.mark.parametrize(
    ("template", "words"), [("a {subject}", "{subject} is not known"), ("a {class}", "class"), ("{}", "not known")]
)
def test_templates_that_cannot_be_filled(template: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as error:
        Wording(template).check("caption_template")
    assert "caption_template" in str(error.value)


def test_a_caption_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="has a place for the caption"):
        Wording("{caption}").prompt(None)
    with pytest.raises(ConfigError, match="asks for the identifier"):
        Wording().prompt("a {identifier} dog")


@given(st.lists(st.text("abc ", min_size=1), max_size=8), st.integers(0, 9), st.integers(0, 2**32))
def test_shuffling_loses_no_tag_and_keeps_the_first(tags: list[str], keep: int, seed: int) -> None:
    clean = [tag.strip() for tag in tags if tag.strip()]
    got = shuffle_tags(",".join(tags), keep, np.random.default_rng(seed)).split(", ") if clean else []
    assert got[:keep] == clean[:keep] and sorted(got) == sorted(clean)


def test_shuffling_reaches_every_order() -> None:
    rng = np.random.default_rng(0)
    wording = Wording(shuffle_tags=True, keep_tags=1)
    assert {wording.prompt("a, b,c", rng) for _ in range(40)} == {"a, b, c", "a, c, b"}
