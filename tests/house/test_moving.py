"""Each command line in docs/moving.md is understood, as whose it says, and those of theirs are kept word for word."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dreamcore.cli.flags import parse_settings
from dreamcore.cli.main import COMMANDS, command_of, main
from dreamcore.config import GenerateConfig, TrainConfig, load_config
from dreamcore.config.compat import SYSTEMS, find_script

from ..support.paths import ROOT
from ..support.tiny import draw_photos

GUIDE = ROOT / "docs" / "moving.md"
CLASSES: dict[str, Any] = {"train": TrainConfig, "generate": GenerateConfig}
REST = {
    "train": {
        "pretrained_model_name_or_path": "model",
        "instance_data_dir": "photos",
        "instance_prompt": "a photo of sks dog",
        "class_prompt": "a photo of a dog",
    },
    "generate": {"pretrained_model_name_or_path": "model"},
}
"""What `...` stands for: what the command needs and the line does not give."""
INSTEAD = {
    "pretrained_model_name_or_path": ("pretrained_model_path", "ckpt_path", "lora", "checkpoint_dir"),
    "instance_data_dir": ("train_data_dir", "dataset_config"),
    "instance_prompt": ("train_data_dir", "dataset_config"),
    "class_prompt": ("train_data_dir", "dataset_config"),
}
"""Setting -> the names that give it otherwise."""


class Typed(NamedTuple):
    """A line of a code block."""

    section: str
    theirs: str
    """The line before it, where both are a pair."""
    text: str

    @property
    def words(self) -> list[str]:
        """What follows the program's name."""
        words = shlex.split(self.text)
        return words[words.index("dreambooth") + 1 :]


def typed() -> list[Typed]:
    found, section, before = list[Typed](), "", ""
    for line in GUIDE.read_text(encoding="utf-8").splitlines():
        section = line.removeprefix("## ") if line.startswith("## ") else section
        text = line.strip() if line.startswith("    ") else ""
        ours = "dreambooth" in text.split()
        if ours:
            found.append(Typed(section, before, text))
        before = "" if ours else text
    return found


LINES = typed()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with what the lines name."""
    monkeypatch.chdir(tmp_path)
    draw_photos(tmp_path / "train" / "10_sks dog")
    subset = '[[datasets.subsets]]\nimage_dir = "train/10_sks dog"\nclass_tokens = "sks dog"\n'
    (tmp_path / "data.toml").write_text(f"[[datasets]]\nresolution = 512\n{subset}")
    (tmp_path / "train.json").write_text(json.dumps({"train_batch_size": 1}))
    (tmp_path / "settings.toml").write_text('[training]\nlearning_rate = 1e-6\ninstance_prompt = "sks dog"\n')
    (tmp_path / "FOLDER").mkdir()
    (tmp_path / "FOLDER" / "train_dreambooth.py").write_text("")
    return tmp_path


def settings_of(line: Typed, words: list[str]) -> list[str]:
    """Arguments with `...` replaced by what is missing."""
    command = command_of(words[: len(words) - (words[-1] == "...")])[0]
    if words[-1] != "...":
        return words
    given = {word.partition("=")[0].removeprefix("--") for word in words}
    more = {
        name: value
        for name, value in REST[command].items()
        if name not in given and not given & {*INSTEAD.get(name, ())}
    }
    return [*words[:-1], *(f"--{name}={value}" for name, value in more.items())]


@pytest.mark.parametrize("line", LINES, ids=lambda line: f"{line.section.split()[0]}-{LINES.index(line)}")
@pytest.mark.usefixtures("folder")
def test_it_is_understood(line: Typed) -> None:
    words = line.words
    if words[0] == "launch":
        words = words[words.index("--") + 1 :]
        assert words[0] == "train"
    if words[0] in COMMANDS and words[0] not in CLASSES:
        assert main(words) == 0
        return
    system = SYSTEMS.get(line.section)
    backend = [f"--backend={system.backend or 'torch'}"] if system else []
    command, rest = command_of([*settings_of(line, words), *backend])
    config = load_config(CLASSES[command], *parse_settings(CLASSES[command], command, "", rest))
    if system:
        assert config.like == system.name


@pytest.mark.parametrize("line", [line for line in LINES if line.theirs], ids=lambda line: line.words[0])
def test_the_program_alone_changes(line: Typed) -> None:
    """Of a pair: the script and its arguments are the same words, and the launcher's flags too."""
    theirs, ours = shlex.split(line.theirs), shlex.split(line.text)
    script = next(i for i, word in enumerate(theirs) if word.endswith(".py"))
    assert find_script(theirs[script], (), None) and line.words == theirs[script:]
    assert [word for word in theirs[:script] if word.startswith("--") and word not in ours] == []


def test_every_trainer_has_its_section() -> None:
    sections = re.findall(r"^## (.+)$", GUIDE.read_text(encoding="utf-8"), re.M)
    assert sections[-len(SYSTEMS) :] == list(SYSTEMS)
    assert {line.section for line in LINES} >= SYSTEMS.keys()
