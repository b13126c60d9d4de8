"""Reasons for which a test is left out, in one place."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

torch = pytest.mark.skipif(find_spec("torch") is None, reason="the PyTorch environment is not installed here")
"""Tests that compare with PyTorch, diffusers or peft; their environment holds all three."""

mindspore = pytest.mark.skipif(find_spec("mindspore") is None, reason="the MindSpore environment is not installed here")
"""Tests of the MindSpore backend; what PyTorch must have written for them is not a reason to leave them out."""
