"""What a person with an Ascend card can see that no CPU shows: `dreambooth doctor --selftest`.

A small UNet whose weights come from NumPy takes the same step in each way that this device has; the numbers that must
come out are PyTorch's.  Under msrun, the processes are tried too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from dreamcore.config.common import ModelSettings
from dreamcore.families import STABLE_DIFFUSION

from .devices import choose_device  # isort: skip  # before MindSpore: it settles how MindSpore starts

import mindspore as ms
from mindspore import Tensor, ops

from .buckets import Bucket, flatten_all
from .launch import join_world
from .models import mindone
from .network import LossNetwork, gradient_function

LOSS, NORM = 1.453238, 4.431951
"""Of the step, in float32: diffusers' and PyTorch's numbers for the same weights and inputs."""
UNET: dict[str, Any] = {
    "sample_size": 8,
    "block_out_channels": (32, 64),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": 32,
    "attention_head_dim": 4,
}


def selftest(device: str | None = None) -> list[tuple[str, bool | None, str]]:
    """Each check's name, whether it holds (None: this device has no such thing) and what was seen."""
    settings = ModelSettings.from_mapping({"pretrained_model_name_or_path": "", "mode": "pynative", "device": device})
    kind, _ = choose_device(settings)
    world = join_world()
    checks: list[tuple[str, Callable[[], tuple[bool, str]] | None]] = [
        ("pynative, float32", lambda: _step(_as_it_is, None, 1e-3)),
        ("the update moves every weight", _update),
        ("processes add up", (lambda: _processes(world)) if world.size > 1 else None),
    ]
    on_card: list[tuple[str, Callable[[], tuple[bool, str]]]] = [
        ("graph mode, float32", lambda: _step(ms.jit, None, 1e-3)),
        ("pynative, bf16", lambda: _step(_as_it_is, ms.bfloat16, 5e-2)),
        ("pynative, fp16", lambda: _step(_as_it_is, ms.float16, 2e-2)),
        ("graph mode, bf16", lambda: _step(ms.jit, ms.bfloat16, 5e-2)),
        ("flash attention", _flash_attention),
    ]
    found = [_try(name, check) for name, check in checks]
    return found + [_try(name, check if kind == "Ascend" else None) for name, check in on_card]


def _try(name: str, check: Callable[[], tuple[bool, str]] | None) -> tuple[str, bool | None, str]:
    if check is None:
        return name, None, "not here"
    try:
        return name, *check()
    except Exception as error:  # a self-test goes on, whatever fails
        return name, False, f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"


def _as_it_is(function: Any) -> Any:
    return function


def _network() -> tuple[LossNetwork, dict[str, ms.Parameter]]:
    unet = mindone("diffusers").UNet2DConditionModel(**UNET)
    draw = np.random.default_rng(0)
    weights = dict(sorted(unet.parameters_and_names()))
    for name, parameter in weights.items():
        spread = 1.0 / math.sqrt(max(1, parameter[0].size)) if parameter.ndim > 1 else 0.1
        start = 1.0 if parameter.ndim == 1 and "norm" in name and name.endswith("weight") else 0.0
        parameter.set_data(Tensor((start + spread * draw.standard_normal(parameter.shape)).astype(np.float32)))
    return LossNetwork(unet.set_train(False), STABLE_DIFFUSION.inputs, ("x", "t", "words")), weights


def _inputs() -> tuple[Tensor, ...]:
    draw = np.random.default_rng(1)
    x, target = draw.standard_normal((2, 2, 4, 8, 8)).astype(np.float32)
    words = draw.standard_normal((2, 77, 32)).astype(np.float32)
    weight, mask, t = np.full(2, 0.5, np.float32), np.ones(1, np.float32), np.array([3, 700], np.float32)
    return tuple(map(Tensor, (target, weight, mask, x, t, words)))


def _step(compile: Callable[[Any], Any], dtype: Any, tolerance: float) -> tuple[bool, str]:
    network, weights = _network()
    if dtype is not None:
        ms.amp.auto_mixed_precision(network.denoiser, "auto", dtype)
    (loss, _), gradients = gradient_function(network, ms.ParameterTuple(list(weights.values())), compile)(*_inputs())
    norm = math.sqrt(sum(float((g.asnumpy().astype(np.float64) ** 2).sum()) for g in gradients))
    worst = max(abs(float(loss) / LOSS - 1), abs(norm / NORM - 1))
    return worst <= tolerance, f"loss {float(loss):.6f} ({LOSS:.6f}), gradient norm {norm:.6f} ({NORM:.6f})"


def _update() -> tuple[bool, str]:
    """Writing a vector into parameters is what an update ends with; some of MindSpore's ways do nothing, silently."""
    network, weights = _network()
    bucket = Bucket("unet", weights)
    _, gradients = gradient_function(network, ms.ParameterTuple(list(weights.values())), _as_it_is)(*_inputs())
    before = bucket.values().asnumpy().copy()
    (vector,) = flatten_all([bucket], gradients)
    bucket.write(bucket.values() - ops.sign(vector) * 0.01)
    moved = np.abs(bucket.values().asnumpy() - before)
    wanted = np.abs(np.sign(vector.asnumpy())) * 0.01
    return bool(np.allclose(moved, wanted, atol=1e-5)), f"{np.count_nonzero(moved)} of {moved.size} numbers moved"


def _flash_attention() -> tuple[bool, str]:
    draw = np.random.default_rng(2)
    q, k, v = (draw.standard_normal((1, 2, 64, 64)).astype(np.float16) for _ in range(3))
    scores = q.astype(np.float64) @ k.astype(np.float64).swapaxes(-1, -2) / 8
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    wanted = shares / shares.sum(-1, keepdims=True) @ v.astype(np.float64)
    made = ops.flash_attention_score(*map(Tensor, (q, k, v)), head_num=2, scalar_value=0.125, input_layout="BNSD")
    worst = float(np.abs(made.asnumpy() - wanted).max())
    return worst < 5e-3, f"largest error {worst:.1e}"


def _processes(world: Any) -> tuple[bool, str]:
    everyone = [float(part[0]) for part in world.gather(np.array([world.rank + 0.1]))]
    said = world.broadcast(f"from rank {world.rank}")
    right = np.allclose(everyone, np.arange(world.size) + 0.1) and said == "from rank 0"
    return bool(right), f"{world.size} processes, {everyone}"
