"""ColossalAI's example: `train_dreambooth_colossalai.py` and `…_lora.py`."""

from __future__ import annotations

from typing import Any

from .diffusers import LORA
from .meaning import Refused, Script, Settings, System, same, several, switch


def _test_run(given: Any) -> Settings:
    if switch(given):
        raise Refused("a try is max_train_steps 10")
    return {}


PLUGINS: dict[str, Settings] = {
    "torch_ddp": {"mixed_precision": "no"},
    "torch_ddp_fp16": {"mixed_precision": "fp16"},
    "low_level_zero": {"mixed_precision": "fp16", "shard": "optimizer"},
}
"""The last one's defaults: its first stage, in fp16 (`LowLevelZeroPlugin`)."""


def _plugin(given: Any) -> Settings:
    spelt = str(given).strip().lower()
    if spelt not in PLUGINS:
        raise Refused(
            f"expected one of {', '.join(PLUGINS)}; received {given!r}; gemini shards weights over processes; what its "
            "placement does is placement here, with mixed_precision bf16"
        )
    return PLUGINS[spelt]


COLOSSALAI = System(
    name="colossalai",
    about="ColossalAI's examples/images/dreambooth",
    backend="torch",
    scripts={"train_dreambooth_colossalai.py": Script(), "train_dreambooth_colossalai_lora.py": LORA},
    train={
        "plugin": several("`mixed_precision`, `shard`", _plugin),
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
