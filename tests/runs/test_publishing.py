"""A run that publishes its model: what arrives, what it costs where the Hub fails, and that nobody sees the token.

`tests/hub` has what the client sends; here whole runs are processes of their own.  What each backend's
finished run would publish: `tests/contract/test_layouts.py`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import yaml

import dreamcore
from dreamcore.training import publishing, setup

from ..support.hub_server import UploadHub
from ..support.paths import ROOT
from ..support.stub_backend import write_model
from ..support.tiny import draw_photos

pytest.importorskip("huggingface_hub", reason="what is tested is what its client sends")

TOKEN = "hf_nobodyIsToSeeThis"
PROGRAM = """
import json, sys, time
time.sleep = lambda seconds: None  # between the client's attempts
from tests.support import stub_backend
stub_backend.install()
import dreamcore
from dreamcore.cli.main import main
from dreamcore.training import run_report
run_report.write_report = lambda folder: None
if sys.argv[1] == "python":
    sys.exit(dreamcore.train(**json.loads(sys.argv[2])).exit_code)
sys.exit(main(["train", *(f"--{name}={value}" for name, value in json.loads(sys.argv[2]).items())]))
"""
Settings = dict[str, Any]


class Hub(UploadHub):
    """Goes away once it has been asked whether one may write there, where it is to."""

    goes = gone = False

    def of_repository(self, name: str, what: list[str], asked: dict[str, Any], body: bytes) -> Any:
        self.gone = self.goes and what == ["preupload", "main"]
        return super().of_repository(name, what, asked, body)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        return self.hang_up(request) if self.gone else super().answer(request)


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub(TOKEN)
    yield hub
    hub.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Four updates with images of two validations, to be published."""
    return {
        "pretrained_model_name_or_path": str(write_model(tmp_path / "model")),
        "instance_data_dir": str(draw_photos(tmp_path / "photos", count=2, size=64)),
        "instance_prompt": "a photo of a sks mug",
        "output_dir": str(tmp_path / "my-mug"),
        "max_train_steps": 4,
        "train_batch_size": 1,
        "checkpointing_steps": 2,
        "validation_prompt": "a mug in snow",
        "validation_steps": 2,
        "num_validation_images": 1,
        "report_to": "none",
        "push_to_hub": True,
    }


def run(endpoint: str, tmp_path: Path, settings: Settings, how: str = "flags") -> tuple[int, str]:
    """The exit code and all that a run says; nobody is to find the token in that, nor in any file."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))},
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(tmp_path / "home"),
        "HOME": str(tmp_path / "home"),
        **dict.fromkeys(("HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY", "HF_HUB_DISABLE_PROGRESS_BARS"), "1"),
    }
    command = [sys.executable, "-c", PROGRAM, how, json.dumps(settings)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    said = done.stdout + done.stderr
    assert TOKEN not in said
    assert [f for f in tmp_path.rglob("*") if f.is_file() and TOKEN.encode() in f.read_bytes()] == []
    return done.returncode, " ".join(said.split())


def test_what_arrives(hub: Hub, settings: Settings, tmp_path: Path) -> None:
    """The model's files, the last images and a card, and nothing else of the run's folder."""
    asked = {"hub_model_id": "me/a-mug", "hub_private_repo": True, "hub_token": TOKEN}
    code, said = run(hub.endpoint, tmp_path, settings | asked, "python")
    assert code == 0 and said.endswith(f"published: {hub.endpoint}/me/a-mug")
    there, out = hub.repositories["me/a-mug"], tmp_path / "my-mug"
    base = {f.relative_to(tmp_path / "model").as_posix() for f in (tmp_path / "model").rglob("*") if f.is_file()}
    assert there.files.keys() == base | {"samples/step-000004-0.png", "README.md"}
    for name, content in there.files.items():
        if name != "README.md" and not name.endswith("config.json"):
            assert content == (out / name).read_bytes(), name
    assert there.private and len(there.commits) == 1
    card = there.files["README.md"].decode()
    header = yaml.safe_load(card.split("---\n")[1])
    assert header["instance_prompt"] == "a photo of a sks mug"
    assert header["widget"] == [{"text": "a mug in snow", "output": {"url": "samples/step-000004-0.png"}}]
    assert str(tmp_path) not in card and "me/a-mug" in card
    kept = yaml.safe_load((out / "config.yaml").read_text())
    assert kept["push_to_hub"] is True and "hub_token" not in kept


def test_without_a_token_nothing_is_trained(hub: Hub, settings: Settings, tmp_path: Path) -> None:
    code, said = run(hub.endpoint, tmp_path, settings)
    assert code == 2 and "error: push_to_hub: no token of the Hub; set HF_TOKEN to a token with write access" in said
    assert "on stub" not in said, "nothing was loaded"
    assert [f.name for f in (tmp_path / "my-mug").iterdir()] in ([], [".dreambooth"])
    assert hub.repositories == {}


def test_a_hub_that_has_gone_costs_nothing(hub: Hub, settings: Settings, tmp_path: Path) -> None:
    """The model is whole, and the same command publishes it, without another update."""
    hub.goes = True
    asked, out = settings | {"hub_token": TOKEN}, tmp_path / "my-mug"
    code, said = run(hub.endpoint, tmp_path, asked)
    assert code == 1 and hub.repositories["me/my-mug"].files == {}
    assert "stopped: push_to_hub: my-mug: the Hub cannot be reached" in said
    again = f"The finished model is whole, in {out}; to publish it, give the command again with"
    assert f"{again} --resume_from_checkpoint latest" in said
    assert (out / "model_index.json").is_file() and "run ended: finished" in (out / "log.txt").read_text()
    before = {f: f.read_bytes() for f in out.rglob("*") if f.is_file()}
    hub.goes = hub.gone = False
    code, said = run(hub.endpoint, tmp_path, asked | {"resume_from_checkpoint": "latest"})
    assert code == 0 and said.endswith(f"published: {hub.endpoint}/me/my-mug")
    assert "is finished, after 4 updates" in said and "on stub" not in said
    assert {f: f.read_bytes() for f in out.rglob("*") if f.is_file()} == before
    assert {"model_index.json", "README.md", "samples/step-000004-0.png"} <= hub.repositories["me/my-mug"].files.keys()


def test_only_the_main_process_publishes(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others ask for no token, and nothing of a Hub."""

    def asked(*_: Any, **__: Any) -> None:
        raise AssertionError("asked the Hub")

    monkeypatch.setattr(setup, "launch_rank", lambda name: 1)
    for module, name in ((publishing, "check_access"), (publishing, "push")):
        monkeypatch.setattr(module, name, asked)
    assert dreamcore.train(**settings).exit_code == 0
    assert not (tmp_path / "my-mug").exists()
    monkeypatch.setattr(setup, "launch_rank", lambda name: 0)
    with pytest.raises(AssertionError, match="asked the Hub"):
        dreamcore.train(**settings)
