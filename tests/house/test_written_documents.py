"""What tools write, into docs/ and elsewhere, is what they would write today."""

from __future__ import annotations

import runpy

import pytest

from ..support.paths import ROOT

TOOLS = [
    *(("draw_packages", "picture"), ("write_settings", "document"), ("write_moving", "document")),
    *(("write_keywords", "document"), ("write_memory", "document")),
]


@pytest.mark.parametrize(("tool", "makes"), TOOLS)
def test_it_is_up_to_date(tool: str, makes: str) -> None:
    run = runpy.run_path(str(ROOT / "tools" / "house" / f"{tool}.py"))
    assert run["FILE"].read_text(encoding="utf-8") == run[makes](), f"run python -m tools.house.{tool}"
