"""What a run tells: to the terminal, to files in its folder, to TensorBoard, VisualDL and Weights & Biases.

The loop emits events and knows none of the receivers.  `metrics.jsonl` is part of the run's result, so failing to
write it stops the run; every other receiver is a convenience: when one fails, it is named once and left out.
"""

from __future__ import annotations

from .base import RunInfo, Tracker, Trackers
from .console import Console
from .display import showing, shows_progress
from .factory import make_trackers
from .files import LogFile
from .metrics import MetricsFile, read_lines, truncate_metrics
from .verbosity import Verbosity, verbosity

__all__ = [
    "Console",
    "LogFile",
    "MetricsFile",
    "RunInfo",
    "Tracker",
    "Trackers",
    "Verbosity",
    "make_trackers",
    "read_lines",
    "showing",
    "shows_progress",
    "truncate_metrics",
    "verbosity",
]
