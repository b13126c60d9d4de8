"""Scripts in the place of another trainer's, beside modules of other packages' names; and what `configs` lists."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import dreamcore
from dreamcore.cli.main import main
from dreamcore.commands.stand_in import MARK
from dreamcore.config.compat import SYSTEMS

from ..support.paths import ROOT

THEIRS = "raise SystemExit('the original ran')\n"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """As a clone of Structured DreamBooth LoRA: its script, and modules of other packages' names beside it."""
    folder = tmp_path / "clone"
    for name in ("datasets", "models", "utils", "pydantic", "PIL", "yaml"):
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(f"raise SystemExit('{name}/ beside the script was imported')\n")
    (folder / "main.py").write_text(THEIRS)
    (folder / "inspect_data.py").write_text(THEIRS)
    return folder


def said(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_an_original_is_kept_once(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (f"{clone / 'main.py'} (the original: main.py.orig)\n", f"{clone / 'main.py'}\n"):
        assert main(["stand-in", str(clone)]) == 0
        assert capsys.readouterr().out == words
        assert (clone / "main.py.orig").read_text() == THEIRS
        assert (clone / "main.py").read_text().startswith(MARK)
    assert sorted(f.name for f in clone.glob("*.*")) == ["inspect_data.py", "main.py", "main.py.orig"]
    assert (clone / "inspect_data.py").read_text() == THEIRS, "a script of no known name"
    (clone / "main.py").write_text("# pulled again\n")
    assert main(["stand-in", str(clone)]) == 0
    assert [(clone / name).read_text() for name in ("main.py.orig", "main.py-2.orig")] == [THEIRS, "# pulled again\n"]


def test_it_runs_beside_modules_of_other_names(clone: Path) -> None:
    """From its folder, as READMEs say, and from elsewhere."""
    assert main(["stand-in", str(clone)]) == 0
    for script, place in (("main.py", clone), (str(clone / "main.py"), clone.parent)):
        done = said(script, "--help", cwd=place)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("usage: dreambooth train ")
    wrong = said("main.py", "--no_such_flag=1", cwd=clone)
    assert wrong.returncode == 2 and "dreambooth: error: --no_such_flag: unknown setting" in wrong.stderr


def test_it_means_what_the_original_meant(clone: Path) -> None:
    """Beside a flag of its own the other command, on that trainer's own terms."""
    assert main(["stand-in", str(clone)]) == 0
    done = said("main.py", "--checkpoint_dir=nowhere", "--prompt=a", "--pretrained_model_name_or_path=none", cwd=clone)
    assert done.returncode == 2 and done.stderr.rstrip().endswith("pretrained_model_name_or_path: none: no such folder")


@pytest.mark.parametrize("name", [name for name, system in SYSTEMS.items() if system.scripts])
def test_all_scripts_of_a_trainer(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each of them says whose it is: several trainers have scripts of one name."""
    assert main(["stand-in", str(tmp_path), "--like", name]) == 0
    files = sorted(tmp_path.iterdir())
    assert [f.name for f in files] == sorted(SYSTEMS[name].scripts)
    assert capsys.readouterr().out.splitlines() == [str(f) for f in files]
    for file in files:
        assert f'"--like={name}"' in file.read_text()
        compile(file.read_text(), str(file), "exec")


def test_a_folder_without_their_scripts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.py").write_text(THEIRS)
    assert main(["stand-in", str(tmp_path)]) == 2
    wrong = capsys.readouterr().err
    assert f"stand-in: {tmp_path}: holds none of the scripts that are known" in wrong
    assert "main.py" in wrong and "--like NAME writes all of a trainer's" in wrong
    assert [f.name for f in tmp_path.iterdir()] == ["other.py"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "stand-in: nowhere: no such folder; expected the folder of another trainer's scripts"),
        ([".", "--like", "nobody"], "like: 'nobody' is not known; expected one of colossalai, "),
        ([], "the following arguments are required: FOLDER"),
    ],
)
def test_what_is_wrong_is_said(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["stand-in", *words]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_as_a_module_beside_modules_of_other_names(clone: Path) -> None:
    """As `torchrun -m dreambooth` and `accelerate launch -m dreambooth` start it."""
    for words, answer in ((["--version"], f"dreambooth {dreamcore.__version__}\n"), (["train", "--help"], "usage: ")):
        done = said("-m", "dreambooth", *words, cwd=clone)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(answer)
