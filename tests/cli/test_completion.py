"""Completion scripts, run by the shells that they are for."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from dreamcore.cli import shells
from dreamcore.cli.command import Completed
from dreamcore.cli.completion import table
from dreamcore.cli.main import COMMANDS, main
from dreamcore.config import TrainConfig, preset_names
from dreamcore.config.base import kinds_of

SCHEDULERS = {"constant", "constant_with_warmup", "cosine", "cosine_with_restarts"}
CASES: dict[str, set[str]] = {
    "tr": {"train"},
    "help tr": {"train"},
    "train --max_gr": {"--max_grad_norm"},
    "train --lr_scheduler co": SCHEDULERS,
    "train --config sd15-fa": {"sd15-face"},
    "train --config own": {"own.toml"},
    "train --output_dir ph": {"photos/"},
    "train ph": {"photos/"},
    "train --learning_rate ": set(),
    "train --help lr_": {"lr_scheduler", "lr_warmup_steps", "lr_num_cycles", "lr_power"},
    "train photos --use_lora --rank 4 --max_gr": {"--max_grad_norm"},
    "data --learning": set(),
    "data --js": {"--json"},
    "plan --train_d": {"--train_data_repeats"},
    "convert me": {"merge"},
    "convert own": {"own.toml"},
    "convert --lora": set(),
    "convert merge --lora_s": {"--lora_scale"},
    "configs sd15-fa": {"sd15-face"},
    "runs --dep": {"--depth"},
    "completion z": {"zsh"},
    "generate --scheduler dd": {"ddim", "ddpm"},
}
"""What is typed behind `dreambooth` -> all that is offered."""
EQUALS = {"train --lr_scheduler=co": SCHEDULERS, "train --lr-scheduler=co": SCHEDULERS}


@pytest.fixture(scope="module")
def known() -> dict[str, Completed]:
    return table(COMMANDS)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "photos").mkdir()
    (tmp_path / "own.toml").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ran(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
    return done.stdout


def answers(out: str) -> dict[str, set[str]]:
    """Blocks of lines, each headed by its case."""
    blocks = [block.splitlines() for block in out.split("# ")[1:]]
    return {block[0]: {line.strip() for line in block[1:] if line.strip()} for block in blocks}


def in_bash(script: Path, cases: list[str]) -> str:
    lines = ["source " + str(script)]
    for case in cases:
        words = ["dreambooth", *case.replace("=", " = ").split(" ")]
        lines += [f"COMP_WORDS=({' '.join(repr(word) for word in words)}); COMP_CWORD={len(words) - 1}; _dreambooth"]
        lines += [f'echo "# {case}"; for one in "${{COMPREPLY[@]}}"; do [[ -d $one ]] && one+=/; echo "$one"; done']
    return ran("bash", "--norc", "-c", "\n".join(lines))


def in_zsh(script: Path, cases: list[str]) -> str:
    """What the function hands to zsh's own ones, of which each stands for itself: they work at a prompt alone."""
    lines = [
        "compdef() { }; compset() { PREFIX=${PREFIX#*=} }",
        "compadd() { local name=$2; print -l -- ${(M)${(P)name}:#$PREFIX*} }",
        "_describe() { local name=${@[-1]}; print -l -- ${(M)${${(P)name}%%:*}:#$PREFIX*} }",
        "_files() { [[ $1 == -/ ]] && print -l -- $PREFIX*(N-/e:'REPLY+=/':) || "
        "print -l -- $PREFIX*(N-.) $PREFIX*(N-/e:'REPLY+=/':) }",
        f"source {script}",
    ]
    for case in cases:
        words = ["dreambooth", *case.split(" ")]
        typed = " ".join(repr(word) for word in words)
        lines += [f"words=({typed}); CURRENT={len(words)}; PREFIX=${{words[-1]}}; print '# {case}'; _dreambooth"]
    return ran("zsh", "-f", "-c", "\n".join(lines))


def in_fish(script: Path, cases: list[str]) -> str:
    lines = [f"source {script}"]
    lines += [f"echo '# {case}'; complete -C 'dreambooth {case}' | string split -f 1 \\t" for case in cases]
    return ran("fish", "--no-config", "-c", "\n".join(lines))


@pytest.mark.parametrize("ask", [in_bash, in_zsh, in_fish], ids=lambda ask: ask.__name__.removeprefix("in_"))
def test_what_a_shell_offers(
    ask: Callable[[Path, list[str]], str], known: dict[str, Completed], tmp_path: Path
) -> None:
    shell = ask.__name__.removeprefix("in_")
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = tmp_path / "script"
    script.write_text(getattr(shells, shell)(known), encoding="utf-8")
    expected = CASES if shell == "fish" else CASES | EQUALS  # whose own parser takes --flag=value apart
    assert answers(ask(script, list(expected))) == expected


def test_every_command_and_flag_is_known(known: dict[str, Completed]) -> None:
    assert {name for name in known if " " not in name} == set(COMMANDS)
    flags = {flag.name: flag for flag in known["train"].flags}
    assert set(TrainConfig.model_fields) - set(flags) == {"concepts"}
    switches = {name for name, field in TrainConfig.model_fields.items() if kinds_of(field.annotation) == (bool,)}
    assert {name for name, flag in flags.items() if flag.takes == "nothing"} >= switches
    assert set(flags["config"].words) == set(preset_names())


def test_the_command_writes_the_script(capsys: pytest.CaptureFixture[str], known: dict[str, Completed]) -> None:
    assert main(["completion", "bash"]) == 0
    assert capsys.readouterr().out == shells.bash(known)
    assert main(["completion", "tcsh"]) == 2
    assert "completion: tcsh: no shell that is known here; bash, zsh, fish are" in capsys.readouterr().err
