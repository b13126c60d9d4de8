"""Teach a model a subject and choose everything else: the substance of `dreambooth teach`."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..backends.installed import choose_backend
from ..config import TrainConfig, load_config
from ..config.teach import TeachConfig
from ..errors import ConfigError
from ..hub.client import with_token
from ..io.names import CONFIG
from ..report.run import Run
from ..runs.watching import WatchedRun
from ..training.loop import train
from .teaching.folders import unfinished
from .teaching.lesson import prepare
from .teaching.models import choose_model
from .teaching.words import ATTEMPTS, Ask, class_of, photographs

Say = Callable[[str], None]
YES, NO = ("y", "yes"), ("n", "no")


def teach(config: TeachConfig, ask: Ask | None = None, say: Say = print) -> Run | None:
    """Look at the photographs, choose the rest, say it, ask, and train.

    Args:
        ask: asks in a terminal; without one nothing is asked.
        say: told what is about to be done.

    Returns:
        The run; None where the answer was no.

    Raises:
        ConfigError: before any costly work, with what to do instead.
        RunError: as `train`.
    """
    with with_token(config.token):
        photos = photographs(config)
        class_word = class_of(config, ask)
        if ask is None and not config.yes:
            raise ConfigError(
                "yes: there is no terminal to ask in; add --yes to begin without being asked: "
                f"{same_again(config)} --yes"
            )
        ask = None if config.yes else ask
        named = Path(config.output_dir).expanduser() if config.output_dir is not None else None
        earlier = unfinished(photos, class_word, named)
        if earlier is not None and _goes_on(earlier, ask, say):
            return train(_continued(config, earlier.folder))
        chosen = choose_model(config, class_word, choose_backend(config.backend), ask)
        lesson = prepare(config, photos, class_word, chosen, say)
        say(lesson.screen.text())
        if not _agreed("Begin? [y/n] ", ask):
            say("nothing was done")
            return None
        if chosen.folder is None:
            chosen = replace(chosen, folder=chosen.here(config), fetch=None)
            lesson = prepare(config, photos, class_word, chosen, say)
            say(f"The model is here:\n{lesson.screen.text()}")
        return train(lesson.config)


def _goes_on(earlier: WatchedRun, ask: Ask | None, say: Say) -> bool:
    """Whether to go on with an unfinished run; without anybody to ask, yes."""
    say(f"An unfinished run of these photographs is in {earlier.said}.")
    if ask is None:
        say("It goes on from its last checkpoint; --output_dir ANOTHER begins anew.")
        return True
    return _agreed("Go on with it?  No begins a new one beside it. [y/n] ", ask)


def _continued(config: TeachConfig, folder: Path) -> TrainConfig:
    """The settings of a run that is gone on with: its own, and what the user gives besides."""
    already = ("instance_data_dir", "class_word", "pretrained_model_name_or_path", "output_dir")
    more: dict[str, Any] = {name: value for name, value in config.own().items() if name not in already}
    return load_config(
        TrainConfig, folder / CONFIG, {**more, "output_dir": str(folder), "resume_from_checkpoint": "latest"}
    )


def _agreed(question: str, ask: Ask | None) -> bool:
    if ask is None:
        return True
    for _ in range(ATTEMPTS):
        answer = ask(question).strip().lower()
        if answer in (*YES, *NO):
            return answer in YES
        question = "y for yes, n for no: "
    return False


def same_again(config: TeachConfig) -> str:
    """The command that goes on with what has been stopped."""
    words = ["dreambooth", "teach", str(config.instance_data_dir)]
    for flag, name in (("--class", "class_word"), ("--model", "pretrained_model_name_or_path")):
        if (value := config.own().get(name)) is not None:
            words += [flag, str(value)]
    return shlex.join(words)
