"""Families whose words are a language model's, beside diffusers' pipelines: words, images, and what a run leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from dreamcore.models.folder import ModelFolder
from dreamcore.text.encoder import templated

from ..support import images as pictures
from ..support import needs
from ..support.images import distance
from ..support.runs import prepared, small_run
from ..support.tiny_krea_ernie import WRITERS as KREA_ERNIE
from ..support.tiny_language_models import WRITERS

pytestmark = needs.torch

PROMPTS = ["a photo of sks dog", "a red teapot on grass, in snow", "a cat"]
SIZE = 32
FAMILIES = [*WRITERS, *KREA_ERNIE]
Models = Callable[[str], Path]


def pipeline(folder: Path) -> Any:
    from diffusers import DiffusionPipeline

    loaded = DiffusionPipeline.from_pretrained(folder)
    loaded.vae_scale_factor = ModelFolder.open(str(folder)).latent_factor  # which Lumina's does not ask for
    loaded.set_progress_bar_config(disable=True)
    return loaded


def encoded(loaded: Any, prompts: list[str], negative: list[str]) -> tuple[list[Any], list[Any]]:
    """Each prompt's words without padding, and each negative one's, as a pipeline encodes them."""
    if type(loaded).__name__ == "ZImagePipeline":
        found = loaded.encode_prompt(list(prompts), "cpu", True, list(negative))
        return tuple([one.detach() for one in some] for some in found)  # type: ignore[return-value]
    if type(loaded).__name__ == "ErnieImagePipeline":
        return loaded.encode_prompt(prompts, "cpu"), loaded.encode_prompt(negative, "cpu")
    if type(loaded).__name__ == "Lumina2Pipeline":
        made = loaded.encode_prompt(prompts, True, negative)
        pairs = [made[:2], made[2:]]
    else:
        pairs = [loaded.encode_prompt(some, max_sequence_length=512) for some in (prompts, negative)]
    if type(loaded).__name__ == "Krea2Pipeline":  # whose states lie below each other
        pairs = [(words.flatten(2), mask) for words, mask in pairs]
    return tuple(  # type: ignore[return-value]
        [row if mask is None else row[mask[i].bool()] for i, row in enumerate(words.detach())] for words, mask in pairs
    )


def theirs(loaded: Any, model: Path) -> np.ndarray:
    import diffusers
    import torch

    negative = [""] * len(pictures.SEEDS)  # Qwen-Image's is not guided unless it is said, Z-Image's writes into it
    return pictures.theirs(diffusers, loaded, model, torch.from_numpy, SIZE, negative_prompt=negative)


@pytest.mark.parametrize("family", FAMILIES)
def test_words_are_the_pipelines(family: str, family_models: Models, photos: Path, tmp_path: Path) -> None:
    """One after the other here, together there; what is padding there is none here."""
    model = family_models(family)
    negative = ["grass", "a blue car", ""]
    with ExitStack() as stack:
        run: Any = prepared(model, photos, tmp_path / "run", stack)
        mine = [run.backend.text.embeddings(PROMPTS), run.backend.text.embeddings(negative, negative=True)]
    for made, wanted in zip(mine, encoded(pipeline(model), PROMPTS, negative), strict=True):
        assert made.lengths.tolist() == [len(words) for words in wanted]
        for row, words in zip(made.prompt_embeds.numpy(), wanted, strict=True):
            np.testing.assert_allclose(row[: len(words)], words, atol=2e-5)


def test_a_long_prompt_is_cut_before_krea_s_ending(family_models: Models, photos: Path, tmp_path: Path) -> None:
    """Of which the pipeline's words have padding in the middle, and ours none."""
    model, prompt = family_models("krea2"), "a photo of sks dog in snow " * 9
    with ExitStack() as stack:
        run: Any = prepared(model, photos, tmp_path / "run", stack, max_sequence_length=20)
        mine = run.backend.text.embeddings([prompt, "a dog"])
    words, mask = pipeline(model).encode_prompt([prompt, "a dog"], max_sequence_length=20)
    assert mine.lengths.tolist() == mask.sum(1).tolist() and mine.lengths[0] == 20 > mine.lengths[1]
    for row, length, wanted, there in zip(mine.prompt_embeds, mine.lengths, words.flatten(2), mask, strict=True):
        np.testing.assert_allclose(row[:length], wanted[there].detach(), atol=2e-5)


@pytest.mark.parametrize("family", ["z-image", "lumina2"])
def test_positions_are_turned_in_float32_in_16_bits_too(family: str, family_models: Models) -> None:
    """Computed tables are in no file; transformers leaves them in the type that they are made in: the same bits."""
    import torch
    import transformers

    from dreamcore.adapters.torch.models import load_component

    model = ModelFolder.open(str(family_models(family)))
    mine = load_component(model, "text_encoder", torch.device("cpu"), torch.bfloat16)
    mine.fill()
    kind = getattr(transformers, model.class_name("text_encoder"))
    theirs = kind.from_pretrained(model.folder("text_encoder"), dtype=torch.bfloat16)
    tokens = torch.arange(5, 105)[None]
    with torch.inference_mode():
        assert torch.equal(mine.network(tokens).last_hidden_state, theirs(tokens).last_hidden_state)


@pytest.mark.parametrize("family", FAMILIES)
def test_templates_are_the_pipelines(family: str, family_models: Models) -> None:
    """As text, letter for letter."""
    model = ModelFolder.open(str(family_models(family)))
    loaded, read = pipeline(model.path), list[str]()
    tokenizer = loaded.tokenizer

    def listening(text: list[str], **options: Any) -> Any:
        read.extend([text] if isinstance(text, str) else text)
        return tokenizer(text, **options)

    listening.apply_chat_template = tokenizer.apply_chat_template  # type: ignore[attr-defined]
    listening.batch_decode = tokenizer.batch_decode  # type: ignore[attr-defined]
    loaded.tokenizer = listening
    for prompt in PROMPTS:
        read.clear()
        encoded(loaded, [prompt], ["x"])
        assert templated(model.text_encoders[0], tokenizer, prompt) == read[0]


def test_what_is_dropped_of_qwens_template_is_all_before_the_prompt(family_models: Models) -> None:
    from transformers import AutoTokenizer

    model = ModelFolder.open(str(family_models("qwen-image")))
    (encoder,) = model.text_encoders
    ids = AutoTokenizer.from_pretrained(model.folder("tokenizer"))(encoder.template.partition("{}")[0])["input_ids"]
    assert encoder.drops is not None
    assert encoder.drops(len(ids)) == len(ids)


@pytest.mark.parametrize("family", FAMILIES)
def test_images_are_the_pipelines_before_and_after(
    family: str, family_models: Models, photos: Path, tmp_path: Path
) -> None:
    """The model's own; with a LoRA, of which diffusers' loader finds every layer."""
    model, size = family_models(family), {"height": SIZE, "width": SIZE}
    loaded = pipeline(model)
    base = pictures.ours(model, tmp_path / "base", **size)
    assert distance(base, theirs(loaded, model)) <= 1
    run = small_run(model, photos, tmp_path / "run", use_lora=True, rank=3, lora_alpha=12, learning_rate=0.05)
    mine = pictures.ours(model, tmp_path / "mine", lora=str(run.folder), **size)
    assert distance(mine, base) > 8
    loaded.load_lora_weights(run.folder, adapter_name="a")
    assert distance(mine, theirs(loaded, model)) <= 1
    factors = load_file(run.folder / "pytorch_lora_weights.safetensors")
    layers = [name for name, layer in loaded.transformer.named_modules() if "a" in getattr(layer, "lora_A", {})]
    assert len(factors) == 2 * len(layers) > 0
    assert all(name.endswith(ModelFolder.open(str(model)).family.lora_layers) for name in layers)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_full_run_in_diffusers_pipeline(family: str, family_models: Models, photos: Path, tmp_path: Path) -> None:
    run = small_run(family_models(family), photos, tmp_path / "run", learning_rate=1e-3, max_train_steps=2)
    mine = pictures.ours(run.folder, tmp_path / "mine", height=SIZE, width=SIZE)
    loaded = pipeline(run.folder)
    assert distance(mine, theirs(loaded, run.folder)) <= 1
    index = json.loads((run.folder / "model_index.json").read_text("utf-8"))
    assert index["_class_name"] == type(loaded).__name__
