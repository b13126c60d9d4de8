"""Settings: each documented, each checked, none ignored."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from dreamcore.config import GenerateConfig, Settings, TrainConfig, load_config
from dreamcore.config.base import kinds_of
from dreamcore.config.names import ALIASES
from dreamcore.errors import ConfigError
from dreamcore.training.settings import settings_to_write

from ..support.settings import GENERATE, TRAIN, train

FIELDS = [(cls, name) for cls in (TrainConfig, GenerateConfig) for name in cls.model_fields]
OTHER: dict[str, dict[str, Any]] = {
    "use_captions": {"use_captions": True},
    "concepts": {
        "concepts": [{"instance_data_dir": "dog", "instance_prompt": "a sks dog"}],
        "instance_data_dir": None,
        "instance_prompt": None,
    },
    "dataset_name": {"dataset_name": "owner/dogs", "instance_data_dir": None},
    "dataset_config_name": {"dataset_config_name": "red", "dataset_name": "owner/dogs", "instance_data_dir": None},
    "alpha_color": {"alpha_color": "#102030"},
    "caption_source": {"caption_source": "files"},
    "missing_caption": {"missing_caption": "error"},
    "height": {"height": 64, "width": 64},
    "width": {"height": 64, "width": 64},
    "with_prior_preservation": {"with_prior_preservation": True, "class_prompt": "a photo of dog"},
    "prompt": {"prompt": "a dog"},
    "prompt_file": {"prompt_file": "prompts.txt", "prompt": None},
    "mixed_precision": {"mixed_precision": "bf16"},
    "prior_generation_precision": {"prior_generation_precision": "bf16"},
    "amp_level": {"amp_level": "O2"},
    "mode": {"mode": "pynative"},
    "jit_level": {"jit_level": "O0"},
    "export_format": {"export_format": "ppdiffusers"},
    "weighting_scheme": {"weighting_scheme": "mode"},
    "lr_scheduler": {"lr_scheduler": "cosine"},
    "optimizer": {"optimizer": "lion"},
    "adafactor_warmup_init": {"adafactor_relative_step": True, "adafactor_warmup_init": True},
    "lora_layers": {"lora_layers": ["to_q"]},
    "scheduler": {"scheduler": "euler"},
    "validation_scheduler": {"validation_scheduler": "euler"},
}
"""What to give so that a setting differs from its default, where its kind alone does not say."""


def another_value(cls: type[Settings], name: str) -> dict[str, Any]:
    """Settings that give `name` a value that is valid and not its default."""
    if name in OTHER:
        return OTHER[name]
    kind = str(cls.model_fields[name].annotation)
    if "bool" in kind:
        return {name: not cls.model_fields[name].default}
    if "int" in kind:
        return {name: 7}
    return {name: 0.25} if "float" in kind else {name: "something"}


@pytest.mark.parametrize(("cls", "name"), FIELDS, ids=lambda v: getattr(v, "__name__", v))
def test_every_setting_is_documented(cls: type[Settings], name: str) -> None:
    text = cls.model_fields[name].description
    assert text
    assert text[0].isupper() or text.startswith(("torch", "`", "γ"))
    assert text.endswith(".")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mixed_precision": "fp8"}, r"^mixed_precision: .*'no', 'fp16' or 'bf16'; received 'fp8'$"),
        ({"jit_level": "O2"}, r"^jit_level: .*'O0' or 'O1'; received 'O2'$"),
        ({"lr_scheduler": "exponential"}, r"lr_scheduler: .*'polynomial'; received 'exponential'"),
        ({"train_batch_size": 0}, r"^train_batch_size: .*greater than or equal to 1; received 0$"),
        ({"train_batch_size": 2.5}, r"^train_batch_size: .*integer.*; received 2.5$"),
        ({"rank": "four"}, r"^rank: .*integer.*; received 'four'$"),
        ({"seed": -1}, r"^seed: .*; received -1$"),
        ({"seed": 2**63}, r"^seed: .*; received 9223372036854775808$"),
        ({"seed": True}, r"^seed: needs a value; received True$"),
        ({"rank": None}, r"^rank: .*; received None$"),
        ({"learning_rate": 0}, r"^learning_rate: .*greater than 0; received 0$"),
        ({"learning_rate": math.inf}, r"^learning_rate: .*finite number; received inf$"),
        ({"noise_offset": math.nan}, r"^noise_offset: .*; received nan$"),
        ({"ema_decay": 1.0}, r"^ema_decay: .*less than 1; received 1.0$"),
        ({"use_lora": "maybe"}, r"^use_lora: .*boolean.*; received 'maybe'$"),
        ({"lora_layers": ["to_q", 3]}, r"^lora_layers\.1: .*string; received 3$"),
        ({"instance_data_dir": " "}, r"^instance_data_dir: is empty \(was a variable not set\?\)"),
        ({"lora_layers": []}, "^lora_layers: is empty"),
        ({"lora_layers": " , "}, "^lora_layers: is empty"),
        (
            {"instance_data_dir": "a" * 300},
            "^instance_data_dir: cannot be looked for: file name too long; received 'aaa",
        ),
        ({"output_dir": "~nobody-here/x"}, "^output_dir: cannot be looked for: could not determine home directory;"),
        ({"instance_data_dir": "a\0b"}, r"^instance_data_dir: holds a zero byte: 'a\\x00b'$"),
        ({"identifier": "\ud800"}, r"^identifier: is no text in UTF-8: '\\ud800'$"),
        ({"rank": list(range(1000))}, r"^rank: .*received \[0, 1, 2, .{,60}\.\.\.\]$"),
        ({"instance_data_dir": None}, r"^instance_data_dir: required, but not given \(or dataset_name\)$"),
        ({"dataset_name": "a/b"}, "^dataset_name: given together with instance_data_dir"),
        ({"dataset_config_name": "red"}, "^dataset_config_name: has no use without dataset_name"),
        ({"alpha_color": "nosuch"}, "^alpha_color: 'nosuch' is no colour"),
        (
            {"rank": 0, "seed": -3},
            r"(?s)rank: .*received 0.*seed: .*received -3|seed: .*received -3.*rank: .*received 0",
        ),
        ({"mode_scale": 2}, "^mode_scale: .*less than or equal to 1.75; received 2$"),
        (
            {"validation_prompt": "a {class}"},
            r"^validation_prompt: 'a \{class\}' asks for the class, and none is given",
        ),
        (
            {"validation_prompt": "{caption}"},
            r"^validation_prompt: \{caption\} in '\{caption\}' would not be filled in",
        ),
        (
            {"with_prior_preservation": True, "class_prompt": "a {class}"},
            r"^class_prompt: 'a \{class\}' asks for the class, and none is given; give class_word \(--class dog\)",
        ),
        (
            {"with_prior_preservation": True, "class_prompt": "a {identifier} {class}", "class_word": "dog"},
            r"^class_prompt: \{identifier\} in 'a \{identifier\} \{class\}' would not be filled in",
        ),
        ({"height": 64}, "^height and width: give both or neither$"),
        ({"height": 64, "width": 64, "resolution": 32}, "^resolution: given together with height and width"),
        ({"with_prior_preservation": True}, "^class_prompt: with_prior_preservation needs one"),
        ({"with_prior_preservation": True, "class_prompt": ""}, "^class_prompt: with_prior_preservation needs one"),
        ({"instance_prompt": None}, "^instance_prompt: required unless use_captions is on"),
        ({"max_train_steps": 5, "num_train_epochs": 1}, "^num_train_epochs: given together with max_train_steps"),
        ({"validation_epochs": 5, "validation_steps": 100}, "^validation_epochs: given together with validation_steps"),
    ],
    ids=str,
)
def test_wrong_values_are_named_with_what_was_received(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train(**values)


def test_a_number_too_long_to_be_written_is_refused() -> None:
    with pytest.raises(ConfigError, match="^seed: .*received a number too long to show$"):
        train(seed=10**5000)


def complaints(values: dict[str, Any], cls: type[Settings] = TrainConfig) -> list[str]:
    """The names that a refusal begins its lines with."""
    with pytest.raises(ConfigError) as caught:
        load_config(cls, None, values)
    return [line.partition(":")[0] for line in str(caught.value).splitlines()]


def test_missing_settings_are_named_together() -> None:
    names = ["pretrained_model_name_or_path", "instance_data_dir", "instance_prompt"]
    for several in (names, names[:2], names[1:], names[2:]):
        assert complaints({name: "something" for name in names if name not in several}) == several
    with pytest.raises(ConfigError, match=r"path: required, but not given; a preset brings one: --config .*sd15-lora"):
        TrainConfig.from_mapping({})


def test_all_that_is_wrong_is_said_at_once() -> None:
    wrong = {"rank": 0, "seed": "x", "frobnicate": 3, "nonsense": 1, "height": 64, "instance_prompt": "a"}
    named = ["frobnicate", "nonsense", "pretrained_model_name_or_path", "rank", "seed", "height and width"]
    assert sorted(complaints(wrong)) == sorted([*named, "instance_data_dir"])
    assert complaints({"use_captions": "maybe", **TRAIN, "instance_prompt": None}) == ["use_captions"]
    assert complaints({**TRAIN, "concepts": [{"weight": 0}]}) == ["concepts.0.weight"]
    assert complaints({"rank": 1}, GenerateConfig) == ["rank", "pretrained_model_name_or_path", "prompt"]


@pytest.mark.parametrize("cls", [TrainConfig, GenerateConfig])
def test_empty_text_is_for_prompts_only(cls: type[Settings]) -> None:
    for name, field in cls.model_fields.items():
        if str in kinds_of(field.annotation) or list[str] in kinds_of(field.annotation):
            base = TRAIN if cls is TrainConfig else GENERATE
            if "prompt" in name and name != "prompt_file":
                cls.from_mapping(base | {name: ""})
            else:
                assert complaints(base | {name: ""}, cls)[0] == name
    one = {"instance_data_dir": "", "instance_prompt": ""}
    assert complaints({"pretrained_model_name_or_path": "m", "concepts": [one]}) == ["concepts.0.instance_data_dir"]


def test_one_meaning_in_files_and_flags() -> None:
    config = train(identifier=123, lora_layers="to_q, to_k,")
    assert (config.identifier, config.lora_layers) == ("123", ["to_q", "to_k"])
    assert train(class_word=1.5).class_word == "1.5"
    assert train(resolution=64, height=64, width=64).height == 64, "all say the same"


def test_defaults_may_stand_beside_concepts() -> None:
    concepts = [{"instance_data_dir": "dog", "instance_prompt": "a sks dog"}]
    TrainConfig.from_mapping({"pretrained_model_name_or_path": "m", "concepts": concepts, "repeats": 1})
    assert complaints({"pretrained_model_name_or_path": "m", "concepts": concepts, "repeats": 2}) == ["repeats"]


def test_prompt_and_prompt_file_exclude_each_other() -> None:
    for values in ({"prompt": None}, {"prompt_file": "file.txt"}):
        with pytest.raises(ConfigError, match=r"^prompt: give either prompt or prompt_file$"):
            GenerateConfig.from_mapping(GENERATE | values)


def test_folders_are_written_by_their_whole_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ("pretrained_vae_model_name_or_path", "instance_data_dir")
    for name in names:
        (tmp_path / name).mkdir()
    assert settings_to_write({name: name for name in names}) == {name: str(tmp_path / name) for name in names}


def test_text_is_read_as_the_kind_that_the_setting_has() -> None:
    """As flags and some files give it; "0" is a seed, and "false" is not true."""
    config = train(seed="0", learning_rate="1e-4", use_lora="false", center_crop="True", max_train_steps="20")
    assert (config.seed, config.learning_rate, config.use_lora, config.center_crop) == (0, 1e-4, False, True)
    assert config.max_train_steps == 20


@pytest.mark.parametrize("alias", ALIASES)
def test_other_trainers_names_mean_ours(alias: str) -> None:
    value = next(iter(another_value(TrainConfig, ALIASES[alias]).values()))
    for spelling in (alias, alias.replace("_", "-")):
        base = {k: v for k, v in TRAIN.items() if k != ALIASES[alias]}
        assert TrainConfig.from_mapping(base | {spelling: value}).given()[ALIASES[alias]] == value


def test_a_setting_given_under_two_names_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^rank: given twice \(also as lora-rank\)"):
        train(**{"rank": 4, "lora-rank": 8})
    assert train(**{"rank": 8, "lora-rank": 8}).rank == 8


def test_a_token_is_no_setting_and_is_not_repeated() -> None:
    config = train(hub_token="hf_secret")
    assert config.token == "hf_secret" and "hub_token" not in config.model_dump() and "hf_secret" not in repr(config)
    assert [note for note in config.notes if "HF_TOKEN" in note] and "hf_secret" not in "".join(config.notes)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("learning-rte", "learning_rate"),
        ("prior_weight_loss", "prior_loss_weight"),
        ("dir_instance_data", "instance_data_dir"),
        ("rnak", "rank"),
        ("use_loras", "use_lora"),
        ("no_use_loar", "use_lora"),
    ],
)
def test_a_misspelt_name_is_told_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown setting; did you mean {near}"):
        train(**{name: 1})
    with pytest.raises(ConfigError, match="unknown setting; --help all lists them"):
        train(zzzz=1)


OTHERS = (
    *("save_every_n_steps", "train_data_dir", "network_weights", "resume", "unet_lr", "sdpa", "steps", "data"),
    *("xformers", "checkpoint_dir", "scale", "image_size", "optim", "betas"),
    *("use_parallel", "max_data_loader_n_workers", "lr", "resol"),
    *("warmup_steps", "weight_decay", "sampling_steps", "plugin", "optimizer", "clip_grad", "version", "image_dir"),
)
"""Names of other trainers for what has another name here, or none."""


@pytest.mark.parametrize("name", OTHERS)
def test_no_hint_points_at_something_else(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        train(**{name: 1})
    assert "did you mean" not in str(caught.value)


def test_what_changes_the_objective_is_off() -> None:
    """ppdiffusers' script adds offset noise of 1.0 unless it is told not to."""
    config = train()
    assert config.noise_offset == 0
    assert config.snr_gamma is None and config.weighting_scheme is None
    assert not config.precondition_outputs and not config.resolution_shift


def test_configurations_cannot_be_changed() -> None:
    with pytest.raises(Exception, match="frozen"):
        train().seed = 1  # type: ignore[misc]
