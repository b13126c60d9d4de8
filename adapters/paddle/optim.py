"""The update: Paddle's AdamW or core's rules, with the state under published names, clipping, fp16's loss scale."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import numpy as np
import paddle
from numpy.typing import NDArray

from dreamcore.backends.loss_scale import LossScale
from dreamcore.backends.optimizers import StoredOptimizer, Updates, rule_for, weight_decays
from dreamcore.backends.rules import Rule
from dreamcore.config import TrainConfig
from dreamcore.config.optimizers import name_of, number
from dreamcore.formats.weights import Arrays, is_linear

from .models import Named, published, published_shape, put, shapes

MOMENTS = {"exp_avg": "moment1", "exp_avg_sq": "moment2"}
"""Names of AdamW's moments in checkpoints, and Paddle's names."""


class Optimizer(StoredOptimizer):
    """The optimizer of the settings over the trained parameters of each component.

    Args:
        parameters: by component, then by COMPONENT.PARAMETER as published.
        config: the optimizer, its numbers and clipping are read from it.
        loss_scale: fp16's dynamic loss scale; None for other precisions.
    """

    def __init__(self, parameters: Mapping[str, Named], config: TrainConfig, loss_scale: LossScale | None):
        super().__init__(rule_for(config), name_of(config), loss_scale)
        self.named = {name: p for named in parameters.values() for name, p in named.items()}
        self.all = list(self.named.values())
        self._max_norm = config.max_grad_norm
        decays = weight_decays(config, list(parameters))
        kernel = self.kind == "adamw"
        self._way: _Way = (_Kernel if kernel else _Rules)(parameters, config, self.rule, decays)

    @paddle.no_grad()
    def step(self, lr: Mapping[str, float]) -> paddle.Tensor:
        """Clip and update from the gradients, then free them; returns their norm [], on the device."""
        gradients = [p.grad for p in self.all if p.grad is not None]
        norm = self.total(paddle.stack([g.square().sum() for g in gradients]).sum().sqrt())
        overflow = False
        if self.loss_scale:
            norm = norm / self.loss_scale.scale
            overflow = not np.isfinite(float(norm))
        if not overflow:
            self._shrink(gradients, norm)
            self._way.step(lr)
        if self.loss_scale:
            self.loss_scale.update(overflow=overflow)
        for parameter in self.all:
            parameter.clear_gradient(set_to_zero=False)
        return norm

    def _shrink(self, gradients: list[paddle.Tensor], norm: paddle.Tensor) -> None:
        """Take the loss scale off the gradients, and scale them down to the largest norm allowed."""
        if not self._max_norm and not self.loss_scale:
            return
        factor = paddle.ones([])
        if self._max_norm:
            factor = (self._max_norm / (norm + 1e-6)).clip(max=1.0)
        if self.loss_scale:
            factor = factor / self.loss_scale.scale
        if factor.place.is_cpu_place() and float(factor) == 1:  # where reading it means no waiting
            return
        for gradient in gradients:
            gradient.multiply_(factor)

    def judged(self) -> AbstractContextManager[None]:
        return self._way.judged()

    def arrays(self) -> Arrays:
        return self._way.arrays()

    def array(self, name: str) -> NDArray[np.float32]:
        """A tensor of the state by its name in files."""
        return self._way.array(name)

    def put_arrays(self, arrays: Arrays) -> None:
        self._way.put_arrays(arrays)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return shapes(self.named)


class _Way(Protocol):
    """What changes the weights."""

    def step(self, lr: Mapping[str, float]) -> None: ...

    def judged(self) -> AbstractContextManager[None]: ...

    def arrays(self) -> Arrays: ...

    def array(self, name: str) -> NDArray[np.float32]: ...

    def put_arrays(self, arrays: Arrays) -> None: ...


class _Rules(Updates[paddle.Tensor]):
    """Core's rule."""

    def __init__(self, parameters: Mapping[str, Named], config: TrainConfig, rule: Rule, decays: Mapping[str, float]):
        self._given = [
            _Weight(component, name, parameter, turned=not rule.elementwise)
            for component, named in parameters.items()
            for name, parameter in named.items()
        ]
        super().__init__(rule, paddle, self._given, decays)

    @paddle.no_grad()
    def step(self, lr: Mapping[str, float]) -> None:
        super().step([weight.gradient for weight in self._given], lr)

    def arrays(self) -> Arrays:
        pairs = zip(self._given, self.kept(), strict=True)
        return {f"{w.name}.{slot}": w.to_file(value) for w, kept in pairs for slot, value in kept.items()}

    def array(self, name: str) -> NDArray[np.float32]:
        owner, _, slot = name.rpartition(".")
        index = next(n for n, weight in enumerate(self._given) if weight.name == owner)
        return self._given[index].to_file(self.kept()[index][slot])

    def put_arrays(self, arrays: Arrays) -> None:
        found: dict[str, dict[str, NDArray[np.float32]]] = {}
        for key, array in arrays.items():
            name, _, slot = key.rpartition(".")
            found.setdefault(name, {})[slot] = array
        self.restore([{s: w.from_file(a) for s, a in found[w.name].items()} for w in self._given])


class _Weight:
    """A parameter as a rule sees it: `turned` into the layout of files where its shape matters."""

    def __init__(self, component: str, name: str, parameter: paddle.Tensor, *, turned: bool):
        self.component, self.name, self._parameter = component, name, parameter
        self._linear = is_linear(name, len(parameter.shape))
        self._turned = turned and self._linear
        self.shape = published_shape(name, parameter) if turned else tuple(parameter.shape)

    def _turn(self, value: paddle.Tensor) -> paddle.Tensor:
        return value.T if self._turned else value

    def get(self) -> paddle.Tensor:
        return self._turn(self._parameter.detach())

    @paddle.no_grad()
    def put(self, value: paddle.Tensor) -> None:
        paddle.assign(self._turn(value), self._parameter)

    @property
    def gradient(self) -> paddle.Tensor | None:
        gradient = self._parameter.grad
        return None if gradient is None else self._turn(gradient)

    def to_file(self, value: paddle.Tensor) -> NDArray[np.float32]:
        array = value.detach().numpy()
        return array.T if self._linear and not self._turned else array

    def from_file(self, array: NDArray[np.float32]) -> paddle.Tensor:
        array = array.T if self._linear and not self._turned else array
        return paddle.to_tensor(np.ascontiguousarray(array, np.float32))


class _Kernel:
    """Paddle's AdamW, which computes PyTorch's formula in one kernel."""

    def __init__(self, parameters: Mapping[str, Named], config: TrainConfig, rule: Rule, decays: Mapping[str, float]):
        self._rule, self._named = rule, {name: p for named in parameters.values() for name, p in named.items()}
        self._betas = {name: number(config, f"adam_{name}") for name in ("beta1", "beta2")}
        options = {"epsilon": number(config, "adam_epsilon"), **self._betas}
        self._adamw = {
            component: paddle.optimizer.AdamW(
                0.0, parameters=list(named.values()), weight_decay=decays[component], **options
            )
            for component, named in parameters.items()
            if named
        }

    def step(self, lr: Mapping[str, float]) -> None:
        for component, adamw in self._adamw.items():
            adamw.set_lr(lr[component])
            adamw.step()
        self._rule.begin(lr)

    def judged(self) -> AbstractContextManager[None]:
        return nullcontext()

    def arrays(self) -> Arrays:
        state: dict[str, Any] = {}
        for adamw in self._adamw.values():
            state |= adamw.state_dict()
        return {
            f"{name}.{slot}": published(name, state[f"{p.name}_{paddles}_0"])
            for name, p in self._named.items()
            for slot, paddles in MOMENTS.items()
        }

    def array(self, name: str) -> NDArray[np.float32]:
        owner, _, slot = name.rpartition(".")
        key = f"{self._named[owner].name}_{MOMENTS[slot]}_0"
        states = (adamw.state_dict() for adamw in self._adamw.values())
        return published(owner, next(state[key] for state in states if key in state))

    def put_arrays(self, arrays: Arrays) -> None:
        state: dict[str, Any] = {}
        for name, parameter in self._named.items():
            for slot, paddles in MOMENTS.items():
                value = paddle.zeros_like(parameter)
                put(name, value, arrays[f"{name}.{slot}"])
                state[f"{parameter.name}_{paddles}_0"] = value
            for beta, value in self._betas.items():
                state[f"{parameter.name}_{beta}_pow_acc_0"] = paddle.to_tensor(_power(value, self._rule.steps + 1))
        for adamw in self._adamw.values():
            adamw.set_state_dict(state)


def _power(beta: float, exponent: int) -> NDArray[np.float32]:
    """[1], multiplied up in float32 update by update, as Paddle keeps it: so a resumed run goes on bit for bit."""
    return np.multiply.accumulate(np.full(exponent, beta, np.float32))[-1:]
