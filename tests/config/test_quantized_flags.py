"""How diffusers' scripts are told to keep frozen weights in fewer bits: a file of bitsandbytes' own settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from dreamcore.cli.flags import parse_settings
from dreamcore.config import TrainConfig, load_config
from dreamcore.errors import ConfigError

OURS = ("--pretrained_model_name_or_path=m", "--instance_data_dir=d", "--instance_prompt=sks dog", "--rank=4")


def loaded(tmp_path: Path, text: str) -> TrainConfig:
    file = tmp_path / "config.json"
    file.write_text(text)
    words = [*OURS, f"--bnb_quantization_config_path={file}", "--like=diffusers"]
    return load_config(TrainConfig, *parse_settings(TrainConfig, "train", "", words))


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ('{"load_in_4bit": true, "bnb_4bit_quant_type": "nf4"}', "nf4"),  # README_qwen.md, README_hidream.md
        ('{"load_in_4bit": true, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": "bfloat16"}', "nf4"),
        ('{"load_in_8bit": true}', "int8"),
    ],
)
def test_the_files_of_their_readmes(text: str, method: str, tmp_path: Path) -> None:
    assert loaded(tmp_path, text).quantize_base == method


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"load_in_4bit": true}', "bnb_4bit_quant_type fp4: expected nf4; quantize_base int8, fp8 and nf4 are there"),
        ("{}", "expected load_in_4bit or load_in_8bit to be true"),
        ("nf4", "expected JSON such as"),
        ("[]", "expected JSON such as"),
    ],
)
def test_others_are_refused_by_name(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    assert words in str(caught.value) and "bnb_quantization_config_path: " in str(caught.value)
