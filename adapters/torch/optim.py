"""The update: clipping, fp16's loss scale, and AdamW, whose state is kept under published names."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from dreamcore.backends.adamw import weight_decays
from dreamcore.config import TrainConfig
from dreamcore.errors import ConfigError, RunError
from dreamcore.formats.optimizer_state import ADAMW, Counters, read_counters, read_moments, save_optimizer
from dreamcore.formats.weights import read_safetensors
from dreamcore.io.names import OPTIMIZER_FILE

from .models import Named

ADAMW_8BIT = "adamw8bit"
"""The name that its state is kept under."""


class Optimizer:
    """AdamW over the trained parameters of each component.

    Args:
        parameters: by component, then by COMPONENT.PARAMETER as published.
        config: betas, decay, epsilon, clipping and the state's bits are read from it.
        scaler: fp16's dynamic loss scale; disabled for other precisions.

    Raises:
        ConfigError: 8 bits where bitsandbytes is not installed or the weights are not on a GPU.
    """

    def __init__(self, parameters: Mapping[str, Named], config: TrainConfig, scaler: torch.amp.GradScaler):
        self.named = {name: p for named in parameters.values() for name, p in named.items()}
        self.all = list(self.named.values())
        self.scaler = scaler
        self._max_norm = config.max_grad_norm
        self.kind = ADAMW_8BIT if config.use_8bit_adam else ADAMW
        decays = weight_decays(config, list(parameters))
        cls, options = _adamw_8bit(self.all[0].device) if config.use_8bit_adam else (torch.optim.AdamW, {"fused": True})
        self._adamw = cls(
            [
                {"params": list(named.values()), "component": c, "weight_decay": decays[c]}
                for c, named in parameters.items()
            ],
            lr=0.0,
            betas=(config.adam_beta1, config.adam_beta2),
            eps=config.adam_epsilon,
            **options,
        )

    @property
    def scales(self) -> bool:
        """Whether the loss is scaled, for fp16."""
        return self.scaler.is_enabled()

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        """What the backward pass starts from."""
        return self.scaler.scale(loss)

    def step(self, lr: Mapping[str, float]) -> torch.Tensor:
        """Clip and update from the gradients, then free them; returns their norm [], on the device.

        An overflow (fp16) leaves weights, moments and their count as they were, and lowers the loss scale.
        """
        for group in self._adamw.param_groups:
            group["lr"] = lr[group["component"]]
        self.scaler.unscale_(self._adamw)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.all if p.grad is not None])
        if self._max_norm > 0:
            self._clip(norm)
        self.scaler.step(self._adamw)
        self.scaler.update()
        self._adamw.zero_grad(set_to_none=True)
        return norm.detach()

    def _clip(self, norm: torch.Tensor) -> None:
        """Scale the gradients down to the norm that is allowed."""
        if self.kind != ADAMW or self.scaler.is_enabled():
            torch.nn.utils.clip_grads_with_norm_(self.all, self._max_norm, norm)
            return
        # Fused AdamW divides by this (where there is one, by fp16's loss scale) on its own way through the gradients.
        # So it moves 32 bytes a weight, and 36 with a division before the step: 151 ms instead of 172 for 50 million
        # weights on one core; not measured on a GPU.  `clip_grads_with_norm_` multiplies instead: other last bits.
        self._adamw.grad_scale = ((norm + 1e-6) / self._max_norm).clamp(min=1.0)

    def save(self, folder: Path) -> None:
        """Write the moments and the counters."""
        arrays, steps = {}, set()
        for name, parameter in self.named.items():
            for key, value in self._adamw.state.get(parameter, {}).items():
                if key == "step":
                    steps.add(int(value))
                elif isinstance(value, torch.Tensor):
                    arrays[f"{name}.{key}"] = value.detach().cpu().numpy()
        assert len(steps) <= 1, "all parameters take every step"
        save_optimizer(folder, arrays, Counters(self.kind, max(steps, default=0), self.scaler.state_dict()))

    def load(self, folder: Path) -> None:
        """Read what `save` wrote, AdamW's also from another backend.

        Raises:
            ConfigError: the state of another optimizer.
            RunError: moments that are missing, left over or of another shape.
        """
        counters, file = read_counters(folder, self.kind), folder / OPTIMIZER_FILE
        if self.kind == ADAMW:
            shapes = {name: parameter.shape for name, parameter in self.named.items()}
            arrays = read_moments(folder, shapes, counters)
        else:
            arrays = read_safetensors(file)
        stored: dict[str, dict[str, torch.Tensor]] = {}
        for key, array in arrays.items():
            name, _, part = key.rpartition(".")
            stored.setdefault(name, {})[part] = torch.from_numpy(array.copy())
        if counters.step and (odd := sorted(stored.keys() ^ self.named.keys())):
            raise RunError(f"{file}: does not fit what this run trains: {', '.join(odd[:5])}")
        for name, state in stored.items():
            self._adamw.state[self.named[name]] = self._restored(self.named[name], state, counters.step)
        if self.scaler.is_enabled() and counters.scaler:
            self.scaler.load_state_dict(counters.scaler)

    def _restored(self, parameter: torch.Tensor, own: dict[str, torch.Tensor], step: int) -> dict[str, Any]:
        if self.kind != ADAMW:
            return {"step": step, **{k: t.to(parameter.device) for k, t in own.items()}}
        moments = {}
        for key, value in own.items():  # in the weight's own layout, which channels_last changes
            moments[key] = torch.empty_like(parameter, requires_grad=False)
            moments[key].copy_(value)
        return {"step": torch.tensor(float(step), device=parameter.device), **moments}


def _adamw_8bit(device: torch.device) -> tuple[Any, dict[str, Any]]:
    if find_spec("bitsandbytes") is None:
        raise ConfigError("use_8bit_adam: needs the package bitsandbytes, which is not installed; leave it out")
    if device.type != "cuda":
        raise ConfigError(f"use_8bit_adam: bitsandbytes needs a GPU, and this is {device}; leave it out")
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit, {}
