"""`dreambooth configs`: what presets there are, what each needs, where it is from."""

from __future__ import annotations

import json
import re
from importlib import resources

import pytest

from dreamcore.cli.main import main
from dreamcore.config import preset_names, read_config_file
from dreamcore.config.compat import SYSTEMS


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["configs", *words]) == 0
    return capsys.readouterr().out


def test_the_table_has_every_preset_and_every_trainer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = printed(capsys)
    presets, trainers = text.split("other trainers, for --like:\n")
    rows = {
        row[0]: row[1:] for row in re.findall(r"^  (\S+) +([\d.]+ GiB) +(\d+ GB|any) +(.+?)  +(\S.*)$", presets, re.M)
    }
    assert list(rows) == preset_names()
    assert rows["sd15-face"][3] == "huggingface.co/blog/dreambooth"
    assert rows["flux-lora"][3] == "diffusers, README_flux.md"
    assert rows["quickstart"][1:] == ("any", "minutes", "MODEL_CARD.md")
    assert re.findall(r"^  (\S+) ", trainers, re.M) == list(SYSTEMS)
    assert max(map(len, text.splitlines())) <= 80


def test_one_preset_is_its_file(capsys: pytest.CaptureFixture[str]) -> None:
    file = resources.files("dreamcore.configs") / "sd15-lora.toml"
    assert printed(capsys, "sd15-lora") == file.read_text(encoding="utf-8")


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    said = json.loads(printed(capsys, "--json"))
    assert [one["name"] for one in said["presets"]] == preset_names()
    assert [one["name"] for one in said["trainers"]] == list(SYSTEMS)
    one = json.loads(printed(capsys, "sd15-lora", "--json"))
    assert one == said["presets"][preset_names().index("sd15-lora")]
    assert one["settings"] == read_config_file("sd15-lora")
    assert one["source"].startswith("https://github.com/huggingface/diffusers/")
    assert isinstance(one["memory_gib"], float)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sd15-lra"], "configs: sd15-lra: no such preset; did you mean sd15-lora?"),
        (["kohya"], "configs: kohya: another trainer, for --like, and no preset; presets: chroma-lora,"),
        (["zzz"], "configs: zzz: no such preset; chroma-lora, "),
        (["sd15-lora", "more"], "unrecognized arguments: more"),
    ],
)
def test_what_is_wrong_is_said(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs", *words]) == 2
    assert said in capsys.readouterr().err
