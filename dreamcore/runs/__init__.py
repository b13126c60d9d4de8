"""A run's folder: whose it is, what runs have written there, what may be replaced, and its checkpoints."""

from __future__ import annotations

from .folder import RunFolder

__all__ = ["RunFolder"]
