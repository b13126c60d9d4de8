"""A command's help leaves out what cannot act where it is read, and says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dreamcore.cli.main import main

from ..support import needs


def helped(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[str, str]:
    """The flags, and what is said below them, of `dreambooth train --help` beside other words."""
    with pytest.raises(SystemExit) as ended:
        main(["train", *words, "--help"])
    assert ended.value.code == 0
    flags, _, below = capsys.readouterr().out.partition("Presets:")
    return flags, " ".join(below.split())


@pytest.mark.parametrize(("backend", "shown", "hidden"), [
    ("torch", "allow_tf32", "amp_level"), ("paddle", "amp_level", "allow_tf32"), ("mindspore", "jit_level", "compile"),
])  # fmt: skip
def test_settings_of_other_backends_are_not_shown(
    backend: str, shown: str, hidden: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.toml"
    file.write_text(f'backend = "{backend}"\n')
    for words in (["--backend", backend], ["--config", str(file)]):
        flags, below = helped(capsys, *words)
        assert f"--{shown} " in flags
        assert f"--{hidden} " not in flags
        assert hidden in below
        assert shown not in below


@needs.backend
def test_settings_of_other_families_are_not_shown(
    tiny_model: Path, family_models: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    flags, below = helped(capsys, "--model", str(tiny_model))
    assert "--weighting_scheme " not in flags
    assert "(Stable Diffusion 3, Flux): weighting_scheme, logit_mean" in below
    flags, below = helped(capsys, "--pretrained_model_name_or_path", str(family_models("sd3")))
    assert "--weighting_scheme " in flags
    assert "--guidance_scale " not in flags
    assert "weighting_scheme" not in below


def test_what_a_setting_needs_stands_beside_it(capsys: pytest.CaptureFixture[str]) -> None:
    flags, _ = helped(capsys, "--model", "no/such/model")
    assert "Acts only with use_lora." in " ".join(flags.split())


def test_help_is_given_beside_a_flag_without_its_value(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", "--help", "--model"])
    assert ended.value.code == 0
    assert "--use_lora" in capsys.readouterr().out
