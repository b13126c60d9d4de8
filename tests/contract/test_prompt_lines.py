"""Images of a file of prompts on each backend; what its lines may say: `tests/commands/test_shots.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import dreamcore

from ..support.images import distance


def test_images_are_those_made_one_by_one(tiny_model: Path, tmp_path: Path) -> None:
    lines = ["a sks dog --d 3 --w 64", "a cat --d 4 --w 64", "a toy --d 5 --s 2 --l 7 --n a red dog"]
    (tmp_path / "prompts.txt").write_text("\n".join(lines))
    plain = {"pretrained_model_name_or_path": str(tiny_model), "contact_sheet": False, "device": "cpu"}
    plain |= {"num_inference_steps": 3, "guidance_scale": 4.0, "height": 32}
    together = dreamcore.generate(**plain, prompt_file=str(tmp_path / "prompts.txt"), output_dir=str(tmp_path / "all"))
    said: dict[int, dict[str, Any]] = {
        1: {"prompt": "a cat", "seed": 4, "width": 64},
        2: {
            "prompt": "a toy",
            "seed": 5,
            "num_inference_steps": 2,
            "guidance_scale": 7.0,
            "negative_prompt": "a red dog",
        },
    }
    images = [np.asarray(Image.open(file)).astype(int) for file in together]
    assert [image.shape for image in images] == [(32, 64, 3), (32, 64, 3), (32, 32, 3)]
    for number, one in said.items():
        (file,) = dreamcore.generate(**plain | one, output_dir=str(tmp_path / f"{number}"))
        assert distance(images[number], np.asarray(Image.open(file)).astype(int)) <= 1
    assert distance(images[0], images[1]) > 8
