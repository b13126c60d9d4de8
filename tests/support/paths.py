"""Where things lie for tests."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""The repository."""
PHOTOGRAPHS = ROOT.parent / "shared" / "data" / "dreambooth"
"""Real photographs, a folder for each subject, where someone has put them beside the repository."""
