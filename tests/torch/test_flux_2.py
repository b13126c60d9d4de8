"""Flux.2 and Flux Kontext beside diffusers' own pipelines: words, images, and what a run leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from dreamcore.errors import ConfigError
from dreamcore.models.folder import ModelFolder
from dreamcore.text.encoder import templated

from ..support import images as pictures
from ..support import needs
from ..support.images import distance
from ..support.runs import prepared, small_run

pytestmark = needs.torch

PROMPTS = ["a photo of sks dog", "a red teapot on grass, in snow"]
SIZE = 32
SIDES = {"height": SIZE, "width": SIZE}
SINGLE = "to_qkv_mlp_proj"
Models = Callable[[str], Path]


def pipeline(folder: Path) -> Any:
    """Where there is a processor, the part for words in its place: it asks for torchvision."""
    from diffusers import DiffusionPipeline
    from transformers import AutoTokenizer

    processor = ModelFolder.open(str(folder)).class_name("tokenizer").endswith("Processor")
    loaded = DiffusionPipeline.from_pretrained(folder, **({"tokenizer": None} if processor else {}))
    if processor:
        loaded.tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    loaded.set_progress_bar_config(disable=True)
    return loaded


def theirs(loaded: Any, model: Path) -> np.ndarray:
    import diffusers
    import torch

    more = {"max_area": SIZE**2} if type(loaded).__name__ == "FluxKontextPipeline" else {}
    return pictures.theirs(diffusers, loaded, model, torch.from_numpy, SIZE, **more)


@pytest.mark.parametrize("family", ["klein", "dev"])
def test_words_and_templates_are_the_pipelines(
    family: str, family_models: Models, photos: Path, tmp_path: Path
) -> None:
    """As text, letter for letter; hidden states, number for number; with a mark that would stand for an image."""
    model = ModelFolder.open(str(family_models(family)))
    loaded = pipeline(model.path)
    prompts = [*PROMPTS, "a [IMG]cat"] if family == "dev" else PROMPTS
    with ExitStack() as stack:
        run: Any = prepared(model.path, photos, tmp_path / "run", stack, max_sequence_length=220)
        mine = run.backend.text.embeddings(prompts).prompt_embeds.numpy()
    wanted, _ = loaded.encode_prompt(prompts, "cpu", max_sequence_length=220)
    np.testing.assert_allclose(mine, wanted.detach(), atol=2e-5)
    (encoder,), tokenizer = model.text_encoders, loaded.tokenizer
    texts = {
        "klein": "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n",
        "dev": f"<s>[SYSTEM_PROMPT]{getattr(loaded, 'system_message', '')}[/SYSTEM_PROMPT][INST]{{}}[/INST]",
    }
    for prompt in PROMPTS:
        assert templated(encoder, tokenizer, prompt) == texts[family].replace("{}", prompt)


@pytest.mark.parametrize("family", ["kontext", "klein", "dev"])
def test_images_are_the_pipelines_before_and_after(
    family: str, family_models: Models, photos: Path, tmp_path: Path
) -> None:
    """The model's own; with a LoRA, of which diffusers' loader finds every layer."""
    model = family_models(family)
    loaded = pipeline(model)
    base = pictures.ours(model, tmp_path / "base", **SIDES)
    assert distance(base, theirs(loaded, model)) <= 1
    run = small_run(model, photos, tmp_path / "run", use_lora=True, rank=3, lora_alpha=12, learning_rate=0.05)
    mine = pictures.ours(model, tmp_path / "mine", lora=str(run.folder), **SIDES)
    assert distance(mine, base) > 8
    loaded.load_lora_weights(run.folder, adapter_name="a")
    assert distance(mine, theirs(loaded, model)) <= 1
    factors = load_file(run.folder / "pytorch_lora_weights.safetensors")
    layers = [name for name, layer in loaded.transformer.named_modules() if "a" in getattr(layer, "lora_A", {})]
    assert len(factors) == 2 * len(layers) > 0
    if family != "kontext":
        scripts = {f"single_transformer_blocks.{i}.attn.{name}" for i in range(2) for name in ("to_out", SINGLE)}
        scripts |= {f"transformer_blocks.0.attn.{name}" for name in ("to_q", "to_k", "to_v", "to_out.0")}
        assert set(layers) == scripts


def test_a_full_run_of_a_distilled_model_in_diffusers_pipeline(
    family_models: Models, photos: Path, tmp_path: Path
) -> None:
    """Which is guided by nothing, whatever strength is asked for, and says so still."""
    settings = {"learning_rate": 1e-3, "max_train_steps": 2, "vae_encode_mode": "mode", "max_sequence_length": 40}
    run = small_run(family_models("klein distilled"), photos, tmp_path / "run", **settings)
    assert json.loads((run.folder / "model_index.json").read_text("utf-8"))["is_distilled"] is True
    mine = pictures.ours(run.folder, tmp_path / "mine", **SIDES)
    loaded = pipeline(run.folder)
    assert loaded.config.is_distilled
    assert distance(mine, theirs(loaded, run.folder)) <= 1
    with pytest.raises(ConfigError, match="negative_prompt='snow': acts only on models that are guided by negative"):
        pictures.ours(run.folder, tmp_path / "more", negative_prompt="snow", **SIDES)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([9, 18, 29], r"text_encoder_out_layers: 9, 18, 29: .*config\.json has 28 layers"),
        ([9], r"text_encoder_out_layers: 9: together 24 wide .* takes words of 72 .*as many layers"),
    ],
)
def test_layers_that_are_not_there(
    layers: list[int], words: str, family_models: Models, photos: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=words):
        small_run(family_models("klein"), photos, tmp_path / "run", text_encoder_out_layers=layers)


def test_a_family_of_one_hidden_state_has_no_layers_to_choose(tiny_model: Path, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="text_encoder_out_layers=.1.: acts only on models whose words are several"):
        small_run(tiny_model, photos, tmp_path / "run", text_encoder_out_layers=[1])
