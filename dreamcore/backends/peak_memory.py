"""The most memory that each stage of a run holds: of the device, or of the process where it computes on the host."""

from __future__ import annotations

from collections.abc import Callable

from ..io.system import peak_of_process
from .protocol import Backend


class PeakMemory:
    """Notes and says the peak of each stage.

    Args:
        backend: counts, where it has a device with memory of its own.
        say: told each stage's peak.
    """

    def __init__(self, backend: Backend, say: Callable[[str], None]):
        self._backend, self._say = backend, say
        self.stages: dict[str, str] = {}
        """By stage, in words."""
        self._take()

    def end(self, stage: str) -> None:
        """A stage has ended, and the next begins."""
        peak = self._take()
        if peak is not None:
            self.stages[f"peak memory, {stage}"] = words = f"{peak / 2**30:.2f} GiB"
            self._say(f"peak memory while {stage}: {words}")

    def _take(self) -> int | None:
        peak = self._backend.peak_memory()
        return peak_of_process() if peak is None else peak
