"""The `dreambooth` command: read the command line, call the function of that name, say how it ended.

Exit codes: 0 done; 1 the run stopped and says why; 2 something about the command line or the input is wrong; 130 and
143 stopped by Ctrl-C or by SIGTERM or `dreambooth stop`, with the work saved; 141 nobody reads what is printed.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from contextlib import suppress

import dreamcore
from dreamcore.backends.out_of_memory import during
from dreamcore.errors import ConfigError, RunError

from .command import Command
from .verbosity import saying, without_verbosity


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    try:
        code = _run(argv)
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        code = READER_GONE
    if "paddle" in sys.modules:
        from dreamcore.backends.launching import leave

        leave(code)
    return code


def _run(argv: Sequence[str] | None) -> int:
    _write_what_can_be_written()
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        flag, words = without_verbosity(words)
        try:
            with saying(flag):
                return _dispatch(words)
        finally:
            sys.stdout.flush()  # that its reader is gone is to be noticed here, and not as Python ends
    except ConfigError as error:
        _note(error)
        print(f"dreambooth: error: {error}", file=sys.stderr)
        return 2
    except RunError as error:
        _note(error)
        print(f"dreambooth: stopped: {error}", file=sys.stderr)
        return 1
    except Exception as error:
        _note(error)
        raise
    except KeyboardInterrupt:
        print("dreambooth: interrupted", file=sys.stderr)
        return 130


READER_GONE = 141
"""As a shell says of a program that SIGPIPE ended: 128 + 13."""


def _reader_is_gone() -> bool:
    """Whether nobody reads what is printed any more, as behind `| head`; nothing more is printed then."""
    import select

    gone = False
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):  # no such call on Windows; no file, where Python calls
            asked = select.poll()
            asked.register(stream, 0)
            if asked.poll(0):  # POLLERR, which is told whatever is asked for
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
                gone = True
    return gone


def _write_what_can_be_written() -> None:
    """Let λ or a file's strange name become an escape where the console's encoding lacks it, and end nothing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _note(error: Exception) -> None:
    from dreamcore.backends.launching import note_failure

    note_failure(error)


def _dispatch(words: list[str]) -> int:
    if words[:1] == ["help"] and len(words) > 1:
        words = [words[1], "--help", *words[2:]]
    if not words or words[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0 if words else 2
    if words[0] in ("-V", "--version", "version"):
        print(f"dreambooth {dreamcore.__version__}")
        return 0
    name, rest = command_of(words)
    if name not in COMMANDS:
        from dreamcore.config.names import nearest

        near = nearest(name, COMMANDS)
        hint = f"did you mean {near}?" if near else f"there are {', '.join(COMMANDS)}"
        raise ConfigError(f"{name}: no such command; {hint}")
    with during(f"running {name}"):
        return COMMANDS[name].run(COMMANDS[name].about, rest)


def command_of(words: Sequence[str]) -> tuple[str, list[str]]:
    """A command line's command and its arguments: a script's file name in the command's place is another trainer's
    command line, and beside some of their flags training's is `generate`'s."""
    name, *rest = words
    if not name.endswith(".py") and name not in ("train", "generate"):
        return name, rest
    from .scripts import understood

    return understood(name, rest)


def _overview() -> str:
    rows = "\n".join(f"  {name:<12} {command.about}" for name, command in COMMANDS.items())
    return (
        "usage: dreambooth COMMAND [--config FILE_OR_PRESET] [--SETTING VALUE ...]\n\n"
        "Teach a text-to-image model a subject from a few photographs.  To begin:\n\n"
        "  dreambooth teach photos/dog --class dog\n\n"
        f"commands:\n{rows}\n\n"
        "`dreambooth COMMAND --help` has what a command takes, `dreambooth help COMMAND NAME` one setting of it.\n"
        "Every command takes --quiet (errors and results only) or --verbose (also why, how long and how much memory)."
    )


def _teach(about: str, argv: Sequence[str]) -> int:
    from .teach import run

    return run(about, argv)


def _train(about: str, argv: Sequence[str]) -> int:
    from dreamcore.backends.launching import note_stopped, on_several_machines
    from dreamcore.config import TrainConfig, load_config
    from dreamcore.training.signals import COMMAND

    from .flags import parse_settings

    given = parse_settings(TrainConfig, "train", about, argv, "[FOLDER] ")
    run = dreamcore.train(load_config(TrainConfig, *given))
    if run.stopped_by == COMMAND or (run.stopped_by and on_several_machines()):
        return note_stopped(run.exit_code)
    return run.exit_code


def _generate(about: str, argv: Sequence[str]) -> int:
    from dreamcore.config import GenerateConfig, load_config

    from .flags import parse_settings

    files = dreamcore.generate(load_config(GenerateConfig, *parse_settings(GenerateConfig, "generate", about, argv)))
    print(*files, sep="\n")
    return 0


def _launch(about: str, argv: Sequence[str]) -> int:
    from .launch import run

    return run(about, argv)


def _data(about: str, argv: Sequence[str]) -> int:
    from .data import run

    return run(about, argv)


def _plan(about: str, argv: Sequence[str]) -> int:
    from .plan import run

    return run(about, argv)


def _identifiers(about: str, argv: Sequence[str]) -> int:
    from .identifiers import run

    return run(about, argv)


def _convert(about: str, argv: Sequence[str]) -> int:
    from .convert import run

    return run(about, argv)


def _configs(about: str, argv: Sequence[str]) -> int:
    from .configs import run

    return run(about, argv)


def _runs(about: str, argv: Sequence[str]) -> int:
    from .runs import runs

    return runs(about, argv)


def _stop(about: str, argv: Sequence[str]) -> int:
    from .runs import stop

    return stop(about, argv)


def _sample(about: str, argv: Sequence[str]) -> int:
    from .runs import sample

    return sample(about, argv)


def _report(about: str, argv: Sequence[str]) -> int:
    from .report import run

    return run(about, argv)


def _compare(about: str, argv: Sequence[str]) -> int:
    from .compare import run

    return run(about, argv)


def _evaluate(about: str, argv: Sequence[str]) -> int:
    from .evaluate import run

    return run(about, argv)


def _completion(about: str, argv: Sequence[str]) -> int:
    from .completion import run

    return run(about, argv, COMMANDS)


def _stand_in(about: str, argv: Sequence[str]) -> int:
    from .scripts import run

    return run(about, argv)


def _doctor(about: str, argv: Sequence[str]) -> int:
    from .doctor import run

    return run(about, argv)


COMMANDS = {
    "teach": Command(
        "Teach a model what is in a folder of photographs; everything else is chosen, and said.",
        _teach,
        "dreamcore.config.teach:TeachConfig",
    ),
    "train": Command("Personalise a model with photographs of a subject.", _train, "dreamcore.config:TrainConfig"),
    "generate": Command("Make images with a model, personalised or not.", _generate, "dreamcore.config:GenerateConfig"),
    "launch": Command("Train on several devices, or in several processes, of one machine or of several.", _launch),
    "data": Command(
        "Show photographs as training would see them, with what may spoil it.",
        _data,
        "dreamcore.config.look:DataConfig",
    ),
    "plan": Command(
        "Say what a run would take of memory, stage by stage, before it.", _plan, "dreamcore.config:TrainConfig"
    ),
    "identifiers": Command(
        "Suggest rare words of a model's vocabulary to name a subject by.",
        _identifiers,
        "dreamcore.config.identifiers:IdentifiersConfig",
    ),
    "runs": Command("List runs: what each is doing, how far it is, and which are dead.", _runs),
    "stop": Command("Stop a run once it has saved, whichever machine it is on.", _stop),
    "report": Command("Make a run's report anew, also of one that is dead, and say where it is.", _report),
    "compare": Command("Compare runs: the settings that differ, curves, scores, pictures of the same seeds.", _compare),
    "evaluate": Command(
        "Measure what was learned of a subject: likeness, truth to prompts, what is left of the class.",
        _evaluate,
        "dreamcore.config.evaluate:EvaluateConfig",
    ),
    "sample": Command("Have a run that trains make images now, outside its schedule.", _sample),
    "convert": Command(
        "Bring a model or a LoRA into another form; merge, resize and extract LoRA.",
        _convert,
        "dreamcore.config.convert:ConvertConfig",
    ),
    "configs": Command("List the presets, and the other trainers whose command lines are understood.", _configs),
    "completion": Command("Print what lets bash, zsh or fish complete command lines.", _completion),
    "stand-in": Command("Put scripts in the place of another trainer's, which run this in theirs.", _stand_in),
    "doctor": Command("Say what is installed, which devices there are, and which versions were tested.", _doctor),
}
