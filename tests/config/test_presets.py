"""Presets: complete but for the photographs and their words, and open about the memory they need."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest

from dreamcore.config import TrainConfig, load_config, preset_names, read_config_file
from dreamcore.config.presets import read_preset
from dreamcore.placement.plan import CONTEXT

from ..support.paths import ROOT

YOURS = {"instance_data_dir": "photos", "instance_prompt": "a photo of sks dog"}


def test_the_presets_there_are() -> None:
    sd15 = {"sd15-lora", "sd15-full", "sd15-face", "sd21-full"}
    assert {"quickstart", *sd15, "sdxl-lora", "sd3-lora", "flux-lora"} <= set(preset_names())


@pytest.mark.parametrize("name", preset_names())
def test_photographs_and_words_are_all_that_is_left_to_say(name: str) -> None:
    config = load_config(TrainConfig, name, YOURS)
    preset = read_config_file(name)
    read = {"class_word": "dog"} if "class_prompt" in preset else {}
    assert config.given() == {**preset, **YOURS, **read}
    assert config.max_train_steps


@pytest.mark.parametrize("name", preset_names())
def test_the_header_says_how_and_how_much_memory(name: str) -> None:
    text = (resources.files("dreamcore.configs") / f"{name}.toml").read_text(encoding="utf-8")
    header = text.partition("\npretrained_model_name_or_path")[0]
    assert all(line.startswith("#") for line in header.splitlines() if line)
    assert f"dreambooth train --config {name} --instance_data_dir" in header
    preset = read_preset(name)
    card = preset.card_gb or float("inf")
    assert (preset.memory_gib + CONTEXT / 2**30) <= 0.9 * card  # the driver's own, and some for what else is shown
    assert preset.memory_gib > 0
    assert "dreambooth plan" in preset.memory
    assert preset.time
    assert re.match(r"https://|\S+\.md", preset.source)
    assert len(preset.about) > 10


def test_the_memory_is_what_the_plan_says() -> None:
    """As the table of docs/memory.md has it, which tools.house.write_memory writes from plans of the published models:
    there with the driver's own memory."""
    table = (ROOT / "docs" / "memory.md").read_text(encoding="utf-8")
    planned = dict(re.findall(r"^\| `([\w-]+)` \| ([\d.]+) GiB \|", table, re.M))
    assert len(planned) > 5
    for name, gib in planned.items():
        assert read_preset(name).memory_gib == pytest.approx(float(gib) - CONTEXT / 2**30, abs=0.101)


@pytest.mark.parametrize("name", preset_names())
def test_no_preset_names_a_model_that_is_gone(name: str) -> None:
    """runwayml took Stable Diffusion 1.5 off the Hub in 2024, Stability AI version 2 in 2025."""
    model = read_config_file(name)["pretrained_model_name_or_path"]
    assert not model.startswith(("runwayml/", "stabilityai/stable-diffusion-2"))


def test_kinds() -> None:
    assert load_config(TrainConfig, "sd15-lora", YOURS).use_lora
    assert not load_config(TrainConfig, "sd15-full", YOURS).use_lora
    face = load_config(TrainConfig, "sd15-face", YOURS)
    assert face.with_prior_preservation
    assert face.train_text_encoder
    assert "stable-diffusion-2-1" in load_config(TrainConfig, "sd21-full", YOURS).pretrained_model_name_or_path


def test_a_folder_of_that_name_hides_no_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quickstart").mkdir()
    assert load_config(TrainConfig, "quickstart", YOURS).pretrained_model_name_or_path == "tinyworld"
