"""From what the device measured to the records of metrics.jsonl, and the watch for what is not finite."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..backends.protocol import Backend, Batch, StepResult
from ..data.image_set import CLASS, INSTANCE, PRESERVED
from ..errors import RunError
from ..track import Trackers


@dataclass(frozen=True)
class _Pending:
    update: int
    lr: dict[str, float]
    weight: NDArray[np.float32]
    kind: NDArray[np.int64]
    seconds: float


KINDS = {"loss_instance": INSTANCE, "loss_prior": CLASS, "loss_preservation": PRESERVED}
"""Parts of the loss -> the rows that they are of."""
OVERFLOWS = 30
"""So many updates in a row that overflow have halved fp16's loss scale down to nothing: it is not the scale's fault."""


class MetricsRecorder:
    """Keeps what the host knows of each update until the device's part is copied, once every few updates.

    Args:
        backend: measures; its world shares out the rows.
        prior_loss_weight: λ, or None without prior preservation.
        trackers: told every record, in order.
        preservation_weight: λ of the network's own answers, or None where they are not kept.
    """

    def __init__(
        self,
        backend: Backend,
        prior_loss_weight: float | None,
        trackers: Trackers,
        preservation_weight: float | None = None,
    ):
        self._backend, self._trackers = backend, trackers
        lambdas = {"loss_prior": prior_loss_weight, "loss_preservation": preservation_weight}
        self._lambdas = {name: weight for name, weight in lambdas.items() if weight is not None}
        self._pending: list[_Pending] = []
        self._last = time.monotonic()
        self.checked = 0
        """Updates whose loss and gradient are known to be finite."""
        self._skipped = self._in_a_row = 0

    def restart_clock(self) -> None:
        """Leave out what was done since the last update (validation, saving) from its successor's seconds."""
        self._last = time.monotonic()

    def note(self, update: int, lr: Mapping[str, float], batches: Sequence[Batch], kind: NDArray[np.int64]) -> None:
        """An update (from 1) that was just sent to the device."""
        now = time.monotonic()
        weight = np.concatenate([b.weight for b in batches])
        self._pending.append(_Pending(update, dict(lr), weight, kind, now - self._last))
        self._last = now

    def flush(self) -> None:
        """Copy what was measured, and pass it on.

        Raises:
            RunError: a loss or a gradient that is not finite.
        """
        waited = time.monotonic()
        results = self._backend.metrics()
        waited = (time.monotonic() - waited) / max(1, len(self._pending))  # the device's share of these updates' time
        parts = [self._parts(p, r) for p, r in zip(self._pending, results, strict=True)]
        sums = np.sum(self._backend.world.gather(np.array(parts).reshape(-1, len(KINDS))), axis=0)
        for pending, result, of_kind in zip(self._pending, results, sums, strict=True):
            record = self._record(pending, result, dict(zip(KINDS, of_kind.tolist(), strict=True)), waited)
            self._trackers.update(record)
            self._count_skipped(pending.update, result)
            if not result.skipped:
                _check_finite(pending.update, record)
            self.checked = pending.update
        self._pending.clear()
        self._last = time.monotonic()

    def _count_skipped(self, update: int, result: StepResult) -> None:
        self._in_a_row = self._in_a_row + 1 if result.skipped else 0
        if not result.skipped:
            return
        self._skipped += 1
        said = f"update {update}: not applied, for its gradient overflows fp16; the loss scale is lowered"
        if self._skipped == 1:  # the first few are how the scale is found
            self._trackers.warn(f"{said}; metrics.jsonl marks each such update as skipped")
        else:
            self._trackers.message(f"{said} ({self._skipped} skipped so far)")
        if self._in_a_row == OVERFLOWS:
            raise RunError(
                f"update {update}: the gradient has overflowed fp16 in {OVERFLOWS} updates in a row. Lower "
                "learning_rate, or use mixed_precision bf16 or no; every checkpoint is from before the last of them"
            )

    @staticmethod
    def _parts(pending: _Pending, result: StepResult) -> list[float]:
        """This device's part of an update's loss: of its rows of each of `KINDS`."""
        terms = pending.weight.astype(np.float64) * result.errors.astype(np.float64)
        return [float(terms[pending.kind == kind].sum()) for kind in KINDS.values()]

    def _record(
        self, pending: _Pending, result: StepResult, parts: Mapping[str, float], waited: float
    ) -> dict[str, float]:
        """What metrics.jsonl has of an update; `parts` of its loss are by the names of `KINDS`."""
        record = {"step": pending.update, "loss": sum(parts.values()), "loss_instance": parts["loss_instance"]}
        record |= {name: parts[name] / weight for name, weight in self._lambdas.items()}
        denoiser, *encoders = pending.lr
        record["lr"] = pending.lr[denoiser]
        if result.rate_factor is not None:
            record["lr_effective"] = pending.lr[denoiser] * result.rate_factor
        record |= {f"lr_{name}": pending.lr[name] for name in encoders}
        record |= {"grad_norm": result.grad_norm, "seconds": pending.seconds + waited}
        return record | ({"skipped": 1} if result.skipped else {})


def _check_finite(update: int, record: Mapping[str, float]) -> None:
    """The gradient too: one that overflows spoils the weights, though the loss that it came from was finite."""
    for name, words in (("loss", "the loss"), ("grad_norm", "the norm of the gradient")):
        if not math.isfinite(record[name]):
            raise RunError(
                f"update {update}: {words} is {record[name]}. Lower learning_rate, or turn mixed_precision off; every "
                "checkpoint is from before this update"
            )
