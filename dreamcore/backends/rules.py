"""What each optimizer does to a weight: every formula once, for arrays of any library.

A rule is told the library's own module `xp`, numpy, torch, paddle or mindspore's ops, and calls only what all of them
have under one name with the same arguments: sqrt, sign, abs, sum, mean, maximum, minimum, where, zeros_like.  The rest
is +, −, ×, /, ** and @.  No rule waits for a device: what weights share is kept there too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping
from typing import Any

from ..config import TrainConfig
from ..config.optimizers import number

Array = Any
Shape = tuple[int, ...]
Own = MutableMapping[str, Array]
"""What an optimizer keeps of one weight, by the name that files have after the weight's."""


class Rule:
    """One optimizer's arithmetic.

    An update is `begin`, `observe` for each weight where the rule `observes`, `settle`, and `step` for each weight.
    """

    elementwise = True
    """Whether a weight's shape does not matter: weights may be taken together as a vector."""
    copies: frozenset[str] = frozenset()
    """What of `slots` begins as the weight and not as zeros."""
    averages = False
    """Whether weights are judged and used that are not those which train (`average`)."""
    observes = False
    """Whether an update needs all gradients first.  It is asked, for weights may be costly to gather."""

    def __init__(self, config: TrainConfig):
        self.steps = 0
        """Updates that were applied."""
        self.shared: dict[str, Array] = {}
        """Numbers that all weights share: of Python, or [] on the device."""

    def slots(self, shape: Shape) -> dict[str, Shape]:
        """What is kept of a weight of this shape."""
        raise NotImplementedError

    def first(self, xp: Any, weight: Array) -> dict[str, Array]:
        """`slots` before the first update."""
        return {
            name: weight * 1 if name in self.copies else _zeros(xp, weight, shape)
            for name, shape in self.slots(tuple(weight.shape)).items()
        }

    def of(self, name: str, shape: Shape) -> Rule:
        """The rule of one weight."""
        return self

    def begin(self, lr: Mapping[str, float]) -> None:
        """An update begins, with this learning rate of each component."""
        self.steps += 1

    def observe(self, xp: Any, weight: Array, gradient: Array, own: Own, lr: float, decay: float) -> None:
        """Take in a gradient, where the rule `observes`."""

    def settle(self, xp: Any) -> None:
        """All gradients are taken in."""

    def step(self, xp: Any, weight: Array, gradient: Array, own: Own, lr: float, decay: float) -> Array:
        """The weight after the update; `own` is changed."""
        raise NotImplementedError

    def average(self, weight: Array, own: Own) -> Array:
        """The weight as it is judged and used, where that is not the one that trains."""
        return weight

    def rate_factor(self) -> Array | None:
        """What the optimizer multiplies the learning rate by, [] on the device, where it finds that itself."""
        return None


def _zeros(xp: Any, weight: Array, shape: Shape) -> Array:
    """Zeros of a weight's shape, or of that without its last dimension or the one before."""
    if shape == tuple(weight.shape):
        return xp.zeros_like(weight)
    return xp.zeros_like(weight[..., 0] if shape == tuple(weight.shape)[:-1] else weight[..., 0, :])


class AdamW(Rule):
    """Decoupled decay (arXiv 1711.05101, algorithm 2), with PyTorch's order of operations."""

    def __init__(self, config: TrainConfig):
        super().__init__(config)
        self.betas = number(config, "adam_beta1"), number(config, "adam_beta2")
        self.epsilon = number(config, "adam_epsilon")

    def slots(self, shape: Shape) -> dict[str, Shape]:
        return {"exp_avg": shape, "exp_avg_sq": shape}

    def step(self, xp: Any, weight: Array, gradient: Array, own: Own, lr: float, decay: float) -> Array:
        beta1, beta2 = self.betas
        own["exp_avg"] = own["exp_avg"] * beta1 + gradient * (1 - beta1)
        own["exp_avg_sq"] = own["exp_avg_sq"] * beta2 + gradient * gradient * (1 - beta2)
        root = xp.sqrt(own["exp_avg_sq"]) / math.sqrt(1 - beta2**self.steps)
        change = own["exp_avg"] / (root + self.epsilon) * (lr / (1 - beta1**self.steps))
        return weight * (1 - lr * decay) - change


class SGD(Rule):
    """Nesterov's momentum (Sutskever et al. 2013, section 2) as PyTorch has it: decay is part of the gradient."""

    def __init__(self, config: TrainConfig):
        super().__init__(config)
        self.momentum = number(config, "adam_beta1")

    def slots(self, shape: Shape) -> dict[str, Shape]:
        return {"momentum_buffer": shape}

    def step(self, xp: Any, weight: Array, gradient: Array, own: Own, lr: float, decay: float) -> Array:
        if decay:
            gradient = gradient + weight * decay
        own["momentum_buffer"] = own["momentum_buffer"] * self.momentum + gradient
        return weight - (gradient + own["momentum_buffer"] * self.momentum) * lr


class Lion(Rule):
    """The sign of an interpolated momentum (arXiv 2302.06675, algorithm 2)."""

    def __init__(self, config: TrainConfig):
        super().__init__(config)
        self.betas = number(config, "adam_beta1"), number(config, "adam_beta2")

    def slots(self, shape: Shape) -> dict[str, Shape]:
        return {"exp_avg": shape}

    def step(self, xp: Any, weight: Array, gradient: Array, own: Own, lr: float, decay: float) -> Array:
        beta1, beta2 = self.betas
        direction = xp.sign(own["exp_avg"] * beta1 + gradient * (1 - beta1))
        own["exp_avg"] = own["exp_avg"] * beta2 + gradient * (1 - beta2)
        return weight * (1 - lr * decay) - direction * lr


class Prodigy(Rule):
    """Adam whose step size d is estimated from how far the weights have come (arXiv 2306.06101, algorithm 4), as
    prodigyopt 1.1 has it: one d for all weights, which only grows."""

    copies = frozenset({"p0"})
    observes = True

    def __init__(self, config: TrainConfig):
        super().__init__(config)
        self.betas = number(config, "adam_beta1"), number(config, "adam_beta2")
        beta3 = number(config, "prodigy_beta3")
        self.beta3 = math.sqrt(self.betas[1]) if beta3 is None else beta3
        self.epsilon, self.first_d = number(config, "adam_epsilon"), config.prodigy_d0
        self.factor, self.decouples = config.prodigy_d_coef, config.prodigy_decouple
        self.corrects, self.safeguards = config.prodigy_use_bias_correction, config.prodigy_safeguard_warmup
        self.shared = {"d": self.first_d, "d_numerator": 0.0}
        self._rate = 0.0
        self._sums: tuple[Array, Array] | None = None
        self._step_size: Array = 0.0

    def slots(self, shape: Shape) -> dict[str, Shape]:
        return dict.fromkeys(("exp_avg", "exp_avg_sq", "s", "p0"), shape)

    def begin(self, lr: Mapping[str, float]) -> None:
        self._rate = max(lr.values())  # they are all the same
        self._sums = None
        if self._rate > 0:
            self.steps += 1

    def observe(self, xp: Any, weight: Array, gradient: Array, own: Own, lr: float, decay: float) -> None:
        if self._sums is None:
            nothing = xp.zeros_like(xp.sum(gradient))
            self.shared = {name: nothing + value for name, value in self.shared.items()}
            self._sums = self.shared["d_numerator"] * self.beta3, nothing
        if self._rate == 0:
            return
        beta1, beta2 = self.betas
        bias = math.sqrt(1 - beta2**self.steps) / (1 - beta1**self.steps) if self.corrects else 1.0
        d, (numerator, denominator) = self.shared["d"], self._sums
        self._step_size = d * (self._rate * bias)
        if not self.decouples:
            gradient = gradient + weight * decay
        relative = d / self.first_d
        numerator = numerator + relative * self._step_size * xp.sum(gradient * (own["p0"] - weight))
        own["exp_avg"] = own["exp_avg"] * beta1 + gradient * (d * (1 - beta1))
        own["exp_avg_sq"] = own["exp_avg_sq"] * beta2 + gradient * gradient * (d * d * (1 - beta2))
        own["s"] = own["s"] * self.beta3 + gradient * (relative * (d if self.safeguards else self._step_size))
        self._sums = numerator, denominator + xp.sum(xp.abs(own["s"]))

    def settle(self, xp: Any) -> None:
        if self._rate == 0 or self._sums is None:
            return
        numerator, denominator = self._sums
        d, some = self.shared["d"], denominator > 0  # without a gradient there is no estimate
        estimate = self.factor * numerator / xp.where(some, denominator, xp.zeros_like(denominator) + 1)
        self.shared = {"d": xp.maximum(d, estimate), "d_numerator": numerator}

    def step(self, xp: Any, weight: Array, gradient: Array, own: Own, lr: float, decay: float) -> Array:
        if self._rate == 0:
            return weight
        change = own["exp_avg"] / (xp.sqrt(own["exp_avg_sq"]) + self.shared["d"] * self.epsilon)
        shrunk = weight - weight * (self._step_size * decay) if self.decouples and decay else weight
        return shrunk - change * self._step_size

    def rate_factor(self) -> Array | None:
        return self.shared["d"]


class ScheduleFree(Rule):
    """AdamW whose weights x are an average of its iterates z, and whose gradients are taken between them at y (arXiv
    2405.15682, equations 2 to 5), as schedulefree 1.4 has it: a rate weighs in the average by its square."""

    copies = frozenset({"z"})
    averages = True

    def __init__(self, config: TrainConfig):
        super().__init__(config)
        self.betas = number(config, "adam_beta1"), number(config, "adam_beta2")
        self.epsilon = number(config, "adam_epsilon")
        self.shared = {"lr_max": 0.0, "weight_sum": 0.0}
        self._share = 0.0

    def slots(self, shape: Shape) -> dict[str, Shape]:
        return {"exp_avg_sq": shape, "z": shape}

    def begin(self, lr: Mapping[str, float]) -> None:
        self.steps += 1
        highest = max(
            *lr.values(), self.shared["lr_max"]
        )  # components' rates keep their ratio, and so shares are alike
        total = self.shared["weight_sum"] + highest**2
        self._share = highest**2 / total if total else 0.0
        self.shared = {"lr_max": highest, "weight_sum": total}

    def step(self, xp: Any, weight: Array, gradient: Array, own: Own, lr: float, decay: float) -> Array:
        (beta1, beta2), share = self.betas, self._share
        own["exp_avg_sq"] = own["exp_avg_sq"] * beta2 + gradient * gradient * (1 - beta2)
        change = gradient / (xp.sqrt(own["exp_avg_sq"] / (1 - beta2**self.steps)) + self.epsilon)
        if decay:
            change = change + weight * decay
        moved = weight + (own["z"] - weight) * share + change * (lr * (beta1 * (1 - share) - 1))
        own["z"] = own["z"] - change * lr
        return moved

    def average(self, weight: Array, own: Own) -> Array:
        return weight + (own["z"] - weight) * (1 - 1 / self.betas[0])
