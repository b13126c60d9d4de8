"""The optimizers: one table of what each reads, by which defaults, and where it is; and their settings.

Its arithmetic is `backends/rules.py`'s, its memory too; an adapter runs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError
from .base import Settings, setting
from .compat.optimizer_names import Name
from .when import OURS, When

COURSES = ("constant", "constant_with_warmup")
"""Courses of the rate that have no end, which an average of the weights takes the place of."""


class AlgorithmSettings(Settings):
    """Which optimizer, and its own numbers."""

    GROUP = "algorithm"

    optimizer: Name = setting("adamw", may_change=True, example="prodigy")
    """The optimizer.  prodigy finds the learning rate by itself; adafactor and came need least memory; the docs compare
    them."""
    adam_beta1: float | None = setting(None, ge=0, lt=1, example=0.9)
    """Decay of the first moment, or sgd's momentum; default 0.9. adafactor has a first moment where this is given."""
    adam_beta2: float | None = setting(None, ge=0, lt=1, example=0.999)
    """Decay of the second moment; default 0.999, of lion's moment 0.99."""
    adam_weight_decay: float | None = setting(None, ge=0, example=1e-2)
    """Decoupled weight decay; default 0.01 for adamw, adamw8bit and muon, else 0."""
    adam_weight_decay_text_encoder: float | None = setting(None, ge=0, example=1e-3)
    """Decoupled weight decay of the text encoders; the default is `adam_weight_decay`."""
    adam_epsilon: float | None = setting(None, gt=0, example=1e-8)
    """What is added to the root of the second moment, ε; default 1e-8."""
    use_8bit_adam: bool = setting(False, may_change=True)
    """Keep AdamW's moments in 8 bits (bitsandbytes, on a GPU): a quarter of their memory; as optimizer adamw8bit."""
    prodigy_beta3: float | None = setting(None, ge=0, lt=1, example=0.99)
    """Decay of the sums that Prodigy's step size comes from; the default is the root of `adam_beta2`."""
    prodigy_decouple: bool = setting(True)
    """Prodigy: decay weights beside the gradient, as AdamW does, and not as part of it."""
    prodigy_use_bias_correction: bool = setting(True)
    """Prodigy: correct the moments' bias, as Adam does; the first steps are smaller then."""
    prodigy_safeguard_warmup: bool = setting(True)
    """Prodigy: leave the learning rate out of the estimate's denominator, as a warm-up wants."""
    prodigy_d0: float = setting(1e-6, gt=0)
    """Prodigy's first estimate of the step size."""
    prodigy_d_coef: float = setting(1.0, gt=0, example=2.0)
    """Factor of Prodigy's estimate: the way to make its steps larger or smaller, in 0.5 … 2."""
    adafactor_relative_step: bool = setting(False)
    """Adafactor: take its own learning rate, the smaller of 1/√update and 0.01 (arXiv 1804.04235, section 8)."""
    adafactor_scale_parameter: bool = setting(False)
    """Adafactor: multiply the rate by the root mean square of the weight, or 0.001 where that is less."""
    adafactor_warmup_init: bool = setting(False)
    """Adafactor's own rate begins at 1e-6 times the update in place of 0.01."""
    came_beta3: float = setting(0.9999, ge=0, lt=1)
    """CAME: decay of the instability's mean."""
    muon_momentum: float = setting(0.95, ge=0, lt=1)
    """Muon's momentum; `adam_beta1` and `adam_beta2` are AdamW's, which it leaves biases, norms and tables to."""


@dataclass(frozen=True)
class Optimizer:
    """One optimizer.

    Args:
        reads: the settings that it reads besides the decays of weights -> their defaults, where they depend on it.
        decay: default of `adam_weight_decay`.
        rate: its usual learning rate as a multiple of AdamW's; None where there is no usual one.
        fixed_rate: its usual learning rate, whatever AdamW's.
        backends: which have it.
        instead: what to use on others.
        published: how other programs spell it.
    """

    published: str
    reads: Mapping[str, Any] = field(default_factory=dict)
    decay: float = 0.0
    rate: float | None = 1.0
    fixed_rate: float | None = None
    backends: tuple[str, ...] = OURS
    instead: str = ""


_BETAS = {"adam_beta1": 0.9, "adam_beta2": 0.999}
_ADAM = _BETAS | {"adam_epsilon": 1e-8}
OPTIMIZERS: dict[str, Optimizer] = {
    "adamw": Optimizer("AdamW", _ADAM, decay=1e-2),
    "adamw8bit": Optimizer(
        "AdamW8bit", _ADAM, decay=1e-2, backends=("torch",), instead="adafactor and came need less memory, on all"
    ),
    "adamw_schedulefree": Optimizer("AdamWScheduleFree", _ADAM),
    "adafactor": Optimizer(
        "Adafactor",
        {"adam_beta1": None}
        | dict.fromkeys(("adafactor_relative_step", "adafactor_scale_parameter", "adafactor_warmup_init")),
    ),
    "came": Optimizer("CAME", _BETAS | {"came_beta3": None}),
    "lion": Optimizer("Lion", {"adam_beta1": 0.9, "adam_beta2": 0.99}, rate=0.2),
    "muon": Optimizer("Muon", _ADAM | {"muon_momentum": None}, decay=1e-2),
    "prodigy": Optimizer(
        "Prodigy",
        _ADAM
        | dict.fromkeys(("prodigy_beta3", "prodigy_decouple", "prodigy_use_bias_correction"))
        | dict.fromkeys(("prodigy_safeguard_warmup", "prodigy_d0", "prodigy_d_coef")),
        fixed_rate=1.0,
    ),
    "sgd": Optimizer("SGDNesterov", {"adam_beta1": 0.9}, rate=None),
}
"""By our name.  A default of None is the setting's own."""
NUMBERS = frozenset(AlgorithmSettings.model_fields) - {"optimizer", "use_8bit_adam"}
"""The settings that only say how an optimizer goes about it."""
_READ = [optimizer.reads.keys() for optimizer in OPTIMIZERS.values()]
OF_SOME = frozenset.union(*map(frozenset, _READ)) - frozenset.intersection(*map(frozenset, _READ))
"""Those that some read and others do not."""


def name_of(config: Any) -> str:
    """The optimizer's name, `use_8bit_adam` being one spelling of it."""
    return "adamw8bit" if config.use_8bit_adam and config.optimizer == "adamw" else config.optimizer


def number(config: Any, name: str) -> Any:
    """A setting's value, or its default for the optimizer."""
    given, optimizer = getattr(config, name), OPTIMIZERS[name_of(config)]
    if given is not None:
        return given
    return optimizer.decay if name == "adam_weight_decay" else optimizer.reads[name]


def settled(config: Any) -> Any:
    """The settings with the optimizer's defaults in them, as if they were the settings' own."""
    optimizer, made = OPTIMIZERS[name_of(config)], config.model_copy()
    defaults = {"adam_weight_decay": optimizer.decay} | {n: v for n, v in optimizer.reads.items() if v is not None}
    made.__dict__.update({name: v for name, v in defaults.items() if made.__dict__[name] is None})
    return made


def reading(name: str) -> When:
    """Where the optimizer reads a setting."""
    readers = [one for one, optimizer in OPTIMIZERS.items() if name in optimizer.reads]
    words = f"with optimizer {', '.join(readers)}"
    remedy = f"give optimizer {readers[0]}, or remove it" if len(readers) == 1 else "remove it"
    return When(lambda c, _: name in OPTIMIZERS[name_of(c)].reads, words, remedy)


ADAMW = When(lambda c, _: c.optimizer == "adamw", "with optimizer adamw", "remove it")
RATED = When(
    lambda c, _: c.optimizer != "adafactor" or not c.adafactor_relative_step,
    "without adafactor_relative_step, which has a rate of its own",
)
RATES = When(lambda c, _: c.optimizer != "prodigy", "without optimizer prodigy, which has one rate for all")


def refuse_absent(config: Any, backend: str) -> None:
    """Refuse an optimizer that the backend has not, before anything is loaded.

    Raises:
        ConfigError: naming it, and what to use instead.
    """
    name = name_of(config)
    optimizer = OPTIMIZERS[name]
    if backend in OURS and backend not in optimizer.backends:
        raise ConfigError(f"optimizer: {name} is on {', '.join(optimizer.backends)} only; {optimizer.instead}")


def contradictions(config: Any) -> Iterator[str]:
    """What is wrong with the settings of an optimizer taken together."""
    name = config.optimizer
    if name == "adamw_schedulefree":
        if config.lr_scheduler not in COURSES:
            yield f"lr_scheduler: {config.lr_scheduler} beside optimizer {name}; give {' or '.join(COURSES)}"
        if config.use_ema:
            yield f"use_ema: given together with optimizer {name}, which averages the weights itself; leave it out"
    if name in ("adamw_schedulefree", "prodigy") and config.adam_beta1 == 0:
        yield f"adam_beta1: 0.0 beside optimizer {name}, which needs a first moment; give 0.9"
    if name == "sgd" and config.learning_rate is None:
        yield "learning_rate: optimizer sgd has no usual one; give one, 1e-3 to begin with"
    if name == "adafactor" and config.adafactor_relative_step and config.lr_scheduler != "constant":
        yield f"lr_scheduler: {config.lr_scheduler} beside adafactor_relative_step, which has a course of its own"


def usual_rate(config: Any, adamw: float) -> float:
    """The learning rate where none is given; `adamw` is AdamW's."""
    optimizer = OPTIMIZERS[name_of(config)]
    return optimizer.fixed_rate or adamw * (optimizer.rate or 1.0)


def advice(config: Any, adamw: float) -> str | None:
    """What is said of a learning rate that was given and does not fit the optimizer."""
    rate = config.learning_rate if config.optimizer in ("prodigy", "lion") else None
    if rate is None:
        return None
    if config.optimizer == "prodigy" and rate <= 0.1:
        return (
            f"learning_rate: {rate:g} is low for optimizer prodigy, which multiplies its own estimate by it; 1 is usual"
        )
    if config.optimizer == "lion" and rate >= adamw:
        return (
            f"learning_rate: {rate:g} is high for optimizer lion, each of whose steps is of that size; 3 to 10 times "
            "less than AdamW's is usual, and as many times its weight decay (arXiv 2302.06675, section 5)"
        )
    return None
