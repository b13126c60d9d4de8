"""Plans of what lies on the host: by hand, and as placement auto chooses; and what its settings contradict."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dreamcore.errors import ConfigError
from dreamcore.models.folder import ModelFolder
from dreamcore.placement.blocks import blocks_by_size
from dreamcore.placement.headers import stored_weights
from dreamcore.placement.machine import Machine
from dreamcore.placement.plan import CONTEXT, Plan
from dreamcore.training.sharing import agreed_placing

from .test_plan import CPU, count, item, planned, settings

HOST: dict[str, Any] = {"placement": "cpu", "mixed_precision": "bf16"}
LORA: dict[str, Any] = {"use_lora": True, "rank": 2, "mixed_precision": "bf16"}


def test_what_trains_lies_on_the_host(tiny_model: Path) -> None:
    plan, n = planned(tiny_model, use_ema=True, **HOST), count(tiny_model, "unet")
    on_device = {"unet: weights, 16 bits": 2 * n}
    on_host = {"originals": 4 * n, "AdamW's state": 8 * n, "moving average": 4 * n, "gradients, then weights": 2 * n}
    for what, size in on_device.items():
        assert item(plan, "training", what) == size
    for what, size in on_host.items():
        assert (item(plan, "training", what, "host"), item(plan, "training", what)) == (size, None)
    assert item(plan, "training", "gradients that leave") == 2 * n, "so few are on their way together"
    shapes = stored_weights(ModelFolder.open(str(tiny_model)).weight_files("unet")).shapes
    alike = planned(tiny_model, CPU, **HOST)
    assert item(alike, "training", "gradients that leave", "host") == 2 * 2 * max(map(math.prod, shapes.values()))
    assert item(planned(tiny_model, gradient_accumulation_steps=2, **HOST), "training", "gradients in", "host") == 4 * n


def test_half_of_it(tiny_model: Path) -> None:
    plan, n = planned(tiny_model, offload_optim_frac=0.5, **HOST), count(tiny_model, "unet")
    for place in ("device", "host"):
        assert item(plan, "training", "originals", place) == 2 * n
        assert item(plan, "training", "AdamW's state", place) == 4 * n
    whole = planned(tiny_model, placement="cpu", offload_optim_frac=0.5)
    assert item(whole, "training", "originals") is None, "in float32 the weights on the device are the originals"


def test_blocks_that_wait(tiny_model: Path) -> None:
    shapes = stored_weights(ModelFolder.open(str(tiny_model)).weight_files("unet")).shapes
    sizes = list(blocks_by_size(shapes).values())
    assert sizes == sorted(sizes, reverse=True) and 2 * sum(sizes) > count(tiny_model, "unet")
    plan, n = planned(tiny_model, blocks_to_swap=3, **LORA), count(tiny_model, "unet")
    assert item(plan, "training", "unet: weights of blocks that wait", "host") == 2 * sum(sizes[:3])
    assert item(plan, "training", "unet: blocks in turn") == 2 * sum(sizes[:2])
    assert item(plan, "training", "unet: weights, 16 bits") == 2 * (n - sum(sizes[:3]))


def with_room(model: Path, room: int, **more: Any) -> Plan:
    return planned(model, Machine("cuda:0", room + CONTEXT, 2**40, 2**40), placement="auto", **more)


def test_auto_takes_the_first_that_fits(tiny_model: Path) -> None:
    """From all on the device to all that can go; on a CPU nothing goes."""
    full, lora = {"mixed_precision": "bf16"}, LORA
    assert with_room(tiny_model, 2**40, **full).placing == {"placement": "cuda"}
    most = planned(tiny_model, **full).worst("device").bytes("device")
    least = planned(tiny_model, **HOST).worst("device").bytes("device")
    between = with_room(tiny_model, (most + least) // 2, **full)
    assert between.placing["placement"] == "cpu" and 0 < between.placing["offload_optim_frac"] < 1
    assert between.lacking("device") is None
    none = with_room(tiny_model, 1, **full)
    assert none.placing == {"placement": "cpu", "offload_optim_frac": 1.0} and none.lacking("device") is not None
    assert "no placement fits" in none.placed and none.placed in none.notes
    assert with_room(tiny_model, 1, **lora).placing["blocks_to_swap"] > 3
    assert planned(tiny_model, CPU, placement="auto").placing == {"placement": "cuda"}


def test_ranks_agree_on_the_most_sparing() -> None:
    class Two:
        size = 2

        def gather(self, values: Any) -> list[Any]:
            return [values, values * 0 + [1, 0.7, 0]]

    world: Any = Two()
    assert agreed_placing({}, world) == {}
    wanted = {"placement": "cpu", "offload_optim_frac": 0.7, "blocks_to_swap": 0}
    assert agreed_placing({"placement": "cuda"}, world) == wanted


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"fused_backward_pass": True}, "fused_backward_pass: given together with max_grad_norm 1"),
        ({"fused_backward_pass": True, "max_grad_norm": 0, "gradient_accumulation_steps": 2}, "gradient_accumulation"),
        ({"fused_backward_pass": True, "max_grad_norm": 0, "mixed_precision": "fp16"}, "mixed_precision fp16"),
        ({"fused_backward_pass": True, "max_grad_norm": 0, "optimizer": "lion"}, "optimizer lion updates all"),
        ({"placement": "cpu", "use_8bit_adam": True}, "placement: cpu keeps the optimizer's state on the host"),
        ({"placement": "cpu", "offload_optim_frac": 0.5, "optimizer": "prodigy"}, "give 1, or optimizer adamw"),
        ({"shard": "full", "compile": True}, "shard: full given together with compile"),
        ({"shard": "full", "use_lora": True, "blocks_to_swap": 1}, "shard: full given together with blocks_to_swap"),
        ({"shard": "full", "use_lora": True, "quantize_base": "nf4"}, "shard: full given together with quantize_base"),
        ({"shard": "full", "train_text_encoder_ti": True}, "shard: full given together with train_text_encoder_ti"),
        ({"shard": "full", "optimizer": "prodigy"}, "shard: optimizer prodigy needs all weights at once"),
        ({"shard": "full", "placement": "cpu"}, "shard: given together with placement cpu"),
        (
            {
                "shard": "full",
                "mixed_precision": "bf16",
                "with_prior_preservation": True,
                "class_prompt": "a dog",
                "prior_generation_precision": "fp32",
            },
            "prior_generation_precision: fp32, while shard full",
        ),
        ({"shard": "optimizer", "optimizer": "prodigy"}, "shard: optimizer prodigy needs all weights at once"),
        ({"shard": "optimizer", "optimizer": "adamw_schedulefree"}, "shard: optimizer adamw_schedulefree judges"),
        ({"shard": "optimizer", "use_8bit_adam": True}, "shard: optimizer adamw8bit keeps a state"),
        ({"shard": "optimizer", "placement": "auto"}, "shard: given together with placement auto"),
        ({"shard": "optimizer", "max_grad_norm": 0, "fused_backward_pass": True}, "together with fused_backward_pass"),
        ({"blocks_to_swap": 2, "compile": True, "use_lora": True}, "blocks_to_swap: given together with compile"),
        ({"blocks_to_swap": 2, "quantize_base": "int8", "use_lora": True}, "given together with quantize_base"),
    ],
)
def test_contradictions(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        settings(Path("model"), **given)


def test_the_time_of_another_placement_is_not_taken(tiny_model: Path) -> None:
    from dreamcore.commands.plan import ALIKE

    assert {"placement", "offload_optim_frac", "blocks_to_swap", "fused_backward_pass"} <= set(ALIKE)
    assert replace(planned(tiny_model), placing={"placement": "cuda"}).as_dict()["placing"] == {"placement": "cuda"}
