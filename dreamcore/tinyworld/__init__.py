"""tinyworld: scenes drawn by code, a Stable Diffusion in miniature trained on them, and a judge of its images.

With it, DreamBooth can be seen and measured on any machine, offline: what an image ought to show is known, because
the scenes' truth is known.
"""

from __future__ import annotations

from .scenes import SIZE, Scene, draw, scene_at
from .subjects import QUICKSTART, SUBJECTS, Subject

__all__ = ["QUICKSTART", "SIZE", "SUBJECTS", "Scene", "Subject", "draw", "scene_at"]
