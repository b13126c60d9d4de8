"""Ten losses and gradient norms of each family against the plain loops of `loops.py`: batch 2, prior preservation."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamcore.backends.lora import initial_down
from dreamcore.diffusion.randomness import Purpose, generator
from dreamcore.training.sample_plan import Plan

from ..support import needs
from ..support.tiny import draw_photos
from ..support.tiny_models import EVERY
from ..support.tiny_taiyi import write_taiyi

pytestmark = needs.torch

UPDATES, SEED, SIZE = 10, 11, 32
PROMPTS = ["a photo of sks dog", "a photo of dog"]
COMMON: dict[str, Any] = {
    "max_train_steps": UPDATES,
    "seed": SEED,
    "learning_rate": 2e-4,
    "train_batch_size": 2,
    "with_prior_preservation": True,
    "class_prompt": PROMPTS[1],
    "prior_loss_weight": 0.7,
    "num_class_images": 3,
}
LORA = {"use_lora": True, "rank": 4, "learning_rate": 2e-3}
WORDS = {"train_text_encoder": True, "text_encoder_lr": 1e-4, "adam_weight_decay_text_encoder": 0.1}
PIXELS = {"resolution": 16}
JOINT = ["attn.to_q", "attn.add_k_proj", "attn.to_out.0"]
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    # name: (family, how its model is made, settings)
    "taiyi with text encoder": ("taiyi", {}, WORDS),
    "taiyi lora with text encoder": ("taiyi", {}, LORA | WORDS | {"gradient_checkpointing": True}),
    "sdxl": ("sdxl", {}, {}),
    "sdxl with text encoders": ("sdxl", {}, WORDS),
    "sdxl lora": ("sdxl", {}, LORA | {"lora_layers": ["to_q", "to_v", "ff.net.2"]}),
    "sdxl lora with text encoders": ("sdxl", {}, LORA | WORDS),
    "sdxl edm": ("sdxl", {"edm": True}, LORA),
    "sd3": ("sd3", {}, {}),
    "sd3 without T5, mode": ("sd3", {"t5": False}, {"weighting_scheme": "mode", "max_sequence_length": 20}),
    "sd3 narrower than CLIP, with text encoders": ("sd3", {"width": 48}, WORDS),
    "sd3.5 lora with text encoders": ("sd3", {"large": True}, LORA | WORDS | {"lora_layers": JOINT}),
    "sd3 preconditioned sigma_sqrt": (
        "sd3",
        {},
        LORA | {"lora_layers": JOINT, "weighting_scheme": "sigma_sqrt", "precondition_outputs": True},
    ),
    "flux": ("flux", {}, {"guidance_scale": 1.5}),
    "flux lora with text encoder": ("flux", {}, LORA | WORDS | {"lora_layers": JOINT, "weighting_scheme": "cosmap"}),
    "flux schnell, shifted": (
        "flux",
        {"guidance_embeds": False},
        {"resolution_shift": True, "weighting_scheme": "logit_normal", "logit_mean": 0.5, "logit_std": 0.7},
    ),
    "if1": ("if1", {}, PIXELS),
    "if1 lora without mask": (
        "if1",
        {},
        LORA | PIXELS | {"text_encoder_use_attention_mask": False, "tokenizer_max_length": 20},
    ),
    "if2": ("if2", {}, PIXELS | {"class_labels_conditioning": "timesteps"}),
    "if2 lora": ("if2", {}, LORA | PIXELS),
    "lumina2": ("lumina2", {}, {"max_sequence_length": 40}),
    "lumina2 lora": ("lumina2", {}, LORA | {"weighting_scheme": "logit_normal"}),
    "qwen-image": ("qwen-image", {}, {}),
    "qwen-image lora": ("qwen-image", {}, LORA | {"gradient_checkpointing": True}),
    "sana": ("sana", {}, {}),
    "sana lora": ("sana", {}, LORA | {"max_sequence_length": 12, "gradient_checkpointing": True}),
    "chroma": ("chroma", {}, {"max_sequence_length": 24}),
    "chroma lora": ("chroma", {}, LORA | {"max_sequence_length": 40, "weighting_scheme": "logit_normal"}),
    "hidream": ("hidream", {}, {"max_sequence_length": 24}),
    "hidream lora": ("hidream", {}, LORA | {"max_sequence_length": 24, "gradient_checkpointing": True}),
    "krea2": ("krea2", {}, {"max_sequence_length": 24}),
    "krea2 lora": ("krea2", {}, LORA | {"max_sequence_length": 12, "gradient_checkpointing": True}),
    "ernie-image": ("ernie-image", {}, {"weighting_scheme": "logit_normal"}),
    "ernie-image lora": ("ernie-image", {}, LORA | {"gradient_checkpointing": True}),
    "klein": ("klein", {}, {"max_sequence_length": 40}),
    "klein lora of two states": (
        "klein",
        {"layers": 2},
        LORA | {"text_encoder_out_layers": [0, 2], "max_sequence_length": 24, "gradient_checkpointing": True},
    ),
    "dev": ("dev", {}, {"max_sequence_length": 200, "guidance_scale": 1.5}),
    "dev lora": ("dev", {}, LORA | {"max_sequence_length": 190}),
    "z-image": ("z-image", {}, {"weighting_scheme": "sigma_sqrt"}),
    "z-image lora": ("z-image", {}, LORA),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Instance and class images of several sizes, the class images of other sizes than the instances."""
    return [
        draw_photos(tmp_path_factory.mktemp("instance"), count=5, size=48),
        draw_photos(tmp_path_factory.mktemp("class"), count=3, size=36, seed=5),
    ]


def expected(model: Path, folders: list[Path], family: str, settings: dict[str, Any]) -> list[dict[str, float]]:
    """The loop's measurements."""
    from ..support import loops_flux_2 as flux_2
    from ..support import loops_krea_ernie as newest
    from ..support import loops_language_models as language
    from ..support import loops_sana_chroma_hidream as others
    from ..support import torch_loops as loops

    known: dict[str, type[loops.Loop]] = {
        "taiyi": loops.StableDiffusion,
        "sdxl": loops.StableDiffusionXL,
        "sd3": loops.StableDiffusion3,
    }
    known |= {"flux": loops.Flux, "if1": loops.DeepFloydIF, "if2": loops.DeepFloydIF2}
    known |= {"lumina2": language.Lumina2, "qwen-image": language.QwenImage, "z-image": language.ZImage}
    known |= {"sana": others.Sana, "chroma": others.Chroma, "hidream": others.HiDream}
    known |= {"klein": flux_2.Klein, "dev": flux_2.Dev, "krea2": newest.Krea2, "ernie-image": newest.ErnieImage}
    loop = known[family](model, settings.get("resolution", SIZE), settings, partial(initial_down, SEED))
    plan = Plan.single(SEED, instances=5, classes=3, batch_size=2)
    shape = loop.shape

    def row(sample: Any) -> loops.Row:
        draw = {p: generator(SEED, p, sample.place, sample.kind) for p in Purpose}
        return loops.Row(
            picture=sorted(folders[sample.kind].glob("*.png"))[sample.image],
            prompt=PROMPTS[sample.kind],
            posterior=draw[Purpose.POSTERIOR].standard_normal(shape, np.float32),
            noise=draw[Purpose.NOISE].standard_normal(shape, np.float32),
            timestep=loop.timestep(draw[Purpose.TIMESTEP]),
        )

    return [loop.update([row(s) for s in plan.micro_batches(u)[0]]) for u in range(UPDATES)]


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradient_norms(case: str, folders: list[Path], tmp_path: Path) -> None:
    import dreamcore

    family, making, given = CASES[case]
    model = {**EVERY, "taiyi": write_taiyi}[family](tmp_path / "model", **making)
    settings = COMMON | given
    run = dreamcore.train(
        pretrained_model_name_or_path=str(model),
        instance_data_dir=str(folders[0]),
        instance_prompt=PROMPTS[0],
        class_data_dir=str(folders[1]),
        center_crop=True,
        output_dir=str(tmp_path / "run"),
        report_to="none",
        backend="torch",
        device="cpu",
        **({"resolution": SIZE} | settings),
    )
    wanted = expected(model, folders, family, settings)
    assert len(run.metrics) == len(wanted) == UPDATES
    for name in wanted[0]:
        measured = [record[name] for record in run.metrics]
        np.testing.assert_allclose(measured, [w[name] for w in wanted], rtol=1e-5, err_msg=f"{case}: {name}")
