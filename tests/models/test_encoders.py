"""Tokenizer and text encoder are what the model's folder names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from dreamcore.config import TrainConfig
from dreamcore.errors import ConfigError
from dreamcore.models.folder import ModelFolder
from dreamcore.models.locate import TINYWORLD
from dreamcore.text.tokenizer import Tokenizer
from dreamcore.text.wordpiece import WordPiece

from ..support.tiny import write_json
from ..support.tiny_taiyi import WINDOW, write_wordpiece


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A Stable Diffusion 1 whose index and configurations say BERT."""
    made = Path(shutil.copytree(ModelFolder.open(TINYWORLD).path, tmp_path / "model"))
    shutil.rmtree(made / "tokenizer")
    pieces = write_wordpiece(made / "tokenizer")
    bert = {"architectures": ["BertModel"], "model_type": "bert", "vocab_size": len(pieces), "hidden_dropout_prob": 0.1}
    write_json(made / "text_encoder" / "config.json", bert)
    name(made, text_encoder="BertModel", tokenizer="BertTokenizer")
    return made


def name(folder: Path, **classes: str) -> None:
    """Have model_index.json name classes of transformers'."""
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    write_json(folder / "model_index.json", index | {part: ["transformers", cls] for part, cls in classes.items()})


def test_a_bert_is_known_by_its_class(folder: Path) -> None:
    model = ModelFolder.open(str(folder))
    (encoder,) = model.text_encoders
    assert encoder.lora_layers == ("self.query", "self.key", "self.value", "attention.output.dense")
    assert model.unused("text_encoder") == ("pooler.",), "its words do not depend on what is pooled of them"
    assert model.built_with("text_encoder") == {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    assert model.built_with("unet") == {}
    assert model.window(encoder) == WINDOW
    tokenizer = Tokenizer.open(model)
    assert isinstance(tokenizer, WordPiece) and tokenizer.tokenize("一张sks小狗") == ["一", "张", "sks", "小", "狗"]


def test_a_tokenizer_that_names_no_length_takes_as_many_as_there_are_positions(folder: Path) -> None:
    file = folder / "tokenizer" / "tokenizer_config.json"
    write_json(file, {"do_lower_case": True})
    model = ModelFolder.open(str(folder))
    assert model.window(model.text_encoders[0]) == 512


@pytest.mark.parametrize("cls", ["RobertaSeriesModelWithTransformation", "XLMRobertaModel"])
def test_another_class_is_refused_in_words(cls: str, folder: Path) -> None:
    name(folder, text_encoder=cls)
    with pytest.raises(ConfigError, match=rf"model_index\.json: text_encoder is a {cls}; expected .*BertModel"):
        ModelFolder.open(str(folder))


def test_a_token_without_a_row_is_found(folder: Path) -> None:
    with (folder / "tokenizer" / "vocab.txt").open("a", encoding="utf-8") as file:
        file.write("猫咪\n")
    with pytest.raises(
        ConfigError, match=r"vocab\.txt: has a token of number \d+, and the text encoder's embeddings end"
    ):
        ModelFolder.open(str(folder))


def test_its_settings_are_those_of_the_family(folder: Path) -> None:
    """Nothing in a run's configuration asks which text encoder there is."""
    given = {
        "pretrained_model_name_or_path": str(folder),
        "instance_data_dir": "照片",
        "instance_prompt": "一张sks小狗",
    }
    assert ModelFolder.of(TrainConfig.from_mapping(given)).family.name.startswith("Stable Diffusion 1")
