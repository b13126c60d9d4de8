"""Reasons for which a test is left out, in one place."""

from __future__ import annotations

import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from dreamcore.backends.installed import installed_backends

torch = pytest.mark.skipif(find_spec("torch") is None, reason="the PyTorch environment is not installed here")
"""Tests that compare with PyTorch, diffusers or peft; their environment holds all three."""

backend = pytest.mark.skipif(not installed_backends(), reason="no backend is installed here")
"""Tests of whole runs, with whichever backend is installed."""

paddle = pytest.mark.skipif(find_spec("paddle") is None, reason="the Paddle environment is not installed here")
"""Tests of the Paddle backend; what PyTorch must have written for them is not a reason to leave them out."""

slow_on_mindspore = pytest.mark.slow if find_spec("mindspore") else pytest.mark.skipif(False, reason="quick here")
"""Tests that take a minute or more with MindSpore; the other backends' sessions have them."""


def mount_disk(folder: Path, mebibytes: int) -> None:
    """Mount a small disk (tmpfs) on a folder, or leave the test out where that is not permitted."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a disk that fills needs the right to mount one (root)")


mindspore = pytest.mark.skipif(find_spec("mindspore") is None, reason="the MindSpore environment is not installed here")
"""Tests of the MindSpore backend; what PyTorch must have written for them is not a reason to leave them out."""

torch_or_paddle = pytest.mark.skipif(
    not {"torch", "paddle"} & set(installed_backends()), reason="neither PyTorch nor Paddle is installed here"
)
"""Tests of what MindSpore has tests of its own for, since its launcher differs."""
