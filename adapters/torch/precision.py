"""The precision of the arithmetic: the types that a device has, TensorFloat-32, autocasting."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
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


def quicken_attention(network: torch.nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Let diffusers' attention layers take float32 where that is quicker, whatever the products around them take.

    It is with bfloat16 on a CPU without matrix units (AMX): the backward pass takes PyTorch's bfloat16 kernel twice as
    long there (`benchmarks/README.md`).
    """
    if device.type == "cpu" and dtype is torch.bfloat16 and not torch.cpu._is_amx_tile_supported():
        for module in network.modules():
            if hasattr(module, "processor"):
                module.processor = _InFloat32(module.processor)


class _InFloat32:
    """An attention processor; a context around the update would not reach what gradient checkpointing recomputes."""

    def __init__(self, inner: Any):
        self.inner = inner

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with _Float32Attention():
            return self.inner(*args, **kwargs)


class _Float32Attention(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not scaled_dot_product_attention:
            return func(*args, **kwargs)
        dtype = (args[0] if args else kwargs["query"]).dtype
        with torch.autocast("cpu", enabled=False):
            return func(*map(_wide, args), **{name: _wide(value) for name, value in kwargs.items()}).to(dtype)


def _wide(value: Any) -> Any:
    return value.float() if isinstance(value, torch.Tensor) and value.is_floating_point() else value
