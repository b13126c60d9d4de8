"""MindSpore's device is settled once in a process, before anything is computed."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from ..support.runs import configuration


@pytest.fixture(scope="session", autouse=True)
def on_cpu() -> None:
    if find_spec("mindspore"):
        from dreamcore.adapters.mindspore.devices import choose_device

        choose_device(configuration(Path("model"), Path("photos"), Path("out"), device="cpu"))
