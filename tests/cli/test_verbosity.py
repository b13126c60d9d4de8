"""`--quiet` and `--verbose`, wherever they stand, and what a launched command line gets of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dreamcore.cli.main import main
from dreamcore.cli.verbosity import without_verbosity
from dreamcore.errors import ConfigError
from dreamcore.track.verbosity import current

from ..support import needs
from .test_launch import TRAIN


@pytest.mark.parametrize(
    ("words", "flag", "rest"),
    [
        (["train", "--rank", "4"], None, ["train", "--rank", "4"]),
        (["--quiet", "train", "--rank", "4"], "--quiet", ["train", "--rank", "4"]),
        (["train", "--verbose", "--rank", "4", "--verbose"], "--verbose", ["train", "--rank", "4"]),
        (["launch", "--", "train", "--quiet"], None, ["launch", "--", "train", "--quiet"]),
        (["train", "--prompt=--quiet"], None, ["train", "--prompt=--quiet"]),
    ],
)
def test_flags_and_other_words(words: list[str], flag: str | None, rest: list[str]) -> None:
    assert without_verbosity(words) == (flag, rest)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="--quiet and --verbose: give one of them"):
        without_verbosity(["train", "--quiet", "--verbose"])
    with pytest.raises(ConfigError, match="--verbose=2: takes no value; give --verbose alone"):
        without_verbosity(["--verbose=2"])


@needs.torch
def test_a_launched_run_says_as_much_as_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "dreambooth"), "launch"])
    (tmp_path / "dreambooth").touch()
    launch = ["launch", "--num_processes", "2", "--backend", "torch", "--dry-run"]
    for words, expected in [
        ([*launch, "--quiet", "--", *TRAIN], 1),
        ([*launch, "--", *TRAIN, "--quiet"], 1),
        ([*launch, "--quiet", "--", *TRAIN, "--quiet"], 1),
        ([*launch, "--", *TRAIN], 0),
    ]:
        assert main(words) == 0
        assert capsys.readouterr().out.split().count("--quiet") == expected
    assert current() == "normal", "nothing of it is left behind"
