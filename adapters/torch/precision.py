"""The precision of the arithmetic: the types that a device has, TensorFloat-32, autocasting."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from dreamcore.backends.protocol import Float
from dreamcore.errors import ConfigError, LackingError

DTYPES = {"no": torch.float32, "fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

MOST = 0.029
"""By how much latents may lie from float32's, root mean square, of their deviation: the least noise that Stable
Diffusion trains with, √0.00085.  In bf16 twelve photographs' lie 0.9 to 1.3 % off, by the embedded autoencoder."""


def check_precision(name: str, device: torch.device, setting: str = "mixed_precision") -> torch.dtype:
    """The arithmetic's type.

    Raises:
        LackingError: the device lacks it.
    """
    if name == "fp16" and device.type == "cpu":
        raise LackingError(f"{setting}: fp16 needs a GPU; on a CPU use no or bf16")
    if name == "bf16" and device.type == "cuda" and not has_bf16(device):
        raise LackingError(f"{setting}: {torch.cuda.get_device_name(device)} lacks bf16; use fp16 or no")
    return DTYPES[name]


def has_bf16(device: torch.device) -> bool:
    """Whether a card computes in bf16 itself: before Ampere it is imitated, which is slower than float32."""
    with torch.cuda.device(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)


def check_class_precision(name: str, denoiser: torch.nn.Module) -> torch.dtype:
    """The arithmetic's type while class images are made.

    Raises:
        ConfigError: the device lacks it, or the weights are held in less.
    """
    held = next(denoiser.parameters())
    dtype = check_precision(name, held.device, "prior_generation_precision")
    if dtype is torch.float32 and held.dtype is not torch.float32:
        raise ConfigError(
            f"prior_generation_precision: {name}, while LoRA with mixed_precision holds the frozen weights in "
            f"{held.dtype}; leave it out, or make the class images first, in a run without mixed_precision"
        )
    return dtype


def check_latents(found: Float, whole: Float, precision: str) -> None:
    """Refuse to encode in 16 bits what comes out otherwise than in float32, by more than `MOST` of its deviation.

    Args:
        found: means of latents, in any shape; `whole` those in float32.

    Raises:
        ConfigError: they lie further apart, or are not finite.
    """
    apart = float(np.sqrt(np.mean((found - whole) ** 2)) / max(float(whole.std()), 1e-12))
    if not apart <= MOST:
        raise ConfigError(
            f"vae_precision: in {precision} the latents of the first image lie {100 * apart:.1f} % of their deviation "
            f"from float32's, more than {100 * MOST:.1f} %; leave it out"
        )


def set_tf32(allow: bool, device: torch.device) -> None:
    """Let float32 products and convolutions be computed in TensorFloat-32, or, unlike torch's default, neither.

    Raises:
        ConfigError: allowed where there is no such thing.
    """
    if allow and (device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0)):
        raise ConfigError(f"allow_tf32: TensorFloat-32 is NVIDIA GPUs' from Ampere on, and this is {device}; remove it")
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high" if allow else "highest")
        torch.backends.cudnn.allow_tf32 = allow


def autocast(device: torch.device, dtype: torch.dtype) -> Any:
    """A context in which products and convolutions are computed in `dtype`."""
    return torch.autocast(device.type, dtype, enabled=dtype is not torch.float32)
