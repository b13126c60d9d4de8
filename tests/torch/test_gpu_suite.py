"""The checks of a card, tried on a CPU: the script itself is right before there is one."""

from __future__ import annotations

import pytest

from benchmarks import gpu_suite

from ..support import needs

pytestmark = needs.torch


def test_each_check_is_tried_whatever_fails_before_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checks = {"wrong": ({"rank": 3}, 1.0), "far": ({"mixed_precision": "bf16"}, 0.0), "float32": ({}, 0.0)}
    monkeypatch.setattr(gpu_suite, "CHECKS", checks)
    assert gpu_suite._checks("cpu") == ["wrong", "far"]
    said = capsys.readouterr().out
    for line in ("wrong: FAILED: rank=3", "far: DOES NOT HOLD", "float32: holds", "gone on with: holds"):
        assert line in said
