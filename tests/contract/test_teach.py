"""`dreambooth teach` on every backend: without a terminal by --yes, and in one with nothing but its two arguments."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from dreamcore.cli.main import main
from dreamcore.commands.teaching import choices
from dreamcore.commands.teaching.folders import new_folder
from dreamcore.config.files import read_config_file
from dreamcore.tinyworld.__main__ import write_subject
from dreamcore.training.metrics_recorder import MetricsRecorder

from ..support import needs

pytestmark = needs.backend

SHORT = {
    "max_train_steps": 1, "num_class_images": 1, "prior_num_inference_steps": 1, "num_validation_images": 1,
    "validation_num_inference_steps": 1,
}  # fmt: skip


@pytest.fixture(autouse=True)
def a_machine_without_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of its own, offline, with an empty cache, and presets that are over at once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, value in (("HF_HUB_OFFLINE", "1"), ("HF_HUB_CACHE", str(tmp_path / "hub"))):
        monkeypatch.setenv(name, value)
        pytest.importorskip("huggingface_hub")
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", True if value == "1" else value)
    monkeypatch.setattr(choices, "read_config_file", shortened)


def shortened(name: str) -> dict[str, Any]:
    preset = read_config_file(name)
    short = {n: v for n, v in SHORT.items() if n in preset or n.startswith(("num_validation", "validation"))}
    return {**preset, **short}


NOTE = MetricsRecorder.note


@contextmanager
def terminal(answers: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Standard input and output at a pseudo-terminal in which somebody types `answers`; what was shown there."""
    outside, inside = os.openpty()
    shown = list[str]()

    def read() -> None:
        while True:
            try:
                shown.append(os.read(outside, 4096).decode(errors="replace"))
            except OSError:  # the terminal is closed
                return

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    with (
        os.fdopen(os.dup(inside), encoding="utf-8") as typed,
        os.fdopen(os.dup(inside), "w", encoding="utf-8") as screen,
    ):
        os.write(outside, answers.encode())
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdin", typed)
            patch.setattr(sys, "stdout", screen)
            yield shown
    os.close(inside)
    reader.join(2)
    os.close(outside)


def settings_in(folder: str) -> tuple[dict[str, Any], str]:
    text = Path(folder, "config.yaml").read_text(encoding="utf-8")
    return yaml.safe_load(text), text


def test_two_arguments_and_yes_in_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_subject(Path("mug"))
    with terminal("y\n", monkeypatch) as shown:
        assert main(["teach", "mug", "--class", "mug"]) == 0
    screen, after = "".join(shown), capsys.readouterr().err
    assert "tinyworld (no model is named, none is on this machine, and the" in screen
    assert "Begin? [y/n]" in screen
    assert "a photo of a sks mug" in after
    assert "dreambooth generate --model mug-model" in after
    assert Path("mug-model/report.html").is_file()
    settings, text = settings_in("mug-model")
    assert (settings["identifier"], settings["class_word"]) == ("sks", "mug")
    assert "# the captions name the subject so: sks mug\nidentifier: sks\n" in text
    assert "# preset quickstart\nclass_prompt: a photo of a {class}\n" in text
    assert settings["validation_prompt"] == "a photo of a sks mug on grass"


def test_without_a_terminal_stopped_and_the_same_again(
    tiny_model: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(photos, "dog")
    words = ["teach", "dog", "--class", "dog", "--model", str(tiny_model), "--device", "cpu", "--yes"]
    words += ["--max_train_steps", "3", "--report_to", "none"]
    with monkeypatch.context() as patch:
        patch.setattr(MetricsRecorder, "note", interrupted)
        assert main(words) == 130
    said = capsys.readouterr()
    assert "5 in dog, each trained at 32 × 32" in said.out
    assert f"or the same command again: dreambooth teach dog --class dog --model {tiny_model}" in said.err
    before = Path("dog-lora/config.yaml").read_text(encoding="utf-8")
    assert "# as you gave it\nmax_train_steps: 3\n" in before
    assert "# all of an update fits in memory: faster\ngradient_checkpointing: false\n" in before
    assert "# of the model's rare words, the one that means least to it beside the class\nidentifier: " in before

    assert main(words) == 0
    said = capsys.readouterr()
    assert "An unfinished run of these photographs is in dog-lora: stopped" in said.out
    settings, text = settings_in("dog-lora")
    assert text == before, "with its reasons"
    assert settings["use_lora"]
    assert f'dreambooth generate --lora dog-lora --prompt "a photo of {settings["identifier"]} dog"' in said.err
    assert list(Path("dog-lora", "samples").glob("step-000003-*.png"))
    assert new_folder(Path("dog"), "dog", lora=True) == Path("dog-lora-2"), "a finished run is left alone"


def interrupted(self: MetricsRecorder, update: int, *rest: Any) -> None:
    """Ctrl-C in the first update."""
    if update == 1:
        os.kill(os.getpid(), signal.SIGINT)
    NOTE(self, update, *rest)
