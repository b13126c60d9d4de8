"""Optimizers' rules over NumPy's arrays: what each backend, and each library, is compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dreamcore.backends.optimizers import Updates, rule_for, weight_decays

from .benches import LR, Values, numbers
from .runs import configuration

OPTIMIZERS: dict[str, list[dict[str, Any]]] = {
    "adamw": [{}],
    "adamw_schedulefree": [{}, {"adam_weight_decay": 0.1, "adam_beta1": 0.8, "warm": 5}],
    "adafactor": [
        {},
        {"adafactor_scale_parameter": True, "adam_weight_decay": 0.1},
        {"adafactor_relative_step": True, "adafactor_scale_parameter": True, "adam_beta1": 0.9},
    ],
    "came": [{}, {"adam_weight_decay": 0.1}],
    "lion": [{"adam_weight_decay": 0.1}],
    "muon": [{}],
    "prodigy": [
        {},
        {"prodigy_use_bias_correction": False, "prodigy_safeguard_warmup": False, "prodigy_d_coef": 0.5}
        | {"adam_weight_decay": 0.1},
        {"prodigy_decouple": False, "adam_weight_decay": 0.1, "prodigy_d_coef": 2.0, "prodigy_beta3": 0.99, "warm": 3},
        {"prodigy_d0": 1e-3},
    ],
    "sgd": [{"adam_weight_decay": 0.1, "learning_rate": 1e-2}],
}
"""By name, settings that make a difference; `warm` are updates over which the rate grows from 0."""
CASES = [({"optimizer": name, **settings}) for name, several in OPTIMIZERS.items() for settings in several]
UPDATES = 20


def rates(case: Mapping[str, Any], update: int) -> dict[str, float]:
    """Of an update, from 0."""
    if case.get("adafactor_relative_step"):
        return dict.fromkeys(LR, min(1e-2, 1 / np.sqrt(update + 1)))
    share = min(1.0, update / case["warm"]) if "warm" in case else 1.0
    return {c: share * (1.0 if case["optimizer"] == "prodigy" else lr) for c, lr in LR.items()}


def gradients(update: int) -> Values:
    """Of a direction that lasts, for Prodigy's estimate to grow, and of noise."""
    return {name: 0.1 * start + 0.05 * numbers(update + 1)[name] for name, start in numbers(0).items()}


def settings_of(case: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in case.items() if name != "warm"} | {"max_grad_norm": 0.0}


class _Weight:
    def __init__(self, name: str, value: np.ndarray):
        self.component, self.name, self.value, self.shape = name.partition(".")[0], name, value, value.shape

    def get(self) -> np.ndarray:
        return self.value

    def put(self, value: np.ndarray) -> None:
        assert value.dtype == np.float32
        self.value = value


class InNumPy:
    """The weights of `benches.numbers(0)` under an optimizer."""

    def __init__(self, case: Mapping[str, Any]):
        config = configuration(Path("model"), Path("photos"), Path("out"), **settings_of(case))
        self.weights = [_Weight(name, array) for name, array in numbers(0).items()]
        self.rule = rule_for(config)
        self._updates: Updates[Any] = Updates(self.rule, np, self.weights, weight_decays(config, list(LR)))

    def step(self, given: Values, lr: Mapping[str, float]) -> None:
        self._updates.step([given[weight.name] for weight in self.weights], lr)

    def values(self) -> Values:
        return {weight.name: weight.value for weight in self.weights}

    def state(self) -> Values:
        """What files hold of the optimizer."""
        pairs = zip(self.weights, self._updates.kept(), strict=True)
        return {f"{weight.name}.{slot}": array for weight, kept in pairs for slot, array in kept.items()}

    @contextmanager
    def judged(self) -> Iterator[None]:
        with self._updates.judged():
            yield
