"""The benchmark's two loops still run; how fast, no test asks."""

from __future__ import annotations

import sys

import pytest

from benchmarks import compare_mindone

from ..crossing.cases import reference
from ..support import needs


@needs.mindspore
def test_both_loops_run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["compare_mindone", f"--model={reference('models') / 'sd1'}", "--updates=1"])
    compare_mindone.main()
    rows = capsys.readouterr().out.splitlines()[-2:]
    assert [row[:22].strip() for row in rows] == ["a plain mindone loop", "dreambooth on MindSpor"]
    assert all(float(figure) > 0 for row in rows for figure in row.split()[-2:])
