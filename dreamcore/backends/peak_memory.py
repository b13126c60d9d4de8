"""The most memory that each stage of a run holds, of the device, or of the process where it computes on the host;
beside it what was predicted."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..io.system import held_by_process, peak_of_life, peak_of_process
from .out_of_memory import LOADING, TRAINING
from .protocol import Backend

ON_HOST = "host memory of the whole run"
"""What the peak of the process is called, where there is a device besides."""


class PeakMemory:
    """Notes and says the peak of each stage.

    Args:
        predicted: bytes by stage, and of `ON_HOST`; those of the host without what the idle process has.
        say: told each stage's peak.
    """

    def __init__(self, predicted: Mapping[str, int], say: Callable[[str], None]):
        self._predicted, self._say = predicted, say
        self._backend: Backend | None = None
        self._idle = 0
        self.stages: dict[str, str] = {}
        """By stage, in words."""
        self._peak: int | None = None

    def idle(self) -> None:
        """The framework is there, and nothing of the model."""
        peak_of_process()
        self._idle = held_by_process() or 0

    def watch(self, backend: Backend) -> None:
        """The model is loaded: from now on the backend counts, where it has a device with memory of its own."""
        self._backend = backend
        self.end(LOADING)

    def so_far(self) -> int | None:
        """Bytes, at the most, since the last stage ended; None where that cannot be told."""
        peak, _ = self._take()
        self._peak = peak if self._peak is None else max(self._peak, peak or 0)
        return self._peak

    def end(self, stage: str) -> None:
        """A stage has ended, and the next begins."""
        peak, on_device = self._take()
        peak, self._peak = peak if self._peak is None else max(self._peak, peak or 0), None
        self._note(stage, f"while {stage}", peak, 0 if on_device else self._idle)
        if stage == TRAINING and on_device:
            self._note(ON_HOST, f"of the host's in all, {stage} done", peak_of_life(), self._idle)

    def _note(self, name: str, when: str, peak: int | None, idle: int) -> None:
        if peak is None:
            return
        words = f"{peak / 2**30:.2f} GiB"
        if name in self._predicted:
            words += f", predicted {(self._predicted[name] + idle) / 2**30:.2f} GiB"
        self.stages[f"peak memory, {name}"] = words
        self._say(f"peak memory {when}: {words}")

    def _take(self) -> tuple[int | None, bool]:
        """The peak since the last time, and whether it is a device's."""
        peak = None if self._backend is None else self._backend.peak_memory()
        return (peak_of_process(), False) if peak is None else (peak, True)
