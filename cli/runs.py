"""`dreambooth runs`, `dreambooth stop RUN` and `dreambooth sample RUN`: runs watched and steered from outside."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from typing import Any

import dreamcore
from dreamcore.commands.runs import in_words, to_go_on
from dreamcore.errors import ConfigError, RunError

from .flags import CommandParser


def runs(about: str, argv: Sequence[str]) -> int:
    """Print the runs as a table, or as JSON."""
    parser = _parser("runs", f"{about}  Links to folders are not followed.")
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="where to look (default: here)")
    parser.add_argument("--depth", type=int, default=3, metavar="N", help="levels of sub-folders (default: 3)")
    parser.add_argument("--json", action="store_true", help="a list of objects, as docs/watching.md describes them")
    words = _parse(parser, argv)
    found = dreamcore.list_runs(*words.folders, depth=words.depth)
    if words.json:
        print(json.dumps([run.as_dict() for run in found], indent=2))
    else:
        print(in_words(found) if found else "no run here; runs in deeper folders are found with a larger --depth")
    return 0


def stop(about: str, argv: Sequence[str]) -> int:
    """Stop a run; 1 where it did not."""
    parser = _parser("stop", f"{about}  It goes on with --resume_from_checkpoint latest.")
    words = _parse(_of_a_run(parser), argv)

    def act() -> int:
        found = dreamcore.stop(words.run, timeout=words.timeout, say=_say)
        print(f"{found.said}; {to_go_on(found.folder)}" if found.state == "stopped" else found.said)
        return 0

    return _waiting(
        act, f"{words.run}: not waited for any more; the request stands, and the run stops once it has saved"
    )


def sample(about: str, argv: Sequence[str]) -> int:
    """Print the files of the images; 1 where there are none."""
    parser = _of_a_run(_parser("sample", f"{about}  What it learns is not changed by them."))
    parser.add_argument("--prompt", metavar="TEXT", help="words of the images (default: the run's validation_prompt)")
    words = _parse(parser, argv)

    def act() -> int:
        print(*dreamcore.sample(words.run, words.prompt, timeout=words.timeout, say=_say), sep="\n")
        return 0

    return _waiting(act, f"{words.run}: not waited for any more; the request is withdrawn")


def _parser(command: str, description: str) -> CommandParser:
    return CommandParser(prog=f"dreambooth {command}", description=description, allow_abbrev=False)


def _of_a_run(parser: CommandParser) -> CommandParser:
    said = "the run's folder, or one with a single run at work below it (default: here)"
    parser.add_argument("run", nargs="?", metavar="RUN", help=said)
    parser.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="wait no longer (default: as long as it takes)"
    )
    return parser


def _parse(parser: CommandParser, argv: Sequence[str]) -> Any:
    words = parser.parse_args(argv)
    if parser.twice:
        raise ConfigError("\n".join(parser.twice))
    if "run" in words and words.run is None:
        words.run = "."
    return words


def _waiting(act: Callable[[], int], interrupted: str) -> int:
    """Do what waits for a run, and end in words."""
    try:
        return act()
    except RunError as error:
        print(f"dreambooth: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"dreambooth: {interrupted}", file=sys.stderr)
        return 130


def _say(text: str) -> None:
    from dreamcore.track import Console

    Console().message(text)
