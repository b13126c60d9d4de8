"""`dreambooth doctor --selftest` on Paddle: each way of computing that this device has."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import paddle
from paddle.nn import functional

from dreamcore.backends import selftest as core
from dreamcore.backends.protocol import World
from dreamcore.config import TrainConfig
from dreamcore.families import STABLE_DIFFUSION

from .launch import choose_device, join_world, sum_gradients
from .models import imported, published, published_shape, put
from .optim import Optimizer
from .precision import autocast


def selftest(device: str | None = None) -> Iterable[core.Outcome]:
    """Each check's name, whether it holds (None: this device has no such thing) and what was seen."""
    place = choose_device(device)
    world = join_world(place)
    on_card = place != "cpu"
    bf16 = on_card and paddle.amp.is_bfloat16_supported()
    return core.attempt(
        [
            ("float32", partial(_step, "float32", core.FLOAT32)),
            ("bf16", partial(_step, "bfloat16", core.BFLOAT16) if bf16 else None),
            ("fp16", partial(_step, "float16", core.FLOAT16) if on_card else None),
            ("the update moves every weight", _update),
            ("attention", partial(_attention, on_card)),
            ("processes add up", partial(_processes, world) if world.size > 1 else None),
        ]
    )


def _network(dtype: str = "float32") -> tuple[dict[str, paddle.Tensor], float]:
    """The network's weights with their gradients, and its loss."""
    unet = imported("ppdiffusers").UNet2DConditionModel(**core.UNET)
    named = dict(unet.named_parameters())
    shapes = {name: published_shape(name, p) for name, p in named.items()}
    for name, array in core.weights(shapes).items():
        put(name, named[name], array)
    unet.eval()
    given = {name: paddle.to_tensor(array) for name, array in core.inputs().items()}
    with autocast(dtype):
        answer = unet(**STABLE_DIFFUSION.arguments({name: given[name] for name in ("x", "t", "prompt_embeds")})).sample
    errors = (answer.cast("float32") - given["target"]).square().flatten(1).mean(1)
    loss = (errors * given["weight"]).sum()
    loss.backward()
    return named, float(loss)


def _step(dtype: str, tolerance: float) -> tuple[bool, str]:
    named, loss = _network(dtype)
    return core.judge_step(loss, [p.grad.numpy() for p in named.values()], tolerance)


def _update() -> tuple[bool, str]:
    named, _ = _network()
    config = TrainConfig.model_construct(adam_weight_decay=0.0, max_grad_norm=0.0)
    optimizer = Optimizer({"unet": named}, config, None)
    before = {name: published(name, p).copy() for name, p in named.items()}
    gradients = {name: published(name, p.grad).copy() for name, p in named.items()}
    optimizer.step({"unet": core.STEP})
    return core.judge_update(before, {name: published(name, p) for name, p in named.items()}, gradients)


def _attention(on_card: bool) -> tuple[bool, str]:
    """The function that ppdiffusers calls, its own or the one that is lent, over [B, tokens, heads, width]."""
    imported("ppdiffusers")
    dtype = "float16" if on_card else "float32"
    q, k, v = (paddle.to_tensor(array).transpose([0, 2, 1, 3]).cast(dtype) for array in core.attention()[0])
    made = functional.scaled_dot_product_attention_(q, k, v)
    return core.judge_attention(made.transpose([0, 2, 1, 3]).cast("float32").numpy())


def _processes(world: World) -> tuple[bool, str]:
    one = paddle.create_parameter([1], "float32")
    (one * (world.rank + 0.5)).sum().backward()
    sum_gradients([one])
    return core.judge_processes(world, float(one.grad))
