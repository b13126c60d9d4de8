"""The update: clipping, fp16's loss scale, and the optimizer, whose state is kept under published names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dreamcore.backends.optimizers import Updates, counters, read_rule, rule_for, weight_decays
from dreamcore.config import TrainConfig
from dreamcore.config.optimizers import name_of, number
from dreamcore.errors import ConfigError, RunError
from dreamcore.formats.optimizer_state import Counters, read_counters, save_optimizer
from dreamcore.formats.tensors import Entry
from dreamcore.formats.weights import Arrays, read_safetensors
from dreamcore.io.names import OPTIMIZER_FILE

from .models import Named

ADAMW, ADAMW_8BIT = "adamw", "adamw8bit"
"""What PyTorch and bitsandbytes have kernels for; the others are core's rules."""


class Optimizer:
    """The optimizer of the settings over the trained parameters of each component.

    Args:
        parameters: by component, then by COMPONENT.PARAMETER as published.
        config: the optimizer, its numbers and clipping are read from it.
        scaler: fp16's dynamic loss scale; disabled for other precisions.

    Raises:
        ConfigError: 8 bits where bitsandbytes is not installed or the weights are not on a GPU.
    """

    def __init__(self, parameters: Mapping[str, Named], config: TrainConfig, scaler: torch.amp.GradScaler):
        self.named = {name: p for named in parameters.values() for name, p in named.items()}
        self.all = list(self.named.values())
        self.scaler = scaler
        self.total: Callable[[torch.Tensor], torch.Tensor] = lambda norm: norm
        """Makes of the norm of these gradients the norm that is clipped: there may be others elsewhere."""
        self.beside: Mapping[str, Sequence[int]] = {}
        """Shapes of weights whose state is kept elsewhere, and in the same files."""
        self.keeps_gradients = False
        """Whether gradients stay where they are, as zeros, and are not freed."""
        self._max_norm = config.max_grad_norm
        self.kind, self.rule = name_of(config), rule_for(config)
        decays = weight_decays(config, list(parameters))
        groups = [
            {"params": list(named.values()), "names": list(named), "component": c, "weight_decay": decays[c]}
            for c, named in parameters.items()
        ]
        self._optimizer: Any = self._made(groups, config)

    def _made(self, groups: list[dict[str, Any]], config: TrainConfig) -> Any:
        if self.kind not in (ADAMW, ADAMW_8BIT):
            return Rules(groups, self.rule)
        eight = self.kind == ADAMW_8BIT
        cls, options = _adamw_8bit(self.all[0].device) if eight else (torch.optim.AdamW, {"fused": True})
        betas = number(config, "adam_beta1"), number(config, "adam_beta2")
        return cls(groups, lr=0.0, betas=betas, eps=number(config, "adam_epsilon"), **options)

    def rate_factor(self) -> Any:
        """What the rule multiplies the learning rate by, on the device, where it finds that itself."""
        return self.rule.rate_factor()

    @property
    def scales(self) -> bool:
        """Whether the loss is scaled, for fp16."""
        return self.scaler.is_enabled()

    @property
    def splits(self) -> bool:
        """Whether some weights may be updated before the others: whose gradients are there."""
        return self.kind == ADAMW

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        """What the backward pass starts from."""
        return self.scaler.scale(loss)

    def step(self, lr: Mapping[str, float], norm: torch.Tensor | None = None) -> torch.Tensor:
        """Clip and update from the gradients, then free or clear them; returns their norm [], on the device, which may
        be given.

        An overflow (fp16) leaves weights, moments and their count as they were, and lowers the loss scale.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = lr[group["component"]]
        self.scaler.unscale_(self._optimizer)
        if norm is None:
            norm = self.total(torch.nn.utils.get_total_norm([p.grad for p in self.all if p.grad is not None]))
        if self._max_norm > 0:
            self._clip(norm)
        self.scaler.step(self._optimizer)
        self.scaler.update()
        self._optimizer.zero_grad(set_to_none=not self.keeps_gradients)
        return norm.detach()

    def _clip(self, norm: torch.Tensor) -> None:
        """Scale the gradients down to the norm that is allowed."""
        if self.kind != ADAMW or self.scaler.is_enabled():
            torch.nn.utils.clip_grads_with_norm_(self.all, self._max_norm, norm)
            return
        # Fused AdamW divides by this (where there is one, by fp16's loss scale) on its own way through the gradients.
        # So it moves 32 bytes a weight, and 36 with a division before the step: 151 ms instead of 172 for 50 million
        # weights on one core; not measured on a GPU.  `clip_grads_with_norm_` multiplies instead: other last bits.
        self._optimizer.grad_scale = ((norm + 1e-6) / self._max_norm).clamp(min=1.0)

    @contextmanager
    def judged(self) -> Iterator[None]:
        """Let the weights be those that are judged and used, for a while."""
        if not isinstance(self._optimizer, Rules):
            yield
            return
        with torch.no_grad(), self._optimizer.updates.judged():
            yield

    def save(self, folder: Path) -> None:
        """Write the state and the counters."""
        said, own = self.counters(), self._kept()
        entries = {
            f"{name}.{key}": Entry.of(value.detach().cpu().numpy())
            for name, state in own.items()
            for key, value in state.items()
            if key != "step" and isinstance(value, torch.Tensor)
        }
        save_optimizer(folder, entries if said.step else {}, said)

    def counters(self) -> Counters:
        """What the state holds besides its arrays."""
        own = self._kept()
        if isinstance(self._optimizer, Rules):
            steps = {self.rule.steps}
        else:
            steps = {int(state["step"]) for state in own.values() if "step" in state}
        assert len(steps) <= 1, "all parameters take every step"
        self.rule.steps = max(steps, default=0)
        return counters(self.rule, self.kind, self.scaler.state_dict())

    def array(self, name: str) -> NDArray[np.float32]:
        """A tensor of the state by its name in files."""
        weight, _, what = name.rpartition(".")
        (own,) = self.states([self.named[weight]])
        kept: NDArray[np.float32] = own[what].detach().cpu().numpy()
        return kept

    def states(self, parameters: Sequence[torch.Tensor]) -> list[Mapping[str, Any]]:
        """What is kept of these parameters."""
        own, names = self._kept(), {parameter: name for name, parameter in self.named.items()}
        return [own[names[parameter]] for parameter in parameters]

    def _kept(self) -> dict[str, Mapping[str, Any]]:
        """What is kept of each parameter, by its name."""
        if isinstance(self._optimizer, Rules):
            return dict(zip(self.named, self._optimizer.updates.kept(), strict=True))
        return {name: self._optimizer.state.get(parameter, {}) for name, parameter in self.named.items()}

    def load(self, folder: Path) -> None:
        """Read what `save` wrote, also from another backend, but for 8 bits.

        Raises:
            ConfigError: the state of another optimizer.
            RunError: arrays that are missing, left over or of another shape.
        """
        if self.kind == ADAMW_8BIT:
            found = read_counters(folder, self.kind)
            arrays, scaler, self.rule.steps = read_safetensors(folder / OPTIMIZER_FILE), found.scaler, found.step
        else:
            shapes = {name: parameter.shape for name, parameter in self.named.items()}
            arrays, scaler = read_rule(folder, self.rule, self.kind, shapes, self.beside)
        if self.rule.steps:
            self._restore(folder, arrays)
        if self.scaler.is_enabled() and scaler:
            self.scaler.load_state_dict(scaler)

    def _restore(self, folder: Path, arrays: Arrays) -> None:
        stored: dict[str, dict[str, torch.Tensor]] = {}
        for key, array in arrays.items():
            name, _, part = key.rpartition(".")
            stored.setdefault(name, {})[part] = torch.from_numpy(array.copy())
        if odd := sorted(stored.keys() ^ self.named.keys()):
            raise RunError(f"{folder / OPTIMIZER_FILE}: does not fit what this run trains: {', '.join(odd[:5])}")
        restored = {name: self._restored(self.named[name], own) for name, own in stored.items()}
        if isinstance(self._optimizer, Rules):
            with torch.no_grad():
                self._optimizer.updates.restore([restored[name] for name in self.named])
            return
        for name, own in restored.items():
            self._optimizer.state[self.named[name]] = own

    def _restored(self, parameter: torch.Tensor, own: dict[str, torch.Tensor]) -> dict[str, Any]:
        if self.kind == ADAMW_8BIT:
            return {"step": self.rule.steps, **{k: t.to(parameter.device) for k, t in own.items()}}
        made: dict[str, Any] = {}
        for key, value in own.items():
            if value.shape == parameter.shape:  # in the weight's own layout, which channels_last changes
                made[key] = torch.empty_like(parameter, requires_grad=False)
                made[key].copy_(value)
            else:
                made[key] = value.to(parameter.device)
        if self.kind == ADAMW:
            made["step"] = torch.tensor(float(self.rule.steps), device=parameter.device)
        return made


class Rules(torch.optim.Optimizer):
    """Core's rule in the form of PyTorch's optimizers, as the loss scale wants it."""

    def __init__(self, groups: list[dict[str, Any]], rule: Any):
        super().__init__(groups, {"lr": 0.0})
        self._weights = [
            Weight(group["component"], name, parameter)
            for group in self.param_groups
            for name, parameter in zip(group["names"], group["params"], strict=True)
        ]
        decays = {group["component"]: group["weight_decay"] for group in self.param_groups}
        self.updates: Updates[torch.Tensor] = Updates(rule, torch, self._weights, decays)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        gradients = [weight.gradient for weight in self._weights]
        self.updates.step(gradients, {group["component"]: group["lr"] for group in self.param_groups})


class Weight:
    """A parameter as a rule sees it."""

    def __init__(self, component: str, name: str, parameter: torch.Tensor):
        self.component, self.name, self.shape = component, name, tuple(parameter.shape)
        self._parameter = parameter

    def get(self) -> torch.Tensor:
        return self._parameter.detach()

    def put(self, value: torch.Tensor) -> None:
        self._parameter.copy_(value)

    @property
    def gradient(self) -> torch.Tensor | None:
        return self._parameter.grad


def _adamw_8bit(device: torch.device) -> tuple[Any, dict[str, Any]]:
    if find_spec("bitsandbytes") is None:
        raise ConfigError("use_8bit_adam: needs the package bitsandbytes, which is not installed; leave it out")
    if device.type != "cuda":
        raise ConfigError(f"use_8bit_adam: bitsandbytes needs a GPU, and this is {device}; leave it out")
    from bitsandbytes.optim import AdamW8bit

    return AdamW8bit, {}
