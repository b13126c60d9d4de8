"""`dreambooth doctor`: what is installed, beside what was tested."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata
from typing import Any

import numpy as np
import pytest

import dreamcore
from dreamcore.backends import installation
from dreamcore.backends.installation import BackendState, Package, examine, pinned_versions
from dreamcore.backends.installed import installed_backends
from dreamcore.backends.selftest import LOSS, NORM, STEP, judge_step, judge_update
from dreamcore.cli.main import main

from ..support import needs


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    """What a fresh process finds, and which frameworks it has imported itself in doing so."""
    code = """
import dataclasses, json, sys, dreamcore
report = dataclasses.asdict(dreamcore.doctor())
print(json.dumps(report | {"imported": [n for n in ("torch", "diffusers", "transformers") if n in sys.modules]}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_versions_are_those_installed(found: dict[str, Any]) -> None:
    assert found["version"] == dreamcore.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {p["name"]: p["installed"] for p in found["packages"]}["numpy"] == metadata.version("numpy")
    assert found["cpu_count"] >= 1
    assert found["disk_free_gb"] > 0


def test_looking_imports_no_framework(found: dict[str, Any]) -> None:
    assert found["imported"] == []


@needs.paddle
def test_paddle_is_ready(found: dict[str, Any]) -> None:
    (paddle,) = (b for b in found["backends"] if b["name"] == "paddle")
    assert paddle["problem"] is None
    assert paddle["usable"]
    assert paddle["devices"][0] == "cpu"
    assert all(p["installed"] == p["tested"] for p in paddle["packages"])


@needs.torch
def test_torch_is_ready(found: dict[str, Any]) -> None:
    (torch,) = (b for b in found["backends"] if b["name"] == "torch")
    assert torch["problem"] is None
    assert torch["usable"]
    assert torch["devices"][0] == "cpu"


def test_pins_are_read() -> None:
    pins = pinned_versions("torch")
    assert {"torch", "diffusers", "numpy", "pillow"} <= set(pins)
    assert all(version[0].isdigit() for version in pins.values())


@pytest.mark.parametrize(
    ("installed", "tested", "as_tested"),
    [
        ("2.13.0+cpu", "2.13.0", True),
        ("2.13.0", "2.13.0", True),
        ("2.13.1", "2.13.0", False),
        (None, "2.13.0", False),
        ("1.0", None, False),
    ],
)
def test_as_tested(installed: str | None, tested: str | None, as_tested: bool) -> None:
    assert Package("x", installed, tested).as_tested is as_tested


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "COMPANIONS", {"torch": ("numpy", "frobnicate-torch")})
    (torch,) = examine().backends
    assert not torch.usable
    assert (
        torch.problem
        == "not installed: frobnicate-torch; pip install '.[torch]' in a clone of this library's repository"
    )


def test_a_broken_framework_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend whose libraries are there but whose import fails, as a library built for another version does."""
    monkeypatch.setattr(installation, "COMPANIONS", {"torch": ("numpy",)})
    monkeypatch.setattr(installation, "_PROBE", "raise ImportError('undefined symbol: frobnicate')")
    (torch,) = examine().backends
    assert not torch.usable
    assert torch.problem == "cannot be imported: ImportError: undefined symbol: frobnicate"


def test_exit_code_and_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    state = BackendState("torch", usable=False, packages=[Package("torch", None, "2.13.0")], problem="not installed")
    monkeypatch.setattr(installation, "_examine_backend", lambda name: state)
    assert main(["doctor"]) == 1
    words = capsys.readouterr().out
    assert "torch: not installed" in words
    assert "missing        tested: 2.13.0" in words
    assert "No backend can be used." in words
    ready = BackendState("torch", usable=True, packages=[Package("torch", "2.13.0", "2.13.0")], devices=["cpu", "mps"])
    monkeypatch.setattr(installation, "_examine_backend", lambda name: ready)
    assert main(["doctor"]) == 0
    words = capsys.readouterr().out
    assert "torch: ready, on cpu, mps" in words
    assert "2.13.0         as tested" in words


def test_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    state = BackendState("torch", usable=True, packages=[Package("torch", "2.13.0+cpu", "2.13.0")], devices=["cpu"])
    monkeypatch.setattr(installation, "COMPANIONS", {"torch": ()})
    monkeypatch.setattr(installation, "_examine_backend", lambda name: state)
    monkeypatch.setattr(installation, "COMPANIONS", {"torch": ()})
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["backends"] == [
        {
            "name": "torch",
            "usable": True,
            "packages": [{"name": "torch", "installed": "2.13.0+cpu", "tested": "2.13.0"}],
            "devices": ["cpu"],
            "problem": None,
        }
    ]


@needs.backend
def test_the_selftest_runs_what_this_device_has(capsys: pytest.CaptureFixture[str]) -> None:
    (name,) = installed_backends()
    assert main(["doctor", "--selftest"]) == 0
    words = capsys.readouterr().out
    step, lacks = {"mindspore": ("pynative, float32", "graph mode, float32")}.get(name, ("float32", "fp16"))
    assert f"{name}: ok      {step}: loss 1.4532" in words
    assert f"{name}: ok      the update moves every weight: 792964 of 792964 numbers moved" in words
    assert f"{name}: -       {lacks}: not here" in words
    assert "FAILED" not in words


@needs.backend
def test_the_selftest_tells_a_wrong_step_from_a_right_one() -> None:
    assert judge_step(LOSS, [np.array([NORM])], 1e-6)[0]
    assert not judge_step(LOSS * 1.01, [np.array([NORM])], 1e-3)[0]
    assert not judge_step(LOSS, [np.array([NORM * 0.99])], 1e-3)[0]
    before, slope = {"a": np.zeros(3)}, {"a": np.array([1.0, -2.0, 0.0])}
    assert judge_update(before, {"a": np.array([-STEP, STEP, 0.0])}, slope)[0]
    assert not judge_update(before, before, slope)[0], "as an optimizer that does nothing, without a word"


@pytest.mark.parametrize("backend", ["torch", "paddle", "mindspore"])
def test_the_cores_packages_are_compared_with_the_installed_backends_pins(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installation, "installed_backends", lambda: [backend])
    monkeypatch.setattr(installation, "COMPANIONS", {})
    tested = {p.name: p.tested for p in examine().packages}
    assert tested["numpy"] == pinned_versions(backend)["numpy"]


def test_a_selftest_that_fails_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from types import SimpleNamespace

    from dreamcore.cli import doctor

    outcomes = [("sums", True, "2"), ("differences", False, "3 where 2 is right"), ("products", None, "not here")]
    monkeypatch.setattr(doctor, "installed_backends", lambda: ["torch"])
    monkeypatch.setattr(doctor, "find_spec", lambda name: object())
    monkeypatch.setattr(doctor, "import_module", lambda name: SimpleNamespace(selftest=lambda: outcomes))
    assert main(["doctor", "--selftest"]) == 1
    assert "torch: FAILED  differences: 3 where 2 is right" in capsys.readouterr().out
