"""`dreambooth doctor --selftest` on MindSpore: what a person with an Ascend card can see that no CPU shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np

from dreamcore.backends import selftest as core
from dreamcore.backends.protocol import World
from dreamcore.config import TrainConfig
from dreamcore.config.common import ModelSettings
from dreamcore.families import STABLE_DIFFUSION

from .devices import choose_device  # isort: skip  # before MindSpore: it settles how MindSpore starts

import mindspore as ms
from mindspore import Tensor, ops

from .buckets import flatten_all
from .launch import join_world, sum_over_ranks
from .models import arrays, mindone
from .network import LossNetwork, gradient_function
from .optim import Optimizer


def selftest(device: str | None = None) -> Iterable[core.Outcome]:
    """Each check's name, whether it holds (None: this device has no such thing) and what was seen."""
    settings = ModelSettings.from_mapping(
        {"pretrained_model_name_or_path": "none", "mode": "pynative", "device": device}
    )
    kind, _ = choose_device(settings)
    world = join_world()
    on_card: list[tuple[str, core.Check]] = [
        ("graph mode, float32", partial(_step, ms.jit, None, core.FLOAT32)),
        ("pynative, bf16", partial(_step, None, ms.bfloat16, core.BFLOAT16)),
        ("pynative, fp16", partial(_step, None, ms.float16, core.FLOAT16)),
        ("graph mode, bf16", partial(_step, ms.jit, ms.bfloat16, core.BFLOAT16)),
        ("flash attention", _flash_attention),
    ]
    return core.attempt(
        [
            ("pynative, float32", partial(_step, None, None, core.FLOAT32)),
            ("the update moves every weight", _update),
            ("processes add up", partial(_processes, world) if world.size > 1 else None),
            *((name, check if kind == "Ascend" else None) for name, check in on_card),
        ]
    )


def _network() -> tuple[LossNetwork, dict[str, ms.Parameter]]:
    unet = mindone("diffusers").UNet2DConditionModel(**core.UNET)
    named = dict(unet.parameters_and_names())
    for name, array in core.weights({name: p.shape for name, p in named.items()}).items():
        named[name].set_data(Tensor(array))
    return LossNetwork(unet.set_train(False), STABLE_DIFFUSION.inputs, ("x", "t", "prompt_embeds"), 2), named


def _inputs() -> tuple[Tensor, ...]:
    given = core.inputs() | {"mask": np.ones(1, np.float32)}
    return tuple(Tensor(given[name]) for name in ("target", "weight", "mask", "x", "t", "prompt_embeds"))


def _step(compile: Callable[[Any], Any] | None, dtype: Any, tolerance: float) -> tuple[bool, str]:
    network, named = _network()
    if dtype is not None:
        ms.amp.auto_mixed_precision(network.denoiser, "auto", dtype)
    (loss, _), gradients = gradient_function(network, ms.ParameterTuple(list(named.values())), compile)(*_inputs())
    return core.judge_step(float(loss), [g.asnumpy() for g in gradients], tolerance)


def _update() -> tuple[bool, str]:
    """Writing a vector into parameters is what an update ends with; some of MindSpore's ways do nothing, silently."""
    network, named = _network()
    config = TrainConfig.model_construct(adam_weight_decay=0.0, max_grad_norm=0.0)
    optimizer = Optimizer({"unet": named}, config, None)
    _, gradients = gradient_function(network, optimizer.all)(*_inputs())
    before = {name: array.copy() for name, array in arrays(named).items()}
    optimizer.step(flatten_all(optimizer.buckets, gradients), {"unet": core.STEP})
    slopes = {name: gradient.asnumpy() for name, gradient in zip(named, gradients, strict=True)}
    return core.judge_update(before, arrays(named), slopes)


def _flash_attention() -> tuple[bool, str]:
    q, k, v = (Tensor(array.astype(np.float16)) for array in core.attention()[0])
    made = ops.flash_attention_score(q, k, v, head_num=2, scalar_value=0.125, input_layout="BNSD")
    return core.judge_attention(made.asnumpy())


def _processes(world: World) -> tuple[bool, str]:
    (total,) = sum_over_ranks([Tensor([world.rank + 0.5], ms.float32)])
    return core.judge_processes(world, float(total))
