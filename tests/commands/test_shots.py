"""Lines of prompts, with what else they may say: which images they ask for, and what is made of them together."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dreamcore
from dreamcore.backends.protocol import SampleRequest
from dreamcore.commands import generate as command
from dreamcore.commands.shots import Shot, batches, shots
from dreamcore.config import GenerateConfig
from dreamcore.errors import ConfigError
from dreamcore.models.folder import ModelFolder

PLAIN = {"num_inference_steps": 3, "guidance_scale": 4.0, "seed": 5, "negative_prompt": "dull"}
LINES = """
a sks dog --n blurred, dark --w 64 --h 48 --d 42 --s 2 --l 6.5

  a cat   --l 0
a dog -- of  wood --no-such --d 7\u0020
"""


def asked_for(model: Path, folder: Path, text: str, **settings: Any) -> list[Shot]:
    """The images that a file of this text asks for."""
    (folder / "prompts.txt").write_text(text, encoding="utf-8")
    given = {"pretrained_model_name_or_path": str(model), "prompt_file": str(folder / "prompts.txt")}
    return shots(GenerateConfig.from_mapping(given | PLAIN | settings), ModelFolder.open(str(model)))


def test_what_lines_say(tiny_model: Path, tmp_path: Path) -> None:
    """Each option its own, and whatever it does not say as the settings have it; blank lines ask for nothing."""
    assert asked_for(tiny_model, tmp_path, LINES) == [
        Shot("a sks dog", "blurred, dark", seed=42, height=48, width=64, steps=2, scale=6.5),
        Shot("a cat", "dull", seed=5, height=32, width=32, steps=3, scale=0.0),
        Shot("a dog -- of  wood --no-such", "dull", seed=7, height=32, width=32, steps=3, scale=4.0),
    ]
    (empty,) = asked_for(tiny_model, tmp_path, "a dog --n", height=64)
    assert empty == Shot("a dog", "", seed=5, height=64, width=32, steps=3, scale=4.0)


def test_the_kth_image_of_a_line_has_its_seed_plus_k(tiny_model: Path, tmp_path: Path) -> None:
    found = asked_for(tiny_model, tmp_path, "a dog --d 8\na cat\n", num_images=3)
    assert [(shot.prompt, shot.seed) for shot in found] == [
        *(("a dog", seed) for seed in (8, 9, 10)),
        *(("a cat", seed) for seed in (5, 6, 7)),
    ]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("a dog --x 3", r"--x is not known; --n \(negative\), --w \(width\), .* are"),
        ("a dog --w", "--w: expected a number; received ''"),
        ("a dog --w wide", "--w: expected a number; received 'wide'"),
        ("a dog --s 2.5", "--s: expected a number; received '2.5'"),
        ("a dog --s 0", "--s: expected 1 or more"),
        ("a dog --d -1", r"--d: 0 to 2\*\*63 - 1"),
        (f"a dog --d {2**63}", r"--d: 0 to 2\*\*63 - 1"),
        ("a dog --l -1", "--l: 0 or more"),
        ("a dog --l nan", "--l: 0 or more"),
        ("a dog --l inf", "--l: 0 or more"),
        ("a dog --w 33", "width: 33 is not a multiple of 4, as this model needs"),
        ("a dog --h 0", "height: 0 is not a multiple of 4"),
    ],
)
def test_what_is_wrong_is_named_by_file_and_line(line: str, words: str, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^prompt_file: {tmp_path}/prompts.txt: line 3: .*{words}"):
        asked_for(tiny_model, tmp_path, f"a cat --d 3\n\n{line}\n")


def test_a_size_of_the_settings_is_no_lines_fault(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="^width: 30 is not a multiple of 4"):
        asked_for(tiny_model, tmp_path, "a cat --w 32", width=30)


def test_files_that_ask_for_nothing(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"prompt_file: .*prompts\.txt: holds no prompt; write one a line"):
        asked_for(tiny_model, tmp_path, "\n  \n")
    with pytest.raises(ConfigError, match=r"prompt_file: .*none\.txt: .*No such file"):
        asked_for(tiny_model, tmp_path, "", prompt_file=str(tmp_path / "none.txt"))
    (tmp_path / "odd.txt").write_bytes(b"a dog \xff")
    with pytest.raises(ConfigError, match=r"prompt_file: .*odd\.txt: is no text in UTF-8 .*; save it as UTF-8"):
        asked_for(tiny_model, tmp_path, "", prompt_file=str(tmp_path / "odd.txt"))


def test_negative_words_where_a_model_is_not_guided_by_them(
    family_models: Callable[[str], Path], tmp_path: Path
) -> None:
    flux = family_models("flux")
    with pytest.raises(ConfigError, match="line 1: --n: this model is not guided by negative words; leave it out"):
        asked_for(flux, tmp_path, "a dog --n dark", negative_prompt="")
    (shot,) = asked_for(flux, tmp_path, "a dog --l 2", negative_prompt="")
    assert (shot.negative, shot.scale) == ("", 2.0)


def test_images_of_one_kind_are_made_together() -> None:
    """As many as fit, in the order asked for; prompts and seeds may differ, nothing else."""

    def shot(prompt: str, seed: int, **other: Any) -> Shot:
        return replace(Shot(prompt, "", seed=seed, height=8, width=8, steps=2, scale=1.0), **other)

    work = [shot("a", 1), shot("b", 7), shot("c", 1), shot("c", 2, height=16), shot("c", 3, width=16), shot("d", 1)]
    assert list(batches(work, 2)) == [work[:2], work[2:3], work[3:4], work[4:5], work[5:]]
    for name, value in {"negative": "x", "steps": 3, "scale": 2.0}.items():
        two = [shot("a", 1), shot("a", 1, **{name: value})]
        assert list(batches(two, 4)) == [two[:1], two[1:]], name
    assert [len(some) for some in batches([shot("a", k) for k in range(7)], 3)] == [3, 3, 1]


class Painter:
    """A backend that paints what it is asked for: a plane of the seed's grey, of the noise's size."""

    def __init__(self, factor: int):
        self.factor, self.asked = factor, list[SampleRequest]()

    def set_prompts(self, prompts: list[str]) -> None:
        self.prompts = prompts

    def sample(self, request: SampleRequest) -> Any:
        self.asked.append(request)
        _, _, height, width = request.noise.shape
        grey = np.array(request.seeds, np.uint8).reshape(-1, 1, 1, 1)
        return np.broadcast_to(grey, (len(grey), height * self.factor, width * self.factor, 3)).copy()


@pytest.mark.parametrize(
    ("text", "has_sheet"), [("a\nb --w 64\nc --h 64\nd", False), ("a\nb --l 2 --n dark --s 4\nc\nd", True)]
)
def test_what_is_written(
    text: str, has_sheet: bool, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the lines' order, each with its own words inside; a contact sheet only of images of one size."""
    painter = Painter(ModelFolder.open(str(tiny_model)).latent_factor)
    monkeypatch.setattr(command, "choose_backend", lambda name: "torch")
    monkeypatch.setattr(command, "load_suggested", lambda name, model, config, say: (config, painter))
    (tmp_path / "prompts.txt").write_text(text)
    files = dreamcore.generate(
        pretrained_model_name_or_path=str(tiny_model),
        prompt_file=str(tmp_path / "prompts.txt"),
        output_dir=str(tmp_path / "out"),
        seed=9,
    )
    assert [len(request.prompts) for request in painter.asked] == ([1, 1, 1, 1] if not has_sheet else [1, 1, 2])
    assert set(painter.prompts) == {*"abcd", "", *["dark"] * has_sheet}, "all at once, before the first image"
    second = painter.asked[1]
    said = (second.negative_prompt, second.steps, second.guidance_scale)
    assert said == (("dark", 4, 2.0) if has_sheet else ("", 30, 7.5))
    assert [file.name for file in files] == [f"0000{k}.png" for k in range(4)] + ["sheet.png"] * has_sheet
    sizes = [Image.open(file).size for file in files[:4]]
    assert sizes == ([(32, 32)] * 4 if has_sheet else [(32, 32), (64, 32), (32, 64), (32, 32)])
    record = json.loads((tmp_path / "out" / "pictures.json").read_text())["pictures"]
    assert [(one["prompt"], one["seed"]) for one in record] == [(prompt, 9) for prompt in "abcd"]
    words = Image.open(files[1]).info["parameters"]
    assert words.startswith("b\n") and ("CFG scale: 2.0" if has_sheet else "Size: 64x32") in words
