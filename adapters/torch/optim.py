"""The update: AdamW with its state under published names, clipping, fp16's loss scale, the moving average."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dreamcore.checkpoint import EMA_FILE, OPTIMIZER_FILE
from dreamcore.config import TrainConfig
from dreamcore.errors import RunError

MOMENTS = ("exp_avg", "exp_avg_sq")
Named = Mapping[str, torch.nn.Parameter]


class Optimizer:
    """AdamW over the trained parameters of each component.

    Args:
        parameters: by component, then by COMPONENT.PARAMETER as published.
        config: betas, decay, epsilon and clipping are read from it.
        scaler: fp16's dynamic loss scale; disabled for other precisions.
    """

    def __init__(self, parameters: Mapping[str, Named], config: TrainConfig, scaler: torch.amp.GradScaler):
        self.named = {name: p for named in parameters.values() for name, p in named.items()}
        self.all = list(self.named.values())
        self.scaler = scaler
        self._max_norm = config.max_grad_norm
        self._adamw = torch.optim.AdamW(
            [{"params": list(named.values()), "component": c} for c, named in parameters.items()],
            lr=0.0,
            betas=(config.adam_beta1, config.adam_beta2),
            weight_decay=config.adam_weight_decay,
            eps=config.adam_epsilon,
            fused=True,
        )

    def step(self, lr: Mapping[str, float]) -> torch.Tensor:
        """Clip and update from the gradients, then free them; returns their norm [], on the device."""
        for group in self._adamw.param_groups:
            group["lr"] = lr[group["component"]]
        self.scaler.unscale_(self._adamw)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.all if p.grad is not None])
        if self._max_norm > 0:
            torch.nn.utils.clip_grads_with_norm_(self.all, self._max_norm, norm)
        self.scaler.step(self._adamw)
        self.scaler.update()
        self._adamw.zero_grad(set_to_none=True)
        return norm.detach()

    def save(self, folder: Path) -> None:
        """Write the moments and the counters."""
        state = self._adamw.state
        tensors = {f"{n}.{m}": state[p][m].contiguous() for n, p in self.named.items() if p in state for m in MOMENTS}
        steps = {int(state[p]["step"].item()) for p in self.all if p in state}
        assert len(steps) == 1, "all parameters take every step"
        counters = {"optimizer": "adamw", "step": steps.pop(), "scaler": self.scaler.state_dict()}
        save_file(tensors, folder / OPTIMIZER_FILE, metadata={"format": "pt", "counters": json.dumps(counters)})

    def load(self, folder: Path) -> None:
        """Read what `save`, of this backend or another, wrote.

        Raises:
            RunError: moments that are missing, left over or of another shape.
        """
        file = folder / OPTIMIZER_FILE
        with safe_open(file, "pt") as opened:
            counters = json.loads(opened.metadata()["counters"])
        tensors = load_file(file)
        wanted = {f"{n}.{m}" for n in self.named for m in MOMENTS}
        if odd := sorted(wanted ^ tensors.keys()):
            raise RunError(f"{file}: does not fit what this run trains: {', '.join(odd[:5])}")
        for name, parameter in self.named.items():
            step = torch.tensor(float(counters["step"]), device=parameter.device)
            moments = {m: tensors[f"{name}.{m}"].to(parameter).view_as(parameter) for m in MOMENTS}
            moments = {m: t.clone(memory_format=torch.preserve_format) for m, t in moments.items()}
            self._adamw.state[parameter] = {"step": step, **moments}
        if self.scaler.is_enabled() and counters.get("scaler"):
            self.scaler.load_state_dict(counters["scaler"])


class MovingAverage:
    """Exponential moving average of the trained parameters, warmed up as min(decay, (1 + n) / (10 + n))."""

    def __init__(self, named: Named, decay: float):
        self._named, self._decay, self._updates = named, decay, 0
        self._averages = [p.detach().clone() for p in named.values()]

    def update(self) -> None:
        """Take in the parameters after an update."""
        decay = min(self._decay, (1 + self._updates) / (10 + self._updates))
        torch._foreach_lerp_(self._averages, [p.detach() for p in self._named.values()], 1 - decay)
        self._updates += 1

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Let the parameters hold their averages for a while."""
        held = [p.detach().clone() for p in self._named.values()]
        self._put(self._averages)
        try:
            yield
        finally:
            self._put(held)

    def save(self, folder: Path) -> None:
        """Write the averages."""
        tensors = {n: t.contiguous() for n, t in zip(self._named, self._averages, strict=True)}
        save_file(tensors, folder / EMA_FILE, metadata={"format": "pt", "updates": str(self._updates)})

    def load(self, folder: Path) -> None:
        """Read what `save` wrote.

        Raises:
            RunError: averages that do not fit.
        """
        file = folder / EMA_FILE
        with safe_open(file, "pt") as opened:
            self._updates = int(opened.metadata()["updates"])
        tensors = load_file(file)
        if odd := sorted(tensors.keys() ^ self._named.keys()):
            raise RunError(f"{file}: does not fit what this run trains: {', '.join(odd[:5])}")
        for name, average in zip(self._named, self._averages, strict=True):
            average.copy_(tensors[name])

    @torch.no_grad()
    def _put(self, values: list[torch.Tensor]) -> None:
        for parameter, value in zip(self._named.values(), values, strict=True):
            parameter.copy_(value)
