"""A run whose checkpoints are written while it trains on: they are those of a run that waits."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from dreamcore.formats.later import Later
from dreamcore.runs.checkpoint import list_checkpoints, verify
from dreamcore.training import loop
from dreamcore.training.metrics_recorder import MetricsRecorder

from ..support.interrupted_runs import content
from ..support.runs import numbers, small_run

SETTINGS: dict[str, Any] = {"use_ema": True, "checkpointing_steps": 1, "max_train_steps": 3}
METHODS: dict[str, dict[str, Any]] = {"full": {}, "lora": {"use_lora": True, "rank": 2}}


def files(run: Path) -> dict[str, Any]:
    """Of all checkpoints, but what they say of their run."""
    found = (f for _, folder in list_checkpoints(run) for f in folder.rglob("*") if f.is_file())
    return {str(f.relative_to(run)): content(f) for f in found if f.name != "state.json"}


@pytest.mark.parametrize("method", METHODS)
def test_a_checkpoint_holds_its_update(
    method: str, tiny_model: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SETTINGS | METHODS[method]
    waits = small_run(tiny_model, photos, tmp_path / "waits", **settings)
    made, written = [threading.Event() for _ in range(4)], list[tuple[int, bool]]()
    write, note = Later.write, MetricsRecorder.note

    def noted(self: MetricsRecorder, update: int, *rest: Any) -> None:
        note(self, update, *rest)
        made[update].set()

    def held_up(self: Later) -> None:
        """Until the update after this checkpoint's is made, where there is one."""
        number = len(written) + 1
        beside = threading.current_thread() is not threading.main_thread()
        written.append((number, beside and made[min(number + 1, 3)].wait(60)))
        write(self)

    monkeypatch.setattr(loop, "WORTH", 0)
    monkeypatch.setattr(Later, "write", held_up)
    monkeypatch.setattr(MetricsRecorder, "note", noted)
    beside = small_run(tiny_model, photos, tmp_path / "beside", **settings)
    assert written == [(1, True), (2, True), (3, True)]
    assert numbers(beside) == numbers(waits)
    for _, folder in list_checkpoints(tmp_path / "beside"):
        verify(folder)
    assert files(tmp_path / "beside") == files(tmp_path / "waits")
