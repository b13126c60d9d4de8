"""The first twenty losses and gradient norms of `dreamcore.train` against the plain loop of `reference.py`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dreamcore.backends.lora import initial_down
from dreamcore.diffusion.randomness import Purpose, generator
from dreamcore.training.sample_plan import Plan, Sample, Share

from ..support import needs
from ..support.tiny import draw_photos

pytestmark = needs.torch

UPDATES = 20
SEED = 11
SIZE = 32
PROMPTS = ["a photo of sks dog", "a photo of dog"]
ATTENTION = ["to_q", "to_k", "to_v", "to_out.0"]
COMMON: dict[str, Any] = {
    "max_train_steps": UPDATES,
    "seed": SEED,
    "lr_scheduler": "linear",
    "lr_warmup_steps": 3,
    "learning_rate": 2e-4,
}
CASES: dict[str, dict[str, Any]] = {
    "full": {
        "train_batch_size": 2,
        "adam_beta1": 0.8,
        "adam_beta2": 0.99,
        "adam_weight_decay": 0.3,
        "adam_epsilon": 1e-5,
        "max_grad_norm": 0.5,
    },
    "lora": {"train_batch_size": 2, "use_lora": True, "rank": 4, "lora_alpha": 8, "learning_rate": 2e-3},
    "lora on both": {
        "train_batch_size": 2,
        "use_lora": True,
        "rank": 2,
        "train_text_encoder": True,
        "learning_rate": 2e-3,
        "max_grad_norm": 0.1,
    },
    "text encoder": {"train_batch_size": 1, "train_text_encoder": True, "text_encoder_lr": 5e-5, "max_grad_norm": 0},
    "v-prediction with min-SNR": {"train_batch_size": 2, "snr_gamma": 5.0},
    "noise prediction with min-SNR": {"train_batch_size": 2, "snr_gamma": 0.5},
    "prior preservation": {
        "train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "with_prior_preservation": True,
        "class_prompt": PROMPTS[1],
        "prior_loss_weight": 0.7,
        "num_class_images": 3,
        "noise_offset": 0.1,
        "gradient_checkpointing": True,
    },
    "the model's own answers": {
        "train_batch_size": 2,
        "use_lora": True,
        "rank": 4,
        "learning_rate": 2e-3,
        "train_text_encoder": True,
        "diff_output_preservation": True,
        "diff_output_preservation_multiplier": 0.7,
        "class_prompt": PROMPTS[1],
        "snr_gamma": 5.0,
    },
    "v-prediction with class images and the model's own answers": {
        "gradient_accumulation_steps": 2,
        "train_batch_size": 1,
        "use_lora": True,
        "rank": 4,
        "learning_rate": 2e-3,
        "with_prior_preservation": True,
        "prior_loss_weight": 0.5,
        "num_class_images": 3,
        "diff_output_preservation": True,
        "diff_output_preservation_multiplier": 3.0,
        "class_prompt": PROMPTS[1],
    },
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> list[Path]:
    """Instance and class images of exactly the training size, so that their pixels are beyond question."""
    made = []
    class_photos = draw_photos(tmp_path_factory.mktemp("drawn"), count=3, seed=5)
    for source in (photos, class_photos):
        folder = tmp_path_factory.mktemp("pictures")
        for i, file in enumerate(pictures(source)):
            Image.open(file).convert("RGB").resize((SIZE, SIZE)).save(folder / f"{i}.png")
        made.append(folder)
    return made


def pictures(folder: Path) -> list[Path]:
    return sorted(f for f in folder.iterdir() if f.suffix in (".png", ".jpg"))


def pixels(folder: Path, image: int) -> np.ndarray:
    """[3, H, W] in [−1, 1]."""
    picture = np.asarray(Image.open(pictures(folder)[image]), np.float32)
    return picture.transpose(2, 0, 1) / 127.5 - 1


def drawn(rows: list[Sample], folders: list[Path], noise_offset: float) -> Any:
    """What the library's random streams hold for the rows of a micro-batch."""
    from ..support.torch_reference import MicroBatch

    def normal(purpose: Purpose, offset: float = 0.0) -> np.ndarray:
        draws = []
        for s in rows:
            stream = generator(SEED, purpose, s.place, s.kind)
            draw = stream.standard_normal((4, SIZE // 4, SIZE // 4), np.float32)
            draws.append(draw + np.float32(offset) * stream.standard_normal((4, 1, 1), np.float32))
        return np.stack(draws)

    return MicroBatch(
        pixels=np.stack([pixels(folders[s.kind], s.image) for s in rows]),
        posterior=normal(Purpose.POSTERIOR),
        noise=normal(Purpose.NOISE, noise_offset),
        timesteps=np.array([generator(SEED, Purpose.TIMESTEP, s.place, s.kind).integers(1000) for s in rows]),
        prompts=[PROMPTS[1 if s.preserves else s.kind] for s in rows],
    )


def expected(model: Path, folders: list[Path], settings: dict[str, Any]) -> list[dict[str, float]]:
    """The reference's measurements."""
    from ..support.torch_reference import Options, Reference

    use_lora = settings.get("use_lora", False)
    options = Options(
        updates=UPDATES,
        **{name: settings[name] for name in vars(Options)["__annotations__"] if name in settings and name != "rank"},
        rank=settings["rank"] if use_lora else None,
        targets={"unet": ATTENTION, "text_encoder": ["q_proj", "k_proj", "v_proj", "out_proj"]},
    )
    reference = Reference(model, options, partial(initial_down, SEED))
    preserves = settings.get("diff_output_preservation", False)
    plan = Plan(
        SEED,
        (Share(5, settings.get("num_class_images", 0), preserves=preserves),),
        batch_size=settings["train_batch_size"],
        accumulation=settings.get("gradient_accumulation_steps", 1),
    )
    offset = settings.get("noise_offset", 0.0)
    return [reference.update([drawn(rows, folders, offset) for rows in plan.micro_batches(u)]) for u in range(UPDATES)]


@pytest.mark.parametrize("case", CASES)
def test_losses_and_gradient_norms(
    case: str, tiny_model: Path, tiny_v_model: Path, folders: list[Path], tmp_path: Path
) -> None:
    import dreamcore

    model = tiny_v_model if case.startswith("v-") else tiny_model
    settings = COMMON | CASES[case]
    if settings.get("with_prior_preservation"):
        settings["class_data_dir"] = str(folders[1])
    run = dreamcore.train(
        pretrained_model_name_or_path=str(model),
        instance_data_dir=str(folders[0]),
        instance_prompt=PROMPTS[0],
        center_crop=True,
        output_dir=str(tmp_path / "run"),
        report_to="none",
        backend="torch",
        device="cpu",
        **settings,
    )
    wanted = expected(model, folders, settings)
    assert len(run.metrics) == len(wanted) == UPDATES
    for name in wanted[0]:
        measured = [record[name] for record in run.metrics]
        least = 1e-9 if name == "loss_preservation" else 0  # it begins at 0
        np.testing.assert_allclose(
            measured, [w[name] for w in wanted], rtol=1e-5, atol=least, err_msg=f"{case}: {name}"
        )
    if settings.get("diff_output_preservation"):
        assert run.metrics[-1]["loss_preservation"] > 1e-4
