"""What a run says in the terminal, quietly and at length; its warnings, which stand in the report; a real terminal."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import dreamcore
from dreamcore.cli.main import main
from dreamcore.errors import ConfigError

from ..support import stub_backend
from ..support.paths import ROOT
from ..support.stub_runs import train


def reported(folder: Path) -> list[str]:
    """The warnings that a run's report is made from."""
    found: list[str] = json.loads((folder / "report_data.json").read_text())["warnings"]
    return found


def test_each_warning_is_said_once_and_stands_in_the_report_of_all_parts_of_a_run(
    stub_model: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = stub_backend.StubBackend.train_step

    def warning(*arguments: object) -> None:
        warnings.warn("slow\n  kernel", RuntimeWarning, stacklevel=1)
        warnings.warn("None", FutureWarning, stacklevel=1)
        step(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(stub_backend.StubBackend, "train_step", warning)
    train(stub_model, drawn, tmp_path / "out", resolution=32, max_train_steps=2)
    said, first = capsys.readouterr().err, reported(tmp_path / "out")
    assert [text for text in first if text.startswith("resolution: training at 32×32")]
    assert [text for text in first if text.endswith(": slow kernel")], "a library's, in one line"
    assert said.count("slow kernel") == 1
    assert "RuntimeWarning" not in said
    for text in first:
        assert said.count(f"warning: {text}\n") == 1

    resumed = {"resolution": 32, "max_train_steps": 4, "resume_from_checkpoint": "latest"}
    train(stub_model, drawn, tmp_path / "out", **resumed)
    assert reported(tmp_path / "out") == first
    monkeypatch.undo()
    monkeypatch.setattr(stub_backend.installed, "entry_points", lambda: {"stub": f"{stub_backend.__name__}:load"})
    train(stub_model, drawn, tmp_path / "out", resolution=64, overwrite_output_dir=True)
    assert not [text for text in reported(tmp_path / "out") if "slow kernel" in text or "32×32" in text]


def test_how_much_is_said_changes_nothing_of_the_run(
    stub_model: Path, drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said, left, log = {}, {}, {}
    for level in ("quiet", "normal", "verbose"):
        with dreamcore.verbosity(level):
            train(stub_model, drawn, tmp_path / level, resolution=32, max_train_steps=2)
        said[level] = capsys.readouterr().err.replace(level, "LEVEL")
        texts = [(tmp_path / level / name).read_text() for name in ("config.yaml", "log.txt")]
        left[level], log[level] = (text.replace(level, "LEVEL") for text in texts)
    assert left["quiet"] == left["normal"] == left["verbose"]
    assert "warning" not in said["quiet"]
    assert "update" not in said["quiet"]
    assert "report.html" in said["quiet"], "a result"
    assert "warning: resolution" in said["normal"]
    assert "peak memory" not in said["normal"]
    assert re.search(r"^encoding images: (\d+) of \1, done in", said["verbose"], re.MULTILINE)
    assert "peak memory while encoding images" in said["verbose"]
    for level in log:
        assert "WARNING resolution: training at 32×32" in log[level]
        assert re.search(r"DETAIL  encoding images: (\d+) of \1, done in", log[level])
    with pytest.raises(ConfigError, match="verbosity: 'loud' is not one of"), dreamcore.verbosity("loud"):  # type: ignore[arg-type]
        pass


def test_every_command_takes_the_flags(
    stub_model: Path, drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--pretrained_model_name_or_path", str(stub_model), "--instance_data_dir", str(drawn)]
    words += ["--instance_prompt", "a sks mug", "--max_train_steps", "1", "--report_to", "none"]
    assert main(["train", *words, "--quiet", "--output_dir", str(tmp_path / "a")]) == 0
    assert "update 1/1" not in capsys.readouterr().err
    assert main(["--verbose", "train", *words, "--output_dir", str(tmp_path / "b")]) == 0
    assert "peak memory" in capsys.readouterr().err
    assert main(["runs", "--quiet", str(tmp_path)]) == 0
    assert "finished" in capsys.readouterr().out, "results are said in any case"


CHILD = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background jobs may lack, and we with them
from tests.support import stub_backend
stub_backend.install()
sample = stub_backend.StubBackend.sample
stub_backend.StubBackend.sample = lambda *words: time.sleep(0.3) or sample(*words)
from dreamcore.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals of this kind")
def test_a_terminal_shows_a_bar_and_is_as_before_once_it_is_interrupted(
    stub_model: Path, drawn: Path, tmp_path: Path
) -> None:
    ours, theirs = os.openpty()
    words = ["train", "--pretrained_model_name_or_path", str(stub_model), "--instance_data_dir", str(drawn)]
    words += ["--instance_prompt", "a sks mug", "--output_dir", str(tmp_path / "out"), "--with_prior_preservation"]
    words += ["--class_prompt", "a mug", "--num_class_images", "200", "--sample_batch_size", "1"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    for name in ("NO_COLOR", "TTY_COMPATIBLE", "FORCE_COLOR"):
        environment.pop(name, None)
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, *words], cwd=ROOT, stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    seen, interrupted = "", False
    while True:
        try:
            seen += os.read(ours, 4096).decode(errors="replace")
        except OSError:  # the other end is closed
            break
        if " of 200 " in seen and not interrupted:
            interrupted = True
            process.send_signal(signal.SIGINT)
    os.close(ours)
    assert process.wait() == 130, seen
    assert "generating class images" in seen
    assert "left" in seen.partition(" of 200 ")[2], "time left"
    assert seen.endswith("dreambooth: interrupted\r\n")
    assert "Traceback" not in seen
    assert "\x1b[?25l" not in seen, "the cursor was never hidden"
    assert seen.rpartition("dreambooth: interrupted")[0].rstrip("\r").endswith("\x1b[2K"), "the bar is gone"
