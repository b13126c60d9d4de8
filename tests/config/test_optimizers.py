"""Names of optimizers, their own defaults, and what is said of settings that do not fit them."""

from __future__ import annotations

from typing import Any

import pytest

from dreamcore.config import TrainConfig
from dreamcore.config.compat.optimizer_names import read_optimizer
from dreamcore.config.optimizers import advice, number, refuse_absent, settled
from dreamcore.errors import ConfigError
from dreamcore.training.learning_rate import LearningRates

from .test_kohya import config_of

PLAIN: dict[str, Any] = {"pretrained_model_name_or_path": "m", "instance_data_dir": "d", "instance_prompt": "p"}


def given(**settings: Any) -> TrainConfig:
    return TrainConfig.from_mapping(PLAIN | settings)


@pytest.mark.parametrize(
    ("spelt", "ours"),
    [
        ("AdamW", "adamw"),
        ("torch.optim.AdamW", "adamw"),
        ("bitsandbytes.optim.AdamW8bit", "adamw8bit"),
        ("AdaFactor", "adafactor"),
        ("Lion", "lion"),
        ("pytorch_optimizer.CAME", "came"),
        ("Prodigy", "prodigy"),
        ("AdamWScheduleFree", "adamw_schedulefree"),
        ("adamw_schedulefree", "adamw_schedulefree"),
        ("Muon", "muon"),
        ("SGDNesterov", "sgd"),
    ],
)
def test_spellings(spelt: str, ours: str) -> None:
    assert read_optimizer(spelt) == {"optimizer": ours}
    rate = {"learning_rate": 1e-3} if ours == "sgd" else {}
    assert given(optimizer=spelt, **rate).optimizer == ours


@pytest.mark.parametrize(("spelt", "hint"), [("DAdaptAdam", "are$"), ("PagedAdamW8bit", "give adamw8bit, whose")])
def test_what_is_not_here(spelt: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=f"optimizer: {spelt}: not among the optimizers here; adamw, .*{hint}"):
        given(optimizer=spelt)


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, {"adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8, "adam_weight_decay": 0.01}),
        ({"optimizer": "lion"}, {"adam_beta2": 0.99, "adam_weight_decay": 0.0}),
        ({"optimizer": "lion", "adam_beta2": 0.98}, {"adam_beta2": 0.98}),
        ({"optimizer": "adafactor"}, {"adam_beta1": None}),
    ],
)
def test_defaults_are_the_optimizers(settings: dict[str, Any], wanted: dict[str, Any]) -> None:
    config = given(**settings)
    assert {name: number(config, name) for name in wanted} == wanted
    assert {name: getattr(settled(config), name) for name in wanted} == wanted
    assert settled(config).given() == config.given(), "nobody gave them"


@pytest.mark.parametrize(
    ("settings", "rate"),
    [
        ({}, 5e-6),
        ({"use_lora": True}, 1e-4),
        ({"optimizer": "lion"}, 1e-6),
        ({"optimizer": "prodigy", "use_lora": True}, 1.0),
        ({"optimizer": "prodigy", "learning_rate": 0.5}, 0.5),
    ],
)
def test_usual_rates(settings: dict[str, Any], rate: float) -> None:
    assert LearningRates.from_config(given(**settings), ["unet"], 1, 10).at(0) == {"unet": pytest.approx(rate)}


def test_prodigy_has_one_rate() -> None:
    settings = {"optimizer": "prodigy", "train_text_encoder": True, "text_encoder_lr": 5e-6}
    rates = LearningRates.from_config(given(**settings), ["unet", "text_encoder"], 1, 10)
    assert rates.at(3) == {"unet": 1.0, "text_encoder": 1.0}


@pytest.mark.parametrize(("warm", "wanted"), [(False, [0.01, 0.01, 0.005]), (True, [1e-6, 1e-4, 0.005])])
def test_adafactors_own_rate(warm: bool, wanted: list[float]) -> None:
    settings = {"adafactor_relative_step": True, "adafactor_warmup_init": warm}
    rates = LearningRates.from_config(given(optimizer="adafactor", **settings), ["unet"], 1, 50_000)
    assert [rates.at(update)["unet"] for update in (0, 99, 39_999)] == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"optimizer": "prodigy", "learning_rate": 1e-4}, "learning_rate: 0.0001 is low for optimizer prodigy"),
        ({"optimizer": "prodigy", "learning_rate": 1.0}, None),
        ({"optimizer": "lion", "learning_rate": 5e-6}, "learning_rate: 5e-06 is high for optimizer lion"),
        ({"optimizer": "lion", "learning_rate": 1e-6}, None),
        ({"learning_rate": 1e-2}, None),
    ],
)
def test_advice(settings: dict[str, Any], words: str | None) -> None:
    said = advice(given(**settings), 5e-6)
    assert said is None if words is None else said is not None and said.startswith(words)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"optimizer": "adamw_schedulefree", "lr_scheduler": "cosine"}, "lr_scheduler: cosine beside"),
        ({"optimizer": "adamw_schedulefree", "use_ema": True}, "use_ema: given together with optimizer"),
        ({"optimizer": "adamw_schedulefree", "adam_beta1": 0.0}, "adam_beta1: 0.0 beside"),
        ({"optimizer": "prodigy", "adam_beta1": 0.0}, "adam_beta1: 0.0 beside"),
        ({"optimizer": "sgd"}, "learning_rate: optimizer sgd has no usual one"),
        ({"optimizer": "adafactor", "adafactor_relative_step": True, "lr_scheduler": "linear"}, "lr_scheduler: linear"),
    ],
)
def test_contradictions(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        given(**settings)


@pytest.mark.parametrize("settings", [{"optimizer": "adamw8bit"}, {"use_8bit_adam": True}])
def test_what_a_backend_has_not(settings: dict[str, Any]) -> None:
    refuse_absent(given(**settings), "torch")
    with pytest.raises(ConfigError, match="optimizer: adamw8bit is on torch only; adafactor and came need less memory"):
        refuse_absent(given(**settings), "paddle")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (
            "--optimizer_type=Prodigy --optimizer_args decouple=True weight_decay=0.01 d_coef=2 "
            "use_bias_correction=True",
            {
                "prodigy_decouple": True,
                "adam_weight_decay": 0.01,
                "prodigy_d_coef": 2.0,
                "prodigy_safeguard_warmup": False,
            }
            | {"prodigy_use_bias_correction": True},
        ),
        (
            "--optimizer_type=adafactor --optimizer_args scale_parameter=False relative_step=False warmup_init=False",
            {"adafactor_relative_step": False, "adafactor_scale_parameter": False, "learning_rate": 2e-6},
        ),
        (
            "--optimizer_type=Adafactor --learning_rate=1e-5",
            {"adafactor_relative_step": True, "adafactor_scale_parameter": True},
        ),
        (
            "--optimizer_type=pytorch_optimizer.CAME --optimizer_args betas=0.9,0.99,0.999",
            {"optimizer": "came", "adam_beta2": 0.99, "came_beta3": 0.999},
        ),
        ("--optimizer_type=Lion --optimizer_args betas=0.95,0.98", {"adam_beta1": 0.95, "adam_beta2": 0.98}),
    ],
)
def test_arguments_of_kohyas(words: str, wanted: dict[str, Any]) -> None:
    config = config_of(*words.split())
    assert {name: getattr(config, name) for name in wanted} == wanted
    if config.adafactor_relative_step:
        assert "learning_rate" in config.suggested, "what was given means nothing there"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--optimizer_type=Prodigy --optimizer_args slice_p=11", "slice_p: prodigy here takes beta3, .*; leave it out"),
        ("--optimizer_type=CAME --optimizer_args betas=0.9,0.99", "betas: expected 3 numbers"),
        ("--optimizer_args decouple=True", "decouple: adamw here takes weight_decay, betas, eps"),
    ],
)
def test_arguments_that_are_not_here(words: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config_of(*words.split())
