"""New words (textual inversion, pivotal tuning) on every backend: gone on with, used, told, refused."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from dreamcore.backends.installed import installed_backends
from dreamcore.commands.generate import generate
from dreamcore.config import GenerateConfig
from dreamcore.errors import ConfigError

from ..support.runs import numbers, prepared, small_run

MINDSPORE = installed_backends()[0] == "mindspore"
WORDS: dict[str, Any] = {
    "train_text_encoder_ti": True,
    "instance_prompt": "a photo of TOK dog",
    "use_lora": True,
    "learning_rate": 1e-2,
}


@pytest.mark.skipif(MINDSPORE, reason="slow on a CPU; tests/crossing compares its updates with PyTorch's")
def test_a_run_broken_off_is_gone_on_with(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    """And the denoiser trains longer than the words, whose rows only keep their spread then; images of TOK need the
    words, which generate finds beside the LoRA."""
    settings = WORDS | {"use_ema": True, "checkpointing_steps": 2, "gradient_checkpointing": True}
    whole = small_run(tiny_model, photos, tmp_path / "whole", **settings)
    assert [record["lr_text_encoder"] for record in whole.metrics] == [1e-2, 1e-2, 0, 0]
    assert {record["lr"] for record in whole.metrics} == {1e-2}
    broken = Path(shutil.copytree(whole.folder, tmp_path / "broken" / "whole"))
    shutil.rmtree(broken / "checkpoint-4")
    for file in broken.glob("*.safetensors"):
        file.unlink()
    resumed = small_run(tiny_model, photos, broken, **settings, resume_from_checkpoint="latest")
    assert numbers(resumed) == numbers(whole)
    for name in ("whole_emb.safetensors", "learned_embeds.safetensors", "whole.safetensors"):
        mine, theirs = load_file(whole.folder / name), load_file(broken / name)
        for key in mine:
            np.testing.assert_array_equal(mine[key], theirs[key])
    before, after = (load_file(whole.folder / f"checkpoint-{n}" / "embeddings.safetensors")["clip_l"] for n in (2, 4))
    np.testing.assert_allclose(after / after.std(), before / before.std(), rtol=1e-4)
    card = (whole.folder / "README.md").read_text()
    assert "`TOK` is a new word, and other programs know it as `<s0><s1>`" in card
    assert "image = pipeline('a photo of <s0><s1> dog')" in card and "load_textual_inversion" in card


def test_nothing_else_of_a_text_encoder_changes(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    with ExitStack() as stack:
        run = prepared(tiny_model, photos, tmp_path, stack, **WORDS)
        backend: Any = run.backend
        first, weights = backend.new_words(averaged=False).rows["clip_l"], backend.weights("text_encoder")
        before = {name: array.copy() for name, array in backend.arrays(weights).items()}
        for update in range(2):
            backend.train_step(run.batcher.micro_batches(update), {"unet": 0.0, "text_encoder": 0.1})
        after, last = backend.arrays(weights), backend.new_words(averaged=False).rows["clip_l"]
    assert len(before) > 10 and not np.array_equal(first, last)
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array, err_msg=name)


def test_words_alone(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    """Their file is all there is, and it makes other images than the base model of a word that means nothing."""
    alone = WORDS | {"train_transformer_frac": 0.0, "train_text_encoder_ti_frac": 1.0, "use_lora": None}
    run = small_run(tiny_model, photos, tmp_path / "run", **alone)
    assert {f.name for f in run.folder.glob("*.safetensors")} == {"run_emb.safetensors", "learned_embeds.safetensors"}
    assert not (run.folder / "unet").exists() and not (run.folder / "checkpoint-4" / "unet").exists()
    assert {record["lr"] for record in run.metrics} == {0} and run.metrics[0]["grad_norm"] > 0
    again = small_run(tiny_model, photos, run.folder, **alone, resume_from_checkpoint="latest")
    assert again.updates == 4, "it is finished"
    given = {"prompt": "a photo of TOK dog", "num_inference_steps": 2, "device": "cpu", "contact_sheet": False}
    (run.folder.parent / "learned").mkdir()
    learned = Path(shutil.copy(run.folder / "learned_embeds.safetensors", run.folder.parent / "learned"))
    images = []
    for number, more in enumerate(({"embeddings": str(run.folder)}, {"embeddings": str(learned)}, {})):
        base = {"pretrained_model_name_or_path": str(tiny_model), "output_dir": str(tmp_path / f"images-{number}")}
        base |= {"height": 32, "width": 32} if number else {}
        (image,) = generate(GenerateConfig.from_mapping(base | given | more))
        images.append(image.read_bytes().split(b"IDAT")[1:])
    assert images[0] == images[1] != images[2]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"instance_prompt": "a photo of sks dog"}, "token_abstraction: TOK: in none of the photographs' words"),
        ({"train_text_encoder": True}, "train_text_encoder: given together with train_text_encoder_ti"),
        ({"train_transformer_frac": 0.5}, "nothing would train in the last updates"),
        ({"train_text_encoder_ti": None, "initializer_concept": "dog"}, "acts only with train_text_encoder_ti"),
        ({"initializer_concept": "dog", "num_new_tokens_per_abstraction": 3}, "acts only without initializer_concept"),
    ],
)
def test_what_is_refused(more: dict[str, Any], words: str, tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=words):
        small_run(tiny_model, photos, tmp_path / "run", **WORDS | more)
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize(
    ("name", "arrays", "words"),
    [
        ("a.pt", {}, "only .safetensors files are read"),
        ("a.safetensors", {"TOK": np.zeros((2, 7), np.float32)}, "clip_l: 7 wide, and this model's are 32"),
        ("a.safetensors", {"clip_g": np.zeros((2, 32), np.float32)}, "of clip_g: this model has clip_l"),
        ("a.safetensors", {"x": np.zeros((2, 2, 2), np.float32)}, "x: no embeddings of tokens"),
        ("nowhere", None, "no embeddings there"),
    ],
)
def test_files_that_are_refused(name: str, arrays: Any, words: str, tiny_model: Path, tmp_path: Path) -> None:
    if arrays is not None:
        save_file(arrays, tmp_path / name)
    given = {"pretrained_model_name_or_path": str(tiny_model), "prompt": "x", "embeddings": str(tmp_path / name)}
    with pytest.raises(ConfigError, match=words):
        generate(GenerateConfig.from_mapping(given | {"output_dir": str(tmp_path / "out"), "device": "cpu"}))
