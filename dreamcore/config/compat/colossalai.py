"""ColossalAI's example: `train_dreambooth_colossalai.py` and `…_lora.py`."""

from __future__ import annotations

from typing import Any

from .diffusers import LORA
from .meaning import Refused, Script, Settings, System, ignored, one_of, same, several, switch

NO_PLACEMENT = "weights, gradients and optimizer lie on the device here (placement cuda)"


def _placement(given: Any) -> Settings:
    if str(given) == "cuda":
        return {}
    raise Refused(
        f"{NO_PLACEMENT}; for less memory give mixed_precision, gradient_checkpointing, use_8bit_adam, or use_lora"
    )


def _test_run(given: Any) -> Settings:
    if switch(given):
        raise Refused("a try is max_train_steps 10")
    return {}


COLOSSALAI = System(
    name="colossalai",
    about="ColossalAI's examples/images/dreambooth",
    backend="torch",
    scripts={"train_dreambooth_colossalai.py": Script(), "train_dreambooth_colossalai_lora.py": LORA},
    train={
        "placement": several("cuda; cpu and auto are refused: " + NO_PLACEMENT, _placement),
        "offload_optim_frac": ignored("of placement cpu and auto: with cuda nothing is offloaded"),
        "plugin": one_of(
            "mixed_precision",
            {"torch_ddp": "no", "torch_ddp_fp16": "fp16"},
            instead=f"; gemini and low_level_zero shard what lies on the device, and {NO_PLACEMENT}",
        ),
        "externel_unet_path": same("pretrained_unet_name_or_path"),
        "test_run": several("refused when on: max_train_steps 10", _test_run, "switch"),
    },
    defaults={
        "instance_prompt": "a photo of sks dog",
        "output_dir": "text-inversion-model",
        "resolution": 512,
        "learning_rate": 5e-6,
        "lr_warmup_steps": 500,
        "num_train_epochs": 1,
        "layout": "colossalai",
    },
)
