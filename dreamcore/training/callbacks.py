"""What a program that calls `train` has called while it trains: numbers and paths go out, a wish to stop comes back.

Callbacks run on the main process, between updates.  What they are told was on its way to the host anyway; it is a copy.
One that fails does not take the training with it: the run stops as if it had been asked to, saves, and says which
callback it was.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..config.names import nearest
from ..errors import CallbackError, ConfigError, in_a_line
from ..report.run import Run
from ..track.base import Level, RunInfo


class Training:
    """A run at work, as its callbacks see it."""

    def __init__(self, info: RunInfo):
        self._info, self._update = info, info.first_update - 1
        self._settings = MappingProxyType(deepcopy(dict(info.settings)))
        self._reason: str | None = None

    @property
    def folder(self) -> Path:
        """The run's folder."""
        return self._info.folder

    @property
    def update(self) -> int:
        """Updates made, as far as they are measured; those before a resumption included."""
        return self._update

    @property
    def total_updates(self) -> int:
        """Of the whole run."""
        return self._info.total_updates

    @property
    def settings(self) -> Mapping[str, Any]:
        """What every setting came to, as `config.yaml` has it."""
        return self._settings

    def stop(self, reason: str = "") -> None:
        """Stop the run as `dreambooth stop` does: it ends the update under way and saves a checkpoint, from which
        `resume_from_checkpoint="latest"` goes on with the same numbers as if it had not stopped.

        After the last update there is nothing to stop any more: the run finishes.

        Args:
            reason: is said, and kept in `Run.stopped_by`.
        """
        self._reason = self._reason or str(reason)


@dataclass(frozen=True)
class Validation:
    """A look at the model."""

    update: int
    """Updates made before it; 0: before training."""
    loss: float | None
    """On held-out photographs; None where there are none."""
    images: tuple[Path, ...]
    """Files, in the order of their seeds."""
    prompt: str | None
    """The images' words; None where there are no images."""


class Callback:
    """Base class of what `train(callbacks=[...])` calls: override what you need.

        class LowEnough(dreamcore.Callback):
            def on_validation(self, training, validation):
                if validation.loss is not None and validation.loss < 0.05:
                    training.stop(f"held-out loss {validation.loss:.3f}")

    A callback cannot change what is learnt.  It runs on the main process, which the others wait for; its time does not
    count as an update's.  An exception stops the run once it has saved, and `train` raises `CallbackError` from it.
    """

    def on_start(self, training: Training) -> None:
        """Everything is prepared and the first update is next, or the first after a resumption."""

    def on_update(self, training: Training, metrics: Mapping[str, float]) -> None:
        """An update was measured.  All of them come, in order, whenever their numbers are copied from the device:
        every `logging_steps` updates, and before a validation and a checkpoint.

        Args:
            metrics: what metrics.jsonl has of it: `step` (from 1), `loss`, `loss_instance`, `loss_prior` with prior
                preservation, `loss_preservation` where the model's own answers are kept, `lr`, `lr_text_encoder` where
                that trains, `grad_norm`, `seconds`, and `skipped` where its gradient overflowed.
        """

    def on_validation(self, training: Training, validation: Validation) -> None:
        """Validation images were made, or the loss on held-out photographs was measured, or both."""

    def on_checkpoint(self, training: Training, folder: Path) -> None:
        """A checkpoint was written: `checkpoint-N`, whole."""

    def on_end(self, training: Training, run: Run) -> None:
        """The run has finished or was stopped, and all is written.  It is not called of a run that fails, which
        `train` raises, nor of one that had finished before and had nothing left to do."""


UpdateFunction = Callable[[Training, Mapping[str, float]], object]
"""A function in a callback's place is called as `Callback.on_update` is."""
HOOKS = tuple(name for name in vars(Callback) if name.startswith("on_"))


class Callbacks:
    """Hands a run's events to callbacks, as one of its trackers; on the main process.

    Args:
        given: as `check_callbacks` has let them pass.
    """

    def __init__(self, given: Sequence[Callback | UpdateFunction]):
        self._given = list(given)
        self._training: Training | None = None
        self._seen: dict[str, Any] = {}
        self.error: BaseException | None = None
        """Of the first callback that failed; none is called after it."""
        self.failed = ""
        """Which it was, and how, in words."""
        self.stop = ""
        """Which callback has asked to stop, and why, in words."""

    # -- as a tracker

    def start(self, info: RunInfo) -> None:
        self._training = Training(info)
        self._call("on_start")

    def update(self, record: Mapping[str, float | int]) -> None:
        self._at(int(record["step"]))
        self._call("on_update", MappingProxyType(dict(record)))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        self._note(step, loss=values.get("validation_loss"))

    def images(self, step: int, paths: Sequence[Path], prompt: str) -> None:
        self._note(step, images=tuple(paths), prompt=prompt)

    def message(self, text: str, level: Level = "info") -> None:
        return None

    def close(self, outcome: str) -> None:
        return None  # `ended` says it, once all is written

    # -- from the loop

    def validated(self, done: int) -> None:
        """The model was looked at after `done` updates."""
        seen, self._seen = self._seen, {}
        if seen.get("step") == done:
            self._at(done)
            images = seen.get("images", ())
            self._call("on_validation", Validation(done, seen.get("loss"), images, seen.get("prompt")))

    def saved(self, done: int, folder: Path) -> None:
        """There is a checkpoint of `done` updates."""
        self._at(done)
        self._call("on_checkpoint", folder)

    def ended(self, run: Run) -> None:
        """The run has finished or was stopped."""
        self._call("on_end", run)

    def check(self, kept: str) -> None:
        """Raise the error of a callback that has failed.

        Args:
            kept: what there is of the run, in words.

        Raises:
            CallbackError: from it.
        """
        if self.error is not None:
            raise CallbackError(f"{self.failed}; {kept}") from self.error

    def _note(self, step: int, **seen: Any) -> None:
        if self._seen.get("step") != step:
            self._seen = {"step": step}
        self._seen.update(seen)

    def _at(self, update: int) -> None:
        if self._training is not None:
            self._training._update = update

    def _call(self, hook: str, *arguments: Any) -> None:
        training = self._training
        for one in self._given:
            if self.error is not None or training is None:
                return
            function = getattr(one, hook) if isinstance(one, Callback) else one if hook == "on_update" else None
            if function is None:
                continue
            try:
                function(training, *arguments)
            except (Exception, SystemExit) as error:  # sys.exit, too, would end a run that nothing has saved
                self.error = error
                self.failed = f"the callback {_name(one, hook)} failed at update {training.update}: {in_a_line(error)}"
            if training._reason is not None and not self.stop:
                self.stop = f"the callback {_name(one)}" + (f": {training._reason}" if training._reason else "")


def check_callbacks(given: Sequence[Callback | UpdateFunction]) -> None:
    """Refuse what could not be called, hours before it would be.

    Raises:
        ConfigError: naming each, what it is and what would be right.
    """
    if not isinstance(given, list | tuple):
        raise ConfigError(f"callbacks: takes a list of callbacks, [...]; received {type(given).__name__}")
    if wrong := [f"callbacks[{i}]: {words}" for i, one in enumerate(given) for words in _wrong(one)]:
        raise ConfigError("\n".join(wrong))


def _wrong(one: object) -> list[str]:
    if isinstance(one, type):
        return [f"is the class {one.__name__}; give an object of it: {one.__name__}()"]
    if not isinstance(one, Callback):
        if not callable(one):
            return [f"is {one!r}; give an object of a class of dreamcore.Callback, or a function(training, metrics)"]
        return _uncallable(_name(one), one, 2)
    problems = []
    for name in dir(one):
        if name.startswith("on_") and name not in HOOKS:
            near = nearest(name, HOOKS)
            hint = f"did you mean {near}?" if near else f"there are {', '.join(HOOKS)}"
            problems.append(f"{_name(one, name)} would never be called; {hint}")
    for hook in HOOKS:
        arguments = len(inspect.signature(getattr(Callback, hook)).parameters) - 1
        problems += _uncallable(_name(one, hook), getattr(one, hook), arguments)
    return problems


def _uncallable(name: str, function: Any, arguments: int) -> list[str]:
    """Why a function cannot be called with so many arguments, if it cannot."""
    if not callable(function):
        return [f"{name} is no function"]
    if inspect.iscoroutinefunction(function):
        return [f"{name} is a coroutine, which nothing would wait for; write def in place of async def"]
    try:
        inspect.signature(function).bind(*range(arguments))
    except TypeError:
        return [f"{name} is called with {arguments} argument{'s' * (arguments > 1)}, which it does not take"]
    except ValueError:  # a built-in function that does not say what it takes
        return []
    return []


def _name(one: object, hook: str = "") -> str:
    if isinstance(one, Callback):
        return f"{type(one).__name__}.{hook}".rstrip(".")
    return str(getattr(one, "__qualname__", type(one).__name__))
