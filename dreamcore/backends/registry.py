"""The one door to the adapters: a model is loaded into one of them by its name."""

from __future__ import annotations

import importlib
import shlex
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from ..errors import ConfigError, LackingError, to_install
from ..formats.ppdiffusers import PUBLISHED
from ..io.progress import progress
from . import installed
from .installed import RANK_VARIABLES
from .out_of_memory import LOADING, during, recognise
from .protocol import Backend

if TYPE_CHECKING:
    from ..config.common import ModelSettings
    from ..families import Family
    from ..models.folder import ModelFolder

    S = TypeVar("S", bound=ModelSettings)


@during(LOADING)
def load_backend(
    name: str, model: ModelFolder, settings: ModelSettings, imported: Callable[[], None] = lambda: None
) -> Backend:
    """Import an adapter, the only place where that happens, and load the model into it.

    Args:
        imported: called in between.

    Raises:
        ConfigError: a family that this backend does not run, a device or precision that is not there, weights that do
            not fit the model.
    """
    family = model.family
    if name in RANK_VARIABLES and name not in family.backends:
        raise ConfigError(f"pretrained_model_name_or_path: {model.path}: {_why_not(family, name)}")
    if name in RANK_VARIABLES and name != "paddle":
        refuse_ppdiffusers(model, name)
    place, function = installed.entry_points()[name].split(":")
    with progress(f"importing {name}"):
        module = importlib.import_module(place)
    if hasattr(module, "out_of_memory"):
        recognise(module.out_of_memory)
    imported()
    backend: Backend = getattr(module, function)(model, settings)
    return backend


def load_suggested(
    name: str, model: ModelFolder, settings: S, say: Callable[[str], None], imported: Callable[[], None] = lambda: None
) -> tuple[S, Backend]:
    """`load_backend`, with the settings that it was loaded by: a precision that the device lacks, and that is only
    another trainer's default, is left out, which is said."""
    try:
        return settings, load_backend(name, model, settings, imported)
    except LackingError as error:
        if settings.like is None or "mixed_precision" not in settings.suggested:
            raise
        say(f"{error}: a default of --like {settings.like}, left out")
    settings = settings.suggest({"mixed_precision": "no"})
    return settings, load_backend(name, model, settings, imported)


def _why_not(family: Family, backend: str) -> str:
    """That a backend does not run a family, why, and what to use instead."""
    from ..families import FAMILIES

    why = f" ({family.absent[backend]})" if backend in family.absent else ""
    others = dict.fromkeys(f.name for f in FAMILIES.values() if backend in f.backends)
    return (
        f"{family.name} does not run on {backend}{why}; use --backend {' or '.join(family.backends)}, each in an "
        f"environment of its own ({to_install(family.backends[0])}), or a model that {backend} runs: "
        f"{', '.join(others)}"
    )


def refuse_ppdiffusers(model: ModelFolder, backend: str) -> None:
    """Refuse a folder in ppdiffusers' layout on a backend that does not read it.

    Raises:
        ConfigError: it says what reads the folder, and how it becomes one for everybody.
    """
    kinds = [(model.index[name][0], model.weight_files(name)[0].suffix) for name in model.networks]
    if any(library in PUBLISHED or suffix == ".pdparams" for library, suffix in kinds):
        raise ConfigError(
            f"pretrained_model_name_or_path: {model.path}: in ppdiffusers' layout, which {backend} does not read; use "
            "--backend paddle, or turn it into diffusers': "
            f"dreambooth convert {shlex.quote(str(model.path))} NEW_FOLDER"
        )
