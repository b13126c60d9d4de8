"""The runs that every backend makes, and where their files lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dreamcore.families import FAMILIES
from dreamcore.models.folder import ModelFolder

from ..support.paths import ROOT

BUILD = ROOT / "build"
REFERENCE = BUILD / "reference"
"""What PyTorch writes for the others to be compared with (`python -m tests.crossing.write_reference`)."""
WRITTEN = BUILD / "written"
"""What another backend writes, BACKEND/..., for PyTorch to read (`pytest tests/crossing/read_by_torch.py`)."""

UPDATES = {"torch": 50, "paddle": 50, "mindspore": 30}
"""Backend -> the updates of its runs."""
IN_TURN = 30
"""Updates of a run that several backends make in turn."""
IN_TURN_METHODS = ("full with prior", "lora")
"""Cases of such runs."""
TOLERANCES = {"paddle": 1e-5, "mindspore": 1e-4}
"""Backend -> the largest relative distance of a loss or gradient norm from PyTorch's in all its updates."""
GREY_LEVELS = {"paddle": 1, "mindspore": 2}
"""Backend -> the largest distance of an image's pixel from PyTorch's."""
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
SHORT_UPDATES = 3
SHORT_CASES: dict[str, dict[str, Any]] = {
    "the model's own answers": CASES["lora"]
    | {
        "diff_output_preservation": True,
        "diff_output_preservation_multiplier": 0.7,
        "class_prompt": "a photo of dog",
    },
    "new words": CASES["lora"]
    | {
        "train_text_encoder": False,
        "train_text_encoder_ti": True,
        "train_text_encoder_ti_frac": 0.7,
        "instance_prompt": "a photo of TOK dog",
    },
}
"""Runs of a few updates, of which no images are made."""
FAMILY_UPDATES = 10
"""Updates of the other families' runs, on the backends that run them."""
PIPELINES = {
    "sdxl": "StableDiffusionXLPipeline",
    "sd3": "StableDiffusion3Pipeline",
    "flux": "FluxPipeline",
    "if1": "IFPipeline",
    "if2": "IFSuperResolutionPipeline",
    "taiyi": "StableDiffusionPipeline",
    "lumina2": "Lumina2Pipeline",
    "kontext": "FluxKontextPipeline",
}
CHINESE: dict[str, Any] = {"instance_prompt": "一张sks小狗的照片", "train_text_encoder": True}
"""Of Taiyi's runs, whose text encoder is a BERT."""
FAMILY_CASES: dict[str, dict[str, Any]] = {
    f"{family} {method}": more | {"checkpointing_steps": 5} | (CHINESE if family == "taiyi" else {})
    for family in PIPELINES
    if not family.startswith("if") and family not in ("lumina2", "kontext")
    for method, more in {
        "full with prior": {
            "with_prior_preservation": True,
            "class_prompt": "a photo of dog",
            "num_class_images": 3,
        },
        "lora": CASES["lora"],
    }.items()
}
FAMILY_CASES |= {
    "if1 full": {"checkpointing_steps": 5, "resolution": 16, "learning_rate": 5e-5, "use_ema": True},
    "if2 lora": {"checkpointing_steps": 5, "resolution": 16, "use_lora": True, "rank": 4, "learning_rate": 2e-4},
    "kontext lora": CASES["lora"] | {"checkpointing_steps": 5},
    "lumina2 lora with prior": {
        "checkpointing_steps": 5,
        "use_lora": True,
        "rank": 4,
        "learning_rate": 2e-3,
        "max_sequence_length": 40,
        "with_prior_preservation": True,
        "class_prompt": "a photo of dog",
        "num_class_images": 3,
    },
}
"""Those whose text encoders do not train."""


def grey_levels(backend: str, case: str) -> int:
    """The largest distance of a case's images: three levels more where pixels are the sampler's own numbers, which no
    autoencoder has smoothed."""
    return GREY_LEVELS[backend] + 3 * case.startswith("if")


def tolerance(backend: str, case: str) -> float:
    """`TOLERANCES`; MindSpore's gradient norm of stage 2's factors is up to 5e-4 apart, its losses 6e-5."""
    return 1e-3 if (backend, case) == ("mindspore", "if2 lora") else TOLERANCES[backend]


def runs_on(backend: str) -> list[str]:
    """Those of `FAMILY_CASES` that a backend runs."""
    return [case for case in FAMILY_CASES if backend in FAMILIES[PIPELINES[case.partition(" ")[0]]].backends]


def settings(case: str, output: Path, updates: int) -> dict[str, Any]:
    """All settings of a case's run but the backend."""
    classes = {"class_data_dir": str(REFERENCE / "classes")} if "prior" in case else {}
    return {
        "pretrained_model_name_or_path": str(model_of(case)),
        "instance_data_dir": str(REFERENCE / "photos"),
        "output_dir": str(output),
        "max_train_steps": updates,
        **COMMON,
        **(CASES | SHORT_CASES | FAMILY_CASES)[case],
        **classes,
    }


def pictures_of(case: str) -> dict[str, Any]:
    """Settings of a case's images, with a sampler that its model knows."""
    few: dict[str, Any] = {"num_inference_steps": 3, "height": 32, "width": 32} if case in FAMILY_CASES else {}
    few |= {"guidance_scale": 2.0} if case.startswith("if") else {}  # which noise divided by a small √ᾱ asks for
    few |= {"image": str(REFERENCE / "classes" / "00.png")} if case.startswith("if2") else {}
    return PICTURES | few | {"scheduler": ModelFolder.open(str(model_of(case))).schedule.samplers[0]}


def model_of(case: str) -> Path:
    """The untrained model of a case."""
    if case in FAMILY_CASES:
        return REFERENCE / "models" / case.partition(" ")[0]
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


def written_by(backend: str, name: str) -> Path:
    """A file or folder that a backend's tests wrote.

    Raises:
        FileNotFoundError: they have not; saying how to run them.
    """
    path = WRITTEN / backend / name
    if not path.exists():
        raise FileNotFoundError(f"{path}: run `nox -s tests-{backend}` first, or tests/crossing in its environment")
    return path


def furthest(records: Sequence[Mapping[str, Any]], wanted: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Largest relative distance of each loss and of the gradient norm, over two runs' metrics of the same updates."""
    assert [r["step"] for r in records] == [r["step"] for r in wanted]
    found = {}
    for name in (n for n in wanted[0] if n.startswith(("loss", "grad_norm"))):
        mine, theirs = (np.array([record[name] for record in some]) for some in (records, wanted))
        beside = "loss" if name == "loss_preservation" else name  # the former begins at 0
        size = np.array([record[beside] for record in wanted])
        found[name] = float(np.max(np.abs(mine - theirs) / np.abs(size)))
    return found


def pictures(folder: Path) -> np.ndarray:
    """[N, H, W, 3] the images of a folder."""
    return np.stack([np.asarray(Image.open(f)) for f in sorted(folder.glob("0*.png"))]).astype(int)
