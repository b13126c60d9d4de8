"""Help: what matters first on one screen; a subject, a setting, or all of it, where that is asked for."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dreamcore.cli.completion import settings_of
from dreamcore.cli.convert import PARTS
from dreamcore.cli.flags import parse_settings
from dreamcore.cli.main import COMMANDS, main
from dreamcore.config import Settings, TrainConfig, load_config
from dreamcore.config.convert import MergeConfig, ResizeConfig
from dreamcore.config.describe import as_flag, as_line, example, groups, in_files_only
from dreamcore.config.look import DataConfig

from ..support import needs

SCREEN = 40
"""Lines of 80 characters."""
OF_SETTINGS: dict[str, type[Settings]] = {
    **{name: settings_of(command) for name, command in COMMANDS.items() if command.settings},
    **{f"convert {name}": part.settings for name, part in PARTS.items()},
}
"""The commands that take settings."""


@pytest.fixture(autouse=True)
def screen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def helped(capsys: pytest.CaptureFixture[str], command: str, *words: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), *words])
    assert ended.value.code == 0
    return capsys.readouterr().out


def in_all(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[str, str]:
    """The flags, and what is said below them, of `dreambooth train --help all` beside other words."""
    flags, _, below = helped(capsys, "train", *words, "--help", "all").partition("Presets:")
    return flags, " ".join(below.split())


@pytest.mark.parametrize("command", OF_SETTINGS)
def test_what_matters_first_fits_a_screen(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    cls, text = OF_SETTINGS[command], helped(capsys, command, "--help")
    lines = text.splitlines()
    assert len(lines) <= SCREEN
    assert max(map(len, lines)) <= 80
    assert 3 < len(cls.ESSENTIAL) <= 14
    for name in cls.ESSENTIAL:
        assert f"--{name}" in text
        assert as_flag("", example(cls.model_fields[name])).partition(" ")[2] in text
    for way in ("--help all", "--help GROUP", "--help NAME"):
        assert way in text


@pytest.mark.parametrize("command", ["teach", "train", "data", "generate", "convert merge"])
def test_all_of_them_are_there_by_subject(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    cls = OF_SETTINGS[command]
    seen = cls.LOOKS_AT if cls.LOOKS_AT is not None else frozenset(cls.model_fields)
    beside = ["--backend=torch"] if "backend" in cls.model_fields else []
    whole, titles = helped(capsys, command, "--help=all", *beside), list(groups(cls))
    parts = helped(capsys, command, "--help", *titles, *beside)
    for title, group in groups(cls).items():
        assert f"{title}: " in whole if set(group.names) & seen else f"{title}: " in parts
        for name in set(group.names) & seen - set(in_files_only(cls)) - {"amp_level", "mode", "jit_level"}:
            assert f"--{name}" in parts.split()
            assert f"--{name}" in whole.split()
    assert max(map(len, whole.splitlines())) <= 80


@pytest.mark.parametrize("cls", dict.fromkeys(OF_SETTINGS.values()))
def test_every_example_is_right(cls: type[Settings]) -> None:
    """To the setting's own checks, as a flag and as a line of a file."""
    values = {name: example(field) for name, field in cls.model_fields.items() if name not in in_files_only(cls)}
    needed = {name: "there" for name, field in cls.model_fields.items() if field.is_required() and name != "rank"}
    needed |= {"lora": ["there"]} if cls is MergeConfig else {"rank": 4} if cls is ResizeConfig else {}
    for name, value in values.items():
        assert getattr(cls.model_validate({**needed, name: value}), name) == value
    flags = [word for name, value in values.items() for word in shlex.split(as_flag(name, value))]
    config, given, problems, _ = parse_settings(cls, "", "", flags)
    assert (config, problems) == (None, [])
    assert given == {name: ",".join(map(str, v)) if isinstance(v, list) else _flag(v) for name, v in values.items()}
    assert tomllib.loads("\n".join(as_line(name, value) for name, value in values.items())) == values


def _flag(value: Any) -> str:
    """A value as its flag has it."""
    if isinstance(value, float):
        return as_flag("x", value).removeprefix("--x ")
    return str(value).lower() if isinstance(value, bool) else str(value)


def test_one_setting_with_all_that_is_known_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    text = helped(capsys, "train", "--help", "rank")
    rows = {line[:14].strip(): line[14:] for line in text.splitlines() if line[:2] == "  " and line[2:3] != " "}
    assert rows["takes"] == "whole number, at least 1"
    assert rows["default"] == "4"
    assert rows["acts only"] == "with use_lora"
    assert rows["also"] == "--lora_rank"
    assert "network_dim (kohya)" in rows["elsewhere"]
    assert "sd15-lora" in text
    assert rows["group"].startswith("lora")
    assert rows["example"] == "--rank 8"
    assert rows["in a file"] == "rank = 8"


@pytest.mark.parametrize(
    ("asked", "found"),
    [("lora-rank", "--rank, which lora_rank means"), ("network_dim", "--rank, which network_dim means"),
     ("--lr_power", "--lr_power"), ("concepts", "concepts")],
)  # fmt: skip
def test_another_name_finds_its_setting(asked: str, found: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert helped(capsys, "train", f"--help={asked}").splitlines()[0] == found
    assert helped(capsys, "help", "train", asked.lstrip("-")).splitlines()[0] == found


@pytest.mark.parametrize(
    ("asked", "hint"),
    [("rnak", "did you mean rank?"), ("optimiser", "did you mean optimizer?"), ("8bit", "there are use_8bit_adam"),
     ("lear_rate", "there are learning_rate"), ("zzz", "`dreambooth train --help all` has them all")],
)  # fmt: skip
def test_a_name_that_is_none(asked: str, hint: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--help", asked]) == 2
    assert capsys.readouterr().err == (
        f"dreambooth: error: --help {asked}: no setting and no group of that name; {hint}\n"
    )


def test_data_shows_what_it_looks_at_and_takes_the_rest(capsys: pytest.CaptureFixture[str]) -> None:
    assert "learning_rate" not in helped(capsys, "data", "--help", "all")
    assert "not looked at: train_batch_size" in helped(capsys, "data", "--help", "optimizer")
    assert "taken, and without effect" in helped(capsys, "data", "--help", "learning_rate")
    given = parse_settings(DataConfig, "data", "", ["photos", "--learning_rate", "1e-4"])
    assert load_config(DataConfig, *given).learning_rate == 1e-4


@pytest.mark.parametrize(("backend", "shown", "hidden"), [
    ("torch", "allow_tf32", "amp_level"), ("paddle", "amp_level", "allow_tf32"), ("mindspore", "jit_level", "compile"),
])  # fmt: skip
def test_settings_of_other_backends_are_not_shown(
    backend: str, shown: str, hidden: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.toml"
    file.write_text(f'backend = "{backend}"\n')
    (tmp_path / "more.toml").write_text('preset = "run.toml"\n')
    for words in (["--backend", backend], ["--config", str(file)], ["--config", str(tmp_path / "more.toml")]):
        flags, below = in_all(capsys, *words)
        assert f"--{shown} " in flags
        assert f"--{hidden} " not in flags
        assert hidden in below
        assert shown not in below


@needs.backend
def test_settings_of_other_families_are_not_shown(
    tiny_model: Path, family_models: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    flags, below = in_all(capsys, "--model", str(tiny_model))
    assert "--weighting_scheme " not in flags
    assert "(Stable Diffusion 3, Flux and newer): weighting_scheme, logit_mean" in below
    flags, below = in_all(capsys, "--pretrained_model_name_or_path", str(family_models("sd3")))
    assert "--weighting_scheme " in flags
    assert "--guidance_scale " not in flags
    assert "weighting_scheme" not in below


def test_what_a_setting_needs_stands_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    flags, _ = in_all(capsys, "--model", "no/such/model")
    assert "Acts only with use_lora." in " ".join(flags.split())


def test_help_is_given_beside_a_flag_without_its_value(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--use_lora" in helped(capsys, "train", "--help", "--model")


def test_every_setting_of_training_is_of_one_subject() -> None:
    named: list[Any] = [name for group in groups(TrainConfig).values() for name in group.names]
    assert sorted(named) == sorted(TrainConfig.model_fields)
