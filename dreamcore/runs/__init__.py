"""A run's folder: whose it is, what runs have written there, and what may be replaced."""

from __future__ import annotations

from .folder import CONFIG, METRICS, REPORT_DATA, SAMPLES, SUBJECT, RunFolder

__all__ = ["CONFIG", "METRICS", "REPORT_DATA", "SAMPLES", "SUBJECT", "RunFolder"]
