"""The events of a run, and the fan-out that hands each event to every tracker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from ..errors import ConfigError, RunError

Level = Literal["detail", "info", "warning", "result"]
"""Why, how long and how much memory; what is going on; what may spoil it; what has come of it."""


@dataclass(frozen=True)
class RunInfo:
    """What is known when a run starts, or goes on."""

    folder: Path
    """The run folder."""
    total_updates: int
    """Updates in the whole run."""
    first_update: int
    """The update that comes next: 1, or one more than the checkpoint's."""
    settings: Mapping[str, Any]
    """The resolved configuration."""
    logging_dir: Path
    """Folder for trackers' files."""


class Tracker(Protocol):
    """Something that is told what happens in a run."""

    def start(self, info: RunInfo) -> None:
        """The run starts; called once, before any other event but messages."""
        ...

    def update(self, record: Mapping[str, float | int]) -> None:
        """One update, in order: step (from 1), loss, loss_instance, [loss_prior], [loss_preservation], lr,
        [lr_text_encoder], [lr_effective], grad_norm, seconds (since the previous update), and skipped where it was."""
        ...

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Other measurements after update `step`, such as validation_loss."""
        ...

    def images(self, step: int, paths: Sequence[Path], prompt: str) -> None:
        """Validation images after update `step` (0: before training), saved as PNG, in the order of their seeds."""
        ...

    def message(self, text: str, level: Level = "info") -> None:
        """Words for the user."""
        ...

    def close(self, outcome: str) -> None:
        """The run has ended; may be called twice."""
        ...


class Trackers(list[Tracker]):
    """Hands every event to each of its trackers.

    A `RunError` or `ConfigError` of a tracker stops the run.  A tracker that fails in another way is left out from
    then on, and the others are told so.  A warning is given once.
    """

    def __init__(self, trackers: Iterable[Tracker] = ()) -> None:
        super().__init__(trackers)
        self._warned = set[str]()

    def start(self, info: RunInfo) -> None:
        self._each("start", info)

    def update(self, record: Mapping[str, float | int]) -> None:
        self._each("update", record)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._each("scalars", step, values)

    def images(self, step: int, paths: Sequence[Path], prompt: str) -> None:
        self._each("images", step, paths, prompt)

    def message(self, text: str, level: Level = "info") -> None:
        if level == "warning":
            if text in self._warned:
                return
            self._warned.add(text)
        self._each("message", text, level)

    def detail(self, text: str) -> None:
        """Words for those who want to know why, how long, and how much memory."""
        self.message(text, "detail")

    def warn(self, text: str) -> None:
        """Words of warning for the user."""
        self.message(text, "warning")

    def close(self, outcome: str) -> None:
        """Close every tracker, whatever happens to one of them, then raise the first error that matters."""
        errors = []
        for tracker in list(self):
            try:
                self._tell(tracker, "close", outcome)
            except (RunError, ConfigError) as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _each(self, event: str, *arguments: Any) -> None:
        for tracker in list(self):
            self._tell(tracker, event, *arguments)

    def _tell(self, tracker: Tracker, event: str, *arguments: Any) -> None:
        if tracker not in self:  # dropped while this very event went round
            return
        try:
            getattr(tracker, event)(*arguments)
        except (RunError, ConfigError):
            raise
        except Exception as error:
            self.remove(tracker)
            with suppress(Exception):
                tracker.close("failed")
            reason = str(error) or type(error).__name__
            self.warn(f"{type(tracker).__name__} failed and is left out from here on: {reason}")
