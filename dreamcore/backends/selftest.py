"""What `dreambooth doctor --selftest` tries on every backend: its inputs, and the numbers that must come out.

A small UNet whose weights come from NumPy takes a step in each way of computing that a device has; loss and gradient
norm must be those of diffusers and PyTorch in float32 on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .protocol import World

Outcome = tuple[str, bool | None, str]
"""A check's name, whether it holds (None: this device has no such thing), and what was seen."""
Check = Callable[[], tuple[bool, str]]

LOSS, NORM = 1.453238, 4.431951
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
FLOAT32, BFLOAT16, FLOAT16 = 1e-3, 5e-2, 2e-2
"""How far a step may lie off, relatively, in each precision."""
STEP = 0.01
"""Learning rate of the update that must move the weights: AdamW's first moves each by nearly that much."""


def weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, NDArray[np.float32]]:
    """The UNet's, by published name."""
    draw = np.random.default_rng(0)
    found = {}
    for name, shape in sorted(shapes.items()):
        spread = 1.0 / math.sqrt(max(1, math.prod(shape[1:]))) if len(shape) > 1 else 0.1
        start = 1.0 if len(shape) == 1 and "norm" in name and name.endswith("weight") else 0.0
        found[name] = (start + spread * draw.standard_normal(shape)).astype(np.float32)
    return found


def inputs() -> dict[str, NDArray[np.float32]]:
    """Of two rows: x, target [2, 4, 8, 8], t [2], words [2, 77, 32], and weight [2] of the rows' errors."""
    draw = np.random.default_rng(1)
    x, target = draw.standard_normal((2, 2, 4, 8, 8)).astype(np.float32)
    words = draw.standard_normal((2, 77, 32)).astype(np.float32)
    return {
        "x": x,
        "target": target,
        "t": np.array([3, 700], np.float32),
        "prompt_embeds": words,
        "weight": np.full(2, 0.5, np.float32),
    }


def judge_step(loss: float, gradients: Iterable[NDArray[Any]], tolerance: float) -> tuple[bool, str]:
    """Loss and gradient norm beside what they must be."""
    norm = math.sqrt(sum(float((g.astype(np.float64) ** 2).sum()) for g in gradients))
    worst = max(abs(loss / LOSS - 1), abs(norm / NORM - 1))
    return worst <= tolerance, f"loss {loss:.6f} ({LOSS:.6f}), gradient norm {norm:.6f} ({NORM:.6f})"


def judge_update(
    before: Mapping[str, NDArray[Any]], after: Mapping[str, NDArray[Any]], gradients: Mapping[str, NDArray[Any]]
) -> tuple[bool, str]:
    """Whether AdamW's first step of `STEP`, without decay, has moved each number against its gradient by that much."""
    off, moved, size = 0.0, 0, 0
    for name, gradient in gradients.items():
        steep = np.abs(gradient) > 1e-5  # where AdamW's epsilon does not count
        change = after[name].astype(np.float64) - before[name]
        off = max(off, float(np.abs(change + STEP * np.sign(gradient))[steep].max(initial=0.0)))
        moved, size = moved + int(np.count_nonzero(change)), size + change.size
    return off < STEP / 100, f"{moved} of {size} numbers moved, at most {off:.1e} off"


def attention() -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """Queries, keys and values [3, 1, 2 heads, 64 tokens, 64 wide], and the attention of them."""
    drawn = np.random.default_rng(2).standard_normal((3, 1, 2, 64, 64)).astype(np.float16)
    q, k, v = drawn.astype(np.float64)
    scores = q @ k.swapaxes(-1, -2) / 8
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    return drawn.astype(np.float32), shares / shares.sum(-1, keepdims=True) @ v


def judge_attention(made: NDArray[Any]) -> tuple[bool, str]:
    """The attention of those beside what it must be."""
    worst = float(np.abs(made - attention()[1]).max())
    return worst < 5e-3, f"largest error {worst:.1e}"


def judge_processes(world: World, total: float) -> tuple[bool, str]:
    """What the processes tell each other.

    Args:
        total: the sum of rank + 0.5 over all ranks, as gradients are summed.
    """
    everyone = [float(part[0]) for part in world.gather(np.array([world.rank + 0.1]))]
    said = world.broadcast(f"from rank {world.rank}")
    right = np.allclose(everyone, np.arange(world.size) + 0.1) and said == "from rank 0"
    return bool(right) and math.isclose(total, world.size**2 / 2), f"{world.size} processes, {everyone}, sum {total}"


def attempt(checks: Iterable[tuple[str, Check | None]]) -> Iterable[Outcome]:
    """Each check's outcome; None stands for what this device lacks."""
    for name, check in checks:
        if check is None:
            yield name, None, "not here"
            continue
        try:
            yield name, *check()
        except Exception as error:  # a self-test goes on, whatever fails
            words = str(error).strip().splitlines()
            yield name, False, f"{type(error).__name__}: {words[0] if words else ''}"
