"""`generate` refuses what it cannot use before it loads a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dreamcore.config import GenerateConfig
from dreamcore.errors import ConfigError
from dreamcore.generation import generate


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"height": 33, "prompt": "a"}, "height: 33 is not a multiple of 4"),
        ({"prompt_file": "/nowhere.txt"}, "prompt_file: /nowhere.txt"),
        ({"prompt": "a", "prompt_file": "b"}, "give either prompt or prompt_file"),
        ({}, "give either prompt or prompt_file"),
        ({"prompt": "a", "lora": "/nowhere"}, "lora: /nowhere: no LoRA file there"),
        ({"prompt": "a", "lora_scale": 0.5}, "lora_scale=0.5: acts only with lora"),
        ({"prompt": "a", "scheduler": "plms"}, "scheduler: input should be"),
    ],
)
def test_bad_settings(settings: dict[str, Any], words: str, tiny_model: Path, tmp_path: Path) -> None:
    given = {"pretrained_model_name_or_path": str(tiny_model), "output_dir": str(tmp_path / "out"), **settings}
    with pytest.raises(ConfigError, match=words):
        generate(GenerateConfig.from_mapping(given))
    assert not list((tmp_path / "out").glob("*.png"))
