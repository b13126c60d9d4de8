"""How fast a run's updates come, from the seconds that each took; what was done in between is left out."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

RECENT = 20
"""Updates that the loss and the rate are means of: single losses jump with their timesteps."""


class Pace:
    """Is told every record of a run, or of a part of it.

    Args:
        total: updates of the whole run.
    """

    def __init__(self, total: int) -> None:
        self._total, self._last = total, 0
        self._losses: deque[float] = deque(maxlen=RECENT)
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._elapsed, self._told = 0.0, 0

    def update(self, record: Mapping[str, float | int]) -> None:
        """One record of metrics.jsonl, in order."""
        self._last = int(record["step"])
        if "skipped" not in record:  # its loss may be infinite
            self._losses.append(record["loss"])
        self._recent.append(record["seconds"])
        self._elapsed += record["seconds"]
        self._told += 1

    @property
    def loss(self) -> float:
        """Mean of the last updates' losses; 0 before the first."""
        return sum(self._losses) / max(1, len(self._losses))

    @property
    def updates_per_second(self) -> float:
        """Of the last updates; 0 before the first."""
        return len(self._recent) / max(sum(self._recent), 1e-9)

    @property
    def seconds_left(self) -> float:
        """For the updates that are left, as long as those that it was told of took in the mean."""
        return self._elapsed / max(1, self._told) * (self._total - self._last)


def speed(updates_per_second: float) -> str:
    """A rate in words."""
    rate = max(updates_per_second, 1e-9)
    return f"{rate:.2f} updates/s" if rate >= 1 else f"{1 / rate:.2f} s/update"
