"""Structured DreamBooth LoRA: `main.py`, which trains, and draws beside `--checkpoint_dir`; `inference.py`."""

from __future__ import annotations

from .diffusers import LORA
from .meaning import Script, System, same

DRAWS = {"checkpoint_dir": same("lora")}

STRUCTURED_LORA = System(
    name="structured-lora",
    about="Structured DreamBooth LoRA",
    backend="torch",
    scripts={"main.py": LORA, "inference.py": Script("generate")},
    train=DRAWS,
    generate=DRAWS,
    defaults={
        "pretrained_model_name_or_path": "runwayml/stable-diffusion-v1-5",
        "use_lora": True,
        "class_data_dir": "class_images",
        "num_class_images": 40,
        "num_validation_images": 4,
        "validation_epochs": 4,
        "resolution": 512,
        "train_batch_size": 1,
        "sample_batch_size": 1,
        "max_train_steps": 400,
        "checkpointing_steps": 50,
        "learning_rate": 2e-4,
        "lr_warmup_steps": 500,
        "mixed_precision": "fp16",
        "layout": "structured-lora",
        "output_dir": "work_dirs",
        "logging_dir": "tensorboard",
    },
    generates={
        "pretrained_model_name_or_path": "runwayml/stable-diffusion-v1-5",
        "num_images": 16,
        "num_inference_steps": 100,
        "scheduler": "ddim",
        "batch_size": 1,
        "output_dir": "work_dirs/inference",
    },
    draws=("checkpoint_dir",),
)
