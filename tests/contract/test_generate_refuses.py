"""`generate` refuses what it cannot use before it loads a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dreamcore.commands import generate as command
from dreamcore.commands.generate import generate
from dreamcore.config import GenerateConfig
from dreamcore.errors import ConfigError


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"height": 33, "prompt": "a"}, "height: 33 is not a multiple of 4"),
        ({"prompt_file": "/nowhere.txt"}, "prompt_file: /nowhere.txt"),
        ({"prompt": "a", "prompt_file": "b"}, "give either prompt or prompt_file"),
        ({}, "give either prompt or prompt_file"),
        ({"prompt": "a", "lora": "/nowhere"}, "lora: /nowhere: no LoRA file there"),
        ({"prompt": "a", "lora_scale": 0.5}, r"lora_scale=\[0.5\]: acts only with lora; give lora, or remove it"),
        (
            {"prompt": "a", "negative_prompt": "b", "guidance_scale": 1.0, "drop_t5": True},
            "(?s)drop_t5=True: acts only on models with a T5.*negative_prompt='b': acts only with guidance_scale",
        ),
        ({"prompt": "a", "amp_level": "O2"}, "amp_level='O2': acts only "),
        ({"prompt": "a", "scheduler": "plms"}, "scheduler: input should be"),
    ],
)
def test_bad_settings(
    settings: dict[str, Any], words: str, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "load_suggested", None)
    given = {"pretrained_model_name_or_path": str(tiny_model), "output_dir": str(tmp_path / "out"), **settings}
    with pytest.raises(ConfigError, match=words):
        generate(GenerateConfig.from_mapping(given))
    assert not list((tmp_path / "out").glob("*.png"))
