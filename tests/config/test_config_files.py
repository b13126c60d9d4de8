"""Configuration files and presets: what they say is what a run does, and flags win."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dreamcore.config import TrainConfig, load_config, preset_names, read_config_file
from dreamcore.config.files import parse
from dreamcore.config.used import Context, refuse_idle
from dreamcore.errors import ConfigError

from ..support.settings import TRAIN, train

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
    theirs = values.keys() - {"instance_prompt"}  # a template, which nothing fills here
    needed = {k: v for k, v in {**TRAIN, "class_prompt": "a photo of dog"}.items() if k not in theirs}
    config = load_config(TrainConfig, preset, needed)
    assert config.given().keys() >= {*values.keys() - {"instance_prompt"}, *needed}


def test_the_real_presets_exist() -> None:
    assert {"sd15-lora", "sd15-full", "sd15-face", "sd21-full"} <= set(preset_names())


def test_a_preset_only_suggests(tmp_path: Path) -> None:
    """What a preset sets and flags make pointless is no error: the user did not ask for it."""
    config = load_config(
        TrainConfig, "sd15-lora", {"use_lora": False, "instance_data_dir": "d", "instance_prompt": "p"}
    )
    assert "rank" in config.suggested
    refuse_idle(config, Context())
    written = load_config(TrainConfig, "sd15-lora", {"rank": 2, "instance_data_dir": "d", "instance_prompt": "p"})
    assert "rank" not in written.suggested
    with pytest.raises(ConfigError, match="^rank=2: acts only with use_lora"):
        given = {"use_lora": False, "rank": 2, "instance_data_dir": "d", "instance_prompt": "p"}
        refuse_idle(load_config(TrainConfig, "sd15-lora", given), Context())


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


YAML = """
mixed_precision: no
use_lora: true
learning_rate: 1e-4
seed: 010
rank: 1:30
class_word: 0o17
keep_tags: 0o17
cache_memory_gb: .5
instance_prompt: 2026-11-28
validation_prompt: ~
identifier: 1_000
lora_layers:
"""


def test_yaml_is_read_as_its_version_1_2_says() -> None:
    """To version 1.1, `no` is false, 010 is 8, 1:30 is 90, 2026-11-28 a date and 1_000 a number."""
    values = parse(YAML, ".yaml", "a.yaml")
    assert values == {
        "mixed_precision": "no",
        "use_lora": True,
        "learning_rate": 1e-4,
        "seed": 10,
        "rank": "1:30",
        "class_word": 15,
        "keep_tags": 15,
        "cache_memory_gb": 0.5,
        "instance_prompt": "2026-11-28",
        "validation_prompt": None,
        "identifier": "1_000",
        "lora_layers": None,
    }
    config = train(**(values | {"rank": 8}))
    assert (config.seed, config.class_word, config.keep_tags) == (10, "0o17", 15), "a word is what was written"
    with pytest.raises(ConfigError, match=r"^rank: .*; received '1:30'$"):
        train(**values)


@pytest.mark.parametrize(
    ("suffix", "text", "name"),
    [
        (".yaml", "rank: 4\nseed: 1\nrank: 8\n", "rank"),
        (".yaml", "concepts:\n- {weight: 1, repeats: 2, weight: 1}\n", "weight"),
        (".json", '{"rank": 4, "seed": 1, "rank": 4}', "rank"),
        (".json", '{"concepts": [{"weight": 1, "weight": 2}]}', "weight"),
    ],
)
def test_a_name_that_a_file_gives_twice_is_refused(suffix: str, text: str, name: str) -> None:
    with pytest.raises(ConfigError, match=f"config: here: .*{name}: given twice; give it once"):
        parse(text, suffix, "here")
    with pytest.raises(ConfigError, match="config: here: Cannot overwrite a value"):
        parse("rank = 4\nrank = 8\n", ".toml", "here")


def test_yaml_merges_what_concepts_share() -> None:
    text = "concepts:\n- &one {weight: 2, repeats: 3}\n- &two {<<: *one, repeats: 1}\n- {<<: *two, weight: 1}\n"
    first, second, third = parse(text, ".yaml", "here")["concepts"]
    assert (first, second) == ({"weight": 2, "repeats": 3}, {"weight": 2, "repeats": 1})
    assert third == {"weight": 1, "repeats": 1}


@pytest.mark.parametrize("name", FILES)
def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(FILES[name], "utf-8-sig")
    assert read_config_file(tmp_path / name)["seed"] == 3


def test_an_empty_name_of_a_file_is_refused() -> None:
    with pytest.raises(ConfigError, match="config: '' is neither a file nor a preset"):
        load_config(TrainConfig, "", TRAIN)
