"""Other trainers' scripts: their command lines by the file's name, and files of that name which run this program."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import dreamcore
from dreamcore.backends.installed import installed_backends
from dreamcore.config.compat import SYSTEMS, Named, find_script, of_names
from dreamcore.config.compat.kohya_tools import TOOLS, as_convert
from dreamcore.config.train import TrainConfig
from dreamcore.errors import ConfigError

from .flags import CommandParser, flag_names


def understood(name: str, rest: Sequence[str]) -> tuple[str, list[str]]:
    """The command that a script's name, or `train` beside another trainer's flags, stands for, and its arguments."""
    flags = flag_names(rest)
    if (tool := Path(name).name) in TOOLS:
        return "convert", as_convert(tool, rest)
    if name.endswith(".py"):
        return _of_script(Path(name).name, rest, flags)
    foreign = flags.keys() - TrainConfig.model_fields.keys()
    system = SYSTEMS.get(flags.get("like", "")) or of_names(foreign, "train", _backend(flags))
    if name == "train" and system is not None and flags.keys() & set(system.draws):
        name = "generate"
    return name, list(rest)


def _of_script(file: str, rest: Sequence[str], flags: Mapping[str, str]) -> tuple[str, list[str]]:
    named = find_script(file, flags, _backend(flags))
    if like := SYSTEMS.get(flags.get("like", "")):
        named = Named(like, like.scripts[file]) if file in like.scripts else None
    if named is None:
        raise ConfigError(f"{file}: {_why_unknown(file)}")
    command, words = named.script.command, list(rest)
    if command == "train" and flags.keys() & set(named.system.draws):
        command = "generate"
    if command == "train":
        said = {name: value for name, value in named.script.settings.items() if name not in flags}
        words += [f"--{name}={value}" for name, value in said.items() if f"no_{name}" not in flags]
    return command, words if "like" in flags else [*words, f"--like={named.system.name}"]


def _why_unknown(file: str) -> str:
    if file.endswith("_flax.py"):
        other = file.replace("_flax", "")
        return f"JAX is not among the backends; on PyTorch it is {other}, with a model that has weights for it"
    if file.startswith("train_dreambooth_"):
        return "is for a family of models, or a method, that is not trained here; `dreambooth train` says what is"
    return f"no script that is known here; {', '.join(known_scripts())} are"


def _backend(flags: Mapping[str, str]) -> str | None:
    installed = installed_backends()
    return flags.get("backend") or (installed[0] if len(installed) == 1 else None)


def known_scripts() -> list[str]:
    """File names of the scripts whose command lines are understood."""
    return sorted({file for system in SYSTEMS.values() for file in system.scripts})


def run(about: str, argv: Sequence[str]) -> int:
    """Write the scripts, and say which; an original is kept beside its stand-in."""
    parser = CommandParser(
        prog="dreambooth stand-in",
        usage="dreambooth stand-in FOLDER [--like TRAINER]",
        description=f"{about}  In a clone of theirs each script of a known name is replaced, and kept beside it as "
        "NAME.orig; in a folder without any, --like writes that trainer's.",
        formatter_class=argparse.HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("folder", metavar="FOLDER", help="the folder their README starts scripts in")
    parser.add_argument("--like", metavar="{" + ",".join(SYSTEMS) + "}", help="whose scripts")
    asked = parser.parse_args(argv)
    print(*dreamcore.stand_in(asked.folder, asked.like), sep="\n")
    return 0
