"""For which backend and which model a command's help is: it leaves out the settings that can act on neither."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from dreamcore.backends.installed import installed_backends
from dreamcore.config.files import read_config_file
from dreamcore.config.names import ALIASES
from dreamcore.config.used import Context, ModelFacts
from dreamcore.errors import ConfigError

MODEL = "pretrained_model_name_or_path"


def help_context(given: Mapping[str, Any]) -> Context:
    """What is known of the run that a help's other flags speak of: its backend, where one is named or only one is
    installed, and its model, where that is a folder on this machine."""
    said: dict[str, Any] = {}
    if given.get("config"):
        with suppress(ConfigError):  # which the run itself will say
            said = read_config_file(given["config"])
    installed = installed_backends()
    known = {ALIASES.get(name, name): value for name, value in [*said.items(), *given.items()]}
    return Context(known.get("backend") or (installed[0] if len(installed) == 1 else None), _facts(known.get(MODEL)))


def _facts(name: Any) -> ModelFacts | None:
    if not isinstance(name, str) or not Path(name).expanduser().is_dir():
        return None
    from dreamcore.models.folder import ModelFolder  # NumPy comes with it
    from dreamcore.models.settings import model_facts

    try:
        return model_facts(ModelFolder.open(name))
    except ConfigError:
        return None
