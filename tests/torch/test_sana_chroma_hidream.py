"""SANA, Chroma and HiDream I1 beside diffusers' own pipelines: words, images, and what a run leaves."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from dreamcore.families.chroma import seen
from dreamcore.families.sana import INSTRUCTION
from dreamcore.models.folder import ModelFolder

from ..support import images as pictures
from ..support import needs
from ..support.images import GUIDANCE, PROMPT, SEEDS, STEPS, distance
from ..support.runs import prepared, small_run
from ..support.tiny_hidream import WRITERS

pytestmark = needs.torch

PROMPTS = ["a photo of sks dog", " A Red teapot on grass, in snow \u00e9", ""]
NEGATIVE = ["grass", "a blue car", ""]
SIDE = 32
Models = Callable[[str], Path]


def pipeline(folder: Path) -> Any:
    from diffusers import DiffusionPipeline

    loaded = DiffusionPipeline.from_pretrained(folder)
    loaded.set_progress_bar_config(disable=True)
    loaded.default_sample_size = SIDE // 4  # of HiDream, which brings every image to the area of its own
    return loaded


def encode(name: str, loaded: Any) -> list[dict[str, Any]]:
    """What a pipeline makes of the prompts and of the negative ones, each [N, ...]."""
    if name == "sana":
        # its empty prompt stands in no template here, as where a caption is left out
        made = loaded.encode_prompt(PROMPTS[:2], True, NEGATIVE[:2], complex_human_instruction=INSTRUCTION.split("\n"))
        return [{"prompt_embeds": words, "mask": mask} for words, mask in (made[:2], made[2:])]
    if name == "chroma":
        made = loaded.encode_prompt(PROMPTS, NEGATIVE)
        return [{"prompt_embeds": made[i], "mask": made[i + 2]} for i in (0, 3)]
    made = loaded.encode_prompt(PROMPTS, negative_prompt=NEGATIVE)
    return [
        {"prompt_embeds": made[i], "layer_embeds": made[i + 2], "pooled_prompt_embeds": made[i + 4]} for i in (0, 1)
    ]


def theirs(name: str, loaded: Any, model: Path) -> np.ndarray:
    """[N, H, W, 3] of the pipeline from our first noise."""
    import torch

    from dreamcore.diffusion.randomness import first_noise
    from dreamcore.families.packing import pack

    folder = ModelFolder.open(str(model))
    side = SIDE // folder.latent_factor
    noise = pack(first_noise(SEEDS, (folder.latent_channels, side, side)), folder.family.patch)
    made, *_ = loaded(
        [PROMPT] * len(SEEDS),
        latents=torch.from_numpy(noise),
        height=SIDE,
        width=SIDE,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        output_type="np",
        return_dict=False,
        **({"use_resolution_binning": False} if name == "sana" else {}),
    )
    return np.round(np.asarray(made) * 255).astype(int)


def ours(model: Path, output: Path, **settings: Any) -> np.ndarray:
    return pictures.ours(model, output, height=SIDE, width=SIDE, **settings)


@pytest.mark.parametrize("name", WRITERS)
def test_words_are_the_pipelines(name: str, family_models: Models, photos: Path, tmp_path: Path) -> None:
    """One after the other here, together there."""
    model = family_models(name)
    wanted = encode(name, pipeline(model))
    rows = len(wanted[0]["prompt_embeds"])
    with ExitStack() as stack:
        text = prepared(model, photos, tmp_path, stack).backend.text  # type: ignore[attr-defined]
        found = [text.embeddings(PROMPTS[:rows]), text.embeddings(NEGATIVE[:rows], negative=True)]
    for mine, all_theirs in zip(found, wanted, strict=True):
        for part, tensor in mine.values(ModelFolder.open(str(model)).family).items():
            np.testing.assert_allclose(tensor, all_theirs[part].detach(), rtol=1e-4, atol=2e-5, err_msg=part)
        tokens = mine.prompt_embeds.shape[1]
        if name == "sana":
            np.testing.assert_array_equal(mine.lengths, all_theirs["mask"].sum(1))
        if name == "chroma":
            np.testing.assert_array_equal(seen(mine.lengths, tokens, 0), all_theirs["mask"])


def test_the_instruction_is_the_pipelines() -> None:
    from diffusers import SanaPipeline

    from ..support.loops_sana_chroma_hidream import instruction

    assert "\n".join(instruction(SanaPipeline.__new__(SanaPipeline))) == INSTRUCTION


@pytest.mark.parametrize("name", WRITERS)
def test_images_and_a_lora_in_diffusers_pipeline(
    name: str, family_models: Models, photos: Path, tmp_path: Path
) -> None:
    """Every factor reaches a layer there, and its images are ours, without and with them."""
    model = family_models(name)
    loaded = pipeline(model)
    plain = ours(model, tmp_path / "plain")
    assert distance(plain, theirs(name, loaded, model)) <= 1
    more = {} if name == "sana" else {"max_sequence_length": 24}
    settings = {"use_lora": True, "rank": 2, "lora_alpha": 6, "learning_rate": 0.05, "max_train_steps": 3}
    run = small_run(model, photos, tmp_path / "run", **settings, **more)
    mine = ours(model, tmp_path / "mine", lora=str(run.folder))
    loaded.load_lora_weights(run.folder, adapter_name="a")
    assert distance(mine, theirs(name, loaded, model)) <= 1
    assert distance(mine, plain) > 8
    found = [n for n, layer in loaded.transformer.named_modules() if "a" in getattr(layer, "lora_A", ())]
    file = load_file(run.folder / "pytorch_lora_weights.safetensors")
    assert {key.removeprefix("transformer.").partition(".lora_")[0] for key in file} == {*found}
    assert len(file) == 2 * len(found)
