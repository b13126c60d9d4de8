"""The runs that every backend makes, and where their files lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

BUILD = Path(__file__).parents[2] / "build"
REFERENCE = BUILD / "reference"
"""What PyTorch writes for the others to be compared with (`python -m tests.crossing.write_reference`)."""
WRITTEN = BUILD / "written"
"""What another backend writes, BACKEND/..., for PyTorch to read (`pytest tests/crossing/read_by_torch.py`)."""

UPDATES = 30
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
    "lr_scheduler": "linear",
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
    "lora": {"use_lora": True, "rank": 4, "lora_alpha": 8, "learning_rate": 2e-3},
    "text encoder": {"train_text_encoder": True, "train_batch_size": 1},
    "v-prediction with min-SNR": {"snr_gamma": 5.0},
}


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


def model_of(case: str) -> Path:
    """The untrained model of a case."""
    return REFERENCE / "models" / ("sd2" if case.startswith("v-") else "sd1")


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
