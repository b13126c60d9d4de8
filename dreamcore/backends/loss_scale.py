"""fp16's dynamic loss scale, for backends whose framework has none that can be saved (1710.03740, section 3.2)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class LossScale:
    """Halved by an overflow, whose update is skipped; doubled after 2,000 updates without one, as in PyTorch.

    The fields are those of torch.amp.GradScaler's state, so that they travel in checkpoints.
    """

    scale: float = 65536.0
    growth_factor: float = 2.0
    backoff_factor: float = 0.5
    growth_interval: int = 2000
    _growth_tracker: int = 0

    def update(self, *, overflow: bool) -> None:
        """Take in how an update ended."""
        self._growth_tracker = 0 if overflow else self._growth_tracker + 1
        if overflow:
            self.scale *= self.backoff_factor
        elif self._growth_tracker == self.growth_interval:
            self.scale *= self.growth_factor
            self._growth_tracker = 0
