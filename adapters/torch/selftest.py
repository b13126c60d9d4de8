"""`dreambooth doctor --selftest` on PyTorch: each way of computing that this device has."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import torch
from diffusers import UNet2DConditionModel

from dreamcore.backends import selftest as core
from dreamcore.backends.protocol import World
from dreamcore.config import TrainConfig
from dreamcore.families import STABLE_DIFFUSION

from .launch import choose_device, join_world, sum_gradients
from .optim import Optimizer
from .precision import autocast, has_bf16


def selftest(device: str | None = None) -> Iterable[core.Outcome]:
    """Each check's name, whether it holds (None: this device has no such thing) and what was seen."""
    place = choose_device(device)
    world = join_world(place)
    on_card = place.type == "cuda"
    bf16 = not on_card or has_bf16(place)
    return core.attempt(
        [
            ("float32", partial(_step, place, torch.float32, core.FLOAT32)),
            ("bf16", partial(_step, place, torch.bfloat16, core.BFLOAT16) if bf16 else None),
            ("fp16", partial(_step, place, torch.float16, core.FLOAT16) if on_card else None),
            ("the update moves every weight", partial(_update, place)),
            ("attention", partial(_attention, place)),
            ("processes add up", partial(_processes, world, place) if world.size > 1 else None),
        ]
    )


def _network(place: torch.device, dtype: torch.dtype = torch.float32) -> tuple[torch.nn.Module, float]:
    """The network with gradients, and its loss."""
    unet = UNet2DConditionModel(**core.UNET)
    named = dict(unet.named_parameters())
    with torch.no_grad():
        for name, array in core.weights({name: p.shape for name, p in named.items()}).items():
            named[name].copy_(torch.from_numpy(array))
    unet.to(place).eval()
    given = {name: torch.from_numpy(array).to(place) for name, array in core.inputs().items()}
    with autocast(place, dtype):
        answer = unet(**STABLE_DIFFUSION.arguments({name: given[name] for name in ("x", "t", "prompt_embeds")})).sample
    errors = (answer.float() - given["target"]).square().flatten(1).mean(1)
    loss = (errors * given["weight"]).sum()
    loss.backward()
    return unet, loss.item()


def _step(place: torch.device, dtype: torch.dtype, tolerance: float) -> tuple[bool, str]:
    network, loss = _network(place, dtype)
    return core.judge_step(loss, [p.grad.cpu().numpy() for p in network.parameters()], tolerance)


def _update(place: torch.device) -> tuple[bool, str]:
    network, _ = _network(place)
    named = dict(network.named_parameters())
    config = TrainConfig.model_construct(adam_weight_decay=0.0, max_grad_norm=0.0)
    optimizer = Optimizer({"unet": named}, config, torch.amp.GradScaler(place.type, enabled=False))
    before = {name: p.detach().cpu().numpy().copy() for name, p in named.items()}
    gradients = {name: p.grad.cpu().numpy().copy() for name, p in named.items()}
    optimizer.step({"unet": core.STEP})
    return core.judge_update(before, {name: p.detach().cpu().numpy() for name, p in named.items()}, gradients)


def _attention(place: torch.device) -> tuple[bool, str]:
    dtype = torch.float16 if place.type == "cuda" else torch.float32
    q, k, v = torch.from_numpy(core.attention()[0]).to(place, dtype)
    made = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    return core.judge_attention(made.float().cpu().numpy())


def _processes(world: World, place: torch.device) -> tuple[bool, str]:
    one = torch.nn.Parameter(torch.zeros(1, device=place))
    one.grad = torch.full_like(one, world.rank + 0.5)
    sum_gradients([one])
    return core.judge_processes(world, one.grad.item())
