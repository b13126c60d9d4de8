"""How like the subject pictures are, how true to their prompts, what is left of the class, and how varied."""

from __future__ import annotations

from .judge import Judge, Picture
from .opening import open_judge
from .scores import Measure, Subject, SubjectScores, score

__all__ = ["Judge", "Measure", "Picture", "Subject", "SubjectScores", "open_judge", "score"]
