"""The paper's protocol, on a dataset laid out as its own is, of drawn subjects."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dreamcore.tinyworld import SUBJECTS
from tools.experiment.protocol import commands, main, read_classes, table

from ..support import needs

CLASSES = "Classes\n\nsubject_name,class\nzigzag-mug,mug\nabsent,stuffed animal\n\nPrompts\n\n'a {0}, {1}'\n"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    folder = tmp_path / "dataset"
    for number, picture in enumerate(SUBJECTS["zigzag-mug"].pictures(3)):
        (folder / "zigzag-mug").mkdir(parents=True, exist_ok=True)
        picture.save(folder / "zigzag-mug" / f"{number}.png")
    (folder / "prompts_and_classes.txt").write_text(CLASSES)
    return folder


def test_a_subject_with_photographs_has_its_class(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read_classes(dataset) == {"zigzag-mug": "mug"}
    with pytest.raises(SystemExit):
        main([str(dataset / "zigzag-mug")])
    assert "no prompts_and_classes.txt there" in capsys.readouterr().err


def test_only_what_is_left_is_done(dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"

    def left() -> list[str]:
        return [step[0] for step in commands(dataset / "zigzag-mug", "mug", folder, "quickstart", ("", ""))]

    assert left() == ["train", "evaluate"]
    (folder / "run" / "checkpoint-3").mkdir(parents=True)
    assert "latest" in next(commands(dataset / "zigzag-mug", "mug", folder, "quickstart", ("", "")))
    (folder / "run" / "model_index.json").write_text("{}")
    assert left() == ["evaluate"]
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "evaluation.json").write_text("{}")
    assert left() == []


def test_the_table_by_hand() -> None:
    """The mean of 0.4 and 0.8 is 0.6, and draws of two from two range over both."""
    lines = table({"dog": {"DINO": 0.4, "PRES": 0.1}, "cat": {"DINO": 0.8}}).splitlines()
    assert lines[1].split() == ["dog", "0.400", "0.100"]
    assert lines[3].startswith("mean of 2") and "0.600 (0.400 to 0.800)" in lines[3] and lines[3].endswith("0.100")
    assert lines[4].split()[-2:] == ["0.774", "-"]
    assert "paper" not in table({"mug": {"likeness": 0.4}}), "which is of encoders that this judge is none of"


@needs.torch
def test_one_command_teaches_and_judges(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    main([str(dataset), "--config", "quickstart", "--output", str(out), "--train",
          "--max_train_steps 1 --num_class_images 4 --num_validation_images 1 --no-use_captions", "--evaluate",
          "--num_images 1 --num_class_images 1 --num_inference_steps 1"])  # fmt: skip
    said = json.loads((out / "zigzag-mug" / "evaluation" / "evaluation.json").read_text())
    value = said["subjects"][0]["measures"]["likeness"]["value"]
    assert f"{value:.3f}" in (out / "protocol.txt").read_text()
    assert said["subjects"][0]["name"] == "sks mug"
