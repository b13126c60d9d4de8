"""A configuration file that builds on a preset, or on a file beside it: flags, file, what it builds on, defaults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dreamcore.config import GenerateConfig, TrainConfig, load_config, read_config_file
from dreamcore.config.used import Context, refuse_idle
from dreamcore.errors import ConfigError

YOURS = {"instance_data_dir": "photos", "instance_prompt": "a photo of sks dog"}


def loaded(file: Path, **flags: Any) -> TrainConfig:
    return load_config(TrainConfig, file, {**YOURS, **flags})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.toml", 'preset = "sd15-lora"\nrank = 32\nseed = 5\n'),
        ("a.yaml", "preset: sd15-lora\nrank: 32\nseed: 5\n"),
        ("a.json", '{"preset": "sd15-lora", "lora-rank": 32, "seed": 5}'),
    ],
)
def test_the_first_that_gives_a_setting_wins(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    preset = read_config_file("sd15-lora")
    config = loaded(tmp_path / name, seed=9)
    assert (config.seed, config.rank, config.learning_rate) == (9, 32, preset["learning_rate"])
    assert config.lr_scheduler == "constant"
    assert config.given() == {**preset, **YOURS, "rank": 32, "seed": 9}
    assert config.suggested == preset.keys() - {"rank", "instance_prompt"}
    assert config.file == tmp_path / name


def test_what_the_preset_says_gives_way(tmp_path: Path) -> None:
    """As it does to flags: no setting of it is refused, or contradicts, that the file makes pointless."""
    file = tmp_path / "a.toml"
    file.write_text('preset = "sd15-lora"\nuse_lora = false\nnum_train_epochs = 3\n')
    config = loaded(file)
    assert config.max_train_steps is None
    refuse_idle(config, Context())
    file.write_text('preset = "sd15-lora"\nuse_lora = false\nrank = 3\n')
    with pytest.raises(ConfigError, match="rank=3: acts only with use_lora"):
        refuse_idle(loaded(file), Context())


def test_a_file_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    (folder / "house.yaml").write_text("preset: sdxl-lora\nseed: 3\nmax_train_steps: 70\nvalidation_prompt: none\n")
    (folder / "mine.toml").write_text('preset = "house.yaml"\nnum_train_epochs = 2\n')
    monkeypatch.chdir(tmp_path)
    config = loaded(Path("runs/mine.toml"), rank=7)
    assert (config.seed, config.rank, config.num_train_epochs, config.max_train_steps) == (3, 7, 2, None)
    assert config.pretrained_model_name_or_path == read_config_file("sdxl-lora")["pretrained_model_name_or_path"]
    assert "seed" not in config.suggested
    assert "learning_rate" in config.suggested


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a.toml": 'preset = "sd15-lra"'}, "a.toml: preset: 'sd15-lra': expected a preset (chroma-lora, "),
        ({"a.toml": 'preset = "sd15-lra"'}, "or a file beside it; did you mean sd15-lora?"),
        ({"a.toml": "preset = 5"}, "a.toml: preset: 5: expected a preset ("),
        ({"a.toml": 'preset = "../b.toml"', "b.toml": ""}, "preset: '../b.toml': expected a preset ("),
        ({"a.toml": 'preset = "b.toml"'}, "preset: 'b.toml': expected a preset ("),
        ({"a.toml": 'preset = "a.toml"'}, "a circle; let one of them build on a preset, or on nothing"),
        ({"a.toml": 'preset = "b.json"', "b.json": '{"preset": "a.toml"}'}, "b.json, which builds on "),
        ({"a.toml": 'preset = "b.toml"', "b.toml": "rnk = 3"}, "b.toml: rnk: unknown setting"),
        ({"a.toml": 'preset = "b.toml"', "b.toml": "rank = "}, "b.toml: "),
    ],
)
def test_what_is_wrong_is_said(files: dict[str, str], said: str, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path / "a.toml")
    assert said in str(caught.value)


def test_other_commands_and_other_places(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"preset": "sd15-lora", "prompt": "a dog"}))
    with pytest.raises(ConfigError, match="config: sd15-lora: presets are for `dreambooth train`"):
        load_config(GenerateConfig, file)
    with pytest.raises(ConfigError, match="preset: a line of configuration files; .* --config NAME"):
        load_config(TrainConfig, None, {**YOURS, "preset": "sd15-lora"})
