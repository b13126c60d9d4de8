"""The runs that every backend makes, and where their files lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dreamcore.families import FAMILIES
from dreamcore.modelfolder import ModelFolder

BUILD = Path(__file__).parents[2] / "build"
REFERENCE = BUILD / "reference"
"""What PyTorch writes for the others to be compared with (`python -m tests.crossing.write_reference`)."""
WRITTEN = BUILD / "written"
"""What another backend writes, BACKEND/..., for PyTorch to read (`pytest tests/crossing/read_by_torch.py`)."""

UPDATES = 50
TOLERANCES = {"paddle": 1e-5, "mindspore": 1e-4}
"""Backend -> the largest relative distance of a loss or gradient norm from PyTorch's in all these updates."""
GREY_LEVELS = {"paddle": 1, "mindspore": 2}
"""Backend -> the largest distance of a picture's pixel from PyTorch's."""
PICTURES: dict[str, Any] = {
    "prompt": "a photo of sks dog in snow",
    "num_images": 2,
    "seed": 3,
    "num_inference_steps": 10,
    "guidance_scale": 5.0,
    "scheduler": "ddim",
    "contact_sheet": False,
}
COMMON: dict[str, Any] = {
    "instance_prompt": "a photo of sks dog",
    "resolution": 32,
    "seed": 11,
    "train_batch_size": 2,
    "max_train_steps": UPDATES,
    "checkpointing_steps": 10,
    "learning_rate": 2e-4,
    "lr_scheduler": "constant_with_warmup",
    "lr_warmup_steps": 3,
    "report_to": "none",
}
CASES: dict[str, dict[str, Any]] = {
    "full with prior": {
        "with_prior_preservation": True,
        "class_prompt": "a photo of dog",
        "num_class_images": 3,
        "prior_loss_weight": 0.7,
        "train_batch_size": 1,
        "gradient_accumulation_steps": 2,
        "use_ema": True,
    },
    "lora": {"use_lora": True, "rank": 4, "lora_alpha": 8, "learning_rate": 2e-3, "train_text_encoder": True},
    "text encoder": {"train_text_encoder": True, "train_batch_size": 1},
    "v-prediction with min-SNR": {"snr_gamma": 5.0},
}
PRIOR = {"with_prior_preservation": True, "class_prompt": "a photo of dog", "num_class_images": 3}
LORA = {"use_lora": True, "rank": 4, "lora_alpha": 8, "learning_rate": 2e-3, "train_text_encoder": True}
FAMILY_UPDATES = {"max_train_steps": 30}
PIPELINES = {"sdxl": "StableDiffusionXLPipeline", "sd3": "StableDiffusion3Pipeline", "flux": "FluxPipeline"}
for _family in PIPELINES:
    CASES[f"{_family} with prior"] = PRIOR | FAMILY_UPDATES
    CASES[f"{_family} lora"] = LORA | FAMILY_UPDATES
CONTINUED = [case for case in CASES if case in ("full with prior", "lora") or case.partition(" ")[0] in PIPELINES]
"""Cases that one backend begins and another goes on with."""


def settings(case: str, output: Path) -> dict[str, Any]:
    """All settings of a case's run but the backend."""
    classes = {"class_data_dir": str(REFERENCE / "classes")} if "prior" in case else {}
    return {
        "pretrained_model_name_or_path": str(model_of(case)),
        "instance_data_dir": str(REFERENCE / "photos"),
        "output_dir": str(output),
        **COMMON,
        **CASES[case],
        **classes,
    }


def pictures_of(model: Path) -> dict[str, Any]:
    """Settings of pictures of a model, or of what was trained from it, with a sampler that it knows."""
    return PICTURES | {"scheduler": ModelFolder.open(str(model)).schedule.samplers[0]}


def model_of(case: str) -> Path:
    """The untrained model of a case."""
    if (family := case.partition(" ")[0]) in PIPELINES:
        return REFERENCE / "models" / family
    return REFERENCE / "models" / ("sd2" if case.startswith("v-") else "sd1")


def runs_on(backend: str, case: str) -> bool:
    """Whether a backend runs the case's family."""
    pipeline = PIPELINES.get(case.partition(" ")[0], "StableDiffusionPipeline")
    return backend in FAMILIES[pipeline].backends


def reference_run(case: str) -> Path:
    """The folder of PyTorch's run.

    Raises:
        FileNotFoundError: it has not been written; saying how to.
    """
    return reference("runs") / case


def reference(name: str) -> Path:
    """A file or folder that PyTorch wrote.

    Raises:
        FileNotFoundError: it has not been written; saying how to.
    """
    path = REFERENCE / name
    if not (REFERENCE / "complete").exists():
        raise FileNotFoundError(f"{path}: run `python -m tests.crossing.write_reference` in the PyTorch environment")
    return path
