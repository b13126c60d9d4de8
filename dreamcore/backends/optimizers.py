"""Optimizers at work: a rule over the weights of a backend, each component's decay, and the state in files."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from ..config import TrainConfig
from ..config.optimizers import name_of, number
from ..formats.optimizer_state import Counters, read_counters, read_state, save_optimizer
from ..formats.tensors import Entry
from ..formats.weights import Arrays
from .loss_scale import LossScale
from .matrix_rules import CAME, Adafactor, Muon
from .rules import SGD, AdamW, Lion, Prodigy, Rule, ScheduleFree, Shape

T = TypeVar("T")
"""A framework's tensors."""
TRAINING = "y"
"""What files call the weight that trains, where another one is judged and used (arXiv 2405.15682, equation 3)."""
RULES: dict[str, type[Rule]] = {
    "adamw": AdamW,
    "adamw8bit": AdamW,
    "adamw_schedulefree": ScheduleFree,
    "adafactor": Adafactor,
    "came": CAME,
    "lion": Lion,
    "muon": Muon,
    "prodigy": Prodigy,
    "sgd": SGD,
}
"""By `config.optimizers`' names."""


def rule_for(config: TrainConfig) -> Rule:
    """The rule that the settings ask for."""
    return RULES[name_of(config)](config)


def state_bytes(config: TrainConfig, shapes: Mapping[str, Sequence[int]]) -> int:
    """Bytes that the optimizer keeps of weights by these names and shapes."""
    rule, bits = rule_for(config), 8 if name_of(config) == "adamw8bit" else 32
    kept = (rule.of(name, tuple(shape)).slots(tuple(shape)) for name, shape in shapes.items())
    return sum(math.prod(one) for slots in kept for one in slots.values()) * bits // 8


class Weight(Protocol[T]):
    """What a rule changes at once: one weight, or several as a vector."""

    component: str
    name: str
    """As published, COMPONENT before it."""
    shape: Shape
    """As the rule sees it."""

    def get(self) -> T: ...

    def put(self, value: T) -> None: ...


class Updates(Generic[T]):
    """A rule at work.

    Args:
        xp: the library whose functions the rule calls.
        decays: by component.
    """

    def __init__(self, rule: Rule, xp: Any, weights: Sequence[Weight[T]], decays: Mapping[str, float]):
        self.rule, self.weights, self._xp, self._decays = rule, weights, xp, decays
        self._rules = [rule.of(weight.name, weight.shape) for weight in weights]
        self._own: list[dict[str, T]] = [{} for _ in weights]

    def step(self, gradients: Sequence[T | None], lr: Mapping[str, float]) -> None:
        """Change all weights that have gradients; `lr` by component."""
        xp, every = self._xp, list(zip(self._rules, self.weights, gradients, self._own, strict=True))
        every = [one for one in every if one[2] is not None]
        self.rule.begin(lr)
        for rule, weight, gradient, own in every:
            if not own:
                own.update(rule.first(xp, weight.get()))
            if rule.observes:
                rule.observe(xp, weight.get(), gradient, own, lr[weight.component], self._decays[weight.component])
        self.rule.settle(xp)
        for rule, weight, gradient, own in every:
            rate, decay = lr[weight.component], self._decays[weight.component]
            weight.put(rule.step(xp, weight.get(), gradient, own, rate, decay))

    @contextmanager
    def judged(self) -> Iterator[None]:
        """Let the weights be those that are judged and used, for a while."""
        held = []
        try:
            for rule, weight, own in zip(self._rules, self.weights, self._own, strict=True):
                if self.rule.averages and own:
                    held.append((weight, value := _copy(weight.get())))
                    weight.put(rule.average(value, own))
            yield
        finally:
            for weight, value in held:
                weight.put(value)

    def kept(self) -> list[dict[str, T]]:
        """What files hold of each weight."""
        if not self.rule.averages:
            return self._own
        pairs = zip(self.weights, self._own, strict=True)
        return [own | {TRAINING: weight.get()} if own else own for weight, own in pairs]

    def restore(self, kept: Sequence[Mapping[str, T]]) -> None:
        """`kept` undone."""
        self._own = [dict(own) for own in kept]
        for weight, own in zip(self.weights, self._own, strict=True):
            if TRAINING in own:
                weight.put(own.pop(TRAINING))


def _copy(value: Any) -> Any:
    return value * 1


def saved_shapes(rule: Rule, shapes: Mapping[str, Sequence[int]]) -> dict[str, Shape]:
    """The names and shapes of what files hold of weights by these names and shapes."""
    found: dict[str, Shape] = {}
    for name, given in shapes.items():
        shape = tuple(given)
        slots = rule.of(name, shape).slots(shape) | ({TRAINING: shape} if rule.averages else {})
        found |= {f"{name}.{slot}": size for slot, size in slots.items()}
    return found


class StoredOptimizer(ABC):
    """Saves and loads, and scales the loss; a backend says how its own tensors are read and set.

    Args:
        loss_scale: fp16's dynamic loss scale; None for other precisions.
    """

    def __init__(self, rule: Rule, kind: str, loss_scale: LossScale | None):
        self.rule, self.kind, self.loss_scale = rule, kind, loss_scale
        self.total: Callable[[Any], Any] = lambda norm: norm
        """Makes of the norm of these gradients the norm that is clipped: there may be others elsewhere."""
        self.beside: Mapping[str, Sequence[int]] = {}
        """Shapes of weights whose state is kept elsewhere, and in the same files."""

    @abstractmethod
    def arrays(self) -> Arrays:
        """The state, under the parameters' published names and the rule's, as files hold it."""

    @abstractmethod
    def put_arrays(self, arrays: Arrays) -> None:
        """`arrays` undone; the rule's own numbers are right by now."""

    @abstractmethod
    def shapes(self) -> Mapping[str, Sequence[int]]:
        """Of the parameters, as files hold them."""

    def rate_factor(self) -> Any:
        """What the rule multiplies the learning rate by, on the device, where it finds that itself."""
        return self.rule.rate_factor()

    @property
    def scales(self) -> bool:
        """Whether the loss is scaled, for fp16."""
        return self.loss_scale is not None

    def scaled(self, loss: Any) -> Any:
        """What the backward pass starts from."""
        return loss * self.loss_scale.scale if self.loss_scale else loss

    def save(self, folder: Path) -> None:
        """Write the state and the counters."""
        arrays = self.arrays() if self.rule.steps else {}
        save_optimizer(folder, {n: Entry.of(np.asarray(array)) for n, array in arrays.items()}, self.counters())

    def counters(self) -> Counters:
        """What the state holds besides its arrays."""
        return counters(self.rule, self.kind, asdict(self.loss_scale) if self.loss_scale else {})

    def load(self, folder: Path) -> None:
        """Read what `save`, of this backend or another, wrote.

        Raises:
            ConfigError: the state of another optimizer.
            RunError: arrays that are missing, left over or of another shape.
        """
        arrays, scaler = read_rule(folder, self.rule, self.kind, self.shapes(), self.beside)
        if arrays:
            self.put_arrays(arrays)
        if self.loss_scale and scaler:
            self.loss_scale = LossScale(**scaler)


def counters(rule: Rule, kind: str, scaler: Mapping[str, Any]) -> Counters:
    """What a rule's state holds besides its arrays."""
    return Counters(kind, rule.steps, dict(scaler), {name: float(value) for name, value in rule.shared.items()})


def read_rule(
    folder: Path,
    rule: Rule,
    kind: str,
    shapes: Mapping[str, Sequence[int]],
    beside: Mapping[str, Sequence[int]] | None = None,
) -> tuple[Arrays, dict[str, Any]]:
    """The arrays of a state of parameters by these names and shapes, and its loss scale; the rule gets its numbers.

    Args:
        beside: parameters whose state is there too, and is not read.

    Raises:
        ConfigError: the state of another optimizer.
        RunError: arrays that are missing, left over or of another shape.
    """
    found = read_counters(folder, kind)
    arrays = read_state(folder, saved_shapes(rule, shapes), saved_shapes(rule, beside or {})) if found.step else {}
    rule.steps = found.step
    rule.shared |= found.shared
    return arrays, found.scaler


def weight_decays(config: TrainConfig, components: Sequence[str]) -> dict[str, float]:
    """The decay of each component: the denoiser, then the text encoders that train."""
    decays = dict.fromkeys(components, number(config, "adam_weight_decay"))
    for encoder in components[1:]:
        other = config.adam_weight_decay_text_encoder
        decays[encoder] = decays[encoder] if other is None else other
    return decays
