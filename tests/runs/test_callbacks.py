"""Callbacks are told what happens, stop a run, and fail without taking it with them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import dreamcore
from dreamcore.backends.protocol import Solo
from dreamcore.errors import CallbackError, ConfigError
from dreamcore.training.callbacks import HOOKS, Callbacks
from dreamcore.training.signals import Asker, StopRequest
from dreamcore.training.steering import Asked, Steering

from ..support import stub_backend
from ..support.stub_runs import train


def without_pictures(model: Path, photos: Path, output: Path, **settings: Any) -> dreamcore.Run:
    """Looks at the loss on held-out photographs, if at all: images, and reports of them, take time."""
    nothing = dict.fromkeys(("validation_prompt", "validation_steps", "num_validation_images"))
    return train(model, photos, output, **{**nothing, **settings})


class Diary(dreamcore.Callback):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[Any, ...]] = []

    def on_start(self, training: dreamcore.Training) -> None:
        self.lines.append(("start", training.update, training.total_updates, training.settings["max_train_steps"]))

    def on_update(self, training: dreamcore.Training, metrics: Mapping[str, float]) -> None:
        assert training.update == metrics["step"]
        self.lines.append(("update", metrics["step"], metrics["loss"]))

    def on_validation(self, training: dreamcore.Training, validation: dreamcore.Validation) -> None:
        names = [file.relative_to(training.folder).as_posix() for file in validation.images]
        self.lines.append(("validation", validation.update, validation.loss, names, validation.prompt))

    def on_checkpoint(self, training: dreamcore.Training, folder: Path) -> None:
        assert json.loads((folder / "state.json").read_text())["settings"]["rank"] == 4
        self.lines.append(("checkpoint", training.update, folder.name))

    def on_end(self, training: dreamcore.Training, run: dreamcore.Run) -> None:
        self.lines.append(("end", run.updates, run.state))


def pictures(update: int) -> list[str]:
    return [f"samples/step-{update:06}-{k}.png" for k in range(2)]


def test_all_is_told_in_order(stub_model: Path, drawn: Path, tmp_path: Path) -> None:
    diary, steps = Diary(), []
    held_out = {"validation_data_dir": str(drawn)}
    run = train(
        stub_model, drawn, tmp_path, **held_out, callbacks=[diary, lambda training, metrics: steps.append(metrics)]
    )
    assert diary.lines == [
        ("start", 0, 4, 4),
        ("validation", 0, 1.0, pictures(0), "a mug"),
        *[("update", n, 1.0) for n in (1, 2)],
        ("checkpoint", 2, "checkpoint-2"),
        ("validation", 2, 1.0, pictures(2), "a mug"),
        *[("update", n, 1.0) for n in (3, 4)],
        ("checkpoint", 4, "checkpoint-4"),
        ("validation", 4, 1.0, pictures(4), "a mug"),
        ("end", 4, "finished"),
    ]
    assert [dict(one) for one in steps] == list(run.metrics), "and what metrics.jsonl has"


def test_without_anything_to_look_at_there_is_no_validation(stub_model: Path, drawn: Path, tmp_path: Path) -> None:
    diary = Diary()
    without_pictures(stub_model, drawn, tmp_path, callbacks=[diary])
    assert "validation" not in [line[0] for line in diary.lines]


def test_what_it_is_told_is_a_copy(stub_model: Path, drawn: Path, tmp_path: Path) -> None:
    def meddle(training: Any, metrics: Any) -> None:
        for change in (lambda: metrics.update(loss=9), lambda: metrics.__setitem__("loss", 9)):
            with pytest.raises((TypeError, AttributeError)):
                change()
        with pytest.raises(TypeError):
            training.settings["seed"] = 7
        with pytest.raises(AttributeError):
            training.update = 0

    assert without_pictures(stub_model, drawn, tmp_path, callbacks=[meddle]).updates == 4


def test_no_number_is_copied_from_the_device_for_its_sake(
    stub_model: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told when the others are: once in `logging_steps` updates."""
    told, copied, metrics = [], [], stub_backend.StubBackend.metrics
    monkeypatch.setattr(stub_backend.StubBackend, "metrics", lambda self: copied.append(len(told)) or metrics(self))
    rarely = {"checkpointing_steps": 4, "logging_steps": 3}
    without_pictures(stub_model, drawn, tmp_path, **rarely, callbacks=[lambda training, metrics: told.append(metrics)])
    assert copied == [0, 3] and [one["step"] for one in told] == [1, 2, 3, 4]


class StopsAt(dreamcore.Callback):
    def __init__(self, hook: str, update: int):
        self.update = update
        setattr(self, hook, self.stop)

    def stop(self, training: dreamcore.Training, *told: Any) -> None:
        if training.update == self.update:
            training.stop("it is enough")


@pytest.mark.parametrize(
    ("hook", "at", "stops"),
    [("on_validation", 0, 1), ("on_update", 3, 3), ("on_checkpoint", 2, 2)],
)
def test_it_stops_the_run_as_the_command_does(
    stub_model: Path, drawn: Path, tmp_path: Path, hook: str, at: int, stops: int
) -> None:
    held_out = {"validation_data_dir": str(drawn), "logging_steps": 1}
    run = without_pictures(stub_model, drawn, tmp_path, **held_out, callbacks=[StopsAt(hook, at)])
    by = "the callback StopsAt: it is enough"
    assert (run.updates, run.exit_code, run.stopped_by, run.state) == (stops, 143, by, "stopped")
    assert max(run.checkpoints) == stops
    assert by in (tmp_path / "log.txt").read_text()
    assert dreamcore.open_run(tmp_path) == run
    diary = Diary()
    again = {**held_out, "resume_from_checkpoint": "latest"}
    run = without_pictures(stub_model, drawn, tmp_path, **again, callbacks=[diary])
    assert (run.updates, run.exit_code, run.state) == (4, 0, "finished")
    assert diary.lines[0] == ("start", stops, 4, 4)
    assert [line[1] for line in diary.lines if line[0] == "update"] == list(range(stops + 1, 5))


def test_after_the_last_update_there_is_nothing_to_stop(stub_model: Path, drawn: Path, tmp_path: Path) -> None:
    hooks = ("on_update", "on_checkpoint", "on_validation", "on_end")
    run = train(stub_model, drawn, tmp_path, callbacks=[StopsAt(hook, 4) for hook in hooks])
    assert (run.updates, run.exit_code, run.stopped_by, run.state) == (4, 0, "", "finished")


class FailsIn(dreamcore.Callback):
    def __init__(self, hook: str, error: BaseException):
        self.error = error
        setattr(self, hook, self.fail)

    def fail(self, training: dreamcore.Training, *told: Any) -> None:
        raise self.error


@pytest.mark.parametrize(
    ("hook", "error"), [("on_start", SystemExit(3)), ("on_validation", MemoryError("full")), ("on_update", KeyError(1))]
)
def test_one_that_fails_leaves_the_work_saved(
    stub_model: Path, drawn: Path, tmp_path: Path, hook: str, error: BaseException
) -> None:
    diary = Diary()
    with pytest.raises(CallbackError) as caught:
        held_out = {"validation_data_dir": str(drawn), "logging_steps": 1}
        without_pictures(stub_model, drawn, tmp_path, **held_out, callbacks=[FailsIn(hook, error), diary])
    words = str(caught.value)
    assert f"FailsIn.{hook} failed at update {int(hook == 'on_update')}: {type(error).__name__}" in words
    assert "checkpoint-1 is saved" in words and caught.value.__cause__ is error
    assert "end" not in [line[0] for line in diary.lines]
    run = dreamcore.open_run(tmp_path)
    assert (run.state, run.exit_code, run.status.reason) == ("failed", 1, words)
    assert run.checkpoints.keys() == {1}


def test_what_is_due_when_one_fails_is_done_all_the_same(stub_model: Path, drawn: Path, tmp_path: Path) -> None:
    def fail(training: dreamcore.Training, *told: Any) -> None:
        if training.update == 2:
            raise ValueError("no")

    callback = dreamcore.Callback()
    callback.on_checkpoint = fail
    with pytest.raises(CallbackError, match="checkpoint-2 is saved"):
        train(stub_model, drawn, tmp_path, callbacks=[callback])
    assert all((tmp_path / name).is_file() for name in pictures(2))


def test_one_that_fails_at_the_end_leaves_a_finished_run(stub_model: Path, drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(CallbackError, match="FailsIn.on_end failed at update 4: .*the run is finished, and all of it"):
        without_pictures(stub_model, drawn, tmp_path, callbacks=[FailsIn("on_end", OSError("no space"))])
    assert dreamcore.open_run(tmp_path).state == "finished" and (tmp_path / "model_index.json").is_file()


def test_a_failure_is_raised_where_ranks_are_asked_too_seldom_to_stop(
    stub_model: Path, drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stub_backend, "Solo", lambda: Solo(asks_every=3))
    with pytest.raises(CallbackError, match="failed at update 4: .*the run is finished"):
        without_pictures(stub_model, drawn, tmp_path, callbacks=[fail_at_4])
    assert dreamcore.open_run(tmp_path).state == "finished"


def fail_at_4(training: dreamcore.Training, metrics: Mapping[str, float]) -> None:
    assert metrics["step"] < 4


class Misspelt(dreamcore.Callback):
    def on_validate(self, training: object) -> None: ...


class TooFew(dreamcore.Callback):
    def on_update(self) -> None: ...  # type: ignore[override]


class Coroutine(dreamcore.Callback):
    async def on_end(self, training: object, run: object) -> None: ...  # type: ignore[override]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Diary(), "callbacks: takes a list of callbacks, [...]; received Diary"),
        ([print, Diary], "callbacks[1]: is the class Diary; give an object of it: Diary()"),
        (["stop"], "callbacks[0]: is 'stop'; give an object of a class of dreamcore.Callback, or a function"),
        ([Misspelt()], "callbacks[0]: Misspelt.on_validate would never be called; there are on_start, on_update"),
        ([TooFew()], "callbacks[0]: TooFew.on_update is called with 2 arguments, which it does not take"),
        ([len], "callbacks[0]: len is called with 2 arguments, which it does not take"),
        ([Coroutine()], "callbacks[0]: Coroutine.on_end is a coroutine"),
    ],
)
def test_what_could_not_be_called_is_refused_first(tmp_path: Path, given: Any, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        train(tmp_path / "no model", tmp_path / "no photographs", tmp_path / "out", callbacks=given)
    assert said in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_hooks_are_those_that_are_called() -> None:
    """Each by its name somewhere in the run: the tests above have seen all of them."""
    assert HOOKS == ("on_start", "on_update", "on_validation", "on_checkpoint", "on_end")


@pytest.mark.parametrize(
    ("asker", "words"),
    [(Asker.CALLBACK, "the callback Early: enough"), (Asker.FAILURE, "the callback Early.on_update failed")],
)
def test_ranks_that_have_no_callbacks_stop_with_the_one_that_has(asker: Asker, words: str) -> None:
    """By what the main process says, though a signal has reached this one."""
    stop = StopRequest(lambda text: None)
    stop.signal = 2
    world: Any = SimpleNamespace(
        size=2, gather=lambda values: [np.array([15.0, asker, 0]), values], broadcast=lambda text: words
    )
    assert Steering(world, None, Callbacks([])).agree(stop) == Asked(stop=True, sample=False)
    assert (stop.asker, stop.by, stop.exit_code) == (asker, words, 143)


def test_a_callback_that_has_failed_is_heard_after_a_signal() -> None:
    stop, callbacks = StopRequest(lambda text: None), Callbacks([])
    stop.signal, callbacks.error, callbacks.failed = 2, ValueError(), "the callback f failed"
    assert Steering(Solo(), None, callbacks).agree(stop).stop
    assert (stop.asker, stop.by, stop.exit_code) == (Asker.FAILURE, "the callback f failed", 130)
