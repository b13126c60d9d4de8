"""The watch over what an update measured."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from dreamcore.backends.protocol import Batch, StepResult
from dreamcore.errors import RunError
from dreamcore.track import Trackers
from dreamcore.training.metrics_recorder import MetricsRecorder


def recorder(*results: StepResult) -> MetricsRecorder:
    """One that has noted as many updates of a row each as there are results."""
    alone = SimpleNamespace(gather=lambda parts: parts[None])
    backend: Any = SimpleNamespace(metrics=lambda: list(results), world=alone)
    made = MetricsRecorder(backend, None, Trackers([]))
    batch = cast(Batch, SimpleNamespace(weight=np.ones(1, np.float32)))
    for update in range(len(results)):
        made.note(update + 1, {"unet": 1e-4}, [batch], np.zeros(1, np.int64))
    return made


def result(loss: float, norm: float, skipped: bool = False) -> StepResult:
    return StepResult(np.array([loss], np.float32), norm, skipped)


@pytest.mark.parametrize(
    ("bad", "words"),
    [(result(np.nan, 1), "the loss is nan"), (result(0.5, np.inf), "the norm of the gradient is inf")],
)
def test_what_is_not_finite_stops_the_run(bad: StepResult, words: str) -> None:
    """A gradient can overflow though its loss was finite; its update has spoilt the weights."""
    watched = recorder(result(0.5, 1), bad)
    with pytest.raises(RunError, match=f"update 2: {words}"):
        watched.flush()
    assert watched.checked == 1


def test_an_update_that_was_not_applied_is_no_failure() -> None:
    watched = recorder(result(0.5, np.inf, skipped=True))
    watched.flush()
    assert watched.checked == 1
