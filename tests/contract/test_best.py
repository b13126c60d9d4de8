"""The best checkpoint of a run is whole, whatever backend wrote it: going on from it gives the run's own numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dreamcore.runs import best
from dreamcore.runs.checkpoint import list_checkpoints, verify
from dreamcore.training.validation import HeldOut

from ..support import needs
from ..support.runs import numbers, small_run

pytestmark = needs.backend

SETTINGS: dict[str, Any] = {
    "use_lora": True, "rank": 2, "validation_share": 0.2, "validation_steps": 1, "best_by": "validation_loss",
    "checkpoints_total_limit": 1, "checkpointing_steps": 2,
}  # fmt: skip


def test_going_on_from_it_is_the_run_itself(
    tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, losses, seen = HeldOut.loss, iter((9.0, 3.0, 2.0, 1.0, 2.0)), list[float]()

    def loss(self: HeldOut, *rest: Any) -> float:
        seen.append(real(self, *rest))
        return next(losses)

    with monkeypatch.context() as patch:
        patch.setattr(HeldOut, "loss", loss)
        run = small_run(tiny_model, photos, tmp_path / "run", **SETTINGS)
    assert len(seen) == 5 and np.isfinite(seen).all()
    found, folder = best.read(run.folder), run.folder / "checkpoint-best"
    assert found == best.Best(3, "validation_loss", 1.0, 9.0), "between two checkpoints"
    assert [n for n, _ in list_checkpoints(run.folder)] == [4]
    assert verify(folder)["update"] == 3
    more = small_run(tiny_model, photos, tmp_path / "more", **SETTINGS, resume_from_checkpoint=str(folder))
    assert numbers(more) == numbers(run)[3:]
