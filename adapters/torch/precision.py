"""The precision of the arithmetic: the types that a device has, TensorFloat-32, autocasting."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import conv2d, linear, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from dreamcore.errors import ConfigError

DTYPES = {"no": torch.float32, "fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def check_precision(name: str, device: torch.device, setting: str = "mixed_precision") -> torch.dtype:
    """The arithmetic's type.

    Raises:
        ConfigError: the device lacks it.
    """
    if name == "fp16" and device.type == "cpu":
        raise ConfigError(f"{setting}: fp16 needs a GPU; on a CPU use no or bf16")
    if name == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ConfigError(f"{setting}: {torch.cuda.get_device_name(device)} lacks bf16; use fp16 or no")
    return DTYPES[name]


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


def quicken_products(network: torch.nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Let matrix products and attention be computed in float32 where that is quicker; convolutions stay in `dtype`.

    It is with bfloat16 on a CPU without matrix units (AMX), and saves casts of the weights (`benchmarks/README.md`).
    """
    if device.type != "cpu" or dtype is not torch.bfloat16 or torch.cpu._is_amx_tile_supported():
        return
    for module in network.modules():
        if isinstance(module, torch.nn.Linear) or getattr(module, "kernel_size", None) == (1, 1):
            module.forward = _InFloat32(module.forward)
        elif hasattr(module, "processor"):
            module.processor = _InFloat32(module.processor)


class _InFloat32:
    """Part of a network; a context around the update would not reach what gradient checkpointing recomputes."""

    def __init__(self, inner: Any):
        self.inner = inner

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with _Float32Products():
            return self.inner(*args, **kwargs)


class _Float32Products(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        held = args[1].dtype if func in (linear, conv2d) else torch.float32  # a weight held in bfloat16 stays in it
        if func not in (linear, conv2d, scaled_dot_product_attention) or held is not torch.float32:
            return func(*args, **kwargs)
        with torch.autocast("cpu", enabled=False):
            return func(*map(_wide, args), **{name: _wide(value) for name, value in kwargs.items()})


def _wide(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
