"""Other trainers' command lines: one module for each, a table of what its names mean here.

`--like NAME` takes one's names and defaults; a name that only one of them has does so by itself; a script's file name
in a command's place says which, and what it trains.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from .colossalai import COLOSSALAI
from .diffusers import DIFFUSERS
from .kohya import KOHYA
from .meaning import Meaning, Refused, Script, System
from .mindone import MINDONE
from .mindone_sd2 import MINDONE_SD2
from .ppdiffusers import PPDIFFUSERS
from .structured_lora import STRUCTURED_LORA

SYSTEMS: Mapping[str, System] = {
    one.name: one for one in (COLOSSALAI, STRUCTURED_LORA, MINDONE, MINDONE_SD2, PPDIFFUSERS, DIFFUSERS, KOHYA)
}
__all__ = [
    "SYSTEMS",
    "Meaning",
    "Named",
    "Refused",
    "System",
    "find_script",
    "meanings",
    "of_names",
    "own_names",
    "who_knows",
]


class Named(NamedTuple):
    """A script that was named in a command's place."""

    system: System
    script: Script


def meanings(system: System | None, command: str) -> dict[str, Meaning]:
    """What names mean to a command: diffusers', which all share, and a system's own."""
    return {**DIFFUSERS.names(command), **(system.names(command) if system else {})}


def who_knows(name: str, command: str) -> list[str]:
    """The systems that have a name of their own."""
    return [one.name for one in SYSTEMS.values() if name in one.names(command) or name in one.configuration]


def own_names(system: System) -> set[str]:
    """The names that a system has, and diffusers' scripts have not."""
    shared = {*DIFFUSERS.train, *DIFFUSERS.generate}
    return system.every_name - shared


def of_names(names: Collection[str], command: str, backend: str | None) -> System | None:
    """The one system that knows all of these names that any knows, none of which is ours; on `backend`, if several."""
    foreign = {name: who for name in names if (who := set(who_knows(name, command)))}
    able = [one for one in SYSTEMS.values() if foreign and all(one.name in who for who in foreign.values())]
    fit = [one for one in able if one.backend in (None, backend)] if len(able) > 1 else able
    return fit[0] if len(fit) == 1 else None


def find_script(file: str, names: Collection[str], backend: str | None) -> Named | None:
    """The script of that name: where several systems have one, that whose own names stand beside it, or `backend`'s."""
    having = [one for one in SYSTEMS.values() if file in one.scripts]
    own = [one for one in having if own_names(one) & set(names)]
    fit = [one for one in own if one.backend in (None, backend)] or own
    fit = fit or [one for one in having if one.backend in (None, backend)] or having
    return Named(fit[0], fit[0].scripts[file]) if fit else None
