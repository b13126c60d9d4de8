"""CLIP's tokenizer from either form of its files, without a framework; beside transformers' own: tests/torch."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from dreamcore.errors import ConfigError
from dreamcore.models.folder import ModelFolder
from dreamcore.models.locate import TINYWORLD
from dreamcore.text.tokenizer import Tokenizer, with_old_files

from ..support.tiny import in_one_file

MERGES = [["l", "o"], ["lo", "w</w>"], ["e", "r</w>"]]
VOCABULARY = {token: i for i, token in enumerate(["l", "o", "w</w>", "e", "r</w>", "lo", "low</w>", "er</w>"])}


@pytest.fixture
def model(tmp_path: Path) -> ModelFolder:
    """A copy of which the tokenizer may be changed."""
    return ModelFolder.open(str(shutil.copytree(ModelFolder.open(TINYWORLD).path, tmp_path / "model")))


@pytest.mark.parametrize("merges", [MERGES, [" ".join(pair) for pair in MERGES]], ids=["pairs", "strings"])
def test_one_file_by_hand(merges: list[Any], model: ModelFolder) -> None:
    folder = model.path / "tokenizer"
    for file in folder.iterdir():
        file.unlink()
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": VOCABULARY, "merges": merges}}))
    (folder / "tokenizer_config.json").write_text('{"model_max_length": 16}')
    read = Tokenizer.open(model)
    assert (read.vocabulary, read.window) == (VOCABULARY, 14)
    assert read.tokenize("Low lower low") == ["low</w>", "lo", "w", "er</w>", "low</w>"]


def test_the_published_files_come_first(model: ModelFolder) -> None:
    words = Tokenizer.open(model).tokenize("a red mug")
    (model.path / "tokenizer" / "tokenizer.json").write_text("{")
    assert Tokenizer.open(model).tokenize("a red mug") == words
    with with_old_files(model.path / "tokenizer") as folder:
        assert folder == model.path / "tokenizer"


def test_old_files_come_out_of_the_one_as_they_were(model: ModelFolder) -> None:
    folder = model.path / "tokenizer"
    words, old = json.loads((folder / "vocab.json").read_text("utf-8")), (folder / "merges.txt").read_text("utf-8")
    in_one_file(folder)
    with with_old_files(folder) as made:
        assert json.loads((made / "vocab.json").read_text("utf-8")) == words
        assert (made / "merges.txt").read_text("utf-8") == old
        assert (made / "tokenizer_config.json").is_file()
    assert not made.exists() and not (folder / "vocab.json").exists()


def test_another_tokenizers_file_stays_one(tmp_path: Path) -> None:
    """A language model's, whose words have no mark at their ends: its library wants that file and no other."""
    model = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": [["a", "b"]], "end_of_word_suffix": None}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}))
    with with_old_files(tmp_path) as folder:
        assert folder == tmp_path


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, r"vocab\.json: .*No such file"),
        ("{", r"tokenizer\.json: cannot be read as JSON"),
        ("[]", r"tokenizer\.json: expected a JSON object, found list"),
        ("{}", r"tokenizer\.json: no CLIP tokenizer there: 'model' is missing"),
        ('{"model": {"merges": []}}', r"tokenizer\.json: no CLIP tokenizer there: 'vocab' is missing"),
        ('{"model": {"vocab": {"a": 0}}}', r"tokenizer\.json: no CLIP tokenizer there: 'merges' is missing"),
        ('{"model": {"vocab": [["a", 0.5]], "merges": []}}', r"tokenizer\.json: no CLIP tokenizer there: .*'list'"),
        ('{"model": {"vocab": {"a": 0}, "merges": ["a b c"]}}', r"tokenizer\.json: .*too many values"),
        ('{"model": null}', r"tokenizer\.json: no CLIP tokenizer there"),
    ],
)
def test_damaged_files_are_named(content: str | None, words: str, model: ModelFolder) -> None:
    folder = model.path / "tokenizer"
    (folder / "vocab.json").unlink()
    if content is not None:
        (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ConfigError, match=f"pretrained_model_name_or_path: .*{words}"):
        Tokenizer.open(model)
