"""What words the photographs of a run get: their captions, a table's, an identifier's; and what they are encoded to."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamcore.backends.installed import installed_backends
from dreamcore.backends.protocol import SampleRequest
from dreamcore.backends.registry import load_backend
from dreamcore.config import GenerateConfig, TrainConfig, load_config
from dreamcore.diffusion.randomness import first_noise
from dreamcore.errors import ConfigError
from dreamcore.models.folder import ModelFolder
from dreamcore.training.loop import train

from ..support.runs import numbers, prepared, small_run, texts
from ..support.tables import CAPTIONS, as_parquet, as_saved
from ..support.tiny import draw_photos


def test_every_photograph_gets_its_words(tiny_model: Path, tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos", count=3)
    (photos / "00.txt").write_text("{identifier} on grass, red, snow, blue")
    (photos / "01.txt").write_text("in snow")
    settings = {
        "use_captions": True,
        "caption_template": "a {class}, {caption}",
        "instance_prompt": "a photo of {identifier} {class}",
        "identifier": "sks",
        "class_word": "dog",
        "shuffle_tags": True,
        "keep_tags": 1,
        "max_train_steps": 60,
    }
    with ExitStack() as stack:
        run = prepared(tiny_model, photos, tmp_path / "out", stack, **settings)
        seen: dict[int, set[str]] = {0: set(), 1: set(), 2: set()}
        for update in range(60):
            (row,) = run.batcher.plan.micro_batches(update)[0]
            seen[row.image] |= set(texts(run, run.batcher.micro_batches(update)[0]))
    assert seen[1] == {"a dog, in snow"}
    assert seen[2] == {"a photo of sks dog"}
    tags = {tuple(text.removeprefix("a dog, sks on grass, ").split(", ")) for text in seen[0]}
    assert len(tags) >= 4 and all(sorted(order) == ["blue", "red", "snow"] for order in tags)


def test_a_missing_caption_is_an_error_where_asked(tiny_model: Path, tmp_path: Path) -> None:
    photos = draw_photos(tmp_path / "photos", count=3)
    (photos / "00.txt").write_text("in snow")
    with pytest.raises(ConfigError, match=r"01\.png"):
        small_run(tiny_model, photos, tmp_path / "out", use_captions=True, missing_caption="error")


def test_a_place_without_words_is_an_error(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="asks for the identifier, and none is given"):
        small_run(tiny_model, photos, tmp_path / "out", instance_prompt="a photo of {identifier} dog")


def test_a_dataset_trains_as_its_photographs_do(tiny_model: Path, tmp_path: Path) -> None:
    """The same bytes in files, in a parquet file and in what `datasets` saves: the same run."""
    photos = draw_photos(tmp_path / "photos", count=4)
    for number, words in enumerate(CAPTIONS[:4]):
        if words:
            (photos / f"{number:02}.txt").write_text(words)
    plain = small_run(tiny_model, photos, tmp_path / "a", use_captions=True)
    for text in photos.glob("*.txt"):
        text.unlink()
    tables = as_parquet(photos, tmp_path / "parquet"), as_saved(photos, tmp_path / "saved")
    for name, table in zip("bc", tables, strict=True):
        settings = {"instance_data_dir": None, "dataset_name": str(table), "caption_column": "text"}
        run = small_run(tiny_model, photos, tmp_path / name, **settings)
        assert numbers(run) == numbers(plain)
        assert len(list((run.folder / "subject").glob("*.png"))) == 4, "for the report"
        again = load_config(TrainConfig, run.folder / "config.yaml", {"output_dir": str(tmp_path / f"{name}{name}")})
        assert numbers(train(again)) == numbers(plain)


def test_what_is_warned_of_before_training(tiny_model: Path, tmp_path: Path) -> None:
    """Captions that are not used, and what `dreambooth data` would say; a caption that is cut, by its image's name."""
    photos = draw_photos(tmp_path / "photos", count=2)
    (photos / "09.png").write_bytes((photos / "00.png").read_bytes())
    (photos / "01.txt").write_text("a dog " + "in snow " * 60)
    small_run(tiny_model, photos, tmp_path / "a", max_train_steps=1, resolution=64)
    log = (tmp_path / "a" / "log.txt").read_text()
    assert "1 file of captions lies there and is not used: --use_captions takes it" in log
    assert "too small: 00.png, 01.png, 09.png; 00.png: 48×48 is enlarged 1.3 times" in log
    assert "09.png is nearly 00.png" in log and "cut off" not in log and "identifier" not in log
    small_run(tiny_model, photos, tmp_path / "b", max_train_steps=1, use_captions=True)
    assert (
        "01.png: prompt of 122 tokens, of which the text encoder sees 75; cut off: "
        in (tmp_path / "b" / "log.txt").read_text()
    )


def test_pictures_of_prompts_that_batches_number(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same before the prompts are numbered and after, when no text encoder is asked again."""
    given = {"pretrained_model_name_or_path": str(tiny_model), "prompt": "x", "device": "cpu"}
    model = ModelFolder.open(str(tiny_model))
    backend: Any = load_backend(installed_backends()[0], model, GenerateConfig.from_mapping(given))
    shape = (model.latent_channels, 8, 8)
    request = SampleRequest(["a cat", "a dog"], first_noise([1, 2], shape), [1, 2], 2, 4.0, "ddim", "a car")
    pictures = backend.sample(request)
    backend.set_prompts(["a dog", "a photo of sks dog", "a cat", "a car"])
    monkeypatch.setattr(backend, "encode_prompt", None)
    np.testing.assert_array_equal(backend.sample(request), pictures)
