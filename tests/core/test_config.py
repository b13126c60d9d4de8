"""Settings: each documented, each checked, none ignored."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from dreamcore.choices import settings_to_write
from dreamcore.config import GenerateConfig, Settings, TrainConfig, load_config, preset_names, read_config_file
from dreamcore.config.names import ALIASES, RETIRED
from dreamcore.errors import ConfigError

TRAIN = {
    "pretrained_model_name_or_path": "model",
    "instance_data_dir": "photos",
    "instance_prompt": "a photo of sks dog",
}
GENERATE = {"pretrained_model_name_or_path": "model", "prompt": "a photo of sks dog"}
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
    "lora_layers": {"lora_layers": ["to_q"]},
    "scheduler": {"scheduler": "euler"},
    "validation_scheduler": {"validation_scheduler": "euler"},
}
"""What to give so that a setting differs from its default, where its kind alone does not say."""


def train(**values: Any) -> TrainConfig:
    return TrainConfig.from_mapping(TRAIN | values)


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


@pytest.mark.parametrize(("cls", "name"), FIELDS, ids=lambda v: getattr(v, "__name__", v))
def test_a_setting_that_was_given_and_not_read_is_refused(cls: type[Settings], name: str) -> None:
    base = TRAIN if cls is TrainConfig else GENERATE
    config = cls.from_mapping(base | another_value(cls, name))
    for other in cls.model_fields:
        if other != name:
            getattr(config, other)
    with pytest.raises(ConfigError, match=rf"^{name}=.*nothing in this run uses it \(without reason\)"):
        config.refuse_unread("without reason")
    getattr(config, name)
    config.refuse_unread("without reason")


def test_defaults_need_not_be_read() -> None:
    config = train()
    with pytest.raises(ConfigError, match=r"^pretrained_model_name_or_path='model', instance_data_dir=.*: given"):
        config.refuse_unread("")
    _ = config.instance_data_dir, config.instance_prompt, config.pretrained_model_name_or_path
    config.refuse_unread("")


def test_resolved_holds_what_was_read_and_makes_the_same_configuration() -> None:
    config = train(max_train_steps=3, lora_rank=8, seed=5)
    read = ("pretrained_model_name_or_path", "instance_data_dir", "instance_prompt", "max_train_steps", "seed")
    _ = [getattr(config, name) for name in (*read, "learning_rate", "adam_beta1")]
    assert config.resolved() == TRAIN | {"max_train_steps": 3, "seed": 5, "adam_beta1": 0.9}
    assert config.given() == TRAIN | {"max_train_steps": 3, "rank": 8, "seed": 5}
    again = TrainConfig.from_mapping(json.loads(json.dumps(config.resolved())))
    assert again.seed == 5
    assert again.max_train_steps == 3


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
        ({"instance_data_dir": None}, r"^instance_data_dir: required, but not given \(or dataset_name\)$"),
        ({"dataset_name": "a/b"}, "^dataset_name: given together with instance_data_dir"),
        ({"dataset_config_name": "red"}, "^dataset_config_name: has no use without dataset_name"),
        ({"alpha_color": "nosuch"}, "^alpha_color: 'nosuch' is no colour"),
        (
            {"rank": 0, "seed": -3},
            r"(?s)rank: .*received 0.*seed: .*received -3|seed: .*received -3.*rank: .*received 0",
        ),
        ({"mode_scale": 2}, "^mode_scale: .*less than or equal to 1.75; received 2$"),
        ({"validation_prompt": "a {class}"}, r"^validation_prompt: \{class\} in 'a \{class\}' would not be filled in"),
        (
            {"with_prior_preservation": True, "class_prompt": "a {class}"},
            r"^class_prompt: \{class\} in 'a \{class\}' would not be filled in",
        ),
        ({"height": 64}, "^height and width: give both or neither$"),
        ({"height": 64, "width": 64, "resolution": 64}, "^resolution: given together with height and width"),
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


def test_missing_settings_are_named() -> None:
    given: dict[str, str] = {}
    for name in ("pretrained_model_name_or_path", "instance_data_dir", "instance_prompt"):
        with pytest.raises(ConfigError, match=f"^{name}: required"):
            TrainConfig.from_mapping(given)
        given[name] = "something"
    TrainConfig.from_mapping(given)


def test_prompt_and_prompt_file_exclude_each_other() -> None:
    for values in ({"prompt": None}, {"prompt_file": "file.txt"}):
        with pytest.raises(ConfigError, match=r"^prompt: give either prompt or prompt_file$"):
            GenerateConfig.from_mapping(GENERATE | values)


def test_folders_are_written_by_their_whole_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = ("pretrained_vae_model_name_or_path", "instance_data_dir")
    for name in names:
        (tmp_path / name).mkdir()
    config = train(**{name: name for name in names})
    _ = [getattr(config, name) for name in names]
    assert settings_to_write(config) == {name: str(tmp_path / name) for name in names}


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
        train(**{"rank": 4, "lora-rank": 4})


@pytest.mark.parametrize("name", RETIRED)
def test_names_without_a_counterpart_say_why(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        train(**{name: "hf_secret"})
    assert RETIRED[name] in str(caught.value)
    assert "hf_secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "near"),
    [("learning-rte", "learning_rate"), ("prior_weight", "prior_loss_weight"), ("max_steps", "max_train_steps")],
)
def test_a_misspelt_name_is_told_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"unknown setting; did you mean {near}"):
        train(**{name: 1})
    with pytest.raises(ConfigError, match="unknown setting; --help lists them all"):
        train(zzzz=1)


def test_what_changes_the_objective_is_off() -> None:
    """ppdiffusers' script adds offset noise of 1.0 unless it is told not to."""
    config = train()
    assert config.noise_offset == 0
    assert config.snr_gamma is None and config.weighting_scheme is None
    assert not config.precondition_outputs and not config.resolution_shift


def test_configurations_cannot_be_changed() -> None:
    with pytest.raises(Exception, match="frozen"):
        train().seed = 1  # type: ignore[misc]


FILES = {
    "a.toml": "seed = 3\nlearning-rate = 1e-4\nuse_lora = true\nlora_layers = ['to_q', 'to_v']\n",
    "a.yaml": "seed: 3\nlearning-rate: 1e-4\nuse_lora: true\nlora_layers: [to_q, to_v]\n",
    "a.yml": "# a comment\n{seed: 3, learning-rate: 1.0e-4, use_lora: yes, lora_layers: [to_q, to_v]}\n",
    "a.JSON": '{"seed": 3, "learning-rate": 1e-4, "use_lora": true, "lora_layers": ["to_q", "to_v"]}',
}


@pytest.mark.parametrize("name", FILES)
def test_files_are_read_and_flags_win(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_text(FILES[name], "utf-8")
    config = load_config(TrainConfig, file, TRAIN | {"lora-rank": "16", "seed": 9})
    assert (config.seed, config.learning_rate, config.use_lora, config.rank) == (9, 1e-4, True, 16)
    assert config.lora_layers == ["to_q", "to_v"]
    assert "adam_beta1" not in config.given()


def test_a_flag_wins_over_its_alias_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("lora_rank = 8\n", "utf-8")
    assert load_config(TrainConfig, tmp_path / "a.toml", TRAIN | {"rank": 2}).rank == 2


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.toml", "seed = \n", r"a\.toml: .*line 1"),
        ("a.yaml", "seed: [\n", r"(?s)a\.yaml: .*line"),
        ("a.json", "{", r"a\.json: .*line 1"),
        ("a.json", "[1]", r"a\.json: expected settings as key: value, found list"),
        ("a.yaml", "", r"a\.yaml: expected settings as key: value, found NoneType"),
        ("a.ini", "", r"a\.ini: expected a file ending in \.toml, \.yaml, \.yml, \.json"),
        ("a.toml", "learning_rte = 1\n", r"a\.toml: learning_rte: .*did you mean learning_rate"),
        ("a.yaml", "1: 2\n", r"a\.yaml: 1 is no setting's name"),
        ("a.toml", "instance_prompt = 'caf\xe9'\n", r"a\.toml: is no text in UTF-8"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text, "latin-1")
    with pytest.raises(ConfigError, match=message):
        load_config(TrainConfig, tmp_path / name, TRAIN)


def test_missing_files_presets_and_folders(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: No such file"):
        read_config_file(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match=r"'sd15-lra' is neither a file nor a preset; presets: .*sd15-lora"):
        read_config_file("sd15-lra")
    (tmp_path / "a.toml").mkdir()
    with pytest.raises(ConfigError, match=r"a\.toml: Is a directory"):
        read_config_file(tmp_path / "a.toml")


@pytest.mark.parametrize("preset", preset_names())
def test_presets_are_valid(preset: str) -> None:
    values = read_config_file(preset)
    needed = {k: v for k, v in {**TRAIN, "class_prompt": "a photo of dog"}.items() if k not in values}
    config = load_config(TrainConfig, preset, needed)
    assert config.given().keys() == {*values, *needed}


def test_the_real_presets_exist() -> None:
    assert {"sd15-lora", "sd15-full", "sd15-face", "sd21-full"} <= set(preset_names())


def test_a_preset_only_suggests(tmp_path: Path) -> None:
    """What a preset sets and flags make pointless is no error: the user did not ask for it."""
    config = load_config(
        TrainConfig, "sd15-lora", {"use_lora": False, "instance_data_dir": "d", "instance_prompt": "p"}
    )
    assert "rank" in config.suggested
    for name in TrainConfig.model_fields:
        if name != "rank":
            getattr(config, name)
    config.refuse_unread("here")
    written = load_config(TrainConfig, "sd15-lora", {"rank": 2, "instance_data_dir": "d", "instance_prompt": "p"})
    assert "rank" not in written.suggested


@pytest.mark.parametrize(
    ("preset", "given", "gone"),
    [
        ("sd15-lora", {"num_train_epochs": 2}, "max_train_steps"),
        ("flux-lora", {"height": 64, "width": 32}, "resolution"),
    ],
)
def test_a_setting_of_the_users_takes_the_place_of_the_presets(preset: str, given: dict[str, Any], gone: str) -> None:
    assert gone in read_config_file(preset)
    config = load_config(TrainConfig, preset, {"instance_data_dir": "d", "instance_prompt": "p", **given})
    assert config.given().items() >= given.items()
    assert gone not in config.given()
    with pytest.raises(ConfigError, match="give one or the other"):
        load_config(TrainConfig, preset, {"instance_data_dir": "d", "instance_prompt": "p", **given, gone: 64})


def test_yaml_says_no_as_a_word(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("mixed_precision: no\nuse_lora: true\nlearning_rate: 1e-4\n")
    assert read_config_file(file) == {"mixed_precision": "no", "use_lora": True, "learning_rate": 1e-4}
