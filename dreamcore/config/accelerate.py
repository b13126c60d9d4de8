"""What `accelerate launch` says, by its flags or by `accelerate config`: honoured, or refused by name.

It hands its settings to the script it starts in the environment; how many processes there are, its launcher says as
torchrun does.  A setting of the command line or a file wins over it, as in the scripts that use the library.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

PRECISION, DYNAMO = "ACCELERATE_MIXED_PRECISION", "ACCELERATE_DYNAMO_BACKEND"
REFUSED = {
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed is not used here; for less memory give mixed_precision, "
    "gradient_checkpointing, use_8bit_adam or use_lora",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM is not used here; each process holds all weights",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "there is one mesh here, of all processes; shard full shares weights out",
}
"""Variable -> why it cannot be."""
FSDP, STRATEGY, OFFLOAD = "ACCELERATE_USE_FSDP", "FSDP_SHARDING_STRATEGY", "FSDP_OFFLOAD_PARAMS"
STRATEGIES = {
    **dict.fromkeys(("FULL_SHARD", "1"), "full"),
    **dict.fromkeys(("SHARD_GRAD_OP", "2"), "optimizer"),
    **dict.fromkeys(("NO_SHARD", "3"), "none"),
}
"""FSDP's, by name or number -> `shard`."""


def said_by_accelerate(environment: Mapping[str, str] = os.environ) -> tuple[dict[str, Any], list[str]]:
    """The settings that accelerate's launcher asks for, and what is wrong with them; none without that launcher."""
    if PRECISION not in environment:
        return {}, []
    problems = [
        f"accelerate: {name.removeprefix('ACCELERATE_USE_').lower()}: {why}; change `accelerate config` or the "
        "flags of accelerate launch"
        for name, why in REFUSED.items()
        if environment.get(name, "false").lower() == "true"
    ]
    settings: dict[str, Any] = {}
    if environment.get(FSDP, "false").lower() == "true":
        strategy = environment.get(STRATEGY, "FULL_SHARD").upper()
        if strategy in STRATEGIES:
            settings["shard"] = STRATEGIES[strategy]
        else:
            problems.append(f"accelerate: fsdp_sharding_strategy {strategy}: expected one of {', '.join(STRATEGIES)}")
        if environment.get(OFFLOAD, "false").lower() == "true":
            problems.append("accelerate: fsdp_offload_params: shares stay on the device; give placement cpu instead")
    precision = environment[PRECISION].lower()
    if precision in ("fp16", "bf16"):
        settings["mixed_precision"] = precision
    elif precision != "no":
        problems.append(f"accelerate: mixed_precision {precision}: expected no, fp16 or bf16")
    if environment.get(DYNAMO, "no").lower() == "inductor":
        settings["compile"] = True
    elif environment.get(DYNAMO, "no").lower() != "no":
        problems.append(f"accelerate: dynamo_backend {environment[DYNAMO].lower()}: expected no or inductor")
    if environment.get("ACCELERATE_USE_CPU", "false").lower() == "true":
        settings["device"] = "cpu"
    return settings, problems
