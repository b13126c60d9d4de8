"""The most memory that each stage of a run holds: of the device, or of the process where it computes on the host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from .backend import Backend

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


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
        return _host_peak() if peak is None else peak


def _host_peak() -> int | None:
    """Bytes of the process's peak since the last call (Linux's VmHWM); None where the system does not say."""
    try:
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
        _RESET.write_text("5")
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        return None
