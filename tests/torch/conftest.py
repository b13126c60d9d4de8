"""What the tests of whole PyTorch runs share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .nursery import Nursery


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    """A process that has imported the framework, to start commands from."""
    with Nursery() as nursery:
        yield nursery
