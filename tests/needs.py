"""Reasons for which a test is left out, in one place."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

torch = pytest.mark.skipif(find_spec("torch") is None, reason="the PyTorch environment is not installed here")
"""Tests that compare with PyTorch, diffusers or peft; their environment holds all three."""

paddle = pytest.mark.skipif(find_spec("paddle") is None, reason="the Paddle environment is not installed here")
"""Tests of the Paddle backend; what PyTorch must have written for them is not a reason to leave them out."""
