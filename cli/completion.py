"""`dreambooth completion SHELL`: a script that completes commands, flags, and what they take.

The script is written once, from the settings' declarations and the commands' help, and asks nothing of this program
afterwards, which would take longer to start than anyone waits for a Tab.  Libraries that write such scripts (shtab) or
answer each Tab (argcomplete) know argparse's flags; of ours most are another trainer's, and the others' values, places
and words are known to the declarations alone.
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from importlib import import_module
from typing import Any

from dreamcore.config import Settings, preset_names
from dreamcore.config.describe import aliases, choices, groups, in_files_only, kind, place
from dreamcore.errors import ConfigError

from . import shells
from .command import Command, Completed, Flag, Takes
from .convert import PARTS
from .flags import CommandParser
from .verbosity import SAYS

SHELLS = {
    "bash": "~/.local/share/bash-completion/completions/dreambooth",
    "zsh": "a folder of $fpath, as _dreambooth",
    "fish": "~/.config/fish/completions/dreambooth.fish",
}
"""Shell -> where it looks for such scripts."""


def run(about: str, argv: Sequence[str], commands: Mapping[str, Command]) -> int:
    """Print the script for all commands."""
    where = "; ".join(f"{shell}: {file}" for shell, file in SHELLS.items())
    parser = CommandParser(
        prog="dreambooth completion",
        allow_abbrev=False,
        description=f"{about}  Keep it where the shell looks: {where}.",
    )
    parser.add_argument("shell", metavar="SHELL", help=" or ".join(SHELLS))
    shell = parser.parse_args(argv).shell
    if shell not in SHELLS:
        raise ConfigError(f"completion: {shell}: no shell that is known here; {', '.join(SHELLS)} are")
    sys.stdout.write(getattr(shells, shell)(table(commands)))
    return 0


def table(commands: Mapping[str, Command]) -> dict[str, Completed]:
    """What is completed, command by command; those of two words under both."""
    found = {}
    for name, command in commands.items():
        cls = settings_of(command) if command.settings else None
        found[name] = _completed(name, command.about, _help(command), cls)
    convert = found["convert"]
    found["convert"] = convert._replace(takes=convert.takes._replace(words=tuple(PARTS)))
    for name, part in PARTS.items():
        found[f"convert {name}"] = _completed(
            f"convert {name}", part.about, _help(commands["convert"], name), part.settings
        )
    return found


def settings_of(command: Command) -> type[Settings]:
    """The class that a command's line names."""
    module, _, name = command.settings.partition(":")
    found: type[Settings] = getattr(import_module(module), name)
    return found


def _help(command: Command, *words: str) -> str:
    """What a command says of itself."""
    said = io.StringIO()
    with redirect_stdout(said), suppress(SystemExit):
        command.run("", [*words, "--help"])
    return said.getvalue()


def _completed(name: str, about: str, help: str, cls: type[Settings] | None) -> Completed:
    flags = {flag.name: flag for flag in [*(_of_settings(cls) if cls else ()), *_of_help(help)]}
    topics = ["all", *groups(cls), *_names(cls)] if cls else []
    more = [Flag("help", "words" if topics else "nothing", tuple(topics), "explain")]
    more += [Flag(flag, "nothing", (), said) for flag, said in SAYS.items()]
    return Completed(about, [*flags.values(), *(flag for flag in more if flag.name not in flags)], _words(name, cls))


def _names(cls: type[Settings]) -> list[str]:
    """The settings that a command looks at."""
    return [name for name in cls.model_fields if cls.LOOKS_AT is None or name in cls.LOOKS_AT]


def _of_settings(cls: type[Settings]) -> Iterator[Flag]:
    presets = tuple(preset_names()) if "use_lora" in cls.model_fields else ()
    yield Flag("config", "path", presets, "settings in a file, or a preset")
    for name in _names(cls):
        if name in in_files_only(cls):
            continue
        field, about = cls.model_fields[name], cls.model_fields[name].description or ""
        takes, words = _taken(name, field)
        yield from (Flag(one, takes, words, _clause(about)) for one in [name, *aliases(name)])
        if kind(field) is bool and field.default is True:
            yield Flag(f"no_{name}", "nothing", (), f"not: {_clause(about)}")


def _taken(name: str, field: Any) -> tuple[Takes, tuple[str, ...]]:
    if name == "backend":
        from dreamcore.backends.installed import entry_points

        return "words", tuple(entry_points())
    if words := choices(field):
        return "words", words
    if kind(field) is bool:
        return "nothing", ()
    return place(name, field) or "text", ()


def _clause(text: str) -> str:
    """A docstring's first clause."""
    return re.split(r"[;.] |[;.]$", " ".join(text.split()))[0]


def _of_help(text: str) -> Iterator[Flag]:
    """The flags that a command's help names besides settings: in its usage or, of argparse, in a table."""
    usage = text.partition("\n\n")[0]
    yield from (Flag(found, "nothing") for found in re.findall(r"\[--(\w[\w-]*)\]", usage))
    rows = re.finditer(r"^  (?:-\w, )?--(\w[\w-]*)(?: (\S+))?(?:, --\S+(?: \S+)?)*(?:\n? {2,}(.*))?$", text, re.M)
    for row in rows if "options:" in text else ():
        name, value, about = row[1], row[2], row[3] or ""
        words = tuple(value[1:-1].split(",")) if value and value.startswith("{") else ()
        takes: Takes = "words" if words else "text" if value else "nothing"
        if name == "backend":
            takes, words = _taken(name, None)
        yield Flag(name.replace("-", "_"), takes, words, _clause(about))


def _words(name: str, cls: type[Settings] | None) -> Flag:
    """What a command's words are that belong to no flag."""
    if cls is not None:
        first = place(cls.WORDS[0], cls.model_fields[cls.WORDS[0]]) if cls.WORDS else None
        return Flag("", first or "text")
    own: Mapping[str, tuple[str, ...]] = {"configs": tuple(preset_names()), "completion": tuple(SHELLS)}
    if name in own:
        return Flag("", "words", own[name])
    return Flag("", "text") if name in ("doctor", "launch") else Flag("", "folder")
